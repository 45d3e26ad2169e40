"""`ultron fuse` on the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Run, read_json
from tests.retrieval.exchange.rankings_for_tests import ranking_of, write_truth
from ultron_cli.retrieval.origin import Origin
from ultron_cli.retrieval.rankings import read_ranks, write_ranks

PHOTOS = [f"photo{i}" for i in range(8)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two rankings of four queries of two landmarks."""
    labels = [{"easy": [4 * (i // 2)], "hard": [4 * (i // 2) + 1], "junk": []} for i in range(4)]
    gnd = write_truth(tmp_path / "gnd_set.json", PHOTOS, [f"query{i}" for i in range(4)], *labels)
    rng = np.random.default_rng(0)
    for name in "ab":
        rows = [rng.permutation(8).tolist() for _ in range(4)]
        scores = [np.sort(rng.random(8))[::-1].tolist() for _ in range(4)]
        origin = Origin(dataset="set", model=name, ground_truth=str(gnd))
        write_ranks(tmp_path / f"{name}.h5", ranking_of(rows, scores, photos=PHOTOS, origin=origin))
    return tmp_path


def test_fused_evaluated_and_fused_again(ultron: Run, folder: Path) -> None:
    a, b, out = folder / "a.h5", folder / "b.h5", folder / "f.h5"
    content = read_json(ultron("fuse", a, b, "--weights", "1,0.5", "-k", 5, "--out", out, "--json"))
    assert content["fusion"]["method"] == "rrf" and content["fusion"]["settings"] == {"rrf_k": 60}
    assert [part["weight"] for part in content["fusion"]["parts"]] == [1, 0.5]
    assert read_ranks(out).rows.shape == (4, 5)
    code, text, _ = ultron("evaluate", "--ranks", out)
    assert code == 0 and "fused by rrf, rrf_k 60" in text and "a (weight 1) and b (weight 0.5)" in text
    assert ultron("fuse", out, b, "--method", "combsum", "--out", folder / "g.h5")[0] == 0
    assert "fused by rrf" in json.dumps(read_ranks(folder / "g.h5").origin.to_json())
    assert ultron("ranks", "info", out)[0] == 0


def test_a_re_rankers_scores_from_their_file_to_a_score(ultron: Run, folder: Path) -> None:
    (folder / "s.csv").write_text("query,photo,score\nquery0,photo3,2.5\nquery0,photo1,1\nquery2,photo7,-1\n")
    scores, base = folder / "s.h5", folder / "a.h5"
    assert ultron("ranks", "import", folder / "s.csv", "--database", base, "--queries", base, "--out", scores)[0] == 0
    out = folder / "m.h5"
    mix = ("fuse", base, scores, "--method", "mix", "--out", out)
    assert ultron(*mix, "--lambda", 0, "--temperature", 1)[0] == 0
    names = [photo["name"] for photo in read_ranks(out).ranked_photos(0)]
    assert names[:2] == ["photo3", "photo1"]
    assert ultron(*mix, "--tune", "medium", "--folds", 2)[0] == 0
    code, text, _ = ultron("evaluate", "--ranks", out)
    assert code == 0 and "fused by mix in" in text and "tuned for medium on other queries (2 folds, seed 0)" in text
    code, _, err = ultron(*mix)
    assert code == 2 and "mix needs --lambda and --temperature, or --tune" in err
    assert ultron("ranks", "import", folder / "s.csv", "--onto", base, "--out", scores)[0] == 0
    code, _, err = ultron(*mix, "--lambda", 0.5, "--temperature", 1)
    assert code == 2 and "cannot be told apart; import them alone" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a.h5",), "one result alone cannot be joined"),
        (("a.h5", "b.h5", "--weights", "1"), "--weights takes 2 numbers from 0 with commas between"),
        (("a.h5", "b.h5", "--weights", "1,x"), "found '1,x'"),
        (("a.h5", "b.h5", "--weights", "0,0"), "not all 0"),
        (("a.h5", "b.h5", "--weights", "1,inf"), "--weights takes 2 numbers"),
        (("a.h5", "b.h5", "--norm", "minmax"), "--norm is of scores, rrf looks at places"),
        (("a.h5", "b.h5", "--method", "isr", "--rrf-k", "3"), "--rrf-k belongs to rrf, found isr"),
        (("a.h5", "b.h5", "--optimistic"), "without --tune nothing is tuned; leave out --optimistic"),
        (("a.h5", "b.h5", "--tune", "hard", "--weights", "1,1"), "--tune finds what is best; leave out --weights"),
        (("a.h5", "b.h5", "--tune", "hard", "--folds", "1"), "--folds must be at least 2, found 1, or have them all"),
        (("a.h5", "b.h5", "--lambda", "0.5"), "they belong to --method mix; leave out --lambda"),
        (("a.h5", "b.h5", "--dim", "3"), "rankings have no dimensions; leave out --dim"),
        (("a.h5", "b.h5", "--method", "mix", "--norm", "max"), "mix has lambda and temperature; leave out --norm"),
        (("a.h5", "gnd_set.json"), "gnd_set.json"),
        (("gnd_set.json", "a.h5"), "gnd_set.json"),
        (("a.h5", "none.h5"), "none.h5"),
    ],
)
def test_wrong_values(ultron: Run, folder: Path, arguments: tuple[str, ...], words: str) -> None:
    paths = [folder / text if text.endswith((".h5", ".json")) else text for text in arguments]
    code, out, err = ultron("fuse", *paths, "--out", folder / "out.h5")
    assert (code, out) == (2, "") and words in err, err
    assert len([line for line in err.splitlines() if line.startswith("error")]) == 1
    assert not (folder / "out.h5").exists()


def test_the_result_is_not_one_of_what_it_is_made_from(ultron: Run, folder: Path) -> None:
    code, _, err = ultron("fuse", folder / "a.h5", folder / "b.h5", "--out", folder / "a.h5")
    assert code == 2 and "is what" in err
