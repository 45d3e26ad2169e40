"""t-SNE panels: clusters stay apart, landmarks from the ground truth, figures as files."""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Run
from ultron_cli.datasets.protocols import GroundTruth, QueryTruth
from ultron_cli.errors import UltronError
from ultron_cli.visualization.tsne import Panel, TsneConfig, embed, free_cells, knn_purity, landmarks_of, tsne_figure

pytestmark = pytest.mark.slow


def clusters() -> tuple[np.ndarray, np.ndarray]:
    """Three clusters of 40 unit vectors in 32 dimensions."""
    rng = np.random.default_rng(0)
    centres, labels = rng.standard_normal((3, 32)), np.repeat(np.arange(3), 40)
    points = centres[labels] + 0.15 * rng.standard_normal((120, 32))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32), labels


def test_separated_clusters_stay_apart_and_the_seed_decides() -> None:
    descriptors, labels = clusters()
    points = embed(descriptors, TsneConfig(perplexity=15, seed=1))
    assert points.shape == (120, 2)
    assert knn_purity(points, labels) > 0.95
    assert np.array_equal(points, embed(descriptors, TsneConfig(perplexity=15, seed=1)))


def test_knn_purity_by_hand() -> None:
    points = np.array([[0.0, 0], [1, 0], [10, 0], [11, 0], [5, 5]])
    assert knn_purity(points, np.array([0, 0, 1, 1, -1]), k=1) == 1.0
    assert knn_purity(points, np.array([0, 1, 1, 1, -1]), k=1) == 0.5
    assert np.isnan(knn_purity(points[:1], np.array([0])))


def test_queries_that_share_a_positive_are_one_landmark() -> None:
    def query(easy: list[int], hard: list[int]) -> QueryTruth:
        return QueryTruth(
            bbx=None, easy=np.array(easy, np.int64), hard=np.array(hard, np.int64), junk=np.array([5], np.int64)
        )

    truth = GroundTruth(
        database_names=list("abcdef"),
        query_names=["p", "q", "r"],
        queries=[query([0], [1]), query([2], []), query([1], [3])],
    )
    labels, names = landmarks_of(truth)
    assert len(names) == 2
    assert labels[0] == labels[1] == labels[3] != labels[2] and labels[4] == labels[5] == -1


def test_thumbnails_get_cells_of_their_own() -> None:
    """Three points in one place of a 3 x 3 grid: its cell and two beside it; a point far off keeps its own."""
    shares = np.array([[0.5, 0.5], [0.5, 0.5], [0.52, 0.5], [0.9, 0.1]])
    cells = free_cells(shares, 3, 3)
    assert cells is not None and len({tuple(cell) for cell in cells.tolist()}) == 4
    assert cells[0].tolist() == [1, 1] and cells[3].tolist() == [2, 0]
    assert np.abs(cells[:3] - 1).sum(axis=1).max() == 1
    assert free_cells(np.zeros((8, 2)), 3, 3) is None  # too many for a grid with room


def test_figures(tmp_path: Path) -> None:
    descriptors, labels = clusters()
    panel = Panel(title="model", points=descriptors[:, :2], labels=labels, names=["a", "b", "c"])
    for suffix, magic in ((".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")):
        out = tsne_figure([panel, panel], "title", tmp_path / f"figure{suffix}")
        assert out.read_bytes().startswith(magic)
    with pytest.raises(UltronError, match=r"a figure is written as .png, .pdf, .svg, found .gif"):
        tsne_figure([panel], "title", tmp_path / "figure.gif")
    with pytest.raises(UltronError, match="at least 4 photos of landmarks, found 3"):
        embed(descriptors[:3], TsneConfig())


def test_command_on_rendered_landmarks(toy: Path, ultron: Run, tmp_path: Path) -> None:
    files = []
    for seed in (0, 1):
        network = ["--model", "gem", "--backbone", "test_resnet", "--untrained", "--seed", seed]
        code, _, error = ultron("extract", "--dataset", toy, *network, "--out", tmp_path / f"e{seed}")
        assert code == 0, error
        files += ["--database", tmp_path / f"e{seed}" / "database.h5"]
    out = tmp_path / "tsne.png"
    code, text, error = ultron(
        "visualize", "tsne", *files, "--label", "zero", "--label", "one", "--thumbnails", "--out", out
    )
    assert code == 0, error
    assert text.strip() == str(out) and out.stat().st_size > 20_000
    code, _, error = ultron("visualize", "tsne", *files, "--label", "zero", "--out", out)
    assert code == 2 and "--label must be given once per --database, found 1 for 2" in error
