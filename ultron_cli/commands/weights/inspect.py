"""`ultron weights inspect`: what is in a weights file."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "ultron weights inspect resnet50.pth"


def command(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A .pth, .pt, .safetensors or .onnx file, or a checkpoint of ultron."),
    ],
) -> None:
    """Shows the tensors of a weights file.

    Of each it tells name, shape and type; of a network in ONNX also
    what it takes and gives, its operators and what it says of
    itself. Nothing in the file is run.
    """
    from ultron_cli.console import print_result
    from ultron_cli.files import sha256_of_file
    from ultron_cli.models.weights.onnx_files import is_onnx_file
    from ultron_cli.models.weights.overview import describe_onnx, describe_weights

    facts, text = (describe_onnx if is_onnx_file(file) else describe_weights)(file)
    sha256 = sha256_of_file(file)
    print_result({"file": str(file), "sha256": sha256, **facts}, f"{text}; sha256 {sha256}")
