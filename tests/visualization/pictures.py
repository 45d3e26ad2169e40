"""The pictures that are compared with stored references: each kind of figure, drawn from fixed inputs, and how it is
made small.

`python -m tests.visualization.renew_references` draws the references anew, after a change that is meant. Look at them
before keeping them.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.visualization.photos import photo_of, png_of
from ultron_cli.datasets.photo_files import decode_photo, photo_size
from ultron_cli.models.attentions.genotype import PUBLISHED, parse_genotype
from ultron_cli.visualization.cam.columns import CamColumn, columns_figure
from ultron_cli.visualization.cam.sheet import CamPair, cam_figure
from ultron_cli.visualization.cam.similarity import Cam
from ultron_cli.visualization.curves.ablation_bars import Measurement, ablation_figure
from ultron_cli.visualization.curves.precision_recall import RECALLS, PrecisionRecall, precision_recall_figure
from ultron_cli.visualization.curves.recall_speed import IndexSpeed, draw_index_report, recall_speed_figure
from ultron_cli.visualization.curves.run_curves import RunCurves, curves_figure
from ultron_cli.visualization.drawing import Verdict
from ultron_cli.visualization.genotype import genotype_figure
from ultron_cli.visualization.inside.dilations import Dilations, dilation_figure
from ultron_cli.visualization.inside.matching import Match, QueryRegion, match_figure
from ultron_cli.visualization.inside.windows import WindowWeights, attention_figure
from ultron_cli.visualization.ranked.lists import RankedRow, ranks_figure
from ultron_cli.visualization.ranked.systems import QueryBlock, SystemRow, systems_figure
from ultron_cli.visualization.selectivity import Selectivity, selectivity_figure
from ultron_cli.visualization.tiles import QueryPhoto, RankedPhoto
from ultron_cli.visualization.tsne import Panel, tsne_figure

REFERENCES = Path(__file__).with_name("references")
LONGEST_SIDE_PX = 560  # text stays in its place and shape, and a reference below 40 KB
VERDICTS: tuple[Verdict, ...] = ("right", "wrong", "ignored", "right", "unknown")
TITLE = "model on data, medium protocol"


def small(picture: Path, palette: Image.Image | None = None) -> Image.Image:
    """A picture as references are kept: at most 560 px a side, in 256 colours of its own or of another's palette."""
    with Image.open(picture) as file:
        image = file.convert("RGB")
    image.thumbnail((LONGEST_SIDE_PX, LONGEST_SIDE_PX), Image.Resampling.LANCZOS)
    return image.quantize(256, palette=palette, dither=Image.Dither.NONE)


def _photos(first_seed: int, n: int = 5) -> list[RankedPhoto]:
    """Photos of several shapes; the same seed is the same photo."""
    sizes = ((160, 120), (120, 160), (150, 150), (180, 100), (140, 130))
    seeds = [first_seed + i for i in range(n)]
    return [
        RankedPhoto(png_of(photo_of(s, *sizes[s % 5])), i, 1 - 0.07 * i, VERDICTS[s % 5], f"photo {s}")
        for i, s in enumerate(seeds, start=1)
    ]


def _query() -> QueryPhoto:
    return QueryPhoto(png_of(photo_of(99, 160, 120)), "query 99", (30.0, 20.0, 130.0, 110.0))


