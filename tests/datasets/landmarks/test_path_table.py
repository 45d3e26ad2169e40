"""Texts in one block."""

import numpy as np

from ultron_cli.datasets.landmarks.path_table import Texts


def test_texts() -> None:
    texts = Texts.of(["", "ä/b.jpg", "c"])
    assert list(texts) == ["", "ä/b.jpg", "c"]
    assert list(texts.take(np.array([2, 0]))) == list(Texts.of(["c", ""]))
    assert texts.take(np.array([2, 0])).sha256() == Texts.of(["c", ""]).sha256() != Texts.of(["", "c"]).sha256()
    assert Texts.of(["ab", "c"]).sha256() != Texts.of(["a", "bc"]).sha256()
    assert list(Texts.of([])) == []
