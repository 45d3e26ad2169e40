"""A search whose descriptors are wrong and whose local features are right: photos of drawn walls."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from tests.local.sift_for_tests import facade, rootsift, seen_by, turned_wall
from tests.retrieval.rows_for_tests import INFO, unit_rows
from ultron_cli.local.features import LocalFeatures
from ultron_cli.retrieval.descriptors import write_descriptors
from ultron_cli.retrieval.local_features.files import LocalFeatureInfo, write_local_features
from ultron_cli.retrieval.origin import ExtractionRecord, SkippedPhoto

N_WALLS, N_OTHERS, DIM = 3, 9, 16
TURNS = (-30, 15, 40)  # degrees, of a wall's photos in the database
CONFIG = {"detector": "rootsift", "settings": {}, "comparison": "l2", "max_keypoints": 200, "max_side_px": 640}


@cache
def wall_photos() -> tuple[list[LocalFeatures], list[LocalFeatures]]:
    """(N_WALLS queries, the database): rows 3 i up to 3 i + 3 show wall i, the rest other walls."""
    walls = [facade(seed, 200) for seed in range(N_WALLS + N_OTHERS)]
    queries = [rootsift(wall, 120) for wall in walls[:N_WALLS]]
    database = [rootsift(seen_by(wall, turned_wall(t, 200)), 120) for wall in walls[:N_WALLS] for t in TURNS]
    return queries, database + [rootsift(wall, 120) for wall in walls[N_WALLS:]]


def write_local(
    path: Path,
    names: Sequence[str],
    photos: Sequence[LocalFeatures],
    role: Literal["query", "database"],
    *,
    skipped: Sequence[str] = (),
    detector: str = "rootsift",
) -> None:
    """A file of local features."""
    info = LocalFeatureInfo(
        detector=detector,
        settings={},
        comparison="l2",
        max_keypoints=200,
        max_side_px=640,
        dataset="walls",
        role=role,
        crop="bbx" if role == "query" else "none",
        extraction=ExtractionRecord(stored=CONFIG),
        skipped=tuple(SkippedPhoto(name=name, reason="torn") for name in skipped),
        created="2026-01-01T00:00:00Z",
    )
    counts = [len(photo) for photo in photos]
    write_local_features(path, names, counts, photos, (128, np.dtype("uint8")), info)


def write_search(folder: Path, queries: Sequence[LocalFeatures], database: Sequence[LocalFeatures]) -> None:
    """queries.h5, database.h5 and their local features; descriptors are drawn, and say little of the walls."""
    folder.mkdir(parents=True, exist_ok=True)
    query_names = [f"q{i}" for i in range(len(queries))]
    names = [f"p{i:02d}" for i in range(len(database))]
    centres = unit_rows(1, N_WALLS + N_OTHERS, DIM)
    walls = [*range(N_WALLS), *np.repeat(range(N_WALLS), len(TURNS)), *range(N_WALLS, N_WALLS + N_OTHERS)]
    rows = centres[walls] + 0.9 * unit_rows(2, len(walls), DIM)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    of_queries, of_database = [rows[:N_WALLS]], [rows[N_WALLS:]]
    write_descriptors(folder / "queries.h5", query_names, of_queries, DIM, replace(INFO, role="query"))
    write_descriptors(folder / "database.h5", names, of_database, DIM, INFO)
    write_local(folder / "queries.local.h5", query_names, queries, "query")
    write_local(folder / "database.local.h5", names, database, "database")
