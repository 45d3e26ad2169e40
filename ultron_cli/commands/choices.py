"""Names that help texts offer and whose registries import torch or numpy, which a help text must not wait for.

tests/commands/test_choices.py holds each equal to its registry. Registries that import nothing heavy are asked
themselves.
"""

PROTOCOLS = ("easy", "medium", "hard")
RERANK_STEPS = ("superglobal", "aqe", "dba", "diffusion", "kreciprocal")
MAP_METHODS = ("gradcam", "gradcam++", "hirescam", "layercam", "guided-backprop", "guided-gradcam", "attention")
WHITENINGS = ("pca", "pca-whitening", "lw")
WEIGHT_SOURCES = ("dolg", "cvnet", "senet", "cfcd", "cirtorch", "timm")
QUERY_RULES = ("random", "first", "largest")
PRECISIONS = ("float32", "bfloat16", "float16")
STORAGES = ("float32", "float16")


def metavar(names: tuple[str, ...], *others: str) -> str:
    """`easy|medium|hard|all`: how a help text shows a choice."""
    return "|".join((*names, *others))
