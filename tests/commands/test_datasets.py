"""`ultron datasets ...` as a person uses it, through main(): download from a local server, verify, and own photos up to
a score."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.commands.test_bad_input import MODEL, expect_error
from tests.conftest import Run
from tests.datasets.conftest import jpeg, server, tar_of
from tests.datasets.download.test_install import OXFORD_PHOTOS, ROXFORD, ground_truth
from tests.datasets.misbehaving_server import MisbehavingServer
from ultron_cli.datasets.download import catalog

__all__ = ["server"]  # the fixture


@pytest.fixture
def oxford(server: MisbehavingServer, monkeypatch: pytest.MonkeyPatch) -> MisbehavingServer:
    """A small roxford5k on the local server, in the catalog in place of the real one."""
    parts = tuple(replace(part, addresses=(server.address(f"published/{part.file}"),)) for part in ROXFORD.parts)
    monkeypatch.setitem(catalog.KNOWN_SETS, "roxford5k", replace(ROXFORD, parts=parts))
    for base in ("published", "roxford5k"):
        server.files[f"{base}/oxbuild_images-v1.tgz"] = tar_of(OXFORD_PHOTOS)
        server.files[f"{base}/gnd_roxford5k.pkl"] = ground_truth(
            [f"oxford_{i:06d}" for i in range(3)], ["oxford_000003"]
        )
    return server


def state(ultron: Run, name: str) -> str:
    known = json.loads(ultron("datasets", "list", "--json")[1])["known"]
    return next(entry["state"] for entry in known if entry["name"] == name)


def test_from_download_to_extraction(ultron: Run, oxford: MisbehavingServer, tmp_path: Path) -> None:
    assert state(ultron, "roxford5k") == "absent"
    code, out, err = ultron("datasets", "info", "roxford5k")
    assert code == 0, err
    assert "oxbuild_images.tgz (original)" in out
    code, out, err = ultron("datasets", "download", "roxford5k", "--json")
    assert code == 0, err
    made = json.loads(out)["datasets"][0]
    assert (made["database"], made["queries"], made["photos_version"]) == (3, 1, "blurred")
    assert "no checksum is published for oxbuild_images-v1.tgz; its SHA-256" in err
    assert state(ultron, "roxford5k") == "present"
    code, out, err = ultron("datasets", "info", "roxford5k", "--json")
    assert json.loads(out)["source"]["parts"]["oxbuild_images-v1.tgz"]["checked"] == "first download"
    shown = ultron("datasets", "info", "roxford5k")[1]
    assert "first download" in shown and "missing photos" in shown and "missing_photos" not in shown
    assert ultron("datasets", "verify", "roxford5k")[0] == 0
    code, out, err = ultron("extract", "--dataset", "roxford5k", *MODEL)
    assert code == 0, err
    assert "there: " in ultron("datasets", "download", "roxford5k")[2]


def test_mirrors_and_offline(
    ultron: Run, oxford: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ULTRON_OFFLINE", "1")
    expect_error(ultron("datasets", "download", "roxford5k"), "downloads are off", "put the file at", code=1)
    assert oxford.requests == []
    monkeypatch.setenv("ULTRON_OFFLINE", "0")
    expect_error(ultron("datasets", "download", "roxford5k", "--offline"), "downloads are off", code=1)
    (tmp_path / "data" / "mirrors.toml").write_text(f'mirrors = ["{oxford.base}"]\n')
    code, _, err = ultron("datasets", "download", "roxford5k")
    assert code == 0, err
    assert {path.split("/")[0] for path, _ in oxford.requests} == {"roxford5k"}


def test_a_failure_is_one_line_and_the_list_says_begun(ultron: Run, oxford: MisbehavingServer, tmp_path: Path) -> None:
    for base in ("published", "roxford5k"):
        oxford.manners[f"{base}/oxbuild_images-v1.tgz"] = ["404"]
    expect_error(ultron("datasets", "download", "roxford5k"), "answered 404", "--mirror", code=1)
    assert state(ultron, "roxford5k") == "begun"
    expect_error(
        ultron("extract", "--dataset", "roxford5k", *MODEL),
        "is not complete; finish it with `ultron datasets download roxford5k`",
    )
    oxford.manners["published/oxbuild_images-v1.tgz"] = ["cut 300", "500"]
    code, _, err = ultron("datasets", "download", "roxford5k")
    assert code == 0, err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("download", "oxford5k"), ("unknown dataset 'oxford5k'; did you mean roxford5k",)),
        (("download", "rgldv2-clean"), ("publish no address at present", "mirrors.toml")),
        (("download", "revisitop1m", "--photos", "original"), ("has one version only",)),
        (("download", "instre", "--mirror", "gopher://x"), ("--mirror: an address must start with",)),
        (("download", "instre", "--jobs", "0"), ("--jobs must be at least 1; found 0",)),
        (("download", "instre", "--retries", "-1"), ("--retries must be at least 0; found -1",)),
        (("download", "instre", "--timeout", "0"), ("--timeout must lie between 0.1 and 3600; found 0",)),
        (("verify", "nowhere", "--workers", "999"), ("--workers must lie between 1 and 256; found 999",)),
        (("verify", "roxford5k"), ("download it with `ultron datasets download roxford5k`",)),
        (("build-gnd", "nowhere"), ("nowhere is not a folder of photos",)),
    ],
)
def test_wrong_use(ultron: Run, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    expect_error(ultron("datasets", *arguments), *words)


def test_bad_photos_are_left_out_by_the_list(ultron: Run, toy: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(toy, tmp_path / "set")
    truth = json.loads((tmp_path / "set/gnd_toy.json").read_text())
    (tmp_path / "set/jpg" / f"{truth['imlist'][2]}.jpg").write_bytes(b"")
    trained = sorted((tmp_path / "set/train").rglob("*.jpg"))
    trained[0].write_bytes(trained[0].read_bytes()[:300])
    code, out, _ = ultron("datasets", "verify", tmp_path / "set", "--json")
    assert code == 1
    report = json.loads(out)
    assert (report["counts"], report["used_bad"]) == ({"empty": 1, "truncated": 1}, 1)
    code, out, err = ultron("extract", tmp_path / "set", *MODEL, "--skip-bad", "--json")
    assert code == 0, err
    assert [entry["name"] for entry in json.loads(out)["skipped"]] == [truth["imlist"][2]]
    assert "the file is empty (listed in bad_photos.json)" in err
    train = (
        "--set",
        "epochs=1",
        "--set",
        "model.name=gem",
        "--set",
        "model.backbone=test_resnet",
        "--set",
        "batch_size=8",
        "--set",
        "side_px=32",
        "--set",
        "workers=0",
    )
    code, out, err = ultron("train", "--dataset", tmp_path / "set", *train, "--json")
    assert code == 0, err
    assert json.loads(out)["n_photos"] == len(trained) - 1
    assert "leaving out 1 photo that `ultron datasets verify` found bad" in err


def test_own_photos_up_to_a_score(ultron: Run, toy: Path, tmp_path: Path) -> None:
    code, out, err = ultron("datasets", "build-gnd", toy / "train", "--out", tmp_path / "mine", "--seed", 4)
    assert code == 0, err
    assert "mine: 6 queries (0 boxes) of 6 landmarks, 30 database photos, 30 easy" in out
    assert ultron("extract", tmp_path / "mine", *MODEL)[0] == 0
    code, out, err = ultron("evaluate", "--protocol", "easy", "--json")
    assert code == 0, err
    assert json.loads(out)["protocols"]["easy"]["queries_used"] == 6


def test_ctrl_c_ends_soon_and_leaves_nothing_under_a_final_name(server: MisbehavingServer, tmp_path: Path) -> None:
    server.files["instre/instre.tar.gz"] = tar_of({"a.jpg": jpeg()})
    server.files["instre/gnd_instre.mat"] = b"x" * 1000
    server.manners["instre/instre.tar.gz"] = ["stall 10"]
    environment = {**os.environ, "ULTRON_DATA": str(tmp_path)}
    command = [sys.executable, "-m", "ultron_cli", "datasets", "download", "instre", "--mirror", server.base]
    heeds = partial(
        signal.signal, signal.SIGINT, signal.SIG_DFL
    )  # where the tests run in the background of a shell, they are started deaf to it
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=heeds) as process:
        assert server.stalled.wait(30)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    last = err.rstrip().splitlines()[-1]
    assert last == "interrupted: what has arrived of instre is kept, the same command goes on from there"
    assert "Traceback" not in err
    assert not (tmp_path / "instre" / "jpg").exists()


def test_photos_that_are_not_there_are_all_in_the_json(ultron: Run, tmp_path: Path) -> None:
    names = [f"photo{i:02}" for i in range(30)]
    gnd = [{"bbx": None, "easy": [0], "hard": [], "junk": []}]
    content = {"imlist": names, "qimlist": ["query"], "gnd": gnd}
    (tmp_path / "set" / "jpg").mkdir(parents=True)
    (tmp_path / "set" / "gnd_set.json").write_text(json.dumps(content), encoding="utf-8")
    facts = json.loads(ultron("datasets", "info", tmp_path / "set", "--json")[1])
    assert (facts["missing_photos"], facts["missing"]) == (31, [*names, "query"])
    assert "photo00, photo01, photo02, photo03, photo04 ..." in ultron("datasets", "info", tmp_path / "set")[1]
