"""Leaks as a picture: each test photo beside the photos that give it away."""

from collections.abc import Sequence
from pathlib import Path

from ultron_cli.datasets.photo_strip import photo_paths
from ultron_cli.retrieval.leaks import Leak, SideName
from ultron_cli.retrieval.whitening import open_descriptors
from ultron_cli.visualization.ranked.lists import RankedRow, ranks_figure
from ultron_cli.visualization.tiles import QueryPhoto, RankedPhoto

MOST_PHOTOS = 12  # test photos, of which each is a line
MOST_LEAKS = 4  # of each


def draw_leaks(leaks: Sequence[Leak], sides: Sequence[tuple[Path, SideName]], out: Path) -> Path:
    """Draws the first leaks, the photo on the left and its leaks beside it, and returns where. sides: the descriptor
    files, by which photos are sought; a photo that is not there is a grey tile."""
    groups: dict[tuple[str, str], list[Leak]] = {}
    for leak in leaks:
        groups.setdefault((leak.sides.partition("-")[0], leak.first), []).append(leak)
    drawn = dict(list(groups.items())[:MOST_PHOTOS])
    names: dict[str, set[str]] = {name: set() for _, name in sides}
    for (side, first), group in drawn.items():
        names[side].add(first)
        for leak in group[:MOST_LEAKS]:
            names[leak.sides.rpartition("-")[2]].add(leak.second)
    files = _files(names, sides)
    rows = [
        RankedRow(
            QueryPhoto(files.get((side, first), Path(first)), first),
            [_ranked(leak, rank, files) for rank, leak in enumerate(group[:MOST_LEAKS], start=1)],
            side,
        )
        for (side, first), group in drawn.items()
    ]
    return ranks_figure(rows, f"The worst of {len(leaks)} leaks", out)


def _ranked(leak: Leak, rank: int, files: dict[tuple[str, str], Path]) -> RankedPhoto:
    side = leak.sides.rpartition("-")[2]
    return RankedPhoto(
        path=files.get((side, leak.second), Path(leak.second)),
        rank=rank,
        score=leak.similarity,
        verdict="unknown",
        name=f"{leak.kind}: {leak.second}",
    )


def _files(names: dict[str, set[str]], sides: Sequence[tuple[Path, SideName]]) -> dict[tuple[str, str], Path]:
    """(side, name) -> photo, for those that are where they were described."""
    files: dict[tuple[str, str], Path] = {}
    for path, side in sides:
        with open_descriptors(path) as descriptors:
            present = sorted(names[side].intersection(descriptors.names))
            origin = descriptors.info.provenance
        for name, file in zip(present, photo_paths(present, origin.dataset_folder, origin.ground_truth), strict=True):
            if file is not None:
                files[side, name] = file
    return files