def _heat(width: int, height: int, x: float, y: float) -> np.ndarray:
    """(height, width) float32: a bump at (x, y), shares of the photo."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.exp(-(((columns / width - x) / 0.2) ** 2) - ((rows / height - y) / 0.25) ** 2).astype(np.float32)


def _cams(photos: list[RankedPhoto], x: float, layer: str | None = None) -> list[Cam]:
    sizes = [photo_size(photo.path) for photo in photos]
    return [Cam(_heat(*size, x, 0.4), 0.9 - 0.1 * i, i == 2, "gradcam", layer) for i, size in enumerate(sizes)]


def cam_sheet(out: Path) -> Path:
    photos = _photos(0, 4)
    pairs = [CamPair(photo, cam) for photo, cam in zip(photos, _cams(photos, 0.6), strict=True)]
    return cam_figure(_query(), Cam(_heat(100, 90, 0.5, 0.5), 0.9), pairs, TITLE, out)


def cam_columns(out: Path) -> Path:
    """Two models of other map sizes and layers: heat of other shapes than the photos."""
    photos = _photos(0, 3)
    first = CamColumn(
        "neighbourhood attention",
        Cam(_heat(100, 90, 0.5, 0.5), 0.9, layer="stage3"),
        _cams(photos, 0.3, "stage3"),
        None,
        [1, 2, 3],
    )
    second = CamColumn(
        "SCALA", Cam(_heat(50, 45, 0.3, 0.6), 0.9), _cams(photos, 0.7), (30.0, 20.0, 130.0, 110.0), [2, None, 41]
    )
    return columns_figure(_query(), photos, [first, second], TITLE, out, searched="model")


def ranked_row() -> RankedRow:
    """Five photos of all verdicts."""
    return RankedRow(_query(), _photos(0), "AP 71.3")


def short_row() -> RankedRow:
    """Three photos of another query."""
    return RankedRow(QueryPhoto(png_of(photo_of(98, 100, 150)), "query 98"), _photos(5, 3))


def ranks(out: Path) -> Path:
    return ranks_figure([ranked_row(), short_row()], TITLE, out)


def ranks_of_systems(out: Path) -> Path:
    return systems_figure(
        [
            QueryBlock(
                _query(),
                [SystemRow("baseline", _photos(0, 4), "AP 40.0"), SystemRow("SCALA", _photos(2, 4), "AP 71.3")],
            )
        ],
        TITLE,
        out,
    )


def before_after(*, moved: bool = True) -> QueryBlock:
    """Photos 0 to 4 before, 2, 0, 7, 3, 9 after: two up or down, one from rank 37, one that was not found before, two
    that leave.

    moved: else the first two stayed where they were.
    """
    after = [
        RankedPhoto(png_of(photo_of(s, 150, 120)), i, 0.8, VERDICTS[s % 5], f"photo {s}")
        for i, s in enumerate((2, 0, 7, 3, 9), start=1)
    ]
    came_from = [3, 1, 37, 4, None] if moved else [1, 2, 37, 4, None]
    rows = [
        SystemRow("before", _photos(0, 5), "AP 40.0", (), [2, 14, 1, 4, None]),
        SystemRow("after re-ranking with a long name", after, "AP 71.3 in the first 100", came_from, ()),
    ]
    return QueryBlock(_query(), rows)


def ranks_before_after(out: Path) -> Path:
    return systems_figure([before_after()], TITLE, out)


def tsne(out: Path) -> Path:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(-1, 5), 20)
    points = rng.standard_normal((6, 2))[labels] * 6 + rng.standard_normal((120, 2))
    panels = [
        Panel(title=f"model {i}", points=points * sign, labels=labels, names=list("abcde"))
        for i, sign in enumerate((1, -1))
    ]
    return tsne_figure(panels, "t-SNE on data", out)


def selectivity(out: Path) -> Path:
    rng = np.random.default_rng(0)
    results = [
        Selectivity(model=f"model {i}", layers={f"stage{s}": rng.beta(2, 3 + i + s, 400) for s in (3, 4)})
        for i in range(2)
    ]
    return selectivity_figure(results, "Class selectivity on data: 100 photos", out)


def curves(out: Path) -> Path:
    epochs = [
        {"epoch": e, "loss": 4.0 / e, "accuracy": 1 - 1 / e, "lr": 0.1 * (1 - e / 12), "validation_mAP": 0.6 - 0.5 / e}
        for e in range(1, 11)
    ]
    steps = [
        {"epoch": s / 10, "loss": 4.0 / (1 + s / 10) + 0.3 * np.sin(s), "lr": 0.1 * min(s / 10, 1 - s / 120)}
        for s in range(100)
    ]
    runs = [
        RunCurves(label="plain", epochs=epochs, steps=steps, model="gem-resnet18"),
        RunCurves(
            label="CDConv",
            epochs=[e | {"loss": 0.7 * e["loss"], "validation_mAP": 1.2 * e["validation_mAP"]} for e in epochs],
            steps=[],
        ),
    ]
    return curves_figure(runs, "Training curves: model on data", out)


def precision_recall(out: Path, hard: float = 0.3) -> Path:
    mAP = {"easy": 0.8, "medium": 0.6, "hard": hard}
    searches = [
        PrecisionRecall(
            label=f"search {i}",
            dataset="data",
            n_database=100,
            mAP={key: value / (i + 1) for key, value in mAP.items()},
            n_queries=dict.fromkeys(mAP, 70),
            curves={key: (1 - RECALLS ** (1 + 5 * value)) / (i + 1) for key, value in mAP.items()},
        )
        for i in range(3)
    ]
    return precision_recall_figure(searches, "Precision and recall: model on data", out)


def index_report(kind: str, factor: float) -> dict[str, object]:
    """What `ultron index --report` writes, from a formula."""
    rows = [
        {
            "nprobe": n,
            "ef_search": 0,
            "rescore": r,
            "recall": {"1": 0.5, "10": min(1.0, 0.5 + 0.04 * n + 0.1 * bool(r))},
            "queries_per_s": factor / (n + r),
        }
        for r in (0, 2)
        for n in (1, 4, 16)
    ]
    return {
        "kind": kind,
        "n": 5000,
        "dim": 64,
        "k": 10,
        "n_queries": 70,
        "bytes_per_photo": 24.0,
        "exact_queries_per_s": 300.0,
        "rows": rows,
    }


def recall_speed(out: Path) -> Path:
    return recall_speed_figure(
        [IndexSpeed.of(index_report("ivfpq", 9000.0)), IndexSpeed.of(index_report("hnsw", 20000.0))],
        ["ivfpq", "hnsw"],
        "Recall and speed: model on data",
        out,
    )


def index_report_alone(out: Path) -> Path:
    return draw_index_report(index_report("ivfpq", 9000.0) | {"factory": "OPQ8,IVF64,PQ8"}, out)


def ablation(out: Path) -> Path:
    lines = [
        Measurement(
            group=group,
            setting=f"{group} {i}",
            seed=str(seed),
            metric=metric,
            value=base - 0.06 * i + 0.01 * seed * (i + 1),
        )
        for group in ("operator", "pooling")
        for i in range(3)
        for seed in range(3)
        for metric, base in (("medium mAP", 0.6), ("hard mAP", 0.4))
    ]
    return ablation_figure(lines, "Ablation: model on data", out)


def dilation(out: Path) -> Path:
    rng = np.random.default_rng(0)
    choices = {f"stage {s}": [rng.choice((1, 3, 6), (6, 24 * s)) for _ in range(s)] for s in (1, 2)}
    return dilation_figure(
        Dilations(names=[f"photo {i}" for i in range(6)], choices=choices, values=(1, 3, 6)),
        "Dilations: model on data",
        out,
    )


def attention(out: Path) -> Path:
    weights = np.stack([_heat(7, 7, 0.2 + 0.2 * head, 0.5) for head in range(4)])
    window = WindowWeights(
        weights=weights / weights.sum(axis=(1, 2), keepdims=True),
        rows=np.arange(1, 8),
        columns=np.arange(3, 10),
        cell=(4, 6),
        grid=(9, 12),
    )
    return attention_figure(photo_of(3, 192, 144), window, "Window weights: model on data", "photo 3", out)


def match(out: Path) -> Path:
    query = QueryRegion("query", photo_of(1, 120, 100), (0.2, 0.2, 0.6, 0.7), _heat(6, 5, 0.4, 0.4))
    matches = [Match(photo, np.asarray(decode_photo(photo.path)), _heat(7, 6, 0.7, 0.3)) for photo in _photos(0, 3)]
    return match_figure(query, matches, TITLE, out, layer="stage3")


def genotype(out: Path) -> Path:
    return genotype_figure(parse_genotype(PUBLISHED), "HOGA, the published genotype", out)


PICTURES: dict[str, Callable[[Path], Path]] = {
    "cam-sheet": cam_sheet,
    "cam-columns": cam_columns,
    "ranks": ranks,
    "ranks-systems": ranks_of_systems,
    "ranks-before-after": ranks_before_after,
    "tsne": tsne,
    "selectivity": selectivity,
    "curves": curves,
    "precision-recall": precision_recall,
    "recall-speed": recall_speed,
    "index-report": index_report_alone,
    "ablation": ablation,
    "dilation": dilation,
    "attention": attention,
    "match": match,
    "genotype": genotype,
}
