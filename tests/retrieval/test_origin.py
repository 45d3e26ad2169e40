"""What made two results, compared in words."""

from dataclasses import replace

import pytest

from ultron_cli.retrieval.origin import (
    DistractorRecord,
    ExtractionRecord,
    Origin,
    SearchRecord,
    SkippedPhoto,
    StepRecord,
    WeightsSource,
)

EXTRACTION: dict[str, object] = {
    "role": "query",
    "crop": "bbx",
    "scales": [0.7071, 1.0, 1.4142],
    "max_side_px": 1024,
    "resize": "down",
    "precision": "float32",
    "storage": "float32",
    "model": {"name": "gem", "settings": {"p": 3.0}},
    "preprocessing": {"mean": [0.5, 0.5, 0.5]},
    "weights_sha256": "aa",
    "photos_sha256": "bb",
}
A = Origin(
    dataset="toy",
    model="gem-resnet50",
    weights_sha256="aa",
    weights=WeightsSource.from_json({"kind": "checkpoint", "path": "a.pt"}),
    ground_truth="gnd.json",
    extraction=ExtractionRecord(stored=EXTRACTION),
    search=SearchRecord(),
    k=48,
    duplicates="count",
    evaluated_by={"ultron_version": "1", "packages": {"numpy": "2"}, "created": "then"},
)


def extracted(**settings: object) -> Origin:
    return replace(A, extraction=ExtractionRecord(stored={**EXTRACTION, **settings}))


def searched(**how: object) -> Origin:
    return replace(A, search=SearchRecord(**how))  # type: ignore[arg-type]  # fields by name


AQE = StepRecord(name="aqe", settings={"n": 10, "alpha": 3.0}, ms_per_query=1.0)
CHANGES = {
    "runtime": (extracted(runtime="openvino"), ["runtime of the network: A torch, B openvino"]),
    "runtime of released files": (extracted(runtime="torch"), []),
    "re-ranking": (
        searched(steps=(AQE,)),
        ["re-ranking: A none, B aqe", "aqe.n: A none, B 10", "aqe.alpha: A none, B 3"],
    ),
    "k": (replace(A, k=5), ["photos ranked per query: A 48, B 5"]),
    "index": (
        searched(method="index", kind="ivf", settings={"nprobe": 8}),
        ["search: A exact, B index ivf", "index nprobe: A none, B 8"],
    ),
    "distractors": (
        replace(A, distractors=(DistractorRecord(path="r1m.h5", n=1001, dataset="r1m"),)),
        ["distractors: A none, B r1m.h5 (1,001 photos)"],
    ),
    "whitening": (
        extracted(whitening={"method": "lw", "dim": 8, "sha256": "cc"}),
        [
            "whitening: A none, B lw to 8-d",
            "whitening.method: A none, B lw",
            "whitening.dim: A none, B 8",
            "whitening (SHA-256): A none, B cc",
        ],
    ),
    "scales": (extracted(scales=[1.0]), ["scales: A 0.7071, 1, 1.4142, B 1"]),
    "side": (extracted(max_side_px=None), ["longest side in pixels: A 1024, B none"]),
    "crop": (extracted(crop="none"), ["crop of queries: A bbx, B none"]),
    "setting": (
        extracted(model={"name": "gem", "settings": {"p": 4.0}}),
        ["model.settings.p: A 3, B 4"],
    ),
    "weights": (
        replace(A, weights_sha256="dd", weights=WeightsSource.from_json({"kind": "checkpoint", "path": "b.pt"})),
        ["weights: A a.pt, B b.pt", "weights (SHA-256): A aa, B dd"],
    ),
    "repeats": (replace(A, duplicates="first"), ["photos that a ranking repeats: A count, B first"]),
    "left out": (
        replace(A, skipped=(SkippedPhoto(name="x", reason="empty"),)),
        ["photos left out: A none, B x"],
    ),
    "ground truth": (replace(A, ground_truth="other.json"), ["ground truth: A gnd.json, B other.json"]),
    "versions": (
        replace(A, evaluated_by={"ultron_version": "2", "packages": {"numpy": "2"}, "created": "now"}),
        ["evaluated with ultron: A 1, B 2"],
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_difference_is_told(change: str) -> None:
    b, phrases = CHANGES[change]
    assert A.differences(b) == phrases
    assert sorted(phrase.split(":")[0] for phrase in b.differences(A)) == sorted(
        phrase.split(":")[0] for phrase in phrases
    )


def test_the_same_result_differs_in_nothing_even_through_a_file() -> None:
    assert A.differences(A) == []
    for b, _ in CHANGES.values():
        assert b.differences(Origin.from_json(b.to_json())) == []


def test_times_and_commands_are_no_differences() -> None:
    slower = replace(AQE, ms_per_query=9.0)
    assert searched(steps=(AQE,)).differences(searched(steps=(slower,))) == []
    assert A.differences(replace(A, searched_by={"ultron_version": "1", "created": "x"})) == []


def test_queries_are_named_only_where_there_are_some() -> None:
    assert EXTRACTION["crop"] == "bbx" and "queries cropped" in A.extraction.protocol_text()
    of_database = ExtractionRecord(stored={**EXTRACTION, "role": "database", "crop": "none"})
    assert of_database.protocol_text() == "3 scales, longest side 1024 px"
    whole_queries = ExtractionRecord(stored={**EXTRACTION, "crop": "none"})
    assert whole_queries.protocol_text().startswith("queries NOT cropped")


def test_conditions_leave_out_the_system_and_keep_how_it_was_evaluated() -> None:
    whitened = {"method": "pca", "dim": 8, "sha256": "cc"}
    other = extracted(model={"name": "ultron-s"}, weights_sha256="dd", preprocessing={}, whitening=whitened)
    other = replace(other, model="ultron-s", weights_sha256="dd", weights=None, evaluated_by=None)
    again = extracted(whitening={**whitened, "sha256": "ee"})
    assert other.conditions() == again.conditions()
    assert other.conditions()["whitening"] == "pca to 8-d" and other.conditions()["crop of queries"] == "bbx"
    assert replace(again, k=5).conditions() != again.conditions()
