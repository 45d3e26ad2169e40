"""Index folders from strangers, and factory strings that Faiss refuses or crashes at: one line, and no memory for what
a file only declares."""

import re
import resource
import struct
from pathlib import Path

import numpy as np
import pytest

from tests.mutations import mutated
from tests.retrieval.rows_for_tests import INFO, unit_rows
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.descriptors import write_descriptors
from ultron_cli.retrieval.index.building import build_index
from ultron_cli.retrieval.index.opening import open_index
from ultron_cli.retrieval.index.soundness import is_sound_graph, unsound_part

faiss = pytest.importorskip("faiss")
N, DIM = 200, 8
QUERIES = unit_rows(5, 3, DIM)


def write(path: Path, n: int, dim: int = DIM) -> Path:
    write_descriptors(path, [f"{i}" for i in range(n)], [unit_rows(1, n, dim)], dim, INFO)
    return path


@pytest.fixture(scope="module")
def descriptors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("index") / "database.h5", N)


def outcome(folder: Path) -> str:
    """`searched`, or what is said."""
    try:
        ranked = open_index(folder).search(QUERIES, 5)
    except UltronError as error:
        assert str(error).isprintable()
        return str(error)
    assert ranked.rows.max() < N
    return "searched"


@pytest.mark.parametrize(
    "kind", ["flat", "IVF4,SQ8", "IVF4,PQ4x4np", "OPQ4,IVF4,PQ4x4np", "HNSW8,SQfp16", "IDMap,Flat", "PQ4x4fs"]
)
def test_bytes_changed_at_random(descriptors, tmp_path, kind):
    folder = tmp_path / "a.index"
    build_index(descriptors, folder, kind=kind)
    path = folder / "index.faiss"
    outcomes = []
    for content in mutated(path.read_bytes(), 11, 40):
        path.write_bytes(content)
        outcomes.append(outcome(folder))
    assert len(set(outcomes)) > 1


def peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("kind", ["flat", "IVF4,SQ8", "HNSW8,SQfp16"])
def test_what_an_index_declares_must_be_in_its_file(descriptors, tmp_path, kind):
    folder = tmp_path / "a.index"
    build_index(descriptors, folder, kind=kind)
    path = folder / "index.faiss"
    content = path.read_bytes()
    before_bytes = peak_bytes()
    n_refused = 0
    for place in range(4, len(content) - 8, max(1, len(content) // 60)):
        path.write_bytes(content[:place] + struct.pack("<q", 1 << 33) + content[place + 8 :])
        n_refused += outcome(folder) != "searched"
    path.write_bytes(content[:147])
    assert "cannot be read" in outcome(folder)
    assert n_refused > 0
    assert peak_bytes() - before_bytes < 600 << 20


def test_an_index_without_a_part_or_with_one_of_another_size(descriptors, tmp_path):
    """Faiss searches what a file has said, and crashes where that is not there."""
    folder = tmp_path / "a.index"
    path = folder / "index.faiss"
    of_other_size = faiss.IndexFlatIP(DIM)
    of_other_size.add(unit_rows(1, 3, DIM))
    for kind, name in (
        ("PCA8,Flat", "index"),
        ("OPQ4,IVF4,PQ4x4np", "index"),
        ("IVF4,Flat", "quantizer"),
        ("HNSW8,Flat", "storage"),
    ):
        build_index(descriptors, folder, kind=kind, overwrite=True)
        content = path.read_bytes()
        whole = faiss.read_index(str(path))  # which holds its parts
        part = faiss.serialize_index(faiss.downcast_index(getattr(whole, name))).tobytes()
        assert part in content
        path.write_bytes(content.replace(part, b"null"))
        assert f"cannot be searched: its part {name} is missing" in outcome(folder)
        path.write_bytes(content.replace(part, faiss.serialize_index(of_other_size).tobytes()))
        assert re.search(f"its part {name} must hold|cannot be read", outcome(folder))  # Faiss sees some of it itself
    path.write_bytes(b"null")
    assert "holds no index" in outcome(folder)
    step, flat = faiss.RandomRotationMatrix(DIM, DIM), faiss.IndexFlatIP(DIM)
    transformed = faiss.IndexPreTransform(step, flat)
    assert unsound_part(faiss, transformed) is None
    step.d_in = 5
    assert unsound_part(faiss, transformed) == "its transforms take and give [(5, 8)] dimensions, of 8"


def leaves_its_rows(hnsw: object, n_rows: int) -> bool:
    """Whether some link of an HNSW graph leads to no row, or to one below the level of the link: each looked at."""
    levels, offsets, links, starts = (
        faiss.vector_to_array(getattr(hnsw, name)).tolist()
        for name in ("levels", "offsets", "neighbors", "cum_nneighbor_per_level")
    )
    for row in range(n_rows):
        for level in range(levels[row]):
            for link in links[offsets[row] + starts[level] : offsets[row] + starts[level + 1]]:
                if link != -1 and not (0 <= link < n_rows and levels[link] > level):
                    return True
    return False


def test_a_graph_that_leads_out_of_its_rows():
    """A walk of Faiss follows every link; where one led to a row without that level, Faiss crashed."""
    index = faiss.index_factory(DIM, "HNSW4", faiss.METRIC_INNER_PRODUCT)
    index.add(unit_rows(1, N, DIM))
    graph = index.hnsw
    links, draws = faiss.vector_to_array(graph.neighbors), np.random.default_rng(0)
    outcomes = []
    for _ in range(200):
        changed = links.copy()
        changed[draws.integers(len(links))] = draws.choice([-2, -1, N, draws.integers(N)])
        faiss.copy_array_to_vector(changed, graph.neighbors)
        outcomes.append(is_sound_graph(faiss, graph, N))
        assert outcomes[-1] != leaves_its_rows(graph, N)
    assert 20 < sum(outcomes) < 180
    faiss.copy_array_to_vector(links, graph.neighbors)
    assert unsound_part(faiss, index) is None
    for name, value in (("max_level", graph.max_level + 1), ("max_level", -1), ("entry_point", N), ("entry_point", -1)):
        before = getattr(graph, name)
        setattr(graph, name, value)
        assert unsound_part(faiss, index) == "its graph leads to rows or levels that it does not have"
        setattr(graph, name, before)
    for name in ("levels", "offsets", "cum_nneighbor_per_level", "neighbors"):
        vector = getattr(graph, name)
        before = faiss.vector_to_array(vector)
        for changed in (before[:1], before + 1):
            faiss.copy_array_to_vector(changed, vector)
            assert not is_sound_graph(faiss, graph, N)
        faiss.copy_array_to_vector(before, vector)


def test_codes_and_transforms_that_do_not_fit():
    rows = unit_rows(1, N, DIM)
    scanned = faiss.index_factory(DIM, "PQ4x4fs", faiss.METRIC_INNER_PRODUCT)
    scanned.train(rows)
    scanned.add(rows)
    assert unsound_part(faiss, scanned) is None
    with_factors = faiss.index_factory(DIM, "RaBitQfs", faiss.METRIC_INNER_PRODUCT)  # beside the codes of each group
    with_factors.train(rows)
    with_factors.add(rows)
    assert unsound_part(faiss, with_factors) is None
    scanned.ntotal2 = 1 << 40
    assert "its codes must be of 224 rows in groups of 32, found 1099511627776" in unsound_part(faiss, scanned)
    scanned.bbs = 0
    assert "rows in groups of 0" in unsound_part(faiss, scanned)
    coded = faiss.index_factory(DIM, "SQ8", faiss.METRIC_INNER_PRODUCT)
    coded.train(rows)
    coded.add(rows)
    coded.code_size = 4096
    assert unsound_part(faiss, coded) == f"its codes must be {4096 * N} bytes, found {DIM * N}"
    padded = faiss.index_factory(DIM, "Pad16,Flat", faiss.METRIC_INNER_PRODUCT)
    step = faiss.downcast_VectorTransform(padded.chain.at(0))
    assert unsound_part(faiss, padded) is None
    faiss.copy_array_to_vector(np.array([*range(15), 1 << 24], np.int32), step.map)
    assert unsound_part(faiss, padded) == "its transform takes other dimensions than the 8 that there are"


def test_an_index_of_another_metric_or_none(descriptors, tmp_path):
    folder = tmp_path / "a.index"
    build_index(descriptors, folder)
    of_distances = faiss.IndexFlatL2(DIM)
    of_distances.add(unit_rows(1, N, DIM))
    faiss.write_index(of_distances, str(folder / "index.faiss"))
    assert "must be a trained index of inner products" in outcome(folder)
    (folder / "index.faiss").unlink()
    assert "does not exist" in outcome(folder)
    (folder / "index.faiss").symlink_to("/dev/zero")
    assert "must be a file" in outcome(folder)


def test_an_index_over_the_memory_budget(descriptors, tmp_path, monkeypatch):
    build_index(descriptors, tmp_path / "a.index")
    monkeypatch.setattr("ultron_cli.memory.memory_budget", lambda: 1000)
    assert "more than the 1,000 B" in outcome(tmp_path / "a.index") or "of memory" in outcome(tmp_path / "a.index")


@pytest.mark.parametrize(
    ("kind", "n", "words"),
    [
        ("opq-ivfpq", 7, "OPQ to 8 dimensions needs 8 at least"),
        ("OPQ4,PQ4x2", 5, "OPQ to 8 dimensions needs 8 at least"),
        ("OPQ2_6,PQ2x2", 5, "OPQ to 6 dimensions needs 6 at least"),
        ("OPQ4,IVF2,PQ4x4np", 9, "a product quantizer of 16 centroids needs 16 at least"),
        ("PCA8,Flat", 7, "PCA to 8 dimensions needs 8 at least"),
        ("PCAR4,SQ8", 3, "PCA to 4 dimensions needs 4 at least"),
        ("PCAW4,IVF2,Flat", 3, "PCA to 4 dimensions needs 4 at least"),
        ("IVF20,Flat", 19, "an inverted file of 20 cells needs 20 at least"),
        ("IVF20_HNSW8,SQ8", 19, "an inverted file of 20 cells needs 20 at least"),
        ("IVF2,PQ4x5", 31, "a product quantizer of 32 centroids needs 32 at least"),
        ("PQ4x4fs", 15, "a product quantizer of 16 centroids needs 16 at least"),
        ("RQ2x2", 7, "a residual quantizer of 8 dimensions needs 8 at least"),
        ("ivfpq", 1, "needs 2 at least"),
    ],
)
def test_too_few_photos_to_learn_from_are_said_before(tmp_path, kind, n, words):
    with pytest.raises(UltronError) as caught:
        build_index(write(tmp_path / "d.h5", n), tmp_path / "a.index", kind=kind)
    assert f"cannot learn from {n} descriptors" in str(caught.value)
    assert words in str(caught.value)
    assert not (tmp_path / "a.index").exists()


@pytest.mark.parametrize(("kind", "n"), [("opq-ivfpq", 8), ("OPQ2_6,PQ2x2", 6), ("PCA8,Flat", 8), ("IVF20,Flat", 20)])
def test_as_many_as_are_needed_are_enough(tmp_path, kind, n):
    assert build_index(write(tmp_path / "d.h5", n), tmp_path / "a.index", kind=kind).search(QUERIES, 1).rows.min() >= 0


@pytest.mark.parametrize(
    "kind",
    [
        "foo",
        ",,",
        "IVF99999999999,Flat",
        "IVF-1,Flat",
        "PQ3",
        "PQ4x40",
        "LSH",
        "IMI2x2,Flat",
        "IVF4,PQ4+4",
        "NSG8,Flat",
    ],
)
def test_what_faiss_refuses(tmp_path, kind):
    with pytest.raises(UltronError, match=r"or a Faiss factory string that suits 50 descriptors"):
        build_index(write(tmp_path / "d.h5", 50), tmp_path / "a.index", kind=kind)
    assert not (tmp_path / "a.index").exists()


def test_kinds_that_compare_by_distances(descriptors, tmp_path):
    for kind in ("HNSW8_PQ4x4", "HNSW8_2x4+PQ4"):
        with pytest.raises(UltronError, match=r"must compare by inner products, index type 'HNSW8_"):
            build_index(descriptors, tmp_path / "a.index", kind=kind)
        assert not (tmp_path / "a.index").exists()


@pytest.mark.parametrize("kind", ["IDMap,Flat", "IDMap2,SQ8", "Flat,IDMap", "PCA8,IDMap,Flat", "RQ2x4", "LSQ2x4"])
def test_kinds_that_ultron_does_not_know(descriptors, tmp_path, kind):
    rows = unit_rows(1, N, DIM)
    build_index(descriptors, tmp_path / "a.index", kind=kind)
    ranked = open_index(tmp_path / "a.index").search(rows[:20], 20)
    assert np.mean([row in ranked.rows[row] for row in range(20)]) > 0.7
