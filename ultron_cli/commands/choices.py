"""Names that help texts offer and whose registries import torch or numpy, which a help text must not wait for.

tests/commands/test_choices.py holds each equal to its registry. Registries that import nothing heavy are asked
themselves.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import ultron_cli

PROTOCOLS: tuple[Literal["easy", "medium", "hard"], ...] = ("easy", "medium", "hard")
DUPLICATES: tuple[Literal["count", "first"], ...] = ("count", "first")
WHITENINGS = ("pca", "pca-whitening", "lw")
CORRUPTIONS = ("resolution", "jpeg", "blur", "noise", "rotation", "occlusion", "light", "box")
QUERY_RULES: tuple[Literal["random", "first", "largest"], ...] = ("random", "first", "largest")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
RESIZES: tuple[Literal["down", "always"], ...] = ("down", "always")
PRECISIONS: tuple[Literal["float32", "bfloat16", "float16"], ...] = ("float32", "bfloat16", "float16")
Runtime = Literal["torch", "compile", "onnxruntime", "openvino", "auto"]
RUNTIMES: tuple[Runtime, ...] = ("torch", "compile", "onnxruntime", "openvino", "auto")
FORMATS: tuple[Literal["text", "markdown", "latex", "csv", "json"], ...] = ("text", "markdown", "latex", "csv", "json")
STORAGES: tuple[Literal["float32", "float16"], ...] = ("float32", "float16")
RANK_FORMATS = ("trec", "csv", "ranx", "json", "ilias", "hloc", "colmap", "kapture")
READABLE_RANKS = ("trec", "csv", "ranx", "json", "ilias", "kapture")
EXPORTED_SCORES: tuple[Literal["falling", "stored"], ...] = ("falling", "stored")
DESCRIPTOR_FORMATS = ("revisitop", "npy", "npz", "pt", "dolg", "ilias", "hloc", "parquet", "faiss", "csv")
CROPS: tuple[Literal["bbx", "none", "unknown"], ...] = ("bbx", "none", "unknown")
ROLES: tuple[Literal["query", "database"], ...] = ("query", "database")
FUSIONS = ("rrf", "combsum", "combmnz", "wmnz", "combanz", "combmax", "combmin", "combmed", "isr", "logisr", "mix")
NORMS = ("minmax", "zscore", "max", "sum", "rank", "none")
IMPORT_ORDERS: tuple[Literal["score", "file"], ...] = ("score", "file")
PRESETS = tuple(sorted(path.stem for path in Path(ultron_cli.__file__).parent.glob("training/presets/*.toml")))
SWEEPS = tuple(sorted(path.stem for path in Path(ultron_cli.__file__).parent.glob("sweep/presets/*.toml")))


def metavar(names: Sequence[str], *further_names: str) -> str:
    """`easy|medium|hard|all`: how a help text shows a choice."""
    return "|".join((*names, *further_names))
