"""`ultron weights export`: a network for other tools."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.flags import (
    MODEL,
    BackboneFlag,
    DimFlag,
    ModelFlag,
    ModelFlags,
    ModelSetFlag,
    RunFlag,
    SeedFlag,
    UntrainedFlag,
    WhitenFlag,
    checked,
    choice,
)
from ultron_cli.configs import parse_scales, parse_sides
from ultron_cli.errors import UltronError
from ultron_cli.models.weights.network_record import PIXEL_TYPES
from ultron_cli.retrieval.networks import EXPORT_FORMATS

EXAMPLE = """
ultron weights export dolg-r101.pt --format onnx --scales 5 --out dolg.onnx
ultron weights export --backbone resnet50 --pretrained --format torch-export --out r50.pt2
"""


def command(
    weights: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A checkpoint of ultron, or a timm state dict.")
    ] = None,
    *,
    file_format: Annotated[
        str, choice(EXPORT_FORMATS, "--format", help="What reads it: ONNX runtimes, torch.export, or torch.load.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file (.safetensors takes state dicts as well).")],
    model: ModelFlag = None,
    backbone: BackboneFlag = None,
    run: RunFlag = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="timm's own weights (downloaded).", rich_help_panel=MODEL)
    ] = False,
    untrained: UntrainedFlag = False,
    seed: SeedFlag = 0,
    set_: ModelSetFlag = None,
    pixels: Annotated[
        str, choice(PIXEL_TYPES, help="Input: RGB of 0 to 255 as uint8, or of 0 to 1 as float32.")
    ] = "uint8",
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="The one size of photos that it takes, height first (any).",
            callback=checked(parse_sides),
        ),
    ] = None,
    scales: Annotated[
        str,
        typer.Option(
            metavar="1|3|5|LIST",
            help="Scales that it computes and joins by itself.",
            callback=checked(lambda _, value: parse_scales(value)),
        ),
    ] = "1",
    whiten: WhitenFlag = None,
    dim: DimFlag = None,
) -> None:
    """Writes a network for other tools, from pixels to descriptors.

    Normalisation is inside, and what made the file is told in it. Without FILE, --run or --pretrained the latest
    training run is used.
    """
    from ultron_cli.configs import one_of
    from ultron_cli.console import lines, print_result
    from ultron_cli.files import sha256_of_file
    from ultron_cli.retrieval.networks.exporting import ExportRequest, export_network
    from ultron_cli.retrieval.whitening import chosen_whitening

    if weights and weights.suffix.lower() == ".onnx":
        raise UltronError(f"{weights} is an ONNX file already; name a checkpoint")
    request = ExportRequest(
        format=one_of("format", file_format, EXPORT_FORMATS),
        scales=parse_scales(scales),
        whitening=chosen_whitening(whiten, dim),
        sides_px=parse_sides("size", size) if size else None,
        pixels=one_of("pixels", pixels, PIXEL_TYPES),
    )
    loaded = ModelFlags(
        model=model,
        backbone=backbone,
        run=run,
        weights=weights,
        pretrained=pretrained,
        untrained=untrained,
        seed=seed,
        assignments=set_,
    ).choice()
    record = export_network(loaded.load(), request, out)
    shape = "any size" if record.sides_px is None else f"{record.sides_px[0]} x {record.sides_px[1]} px"
    inside = "" if request.format == "state-dict" else f", {record.pixels} RGB (batch, 3, height, width) of {shape}"
    print_result(
        {"file": str(out), "format": request.format, "sha256": sha256_of_file(out), **record.to_dict()},
        lines(f"{out}: {record.label}, {record.descriptor_dim}-d{inside}"),
    )
