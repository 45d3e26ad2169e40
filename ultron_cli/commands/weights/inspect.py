"""`ultron weights inspect`: what is in a weights file."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "ultron weights inspect resnet50.pth"


def command(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A .pth, .pt or .safetensors file, or a checkpoint of ultron.")
    ],
) -> None:
    """Shows the tensors of a weights file.

    Of each it tells name, shape and type. Nothing in the file is run.
    """
    from ultron_cli.console import counted, lines, print_result, table
    from ultron_cli.files import sha256_of_file
    from ultron_cli.models.weights.checkpoints import FORMAT
    from ultron_cli.models.weights.reading import bare_state_dict, read_weights_file

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
            table(("tensor", "shape", "type"), rows, what="tensors"),
            f"{kind}; {counted(len(tensors), 'tensor')}, {n_values / 1e6:.2f} M values; sha256 {sha256}",
        ),
    )
