"""Corrupted queries: recorded like any other setting, gone on with only if equal, and severity 0 is the plain run."""

from pathlib import Path

import numpy as np
import pytest

from ultron_cli.datasets.corruptions import Corruption, parse_corruption
from ultron_cli.errors import UltronError
from ultron_cli.models.weights.model_choice import ModelChoice
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.retrieval.extraction.dataset import ExtractRequest, extract_dataset
from ultron_cli.workspace import Workspace

CHOICE = ModelChoice(untrained=True, model="gem", settings={"backbone": "test_resnet"})


def extract(toy: Path, out: Path, text: str, n_workers: int = 0, batch_size: int = 8) -> tuple[np.ndarray, np.ndarray]:
    request = ExtractRequest(
        dataset=str(toy),
        out=out,
        scales=(1.0,),
        max_side_px=64,
        n_workers=n_workers,
        batch_size=batch_size,
        corruption=parse_corruption(text),
    )
    extract_dataset(request, CHOICE, "cpu", Workspace(root=out.parent / "runs"))
    with DescriptorFile(out / "queries.h5") as queries, DescriptorFile(out / "database.h5") as database:
        return queries.read(), database.read()


def test_queries_alone_are_corrupted_and_severity_0_is_the_plain_run(toy: Path, tmp_path: Path) -> None:
    plain = extract(toy, tmp_path / "plain", "none")
    least = extract(toy, tmp_path / "least", "noise:0")
    worse = extract(toy, tmp_path / "worse", "noise:3", batch_size=1)
    assert (
        np.array_equal(plain[0], least[0]) and np.array_equal(plain[1], least[1]) and np.array_equal(plain[1], worse[1])
    )
    assert (np.linalg.norm(plain[0] - worse[0], axis=1) > 1e-3).all()
    again = extract(toy, tmp_path / "again", "noise:3", batch_size=1)  # whatever was drawn before
    assert np.array_equal(worse[0], again[0])


def test_a_corruption_is_recorded_and_binds(toy: Path, tmp_path: Path) -> None:
    extract(toy, tmp_path / "d", "jpeg:3")
    with (
        DescriptorFile(tmp_path / "d" / "queries.h5") as queries,
        DescriptorFile(tmp_path / "d" / "database.h5") as database,
    ):
        assert queries.info.extraction.stored["corruption"] == {"kind": "jpeg", "severity": 3, "seed": 0}
        assert queries.info.extraction.corruption == "jpeg 3" and database.info.extraction.corruption is None
        assert "queries corrupted by jpeg 3" in queries.info.extraction.protocol_text()
    with pytest.raises(UltronError, match=r"another configuration: corruption.severity \(stored 3, asked 4\)"):
        extract(toy, tmp_path / "d", "jpeg:4")
    with pytest.raises(UltronError, match="moves boxes, to which queries are not cropped"):
        ExtractRequest(dataset=str(toy), crop="none", corruption=Corruption(kind="box", severity=1))
