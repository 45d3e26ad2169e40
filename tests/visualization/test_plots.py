"""The ground floor of figures with axes: the same bytes each time in every format, and no torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.visualization.pictures import PICTURES
from ultron_cli.errors import UltronError
from ultron_cli.visualization.plots import MOST_LINES, look

FORMATS = ((".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml"))
WITH_AXES = (
    "tsne",
    "selectivity",
    "curves",
    "precision-recall",
    "recall-speed",
    "index-report",
    "ablation",
    "dilation",
    "attention",
    "match",
    "genotype",
)
WITHOUT_TORCH = {
    "genotype": """
from ultron_cli.models.attentions.genotype import PUBLISHED, parse_genotype
from ultron_cli.visualization.genotype import genotype_figure
genotype_figure(parse_genotype(PUBLISHED), "title", out)
""",
    "ablation": """
from ultron_cli.visualization.curves.ablation_bars import ablation_figure, read_measurements
Path("t.csv").write_text("group,setting,seed,metric,value\\n,base,0,hard mAP,0.5\\n")
ablation_figure(read_measurements(Path("t.csv")), "title", out)
""",
    "curves": """
from ultron_cli.visualization.curves.run_curves import curves_figure, read_run
Path("metrics.jsonl").write_text('{"epoch": 1, "loss": 2.0}')
curves_figure([read_run(Path("."))], "title", out)
""",
    "recall-speed": """
import json
from ultron_cli.visualization.curves.recall_speed import read_report, recall_speed_figure
row = {"nprobe": 1, "rescore": 0, "recall": {"1": 0.5}, "queries_per_s": 9.0}
content = dict.fromkeys(["n", "dim", "k", "n_queries", "bytes_per_photo", "exact_queries_per_s"], 5)
Path("r.json").write_text(json.dumps(content | {"kind": "ivf", "rows": [row]}))
recall_speed_figure([read_report(Path("r.json"))], ["ivf"], "title", out)
""",
    "precision-recall": """
import numpy as np
from ultron_cli.visualization.curves.precision_recall import RECALLS, PrecisionRecall, precision_recall_figure
curves = {"hard": 1 - RECALLS}
search = PrecisionRecall(label="a", dataset="d", n_database=9, curves=curves, mAP={"hard": 0.5}, n_queries={"hard": 3})
precision_recall_figure([search], "title", out)
""",
    "sheet": """
from ultron_cli.visualization.drawing import Sheet
sheet = Sheet(90, 30)
sheet.text(9, 20, "text")
sheet.save(out)
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_AXES)
def test_kinds_of_files(name: str, tmp_path: Path) -> None:
    for suffix, magic in FORMATS:
        files = [PICTURES[name](tmp_path / f"{i}{suffix}") for i in range(2)]
        assert files[0].read_bytes().startswith(magic) and files[0].read_bytes() == files[1].read_bytes()
    with pytest.raises(UltronError, match=r"a figure is written as .png, .pdf, .svg, found .gif"):
        PICTURES[name](tmp_path / "a.gif")


@pytest.mark.slow
@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_numbers_are_drawn_without_torch(name: str, tmp_path: Path) -> None:
    """In a process of its own; "torch" stands for everything heavy, and sys.modules says what came with it."""
    code = (
        "import sys\nfrom pathlib import Path\nout = Path('out.png')\n"
        + WITHOUT_TORCH[name]
        + "heavy = {'torch', 'torchvision', 'timm', 'faiss', 'sklearn'} & set(sys.modules)\n"
        + "assert out.is_file() and not heavy, heavy\n"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr


def test_no_two_lines_look_alike() -> None:
    looks = [look(i) for i in range(MOST_LINES)]
    assert len({(line["color"], line["linestyle"]) for line in looks}) == MOST_LINES
