"""`ultron extract`: photos to descriptors."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ultron_cli.commands.choices import CORRUPTIONS, INTERPOLATIONS, PRECISIONS, RESIZES, RUNTIMES, STORAGES
from ultron_cli.commands.flags import (
    MODEL,
    BackboneFlag,
    DimFlag,
    GndFlag,
    ModelFlag,
    ModelFlags,
    RunFlag,
    ScalesFlag,
    SeedFlag,
    WeightsFlag,
    WhitenFlag,
    checked,
    choice,
    current_workspace,
    number,
)
from ultron_cli.errors import UltronError
from ultron_cli.local import DETECTORS, choose_detector
from ultron_cli.local import EXAMPLE as LOCAL_EXAMPLE

if TYPE_CHECKING:
    from ultron_cli.retrieval.local_features.request import LocalRequest

EXAMPLE = """
ultron extract --dataset roxford5k
ultron extract --dataset roxford5k --local rootsift
ultron extract --dataset photos/ --backbone resnet50 --weights resnet50.pth --scales 3
"""


LOCAL = "Local features"


def _require_corruption(name: str, value: str) -> None:
    from ultron_cli.datasets.corruptions import parse_corruption

    parse_corruption(value)


def _local_request(
    name: str | None, max_keypoints: int | None, max_side_px: int | None, assignments: list[str]
) -> "LocalRequest | None":
    """What --local and its flags ask for. Raises UltronError for those flags without it."""
    from ultron_cli.retrieval.local_features.request import LocalRequest

    if name is None:
        flags = {"--local-points": max_keypoints, "--local-side": max_side_px, "--local-set": assignments or None}
        useless = [flag for flag, value in flags.items() if value is not None]
        if useless:
            raise UltronError(f"without --local there are no local features; leave out {' and '.join(useless)}")
        return None
    request = LocalRequest(detector=choose_detector(name, assignments))
    bounds = {"max_keypoints": max_keypoints, "max_side_px": max_side_px}
    return replace(request, **{setting: value for setting, value in bounds.items() if value is not None})


def command(
    folder: Annotated[str | None, typer.Argument(metavar="DIR", help="The same as --dataset.")] = None,
    *,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|DIR",
            help="A dataset by name, or a folder of photos (with jpg/ and gnd_*.json or .pkl for evaluation).",
        ),
    ] = None,
    model: ModelFlag = None,
    backbone: BackboneFlag = None,
    run: RunFlag = None,
    weights: WeightsFlag = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="timm's own weights (downloaded).", rich_help_panel=MODEL)
    ] = False,
    untrained: Annotated[
        bool,
        typer.Option("--untrained", help="Fresh random weights from --seed, as a baseline.", rich_help_panel=MODEL),
    ] = False,
    seed: SeedFlag = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="model.KEY=VALUE", help="A model setting, for example model.p=4.", rich_help_panel=MODEL
        ),
    ] = None,
    scales: ScalesFlag = None,
    max_side: Annotated[
        int | None,
        number(
            help="Longest side in pixels; 0 leaves photos as they are (1024; for a training run, twice its "
            "training side).",
            low=0,
            metavar="PX",
        ),
    ] = None,
    resize: Annotated[str, choice(RESIZES, help="Whether smaller photos are enlarged to --max-side too.")] = "down",
    interpolation: Annotated[
        str | None, choice(INTERPOLATIONS, help="The filter that brings photos to size (the model's).")
    ] = None,
    no_crop: Annotated[
        bool,
        typer.Option(
            "--no-crop",
            help="Whole query photos instead of their boxes (scores are not comparable with published ones).",
        ),
    ] = False,
    corruption: Annotated[
        str | None,
        typer.Option(
            metavar="KIND:N",
            help=f"Make query photos worse, by severity 1 to 5 (jpeg:3): {', '.join(CORRUPTIONS)}. Or my.py:Fog:3.",
            callback=checked(_require_corruption),
        ),
    ] = None,
    gnd: GndFlag = None,
    runtime: Annotated[
        str,
        choice(
            RUNTIMES,
            help="What computes the network; auto takes the fastest that is installed and agrees with torch.",
        ),
    ] = "torch",
    precision: Annotated[str, choice(PRECISIONS, help="Arithmetic of the network.")] = "float32",
    storage: Annotated[str, choice(STORAGES, help="Number type in the file.")] = "float32",
    local: Annotated[
        str | None,
        choice(
            tuple(DETECTORS),
            help="Local features too, beside the descriptors, to verify rankings by their geometry; or my.py:Detector.",
            panel=LOCAL,
            by_path=True,
        ),
    ] = None,
    local_points: Annotated[
        int | None, number(help="Most local features of a photo (800).", low=1, high=100_000, panel=LOCAL)
    ] = None,
    local_side: Annotated[
        int | None,
        number(
            help="Longest side of photos for --local; 0 leaves them as they are (640).",
            low=0,
            metavar="PX",
            panel=LOCAL,
        ),
    ] = None,
    local_set: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help=f"A setting of --local, for example {LOCAL_EXAMPLE}.", rich_help_panel=LOCAL
        ),
    ] = None,
    whiten: WhitenFlag = None,
    dim: DimFlag = None,
    batch_size: Annotated[int, number(help="Photos of one shape at a time, at most 64.", low=1)] = 8,
    workers: Annotated[int, number(help="Processes that decode photos; -1 chooses.", low=-1, high=256)] = -1,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out photos that cannot be decoded; they are listed and counted.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results of another configuration.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for queries.h5 and database.h5.")] = None,
) -> None:
    """Computes descriptors of a dataset's queries and database.

    Queries are cropped to their boxes. An interrupted run continues where it stopped. Without --run, --weights or
    --pretrained the latest training run is used.

    On several GPUs: torchrun --nproc-per-node 8 -m ultron_cli extract ... (several machines need --out on a shared file
    system).
    """
    from ultron_cli import console
    from ultron_cli.allocator import keep_memory
    from ultron_cli.configs import one_of, parse_scales
    from ultron_cli.console import counted, lines, named, print_result

    keep_memory()
    from ultron_cli.datasets.corruptions import parse_corruption
    from ultron_cli.distributed import is_first_process
    from ultron_cli.retrieval.extraction.dataset import ExtractRequest, extract_dataset
    from ultron_cli.retrieval.extraction.processes import OtherProcessFailed
    from ultron_cli.retrieval.whitening import chosen_whitening

    if folder and dataset and folder != dataset:
        raise UltronError(f"two datasets were named, {folder} and {dataset}; leave one")
    request = ExtractRequest(
        dataset=dataset or folder,
        gnd=gnd,
        crop="none" if no_crop else "bbx",
        corruption=parse_corruption(corruption) if corruption else None,
        scales=parse_scales(scales) if scales else None,
        max_side_px=max_side,
        resize=one_of("resize", resize, RESIZES),
        interpolation=interpolation,
        runtime=one_of("runtime", runtime, RUNTIMES),
        precision=one_of("precision", precision, PRECISIONS),
        storage=one_of("storage", storage, STORAGES),
        batch_size=batch_size,
        n_workers=None if workers < 0 else workers,
        skip_bad=skip_bad,
        overwrite=overwrite,
        whitening=chosen_whitening(whiten, dim),
        local=_local_request(local, local_points, local_side, local_set or []),
        out=out,
    )
    model_choice = ModelFlags(
        model=model,
        backbone=backbone,
        run=run,
        weights=weights,
        pretrained=pretrained,
        untrained=untrained,
        seed=seed,
        assignments=set_,
    ).choice()
    try:
        summary = extract_dataset(request, model_choice, console.settings.device, current_workspace())
    except OtherProcessFailed:
        raise typer.Exit(OtherProcessFailed.exit_code) from None  # that process has said why
    if not is_first_process():
        return
    files = [f"{role:<9} {counted(part['n'], 'photo'):>14}  {part['path']}" for role, part in summary["files"].items()]
    files += [
        f"{role:<9} {counted(part['n_features'], 'local feature'):>14}  {part['path']} "
        f"({part['bytes_per_photo']:,.0f} bytes per photo)"
        for role, part in summary["local"].items()
    ]
    n_bad = len(summary["skipped"])
    bad_names = named([entry["name"] for entry in summary["skipped"]])
    bad = f"left out {counted(n_bad, 'photo')} that could not be decoded: {bad_names}" if n_bad else None
    print_result(
        dict(summary),
        lines(f"{summary['model']} on {summary['dataset']}: {summary['dim']}-d, {summary['protocol']}", *files, bad),
    )
