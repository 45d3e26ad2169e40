"""What is said and refused when descriptors come in: names, missing photos, rows without a direction, several files."""

import hashlib
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.retrieval.exchange.descriptors.sets_for_tests import DIM, PHOTOS, QUERIES, Vectors, make_vectors
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.evaluate import evaluate_ranking
from ultron_cli.evaluation.expected import PUBLISHED, differences_from
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.retrieval.exchange.descriptors.exporting import export_descriptors
from ultron_cli.retrieval.exchange.descriptors.importing import DescriptorImport, Imported, import_descriptors
from ultron_cli.retrieval.origin import Origin
from ultron_cli.retrieval.searching import search_files


@pytest.fixture
def vectors(tmp_path: Path) -> Vectors:
    return make_vectors(tmp_path)


def pickled(vectors: Vectors, rows: dict[str, np.ndarray], name: str = "x.pickle") -> Path:
    (vectors.folder / name).write_bytes(pickle.dumps(rows))
    return vectors.folder / name


def imported(vectors: Vectors, *paths: Path, **settings: object) -> Imported:
    request = DescriptorImport(paths=paths, gnd=vectors.gnd, out=vectors.folder / "out", overwrite=True)
    return import_descriptors(replace(request, **settings))  # type: ignore[arg-type]


def refusal(vectors: Vectors, *paths: Path, **settings: object) -> str:
    with pytest.raises(UltronError) as raised:
        imported(vectors, *paths, **settings)
    return str(raised.value)


def test_the_origin_tells_files_and_what_was_said_of_them(vectors: Vectors) -> None:
    path = pickled(vectors, vectors.by_name())
    imported(vectors, path, model="dolg-r101", crop="bbx", scales=(0.5, 1.0))
    files = [vectors.folder / "out" / f"{role}.h5" for role in ("queries", "database")]
    with DescriptorFile(files[0]) as file:
        (record,) = file.info.extraction.imported
        assert file.info.extraction.model_name is None and file.info.model == "dolg-r101"
        assert file.info.provenance.ground_truth == str(vectors.gnd) and file.info.dataset == "roxford5k"
    assert record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (record.path, record.format) == (str(path), "dolg")
    ranking = search_files(*files, None, "cpu")
    facts = ranking.origin.facts()
    assert facts["descriptors imported"] == f"{path} (dolg)" and facts["crop of queries"] == "bbx"
    assert facts["search"] == "exact" and "runtime of the network" not in facts
    assert Origin.from_json(json.loads(json.dumps(ranking.origin.to_json()))) == ranking.origin
    evaluation = evaluate_ranking(ranking, vectors.gnd)
    assert f"queries cropped, 2 scales, descriptors imported from {path}" in evaluation.how_text()
    (row, *_) = [row for row in PUBLISHED if row.model == "dolg-r101"]
    assert any("2 scales where 5 are published" in text for text in differences_from(row, ranking.origin))
    imported(vectors, path)
    origin = search_files(*files, None, "cpu").origin
    assert origin.extraction.protocol_text().startswith("crop of queries unknown, scales unknown, descriptors imported")
    phrases = differences_from(row, origin)
    assert "whether queries were cropped is not known" in phrases
    assert "scales are not known" in phrases


