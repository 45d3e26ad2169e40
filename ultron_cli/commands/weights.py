"""`ultron weights ...`: what is in a weights file, which models there are, and authors' checkpoints as ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ultron_cli.models.weights.cirtorch import LearnedWhitening


def inspect(
    file: Annotated[Path, typer.Argument(help="A .pth, .pt or .safetensors file, or a checkpoint of ultron.")],
) -> None:
    """Shows the tensors of a weights file (name, shape, type) without running anything in it."""
    from ultron_cli.console import counted, lines, print_result, table
    from ultron_cli.files import sha256_of_file
    from ultron_cli.models.weights.checkpoints import FORMAT, bare_state_dict, read_weights_file

    content = read_weights_file(file)
    state = bare_state_dict(content, file)
    ours = content.get("format") == FORMAT
    kind = (
        f"checkpoint of ultron {content['ultron_version']}: {content['model']['name']} {content['model']['settings']}"
        if ours
        else "state dict"
    )
    tensors = [
        {"name": name, "shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
        for name, value in state.items()
    ]
    n_values = sum(value.numel() for value in state.values())
    sha256 = sha256_of_file(file)
    rows = [(entry["name"], "x".join(map(str, entry["shape"])) or "scalar", entry["dtype"]) for entry in tensors]
    print_result(
        {"file": str(file), "kind": kind, "sha256": sha256, "values": n_values, "tensors": tensors},
        lines(
            table(("tensor", "shape", "type"), rows),
            f"{kind}; {counted(len(tensors), 'tensor')}, {n_values / 1e6:.2f} M values; sha256 {sha256}",
        ),
    )


def list_weights() -> None:
    """Lists the models that can be made, and whose published checkpoints can be imported."""
    from ultron_cli.console import lines, print_result, table
    from ultron_cli.models import list_models
    from ultron_cli.models.weights.importers import SOURCES

    text = lines(
        table(("import --from", "becomes"), [(name, ", ".join(models)) for name, models in SOURCES.items()]),
        "models: " + ", ".join(list_models()),
    )
    print_result({"models": list_models(), "sources": SOURCES}, text)


def import_file(
    file: Annotated[Path, typer.Argument(help="A published checkpoint (.pth, .pt, .pyth, .safetensors).")],
    *,
    source: Annotated[
        str, typer.Option("--from", metavar="dolg|cvnet|senet|cfcd|cirtorch|timm", help="Whose layout the file has.")
    ],
    out: Annotated[Path, typer.Option(help="File for the checkpoint of ultron.")],
    backbone: Annotated[
        str | None, typer.Option(help="With --from timm: the timm network that the file is of.")
    ] = None,
) -> None:
    """Turns an authors' checkpoint into one of ultron: maps names, folds BGR input into the stem, refuses keys it
    cannot place."""
    from ultron_cli.configs import one_of
    from ultron_cli.console import lines, print_result
    from ultron_cli.models.weights.checkpoints import sha256_of_weights
    from ultron_cli.models.weights.importers import SOURCES, import_weights

    one_of("--from", source, list(SOURCES))
    imported = import_weights(file, source, out, backbone)
    model, scales, sha256 = imported.model, imported.scales, sha256_of_weights(imported.model)
    whitenings = [_write_whitening(whitening, out, file, sha256) for whitening in imported.whitenings]
    result = {
        "checkpoint": str(out),
        "model": model.label,
        "descriptor_dim": model.descriptor_dim,
        "weights_sha256": sha256,
        "scales": scales,
    }
    print_result(
        result | {"whitenings": [str(path) for path in whitenings]},
        lines(
            f"{out}: {model.label}, {model.descriptor_dim}-d; next: ultron extract --weights {out} --scales "
            f"{scales} --dataset NAME",
            *(f"{path}: learned whitening; for --whiten of extract, index, search and evaluate" for path in whitenings),
        ),
    )


def _write_whitening(learned: LearnedWhitening, out: Path, file: Path, weights_sha256: str) -> Path:
    """Writes a whitening that came with a network beside its checkpoint. Its eigenvalues, which nothing depends on, are
    not published: ones."""
    import numpy as np

    from ultron_cli.provenance import provenance
    from ultron_cli.retrieval.whitening import Whitening, write_whitening

    path = out.with_name(f"{out.stem}-lw-{learned.name}.h5")
    record = provenance() | {
        "imported": {"from": "cirtorch", "file": file.name, "name": learned.name},
        "weights_sha256": weights_sha256,
    }
    ones = np.ones(len(learned.projection))
    write_whitening(
        path,
        Whitening(method="lw", mean=learned.mean, projection=learned.projection, eigenvalues=ones, provenance=record),
    )
    return path
