"""Curves of robustness: the same bytes again, and no more systems than lines that are told apart."""

from pathlib import Path

import pytest

from ultron_cli.errors import UltronError
from ultron_cli.visualization.curves.robustness import RobustnessCurve, Score, robustness_figure


def curves(n_systems: int) -> list[RobustnessCurve]:
    return [
        RobustnessCurve(
            system=f"system {i} $x$",
            kind=kind,
            scores={0: Score(mAP=0.7, interval=(0.5, 0.9)), severity: Score(mAP=0.2, interval=(0.1, 0.4))},
        )
        for i in range(n_systems)
        for kind, severity in (("blur", 5), ("box", 1), ("jpeg", 3))
    ]


def test_the_picture_is_the_same_each_time(tmp_path: Path) -> None:
    paths = [robustness_figure(curves(2), "medium", "x", tmp_path / name) for name in ("a.svg", "b.svg")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with pytest.raises(UltronError, match="takes up to 14 systems; found 15"):
        robustness_figure(curves(15), "medium", "x", tmp_path / "c.png")
