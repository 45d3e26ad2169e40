"""INRIA Holidays (Jegou et al., ECCV 2008): 500 scenes, told by the photos' names."""

from pathlib import Path

from ultron_cli.datasets.download.known_set import KnownSet, Part
from ultron_cli.datasets.download.layouts import write_ground_truth
from ultron_cli.errors import UltronError

PAGE = "lear.inrialpes.fr/~jegou/data.php (its download section; sizes in gigabytes)"
SERVER = "ftp://ftp.inrialpes.fr/pub/lear/douze/data"


def holidays(folder: Path) -> None:
    """Photo 100301.jpg is the second of scene 1003; the first of a scene, 100300.jpg, is its query, and is left out of
    its own ranking."""
    names = sorted(path.stem for path in (folder / "jpg").glob("*.jpg"))
    odd = [name for name in names if len(name) != 6 or not name.isdecimal()]
    if odd or not names:
        raise UltronError(
            f"{folder / 'jpg'} must hold photos named by six digits, found {odd[0] if odd else 'none'}; download them "
            "again"
        )
    rows_of_scene: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows_of_scene.setdefault(name[:4], []).append(row)
    query_rows = [row for row, name in enumerate(names) if name.endswith("00")]
    write_ground_truth(
        folder,
        names,
        [names[row] for row in query_rows],
        [None] * len(query_rows),
        [[other for other in rows_of_scene[names[row][:4]] if other != row] for row in query_rows],
        junk=[[row] for row in query_rows],
    )


HOLIDAYS = KnownSet(
    name="holidays",
    purpose="evaluation: INRIA Holidays, scenes and objects (Jegou et al., ECCV 2008)",
    photos="1,491 photos, 500 queries among them",
    licence="copyright of INRIA; as is, citing the paper",
    n_database=1491,
    n_queries=500,
    finish=holidays,
    sources=(PAGE,),
    parts=tuple(
        Part(
            file=f"jpg{i}.tar.gz",
            addresses=(f"{SERVER}/jpg{i}.tar.gz",),
            kind="photos",
            into="jpg",
            flat=True,
            about_bytes=about_bytes,
        )
        for i, about_bytes in ((1, 1_100_000_000), (2, 1_600_000_000))
    ),
)
