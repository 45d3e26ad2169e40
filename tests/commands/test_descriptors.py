"""`ultron descriptors`: descriptors come in from another tool, every command works on them, and they go out again."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Run, read_json
from ultron_cli.datasets.folder import open_folder
from ultron_cli.retrieval.descriptors import DescriptorFile

DIM = 8


@pytest.fixture(scope="module")
def theirs(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody's vectors of the rendered landmarks, in the order of no list."""
    dataset = open_folder(toy)
    rng = np.random.default_rng(0)
    names = rng.permutation([*dataset.query_names, *dataset.database_names]).tolist()
    path = tmp_path_factory.mktemp("theirs") / "theirs.npz"
    np.savez(
        path, descriptors=rng.standard_normal((len(names), DIM)), names=np.array([f"{name}.png" for name in names])
    )
    return path


@pytest.fixture
def files(theirs: Path, toy: Path, tmp_path: Path, ultron: Run) -> tuple[Path, Path]:
    gnd = open_folder(toy).ground_truth_path
    made = ("--crop", "bbx", "--scales", "5", "--model", "theirs-r50")
    result = read_json(ultron("descriptors", "import", theirs, "--gnd", gnd, *made, "--out", tmp_path / "d", "--json"))
    assert result["format"] == "npz" and result["made_unit"] == result["queries"] + result["photos"]
    return tmp_path / "d" / "queries.h5", tmp_path / "d" / "database.h5"


def test_every_command_works_on_what_came_in(files: tuple[Path, Path], tmp_path: Path, ultron: Run) -> None:
    queries, database = files
    both = ("--queries", queries, "--database", database)

    def done(*arguments: object) -> str:
        code, out, err = ultron(*arguments)
        assert code == 0, err
        return out

    assert "queries cropped, 5 scales, descriptors imported from" in done("evaluate", *both)
    done("search", *both, "-k", 5, "--rerank", "aqe", "--out", tmp_path / "ranks.h5")
    assert "theirs.npz (npz)" in done("ranks", "info", tmp_path / "ranks.h5")
    done("ranks", "export", tmp_path / "ranks.h5", "--format", "trec", "--out", tmp_path / "run.trec")
    done("whiten", database, "--method", "pca", "--dim", 4, "--out", tmp_path / "w.h5")
    evaluated = ("--json", "--out", tmp_path / "a.json")
    assert json.loads(done("evaluate", *both, "--whiten", tmp_path / "w.h5", *evaluated))["n_queries"] > 0
    done("index", database, "--type", "sq8", "--out", tmp_path / "i.index")
    assert "approximate index sq8" in done("evaluate", *both, "--index", tmp_path / "i.index")
    assert "whitening: A pca to 4-d, B none" in done("compare", tmp_path / "a.json", tmp_path / "ranks.h5")
    (tmp_path / "s.toml").write_text(
        f'[extract]\ndescriptors = "{database.parent}"\n[grid]\nsearch.rerank = ["none", "aqe"]\n'
    )
    swept = json.loads(done("sweep", tmp_path / "s.toml", "--json", "--set", "search.k=20", "--workers", 1))
    assert len(swept["tables"][0]["systems"]) == 2
    assert "scales where" not in done("diagnose", queries, "--expected")
    text = done("descriptors", "info", queries, database)
    assert "theirs.npz (npz)" in text and "kind of model" in text


def test_what_a_network_is_needed_for_says_so(files: tuple[Path, Path], toy: Path, ultron: Run) -> None:
    photo = next((toy / "jpg").glob("*.jpg"))
    code, _, err = ultron("search", photo, "--database", files[1])
    assert code == 2 and "these descriptors do not say which network made them" in err, err
    code, out, err = ultron("diagnose", files[0], "--against", files[0])
    assert code == 0 and "the descriptors are the same" in out, err


def test_out_and_in_again(files: tuple[Path, Path], toy: Path, tmp_path: Path, ultron: Run) -> None:
    out = tmp_path / "theirs.pickle"
    exported = read_json(ultron("descriptors", "export", *files, "--format", "dolg", "--out", out, "--json"))
    assert exported["dimensions"] == DIM and exported["names"] is None
    (facts,) = read_json(ultron("descriptors", "info", out, "--json"))["files"]
    assert facts["format"] == "dolg" and facts["parts"][0]["lengths"] == "1"
    gnd = open_folder(toy).ground_truth_path
    arguments = ("descriptors", "import", out, "--gnd", gnd, "--out", tmp_path / "d")
    code, _, err = ultron(*arguments)
    assert code == 2 and "already; name another folder with --out, or replace what is there with --overwrite" in err
    with DescriptorFile(files[1]) as file:
        before = file.read()
    assert ultron(*arguments, "--overwrite")[0] == 0
    with DescriptorFile(files[1]) as file:
        assert np.array_equal(file.read(), before) and file.info.model == "imported"


def test_a_reader_by_import_path(theirs: Path, tmp_path: Path, ultron: Run) -> None:
    source = [
        "import numpy as np",
        "from ultron_cli.retrieval.exchange.descriptors.rows import of_array",
        "def read(path):",
        "    return [of_array(np.load(path)['descriptors'], str(path))]",
        "def wrong(path):",
        "    return 1",
    ]
    (tmp_path / "my.py").write_text("\n".join(source))
    arguments = ("descriptors", "import", theirs, "--out", tmp_path / "d", "--format")
    assert ultron(*arguments, f"{tmp_path / 'my.py'}:read")[0] == 0
    code, _, err = ultron(*arguments, f"{tmp_path / 'my.py'}:wrong", "--overwrite")
    assert code == 2 and "wrong must return a list of NamedRows; found int" in err


def test_choices_equal_their_registries() -> None:
    from typing import get_args

    from ultron_cli.commands import choices
    from ultron_cli.retrieval.descriptors import Role, StoredCrop
    from ultron_cli.retrieval.exchange.descriptors import DESCRIPTOR_FORMATS

    assert tuple(DESCRIPTOR_FORMATS) == choices.DESCRIPTOR_FORMATS
    assert get_args(Role) == choices.ROLES
    assert {*choices.CROPS} == {"unknown", "bbx", "none"} and "unknown" in str(StoredCrop)
