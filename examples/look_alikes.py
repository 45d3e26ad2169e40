"""Are photos that only look like a query promoted by geometric verification?

Rendered queries, photos of their landmarks, and photos that are to deceive: other landmarks of the same plan and style
(the same windows, stones and roofs), the query's landmark in the mirror and upside down, plain walls of its stone,
pages of its sign's letters, and other landmarks with the very sign that hangs on the query.

    python examples/look_alikes.py render --out look-alikes
    ultron extract --dataset look-alikes --model gem --weights ... --local rootsift --out look-alikes-described
    ultron evaluate --queries look-alikes-described/queries.h5 ... --rerank geometry
    python examples/look_alikes.py score --described look-alikes-described [--write docs/local.md]
"""

import argparse
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ultron_cli.console import start_log
from ultron_cli.datasets.toy.building import Building, make_building
from ultron_cli.datasets.toy.draws import Draws
from ultron_cli.datasets.toy.facades import facade
from ultron_cli.datasets.toy.scene import render
from ultron_cli.datasets.toy.street import Street, make_street
from ultron_cli.datasets.toy.views import Purpose, draw_view
from ultron_cli.datasets.toy.walls import bare_wall, draw_style
from ultron_cli.errors import UltronError
from ultron_cli.files import replace_between
from ultron_cli.local.verification import VerifiablePhoto, VerifiableQuery, VerifySettings, verify
from ultron_cli.retrieval.local_features.files import LocalFeatureFile, open_local_features
from ultron_cli.retrieval.rerank import parse_rerank
from ultron_cli.retrieval.searching import SearchOptions, search_files

BEGIN, END = "<!-- begin: examples/look_alikes.py -->", "<!-- end: examples/look_alikes.py -->"
SEED = 7
DIFFICULTY = 0.4  # that of `ultron datasets make-toy`
SIDE_PX = 512
N_LANDMARKS = 16
POSITIVES: tuple[Purpose, ...] = ("near", "near", "wide", "wide")
N_OTHERS = 96  # photos of other landmarks, that chance is calibrated on too
WORDS = ("MUSEUM OF ART", "GRAND HOTEL", "CENTRAL STATION", "CITY THEATRE", "OLD TOWN CAFE", "ROYAL BANK")
KINDS = {
    "landmark": "the query's landmark (to be promoted)",
    "style": "another landmark of the same plan and style",
    "wall": "a wall with the query's windows, nothing else",
    "blank": "a wall of the query's stone, without a window",
    "mirrored": "the query's landmark, mirrored",
    "upside": "the query's landmark, upside down",
    "sign": "another landmark with the sign that hangs on the query",
    "letters": "a page of the words of that sign",
    "other": "any other landmark",
}


def taken(building: Building, street: Street, purpose: Purpose, key: str) -> tuple[Image.Image, tuple[int, ...]]:
    """(a photo of a building, the building's box)."""
    draws = Draws(SEED, "look-alike", key)
    view = draw_view(draws, purpose, DIFFICULTY, building.size_m, building.main_azimuth_deg)
    photo = render(building, view, street, draws, SIDE_PX)
    return Image.fromarray(photo.pixels), photo.box


def sign(words: str, width_px: int) -> Image.Image:
    """A board with words on it."""
    height_px = width_px // 4
    board = Image.new("RGB", (width_px, height_px), (28, 52, 96))
    drawing = ImageDraw.Draw(board)
    drawing.rectangle((2, 2, width_px - 3, height_px - 3), outline=(240, 236, 220), width=2)
    font = ImageFont.load_default(height_px * 0.42)
    drawing.text((width_px / 2, height_px / 2), words, (240, 236, 220), font, anchor="mm")
    return board


