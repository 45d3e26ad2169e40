"""Every layout, written as its authors write it: known by its content, imported bit for bit, scored as revisitop does,
and out and in again without a change."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.literal_revisitop import literal_map
from tests.retrieval.exchange.descriptors.sets_for_tests import LAYOUTS, NEEDS, PHOTOS, QUERIES, Vectors, make_vectors
from ultron_cli.datasets.protocols import load_ground_truth
from ultron_cli.evaluation.evaluate import evaluate_ranking
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.retrieval.exchange.descriptors import DESCRIPTOR_FORMATS
from ultron_cli.retrieval.exchange.descriptors.exporting import WRITABLE, export_descriptors
from ultron_cli.retrieval.exchange.descriptors.importing import DescriptorImport, format_of, import_descriptors
from ultron_cli.retrieval.searching import search_files


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Vectors:
    return make_vectors(tmp_path_factory.mktemp("vectors"))


@pytest.fixture(scope="module")
def imported(vectors: Vectors) -> Path:
    """The set as ultron holds it."""
    _, write = LAYOUTS["dolg"]
    import_descriptors(DescriptorImport(paths=write(vectors), gnd=vectors.gnd, out=vectors.folder / "imported"))
    return vectors.folder / "imported"


def rows_of(folder: Path) -> dict[str, tuple[list[str], np.ndarray]]:
    parts = {}
    for role in ("queries", "database"):
        with DescriptorFile(folder / f"{role}.h5") as file:
            parts[role] = file.names, file.read()
    return parts


def literal_scores(vectors: Vectors, protocol: str) -> tuple[float, list[float], list[float]]:
    """As example_evaluate of revisitop: all similarities, all ranks, its mean average precision."""
    similarities = np.dot(vectors.database, vectors.queries.T)
    return literal_map(np.argsort(-similarities, axis=0).T, load_ground_truth(vectors.gnd), protocol)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout(layout: str, vectors: Vectors, tmp_path: Path) -> None:
    name, write = LAYOUTS[layout]
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    paths = write(vectors)
    assert {format_of(path) for path in paths} == {name}
    result = import_descriptors(DescriptorImport(paths=paths, gnd=vectors.gnd, out=tmp_path / "out"))
    assert (result.n, result.n_made_unit, result.n_missing, result.n_surplus) == ({"query": 6, "database": 40}, 0, 0, 0)
    parts = rows_of(tmp_path / "out")
    assert parts["queries"][0] == QUERIES and parts["database"][0] == PHOTOS
    assert np.array_equal(parts["queries"][1], vectors.queries)
    assert np.array_equal(parts["database"][1], vectors.database)
    ranking = search_files(tmp_path / "out" / "queries.h5", tmp_path / "out" / "database.h5", None, "cpu")
    evaluation = evaluate_ranking(ranking, vectors.gnd)
    for protocol in ("easy", "medium", "hard"):
        mean_ap, precisions, aps = literal_scores(vectors, protocol)
        scores = evaluation.protocols[protocol]
        assert scores.mAP == pytest.approx(mean_ap, abs=1e-9)
        assert [scores.mP[k] for k in (1, 5, 10)] == pytest.approx(precisions, abs=1e-9)
        assert [scores.ap[query] for query in QUERIES] == pytest.approx(aps, abs=1e-9)


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("name", WRITABLE)
def test_out_and_in_again(name: str, storage: str, vectors: Vectors, imported: Path, tmp_path: Path) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    if storage == "float16":
        paths = [imported / "queries.h5", imported / "database.h5"]
        export_descriptors(paths, tmp_path / "x.npz", "npz")
        request = DescriptorImport(
            paths=[tmp_path / "x.npz"], gnd=vectors.gnd, storage="float16", out=tmp_path / "stored"
        )
        import_descriptors(request)
        stored = tmp_path / "stored"
    else:
        stored = imported
    before = rows_of(stored)
    files = [stored / "queries.h5", stored / "database.h5"]
    together = [files] if DESCRIPTOR_FORMATS[name].has_both else [[file] for file in files]
    paths = []
    for group in together:
        out = tmp_path / f"{group[0].stem}.{name}"
        exported = export_descriptors(group, out, name)
        assert exported.n == sum(len(before[file.stem][0]) for file in group)
        paths.append(out)
    again = import_descriptors(DescriptorImport(paths=paths, format=name, gnd=vectors.gnd, out=tmp_path / "again"))
    after = rows_of(tmp_path / "again")
    # Tables, indexes and MATLAB know no half precision: its numbers are written as float32.
    keeps_half = name not in ("csv", "faiss", "revisitop")
    assert again.storage == (storage if keeps_half else "float32")
    for role in before:
        assert after[role][0] == before[role][0]
        if storage == again.storage:
            assert np.array_equal(after[role][1], before[role][1])
        else:
            np.testing.assert_allclose(after[role][1], before[role][1], atol=1e-3)


def test_their_programs_read_what_we_write(imported: Path, vectors: Vectors, tmp_path: Path) -> None:
    import pickle

    import h5py
    import torch
    from scipy.io import loadmat

    files = [imported / "queries.h5", imported / "database.h5"]
    export_descriptors(files, tmp_path / "a.pickle", "dolg")
    features = pickle.loads((tmp_path / "a.pickle").read_bytes())
    assert np.array_equal(np.array([features[name].reshape(-1) for name in PHOTOS]), vectors.database)
    export_descriptors(files, tmp_path / "a.mat", "revisitop")
    matrices = loadmat(tmp_path / "a.mat")
    assert np.array_equal(matrices["X"], vectors.database.T) and np.array_equal(matrices["Q"], vectors.queries.T)
    export_descriptors(files, tmp_path / "a.h5", "hloc")
    with h5py.File(tmp_path / "a.h5") as handle:
        rows = [handle[name]["global_descriptor"].__array__() for name in QUERIES]
    assert np.array_equal(np.stack(rows), vectors.queries)
    export_descriptors(files[1:], tmp_path / "a.hdf5", "ilias")
    with h5py.File(tmp_path / "a.hdf5") as handle:
        assert [name.decode() for name in handle["index"][:]] == PHOTOS
        assert np.array_equal(handle["features"][:], vectors.database)
    export_descriptors(files, tmp_path / "a.pt", "pt")
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    assert torch.equal(content["queries"], torch.from_numpy(vectors.queries)) and content["database_names"] == PHOTOS
    export_descriptors(files[1:], tmp_path / "a.npy", "npy")
    assert np.array_equal(np.load(tmp_path / "a.npy"), vectors.database)
    assert (tmp_path / "a.names.txt").read_text().splitlines() == PHOTOS
    export_descriptors(files, tmp_path / "a.npz", "npz")
    with np.load(tmp_path / "a.npz") as archive:
        assert archive["query_names"].tolist() == QUERIES and np.array_equal(archive["queries"], vectors.queries)


def test_faiss_and_pyarrow_read_what_we_write(imported: Path, vectors: Vectors, tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    export_descriptors([imported / "database.h5"], tmp_path / "a.faiss", "faiss")
    index = faiss.read_index(str(tmp_path / "a.faiss"))
    assert index.metric_type == faiss.METRIC_INNER_PRODUCT
    assert np.array_equal(index.reconstruct_n(0, index.ntotal), vectors.database)
    pq = pytest.importorskip("pyarrow.parquet")
    export_descriptors([imported / "database.h5"], tmp_path / "a.parquet", "parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    assert table["photo"].to_pylist() == PHOTOS
    assert np.array_equal(np.array(table["descriptor"].to_pylist(), np.float32), vectors.database)


@pytest.mark.parametrize("start", ["fork", "fresh"])
def test_parquet_where_pyarrow_was_not_used_before(imported: Path, tmp_path: Path, start: str) -> None:
    """As on the command line: its allocator's own space does not count against the limit of the child, which then reads
    other files."""
    pytest.importorskip("pyarrow.parquet")
    export_descriptors([imported / "database.h5"], tmp_path / "a.parquet", "parquet")
    program = (
        "import sys; from pathlib import Path; from ultron_cli import guarded\n"
        "from ultron_cli.retrieval.descriptors import DescriptorFile\n"
        "from ultron_cli.retrieval.exchange.descriptors.parquet import read\n"
        "if sys.argv[3] == 'fresh': guarded.HAVE_THREADS = {'sys'}\n"
        "print(read(Path(sys.argv[1]))[0].n, DescriptorFile(Path(sys.argv[2])).n)"
    )
    files = [str(tmp_path / "a.parquet"), str(imported / "database.h5")]
    printed = subprocess.run([sys.executable, "-c", program, *files, start], capture_output=True, text=True, check=True)
    assert printed.stdout.split() == [str(len(PHOTOS))] * 2
