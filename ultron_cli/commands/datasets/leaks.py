"""`ultron datasets leaks`: photos that stand on two sides of an experiment."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.flags import current_workspace, number
from ultron_cli.errors import UltronError

EXAMPLE = """
ultron datasets leaks runs/extract/train runs/extract/test
ultron datasets leaks train.h5 queries.h5 distractors.h5
"""


def command(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="TRAIN TEST [DISTRACTORS]",
            help="Descriptor files, or folders of extractions; local features of their photos decide by geometry.",
        ),
    ],
    *,
    k: Annotated[int, number("-k", help="Nearest photos of each that are looked at.", low=1, high=1000)] = 20,
    similarity: Annotated[
        float,
        number(help="From which photos without local features count as leaks.", low=-1, high=1, metavar="SIMILARITY"),
    ] = 0.95,
    no_detect: Annotated[
        bool,
        typer.Option(
            "--no-detect", help="Only local features that lie beside the descriptors, instead of fainter ones too."
        ),
    ] = False,
    workers: Annotated[
        int | None, number(help="Threads that verify, and processes that detect (one per core).", low=1, high=256)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File for the leaks (JSON); pictures and lists go beside it.")
    ] = None,
) -> None:
    """Finds test photos that training or distractors know.

    It looks for copies (cut, scaled, turned, mirrored, framed, recompressed) and for photos of the same landmark.
    Beside the list it writes a picture of the worst, training photos to exclude (`ultron train --set exclude=FILE`),
    and queries to score without (`ultron evaluate --exclude FILE`).

    Local features are found first where they are missing (`database.leaks.local.h5` beside the descriptors): RootSIFT,
    in fog, at night and in blurred photos too.
    """
    from ultron_cli.console import counted, dump_json, lines, print_result, table
    from ultron_cli.files import write_text
    from ultron_cli.retrieval.leaks import LeakConfig, leaks_between, sides_of
    from ultron_cli.visualization.leaks import draw_leaks

    if len(files) < 2:
        raise UltronError(f"leaks are between TRAIN and TEST, two files or folders; found {len(files)}; name both")
    workspace = current_workspace()
    config = LeakConfig(k=k, similarity=similarity, n_workers=workers or 0, detect=not no_detect)
    sides = sides_of(files[0], files[1], files[2:])
    leaks = leaks_between(sides, config)
    made_by = {"files": [str(path) for path in files], "k": k, "similarity": similarity, "detect": not no_detect}
    path = out or workspace.result_folder("leaks", files[1].stem, made_by) / "leaks.json"
    content = leaks.to_json()
    lists = {"exclude-train": leaks.training_photos, "exclude-queries": leaks.queries}
    written = {name: path.with_name(f"{path.stem}-{name}.txt") for name, photos in lists.items() if photos}
    for name, list_path in written.items():
        write_text(list_path, "".join(f"{photo}\n" for photo in lists[name]))
    if leaks.leaks:
        written["picture"] = draw_leaks(leaks.leaks, sides, path.with_name(f"{path.stem}.png"))
    write_text(path, dump_json(content))
    rows = [
        (
            leak.kind,
            leak.sides,
            leak.first,
            leak.second,
            f"{leak.similarity:.3f}",
            "" if leak.score is None else leak.score,
        )
        for leak in leaks.leaks
    ]
    columns = ("kind", "sides", "photo", "its leak", "similarity", "inliers")
    print_result(
        content | {name: str(file) for name, file in written.items()},
        lines(
            table(columns, rows, left=4, what="leaks", all_in=str(path)) if rows else None,
            f"{counted(len(rows), 'leak')}: {counted(len(leaks.queries), 'query', 'queries')} and "
            f"{counted(len(leaks.training_photos), 'training photo')} to exclude",
            f"told by the similarity of descriptors alone, for want of local features: {', '.join(leaks.by_similarity)}"
            if leaks.by_similarity
            else None,
            *(str(file) for file in written.values()),
            str(path),
        ),
    )