def test_missing_and_surplus_photos(vectors: Vectors, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ultron")
    rows = vectors.by_name(".JPG")
    del rows[f"{PHOTOS[3]}.JPG"], rows[f"{QUERIES[1]}.JPG"]
    path = pickled(vectors, {**rows, "elsewhere.jpg": vectors.queries[0]})
    assert "1 query (query_1) and 1 photo (all_souls_000003) of the ground truth not in " in refusal(vectors, path)
    assert not (vectors.folder / "out" / "database.h5").exists()
    result = imported(vectors, path, allow_missing=True)
    assert (result.n, result.n_missing, result.n_surplus) == ({"query": 5, "database": 39}, 2, 1)
    assert "1 photo of" in caplog.text and "as the ground truth has none of that name: elsewhere.jpg" in caplog.text
    ranking = search_files(*result.files.values(), None, "cpu")
    assert {photo.name for photo in ranking.origin.skipped} == {PHOTOS[3], QUERIES[1]}
    assert len(evaluate_ranking(ranking, vectors.gnd).protocols["medium"].ap) == 5
    folders = {f"set/{name.upper()}": row for name, row in vectors.by_name(".png").items()}
    assert imported(vectors, pickled(vectors, folders)).n_missing == 0
    assert ": 46 in other case" in caplog.text
    strangers = pickled(vectors, {"a": vectors.queries[0], "b": vectors.queries[1]})
    assert "not one of 2 photos in" in refusal(vectors, strangers)


def test_rows_become_unit_vectors(vectors: Vectors) -> None:
    rng = np.random.default_rng(1)
    scale = {name: np.float32(rng.uniform(0.5, 2)) for name in vectors.by_name()}
    rows = {name: row * scale[name] for name, row in vectors.by_name().items()}
    rows[PHOTOS[0]] = rows[PHOTOS[0]].astype(np.float32) * np.float32(1e30)
    rows[PHOTOS[1]] = rows[PHOTOS[1]].astype(np.float32) * np.float32(1e-30)
    result = imported(vectors, pickled(vectors, rows))
    assert result.n_made_unit == 46 and result.longest > 1e29 and result.shortest < 1e-29
    with DescriptorFile(result.files["database"]) as file:
        np.testing.assert_allclose(file.read(), vectors.database, atol=3e-7)


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "row 7 (all_souls_000004) has only zeros"), (np.nan, "has NaN or infinity"), (np.inf, "has NaN or infinity")],
)
def test_rows_without_a_direction_are_named(vectors: Vectors, value: float, words: str) -> None:
    names = [*PHOTOS[5:12], PHOTOS[4]]
    rows = {name: np.ones(DIM, np.float32) for name in [*names, *(set(PHOTOS) - set(names)), *QUERIES]}
    rows[PHOTOS[4]] = np.full(DIM, value, np.float32)
    assert words in refusal(vectors, pickled(vectors, rows))
    assert not list((vectors.folder / "out").glob("*.h5"))


def test_arrays_without_names(vectors: Vectors) -> None:
    queries, database = vectors.folder / "1.npy", vectors.folder / "2.npy"
    np.save(queries, vectors.queries)
    np.save(database, vectors.database)
    assert imported(vectors, database, queries).n == {"query": 6, "database": 40}
    np.save(database, vectors.database.T)
    assert "it may have its axes the wrong way round (24 x 40)" in refusal(vectors, database)
    np.save(database, vectors.database[:20])
    assert "has 20 rows without names, and the ground truth 40 photos and 6 queries; name the rows" in refusal(
        vectors, database
    )
    everything = pickled(vectors, vectors.by_name())
    assert f"'query_0' stands in {everything} and in {queries}; leave one file out" in refusal(
        vectors, everything, queries
    )
    names = vectors.folder / "names.json"
    names.write_text(json.dumps([*QUERIES, *PHOTOS[:20]]))
    result = imported(vectors, queries, database, names=[names], allow_missing=True)
    assert result.n == {"query": 6, "database": 20}
    assert "has 26 names" in refusal(vectors, queries, names=[names])
    assert "must be one list for all rows of" in refusal(vectors, queries, database, names=[names, names, names])
    assert "names its photos; leave `names` out" in refusal(vectors, pickled(vectors, vectors.by_name()), names=[names])
    truth = json.loads(vectors.gnd.read_text())
    truth |= {"imlist": truth["imlist"][:6], "gnd": [{"easy": [0], "hard": [], "junk": []}] * 6}
    vectors.gnd.write_text(json.dumps(truth))
    assert "say which with `role`" in refusal(vectors, queries)
    assert imported(vectors, queries, role="database", allow_missing=True).n == {"database": 6}


