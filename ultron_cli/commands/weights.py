"""`ultron weights ...`: what is in a weights file, which models there are, and authors' checkpoints as ours."""

from pathlib import Path
from typing import Annotated

import typer


def inspect(file: Annotated[Path, typer.Argument(help="A .pth, .pt or .safetensors file, or a checkpoint of ultron.")]) -> None:
    """Shows the tensors of a weights file (name, shape, type) without running anything in it."""
    from ultron_cli.console import counted, lines, print_result, table
    from ultron_cli.files import sha256_of_file
    from ultron_cli.models.checkpoints import FORMAT, bare_state_dict, read_weights_file

    content = read_weights_file(file)
    state = bare_state_dict(content, file)
    ours = content.get("format") == FORMAT
    kind = f"checkpoint of ultron {content['ultron_version']}: {content['model']['name']} {content['model']['settings']}" if ours else "state dict"
    tensors = [{"name": name, "shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")} for name, value in state.items()]
    n_values = sum(value.numel() for value in state.values())
    sha256 = sha256_of_file(file)
    rows = [(entry["name"], "x".join(map(str, entry["shape"])) or "scalar", entry["dtype"]) for entry in tensors]
    print_result(
        {"file": str(file), "kind": kind, "sha256": sha256, "values": n_values, "tensors": tensors},
        lines(table(("tensor", "shape", "type"), rows), f"{kind}; {counted(len(tensors), 'tensor')}, {n_values / 1e6:.2f} M values; sha256 {sha256}"),
    )


def list_weights() -> None:
    """Lists the models that can be made, and whose published checkpoints can be imported."""
    from ultron_cli.console import lines, print_result, table
    from ultron_cli.models import list_models
    from ultron_cli.models.importers import LAYOUTS

    sources = {name: sorted({model for model, _ in layout.models.values()}) for name, layout in LAYOUTS.items()} | {"timm": ["gem"]}
    text = lines(table(("import --from", "becomes"), [(name, ", ".join(models)) for name, models in sources.items()]), "models: " + ", ".join(list_models()))
    print_result({"models": list_models(), "sources": sources}, text)


def import_file(
    file: Annotated[Path, typer.Argument(help="A published checkpoint (.pth, .pt, .pyth, .safetensors).")],
    *,
    source: Annotated[str, typer.Option("--from", metavar="dolg|cvnet|timm", help="Whose layout the file has.")],
    out: Annotated[Path, typer.Option(help="File for the checkpoint of ultron.")],
    backbone: Annotated[str | None, typer.Option(help="With --from timm: the timm network that the file is of.")] = None,
) -> None:
    """Turns an authors' checkpoint into one of ultron: maps names, folds BGR input into the stem, refuses keys it cannot place."""
    from ultron_cli.configs import one_of
    from ultron_cli.console import print_result
    from ultron_cli.models.checkpoints import sha256_of_weights
    from ultron_cli.models.importers import LAYOUTS, import_weights

    one_of("--from", source, [*LAYOUTS, "timm"])
    model = import_weights(file, source, out, backbone)
    scales = LAYOUTS[source].scales if source in LAYOUTS else "1"
    sha256 = sha256_of_weights(model)
    result = {"checkpoint": str(out), "model": model.label, "descriptor_dim": model.descriptor_dim, "weights_sha256": sha256, "scales": scales}
    print_result(result, f"{out}: {model.label}, {model.descriptor_dim}-d; next: ultron extract --weights {out} --scales {scales} --dataset NAME")
