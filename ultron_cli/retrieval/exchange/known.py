"""The photos that names in files of other tools may mean, and what is said of how they were matched."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ultron_cli.console import counted, log
from ultron_cli.datasets.name_matching import NameMatch
from ultron_cli.datasets.protocols import load_ground_truth
from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.retrieval.origin import Origin
from ultron_cli.schema.values import shown


@dataclass(frozen=True, kw_only=True)
class KnownPhotos:
    """The photos that names may mean."""

    photos: list[str]
    queries: list[str] | None  # None: those of the file
    origin: Origin = field(default_factory=Origin)


def photos_of_ground_truth(gnd: Path) -> KnownPhotos:
    """Those of a ground truth; the folder of the photos is recorded if they lie beside it. Raises UltronError."""
    truth = load_ground_truth(gnd)
    folder = gnd.absolute().parent
    example = truth.database_names[0] if truth.database_names else ""
    places = (folder / "jpg" / example, folder / "jpg" / f"{example}.jpg", folder / example, folder / f"{example}.jpg")
    has_photos = any(os.path.isfile(place) for place in places)
    origin = Origin(
        dataset=gnd.stem.removeprefix("gnd_"),
        ground_truth=str(gnd.absolute()),
        dataset_folder=str(folder) if has_photos else None,
    )
    return KnownPhotos(photos=truth.database_names, queries=truth.query_names, origin=origin)


def tell_of_match(
    match: NameMatch, names: Sequence[str], known: Sequence[str], label: str, what: str, several: str
) -> None:
    """Says how names were spelled. label: what they are of; what, several: what they name. Raises UltronError if none
    of them is known."""
    if not match.n_by_spelling:
        example = names[0]
        near = nearest_names(example[:255], known) or (f"; a known one is {shown(known[0])}" if known else "")
        raise UltronError(
            f"not one of {counted(len(names), what, several)} in {label} is known, for example {shown(example)}{near}; "
            "name the photos that it is of"
        )
    log.info("%s of %s: %s", several, label, match.how_text())