def test_without_a_ground_truth_all_are_a_database(vectors: Vectors, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ultron")
    path = vectors.folder / "million.npy"
    np.save(path, vectors.database.astype(np.float16))
    result = imported(vectors, path, gnd=None)
    assert (result.n, result.storage) == ({"database": 40}, "float16")
    with DescriptorFile(result.files["database"]) as file:
        assert file.names[:2] == ["million/0", "million/1"] and file.dtype == np.float16
    assert "they are called million/0, million/1 ..." in caplog.text
    shards = [pickled(vectors, {name: row}, f"{name}.pkl") for name, row in list(vectors.by_name().items())[:3]]
    assert imported(vectors, *shards, gnd=None, role="query").n == {"query": 3}
    assert not (vectors.folder / "out" / "database.h5").exists()  # of the import before
    assert "stands in" in refusal(vectors, shards[0], pickled(vectors, vectors.by_name()), gnd=None)
    np.savez(vectors.folder / "x.npz", database=vectors.database, database_names=np.array(PHOTOS))
    assert "'all_souls_" in refusal(vectors, shards[0], vectors.folder / "x.npz", gnd=None)  # of no role, and of one
    other = pickled(vectors, {"z": np.ones(3, np.float32)})
    assert "of 3 numbers" in refusal(vectors, shards[0], other, gnd=None)


def test_what_is_there_is_not_replaced_unasked(vectors: Vectors) -> None:
    path = pickled(vectors, vectors.by_name())
    imported(vectors, path)
    assert "has queries.h5 and database.h5 already; name another folder" in refusal(vectors, path, overwrite=False)


def test_a_query_that_is_in_the_database_too(vectors: Vectors) -> None:
    truth = json.loads(vectors.gnd.read_text())
    vectors.gnd.write_text(json.dumps({**truth, "qimlist": PHOTOS[:6]}))
    result = imported(vectors, pickled(vectors, vectors.by_name()))
    assert (result.n, result.n_surplus) == ({"query": 6, "database": 40}, 6)
    with pytest.raises(UltronError, match="'all_souls_000000' is a query and in the database too"):
        export_descriptors(list(result.files.values()), vectors.folder / "x.pickle", "dolg")


def test_names_of_ilias_are_unescaped(vectors: Vectors) -> None:
    truth = json.loads(vectors.gnd.read_text())
    vectors.gnd.write_text(json.dumps({**truth, "imlist": ["caf\u00e9/1", *PHOTOS[1:]]}))
    rows = vectors.by_name()
    rows["caf#U00e9/1"] = rows.pop(PHOTOS[0])
    assert imported(vectors, pickled(vectors, rows)).n_missing == 0


@pytest.mark.parametrize(
    ("name", "roles", "words"),
    [
        ("csv", "both", "csv holds one descriptor file, found 2; export them one by one, or name another"),
        ("dolg", "twice", "dolg holds queries and database; found "),
        ("hloc", "odd", "hloc needs a name in UTF-8 that is a relative path, .*; found '/a'"),
        ("npy", "odd lines", r"npy needs a name in UTF-8 on one line .*; found 'a\\nb'"),
        ("revisitop", "odd", "has not the photos of .* in their order"),
    ],
)
def test_what_a_format_cannot_carry(vectors: Vectors, name: str, roles: str, words: str) -> None:
    odd = {"odd": "/a", "odd lines": "a\nb"}.get(roles, "a")
    truth = json.loads(vectors.gnd.read_text())
    vectors.gnd.write_text(json.dumps({**truth, "imlist": [odd, *PHOTOS[1:]]}))
    rows = vectors.by_name()
    rows[odd] = rows.pop(PHOTOS[0])
    files = imported(vectors, pickled(vectors, rows)).files
    vectors.gnd.write_text(json.dumps(truth))
    paths = [files["query"], files["database"]] if roles == "both" else [files["database"]] * (1 + (roles == "twice"))
    with pytest.raises(UltronError, match=words):
        export_descriptors(paths, vectors.folder / "out.x", name)
