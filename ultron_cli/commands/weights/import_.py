"""`ultron weights import`: an authors' checkpoint becomes one of ultron."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ultron_cli.commands.flags import choice
from ultron_cli.models.weights import IMPORTERS

if TYPE_CHECKING:
    from ultron_cli.models.weights.importers import LearnedWhitening

EXAMPLE = "ultron weights import r101.pyth --from dolg --out dolg-r101.pt"


def command(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A published checkpoint (.pth, .pt, .pyth, .safetensors).")
    ],
    *,
    source: Annotated[
        str, choice(tuple(IMPORTERS), "--from", by_path=True, help="Whose layout it has, or my.py:read.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="File for the checkpoint of ultron.")],
    backbone: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --from timm: the timm network that the file is of."),
    ] = None,
) -> None:
    """Turns an authors' checkpoint into one of ultron.

    It maps the names, folds BGR input into the stem, and refuses keys that it cannot place.
    """
    from ultron_cli.console import lines, print_result
    from ultron_cli.models.weights.checkpoints import sha256_of_weights
    from ultron_cli.models.weights.importers import import_weights

    imported = import_weights(file, source, out, backbone)
    model, scales = imported.model, imported.scales
    sha256 = sha256_of_weights(model)
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


def _write_whitening(learned: "LearnedWhitening", out: Path, file: Path, weights_sha256: str) -> Path:
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
