"""The picture of mAP against costs: which systems none beats, and what is drawn of them."""

from pathlib import Path

import pytest
from PIL import Image

from ultron_cli.visualization.curves.pareto import ParetoPoint, front, pareto_figure


@pytest.mark.parametrize(
    ("points", "members"),
    [
        ([(1.0, 0.5)], [0]),
        ([(1.0, 0.5), (2.0, 0.4)], [0]),  # worse and dearer
        ([(2.0, 0.6), (1.0, 0.5)], [1, 0]),  # by cost
        ([(1.0, 0.5), (1.0, 0.6), (3.0, 0.6)], [1]),  # equal in one and beaten in the other
        ([(1.0, 0.5), (1.0, 0.5)], [0]),
        ([(4.0, 0.9), (1.0, 0.2), (2.0, 0.1), (3.0, 0.3)], [1, 3, 0]),
    ],
)
def test_the_front_is_what_no_other_beats(points: list[tuple[float, float]], members: list[int]) -> None:
    assert front(points) == members


@pytest.mark.parametrize("n", [1, 2, 40])
def test_a_picture_of_any_number_of_cells(tmp_path: Path, n: int) -> None:
    points = [
        ParetoPoint(
            letter=chr(65 + i % 26),
            label=f"cell {i} $x$ \udce9",
            mAP=(i + 1) / (n + 1),
            interval=(i / (n + 1), 1.0),
            ms_per_query=0.1 * (i + 1) ** 2,
            bytes_per_photo=4096,
        )
        for i in range(n)
    ]
    first = pareto_figure(points, "medium", "What mAP costs", tmp_path / "a.png").read_bytes()
    assert first == pareto_figure(points, "medium", "What mAP costs", tmp_path / "b.png").read_bytes()
    assert Image.open(tmp_path / "a.png").width > 800
