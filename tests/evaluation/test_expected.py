"""Published numbers beside measured ones."""

from dataclasses import replace

import pytest

from ultron_cli.datasets.download.catalog import KNOWN_SETS
from ultron_cli.evaluation.expected import comparison, comparison_text, find_published
from ultron_cli.evaluation.published import PUBLISHED
from ultron_cli.evaluation.result import Evaluation
from ultron_cli.retrieval.origin import ExtractionRecord, Origin, WhiteningRecord


def evaluation(model: str = "dolg-r101", n_database: int = 4993, **origin: object) -> Evaluation:
    config = {"crop": "bbx", "scales": [0.3535, 0.5, 0.7071, 1.0, 1.4142]}
    provenance = {"model": model, "config": config, "weights": {"kind": "checkpoint", "path": "dolg.pt"}} | origin
    protocols = {
        name: {"mAP": value, "ap": {}} for name, value in (("easy", 0.9), ("medium", 0.8137), ("hard", 0.6593))
    }
    content = {"dataset": "roxford5k", "n_database": n_database, "protocols": protocols, "provenance": provenance}
    return Evaluation.from_json(content)


def test_beside_the_published_number() -> None:
    published = comparison(evaluation()).to_json()
    assert published["protocols"]["medium"] == {
        "ours": pytest.approx(81.37),
        "published": 82.37,
        "difference": pytest.approx(-1.0),
    }
    assert published["protocols"]["hard"]["difference"] == pytest.approx(1.0)
    assert "easy" not in published["protocols"]  # not published
    assert published["differs"] == ["weights are dolg.pt: whether they are the published ones only you know"]


def test_what_differs_is_said() -> None:
    compared = comparison(
        evaluation(config={"crop": "none", "scales": [1.0]}, search={"rerank": [{"name": "aqe"}], "kind": "ivf"})
    )
    assert compared.row == "dolg-r101-uncropped/roxford5k"  # the row that is most alike
    assert list(compared.differs[:3]) == [
        "1 scale where 5 are published",
        "re-ranked by aqe",
        "searched with an approximate index (ivf)",
    ]


def test_a_whitened_score_is_called_whitened() -> None:
    """Under the key that every writer writes; another was read once, so that it never was."""
    record = WhiteningRecord(method="pca-whitening", dim=256, sha256="0" * 64)
    whitened = ExtractionRecord(stored={"crop": "bbx", "scales": [0.3535, 0.5, 0.7071, 1.0, 1.4142]}).whitened(record)
    differs = comparison(evaluation(**Origin(extraction=whitened).to_json())).differs
    assert differs[0] == "whitened (pca-whitening to 256-d)"


def test_distractors_have_rows_of_their_own() -> None:
    assert comparison(evaluation(n_database=4993 + 1_001_001)).protocols["medium"].published == 73.63
    assert find_published("gem-resnet50", "rparis6k", 6322) == []
    assert find_published("dolg-r50", "toy", 100) == []
    assert len({(row.model, row.dataset, row.distractors, row.source) for row in PUBLISHED}) == len(PUBLISHED)


def gem(dataset: str, scales: list[float], whitening: str | None) -> Evaluation:
    record = ExtractionRecord(stored={"crop": "bbx", "scales": scales})
    if whitening:
        record = record.whitened(WhiteningRecord(method=whitening, dim=2048, sha256="0" * 64))
    return replace(evaluation("gem-resnet101", **Origin(extraction=record).to_json()), dataset=dataset)


def test_r101_gem_is_published_with_learned_whitening() -> None:
    """Of the PyTorch network, which is the one that can be imported, and of MatConvNet's."""
    scales = [1.0, 0.70710678, 0.5]
    for dataset, pytorch, matconvnet in (
        ("roxford5k", (65.4, 40.1), {"easy": 84.81, "medium": 64.67, "hard": 38.47}),
        ("rparis6k", (76.7, 55.2), {"easy": 92.12, "medium": 77.20, "hard": 56.32}),
    ):
        compared = comparison(replace(gem(dataset, scales, "lw"), n_database=KNOWN_SETS[dataset].n_database))
        assert tuple(compared.protocols[name].published for name in ("medium", "hard")) == pytorch
        assert "PyTorch" in compared.source and "easy" not in compared.protocols
        other, cited = compared.to_json()["also"]
        assert cited["row"] == f"gem-r101-cited/{dataset}"
        assert other["mAP"] == matconvnet and "MatConvNet" in other["source"]
        assert [text for text in compared.differs if not text.startswith("weights are")] == []
    assert "also published: easy 92.12, medium 77.20, hard 56.32 (R101-GeM" in comparison_text(compared)