def with_sign(photo: Image.Image, words: str, box: Sequence[int], share: float) -> Image.Image:
    """The photo, with a sign in the middle of the box, that share of the box wide."""
    board = sign(words, max(40, round((box[2] - box[0]) * share)))
    signed = photo.copy()
    signed.paste(board, ((box[0] + box[2] - board.width) // 2, (box[1] + 2 * box[3] - board.height) // 3))
    return signed


def letters(words: str, draws: Draws) -> Image.Image:
    """A poster full of the words."""
    page = Image.new("RGB", (SIDE_PX, SIDE_PX * 3 // 4), (228, 222, 206))
    drawing = ImageDraw.Draw(page)
    y = 8.0
    while y < page.height:
        size = draws.uniform(16, 52)
        font = ImageFont.load_default(size)
        drawing.text((draws.uniform(-40, 40), y), " ".join([words] * 4), (30, 34, 40), font)
        y += 1.3 * size
    return page


def flat(tile: np.ndarray, draws: Draws) -> Image.Image:
    """A wall's texture as a photo that shows nothing else."""
    wall = Image.fromarray(np.ascontiguousarray(tile[::-1, :, :3])).resize(
        (SIDE_PX, SIDE_PX * 3 // 4), Image.Resampling.BICUBIC
    )
    shade = np.linspace(draws.uniform(0.7, 1), draws.uniform(0.9, 1.15), SIDE_PX)[None, :, None]
    return Image.fromarray(np.clip(np.asarray(wall) * shade, 0, 255).astype(np.uint8))


def photos_of(landmark: str, street: Street, words: str) -> Iterator[tuple[str, Image.Image, tuple[int, ...]]]:
    """(kind, photo, box) of one query and all photos of its landmark and of what looks like it; kind `query` first."""
    draws = Draws(SEED, "look-alikes", landmark)
    building = make_building(SEED, landmark, street.atlas)
    photo, box = taken(building, street, "query", f"{landmark}/query")
    yield "query", with_sign(photo, words, box, 0.4), box
    for i, purpose in enumerate(POSITIVES):
        photo, box = taken(building, street, purpose, f"{landmark}/{i}")
        yield "landmark", photo, box
        if purpose == "near":
            yield "mirrored", ImageOps.mirror(photo), box
            yield "upside", photo.transpose(Image.Transpose.ROTATE_180), box
    for i in range(3):
        twin = make_building(SEED, f"{landmark}/twin-{i}", street.atlas, like=landmark)
        photo, box = taken(twin, street, "near", f"{landmark}/twin-{i}")
        yield "style", photo, box
    other = make_building(SEED, f"{landmark}/other", street.atlas)
    photo, box = taken(other, street, "near", f"{landmark}/other")
    yield "sign", with_sign(photo, words, box, 0.3), box
    yield "sign", with_sign(photo, words, box, 0.5), box
    yield "letters", letters(words, draws), (0, 0, 1, 1)
    of_landmark = Draws(SEED, "building", landmark)
    of_landmark.integer(0, 0)  # its plan
    style = draw_style(of_landmark)
    yield "blank", flat(bare_wall(draws, style, 160, 212), draws), (0, 0, 1, 1)
    yield "wall", flat(facade(draws, style, 18.0, 13.5), draws), (0, 0, 1, 1)


def render_set(out: Path) -> None:
    """jpg/, gnd_look-alikes.json, and look-alikes.json: photo -> what it is, of which query."""
    street = make_street(SEED)
    (out / "jpg").mkdir(parents=True)
    names: list[str] = []
    kinds: dict[str, dict[str, str]] = {}
    queries, boxes, positives = [], [], []

    def save(photo: Image.Image, name: str) -> None:
        content = io.BytesIO()
        photo.save(content, format="JPEG", quality=88)
        (out / "jpg" / f"{name}.jpg").write_bytes(content.getvalue())

    for i in range(N_LANDMARKS):
        rows = []
        for k, (kind, photo, box) in enumerate(photos_of(f"landmark-{i:02}", street, WORDS[i % len(WORDS)])):
            name = f"{kind}_{i:02}_{k:02}"
            save(photo, name)
            if kind == "query":
                queries.append(name)
                boxes.append(list(box))
                continue
            if kind == "landmark":
                rows.append(len(names))
            kinds[name] = {"kind": kind, "of": queries[-1]}
            names.append(name)
        positives.append(rows)
    for i in range(N_OTHERS):
        building = make_building(SEED, f"other-{i // 2}", street.atlas)
        save(taken(building, street, "near" if i % 2 else "wide", f"other-{i}")[0], f"other_{i:03}")
        kinds[f"other_{i:03}"] = {"kind": "other", "of": ""}
        names.append(f"other_{i:03}")
    entries = [{"bbx": box, "easy": rows, "hard": [], "junk": []} for box, rows in zip(boxes, positives, strict=True)]
    truth = {"imlist": names, "qimlist": queries, "gnd": entries}
    (out / "gnd_look-alikes.json").write_text(json.dumps(truth))
    (out / "look-alikes.json").write_text(json.dumps(kinds))


def score(described: Path, photos: Path, most_of_cell: int) -> str:
    """The table: of each kind, how many are promoted for the query they are made for, and for any."""
    steps = parse_rerank("geometry", ["geometry.m=1000000", f"geometry.most_of_cell={most_of_cell}"])
    ranking = search_files(
        described / "queries.h5", described / "database.h5", None, "cpu", options=SearchOptions(steps=steps)
    )
    assert ranking.origin.search is not None
    threshold = dict(ranking.origin.search.steps[-1].measured)["calibration"]["threshold"]
    settings = VerifySettings(most_of_cell=most_of_cell)
    kinds = json.loads((photos / "look-alikes.json").read_text())
    scores: dict[str, list[int]] = {kind: [] for kind in KINDS}
    above: dict[str, int] = dict.fromkeys(KINDS, 0)
    with (
        open_local_features(described / "queries.local.h5") as queries,
        open_local_features(described / "database.local.h5") as database,
    ):
        for query, name in enumerate(ranking.query_names):
            first = VerifiableQuery.of(_verifiable(queries, name))
            order = [ranking.database_names[row] for row in ranking.rows[query]]
            of_query = {photo: kinds[photo]["kind"] for photo in order if kinds[photo]["of"] in (name, "")}
            last_right = max(place for place, photo in enumerate(order) if of_query.get(photo) == "landmark")
            for place, photo in enumerate(order):
                if photo in of_query:
                    score_of = verify(first, _verifiable(database, photo), settings).score
                    scores[of_query[photo]].append(score_of)
                    above[of_query[photo]] += score_of >= threshold and place < last_right
    lines = [
        "| photos | pairs | promoted | of them before a photo of the landmark | inliers, median | most |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind, what in KINDS.items():
        of_kind = np.array(scores[kind])
        n_promoted = int((of_kind >= threshold).sum())
        lines.append(
            f"| {what} | {len(of_kind):,} | {n_promoted} | {'' if kind == 'landmark' else above[kind]} | "
            f"{np.median(of_kind):.0f} | {of_kind.max()} |"
        )
    return "\n".join([*lines, "", f"`most_of_cell` {most_of_cell}: {threshold} inliers promote."])


def _verifiable(file: LocalFeatureFile, name: str) -> VerifiablePhoto:
    return VerifiablePhoto.of(file.read(file.rows[name]), max_side_px=file.info.max_side_px)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("render", "score"))
    parser.add_argument("--out", type=Path, default=Path("look-alikes"), help="the photos' folder")
    parser.add_argument("--described", type=Path, help="the folder of their descriptors")
    parser.add_argument("--write", type=Path, help="put the table into this file, between its markers")
    arguments = parser.parse_args()
    if arguments.step == "render":
        render_set(arguments.out)
        return 0
    start_log(0)
    table = "\n\n".join(score(arguments.described, arguments.out, most_of_cell) for most_of_cell in (3, 1))
    print(table)
    if arguments.write:
        replace_between(arguments.write, BEGIN, END, table)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UltronError as error:
        sys.exit(f"error: {error}")