@pytest.mark.parametrize(
    ("scales", "whitening", "differs"),
    [
        ([1.0, 0.7071, 0.5], None, "not whitened where whitening lw is published"),
        ([0.5, 1.0, 0.7071], "pca", "whitened (pca to 2048-d) where whitening lw is published"),
        ([0.7071, 1.0, 1.4142], "lw", "scales 0.7071, 1, 1.414 where 0.5, 0.7071, 1 are published"),
    ],
)
def test_another_whitening_and_other_scales_are_said(scales: list[float], whitening: str | None, differs: str) -> None:
    assert comparison(gem("roxford5k", scales, whitening)).differs[:-1] == (differs,)


def test_another_number_of_photos_is_said() -> None:
    differs = comparison(evaluation(n_database=40)).differs
    assert differs[0] == "40 photos searched where the dataset has 4,993"
    for n_database in (4993, 4993 + 1_001_001):
        assert not any("photos searched" in text for text in comparison(evaluation(n_database=n_database)).differs)


def test_queries_that_were_not_cropped_are_said() -> None:
    whole = gem("roxford5k", [1.0, 0.7071, 0.5], "lw")
    stored = {**whole.origin.extraction.stored, "crop": "none"}
    whole = replace(whole, origin=replace(whole.origin, extraction=ExtractionRecord(stored=stored)))
    compared = comparison(whole, PUBLISHED[[row.name for row in PUBLISHED].index("gem-r101-pytorch/roxford5k")])
    assert compared.differs[0] == "queries are not cropped to their box (whole queries score higher)"


def test_every_number_of_the_tables() -> None:
    """Each as its source has it: dataset, protocol, column."""
    row_of = {row.name: row for row in PUBLISHED}
    assert len(row_of) == len(PUBLISHED) == 70
    assert row_of["dolg-r50/roxford5k"].mAP == {"medium": 81.20, "hard": 62.55}
    assert row_of["dolg-r50-uncropped/rparis6k+1m"].mAP == {"medium": 82.16, "hard": 65.77}
    assert row_of["dolg-r101-first-table/rparis6k"].mAP == {"medium": 91.02, "hard": 80.30}
    assert row_of["delg-r101-reranked/roxford5k+1m"].mAP == {"medium": 69.10, "hard": 47.50}
    assert row_of["how-asmk-r50/rparis6k"].mAP == {"medium": 81.60, "hard": 62.40}
    assert row_of["gem-ap-r101/roxford5k"].mAP == {"medium": 67.5, "hard": 42.8}
    assert row_of["superglobal-r101-reranked/rparis6k"].mAP == {"hard": 86.7}
    token = row_of["token-r101/roxford5k+1m"]
    assert (token.mAP, token.reproduced[0].mAP) == ({"medium": 75.64}, {"medium": 70.58})
    plain = row_of["superglobal-r50/roxford5k+1m"]
    assert plain.mAP == {} and plain.reproduced[0].mAP == {"easy": 87.98, "medium": 73.13, "hard": 50.75}
    assert all(row.mAP or row.reproduced for row in PUBLISHED)


def test_re_ranked_rows_and_what_others_reproduced() -> None:
    config = {"crop": "bbx", "scales": [0.7071, 1.0, 1.4142]}
    steps = {"rerank": [{"name": "superglobal"}]}
    reranked = comparison(evaluation("superglobal-resnet101", config=config, search=steps))
    assert reranked.row == "superglobal-r101-reranked/roxford5k" and reranked.protocols["hard"].published == 80.2
    assert len(reranked.differs) == 1  # the weights, which only a person knows
    plain = comparison(evaluation("superglobal-resnet101", config=config))
    assert plain.differs[0] == "not re-ranked where re-ranking by superglobal is published"
    million = comparison(evaluation("superglobal-resnet50", 4993 + 1_001_001, config=config))
    assert "reproduced by others: easy 87.98, medium 73.13, hard 50.75 (github.com/Shihao" in comparison_text(million)
    assert million.to_json()["reproduced"][0]["mAP"]["hard"] == 50.75


def test_text_for_people() -> None:
    lines = comparison_text(comparison(evaluation())).splitlines()
    assert lines[0] == "medium: ours 81.37, published 82.37 (-1.00)"
    assert lines[2].startswith("published: Yang et al., ICCV 2021")
    assert "nothing is published" in comparison_text(comparison(evaluation(model="gem-resnet18")))
