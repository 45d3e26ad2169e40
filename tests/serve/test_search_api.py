"""`ultron serve`: the JSON API over a real connection: it searches as the command does."""

import base64
import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from PIL import Image

from tests.conftest import Run
from tests.serve.requests_by_hand import Ask, jpeg, pairs
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.searching import SearchOptions
from ultron_cli.serve.limits import Refused, ServeConfig
from ultron_cli.serve.photo_search import PhotoSearch
from ultron_cli.serve.server import RetrievalServer


@pytest.mark.parametrize("box", [None, (4.0, 3.0, 60.0, 50.0)], ids=["whole", "box"])
@pytest.mark.parametrize("rerank", ["", "superglobal,geometry"], ids=["plain", "reranked"])
def test_an_upload_is_searched_as_the_command_does(
    ask: Ask, ultron: Run, photos: Path, extracted: Path, tmp_path: Path, box: tuple[float, ...] | None, rerank: str
) -> None:
    upload = tmp_path / "upload.jpg"
    source = sorted((photos / "jpg").glob("*.jpg"))[5]
    with Image.open(source) as image:  # lying on its side, as phones save them
        exif = image.getexif()
        exif[0x0112] = 6
        image.rotate(90, expand=True).save(upload, quality=90, exif=exif)
    corners = ",".join(str(side) for side in box) if box else None
    flags = [
        *(["--bbx", corners] if corners else []),
        *(["--rerank", rerank, "--rerank-set", "superglobal.beta=0.3"] if rerank else []),
    ]
    code, out, error = ultron("search", upload, "--database", extracted / "database.h5", "-k", 9, *flags, "--json")
    assert code == 0, error
    expected = json.loads(out)["results"][0]["photos"]
    status, answer = ask(
        "/api/search", upload.read_bytes(), k=9, rerank=rerank, **({"box": corners} if corners else {})
    )
    assert status == 200, answer
    assert pairs(answer["photos"]) == pairs(expected)
    verdicts = [(photo.get("inliers"), photo.get("promoted")) for photo in answer["photos"]]
    assert verdicts == [(photo.get("inliers"), photo.get("promoted")) for photo in expected]
    assert all((n_inliers is not None) == bool(rerank) for n_inliers, _ in verdicts)
    with Image.open(source) as image:
        assert answer["query"] == {
            "kind": "upload",
            "row": None,
            "name": None,
            "width": image.width,
            "height": image.height,
            "box": list(box) if box else None,
        }
    assert [step["name"] for step in answer["rerank"]] == [name for name in rerank.split(",") if name]
    assert all(photo["label"] is None for photo in answer["photos"])


def test_a_query_of_the_dataset_and_its_labels(ask: Ask, photos: Path) -> None:
    truth = json.loads(next(photos.glob("gnd_*.json")).read_text())
    status, listed = ask("/api/queries")
    assert status == 200
    assert [(query["row"], query["name"], query["box"]) for query in listed["queries"]] == [
        (row, name, [float(side) for side in entry["bbx"]])
        for row, (name, entry) in enumerate(zip(truth["qimlist"], truth["gnd"], strict=True))
    ]
    status, about = ask("/api/query/1")
    assert (status, about["name"], about["box"]) == (200, truth["qimlist"][1], listed["queries"][1]["box"])
    status, answer = ask(
        "/api/search", query=1, k=len(truth["imlist"]), rerank="", box=",".join(str(side) for side in about["box"])
    )
    assert status == 200, answer
    labels = {truth["imlist"][row]: label for label in ("easy", "hard", "junk") for row in truth["gnd"][1][label]}
    assert {photo["name"]: photo["label"] for photo in answer["photos"]} == {
        name: labels.get(name, "") for name in truth["imlist"]
    }
    assert labels and sorted(photo["row"] for photo in answer["photos"]) == list(range(len(truth["imlist"])))
    assert answer["method"] == "exact" and "/" not in json.dumps(answer | {"photos": []})  # no path of the machine
    status, itself = ask("/api/search", photo=answer["photos"][3]["row"], k=1, rerank="")
    assert (status, itself["photos"][0]["name"]) == (200, answer["photos"][3]["name"])
    assert itself["photos"][0]["score"] == pytest.approx(1.0, abs=1e-5)


def test_defaults_are_those_of_the_command(ask: Ask) -> None:
    _, answer = ask("/api/search", query=0)
    assert (answer["k"], answer["rerank"][0]["name"], answer["rerank"][0]["beta"]) == (6, "superglobal", 0.3)
    _, about = ask("/api/about")
    assert (about["k"], about["rerank"], about["n_queries"], about["limits"]["pixels"]) == (
        6,
        "superglobal",
        4,
        2_000_000,
    )


def test_similarity_maps(ask: Ask) -> None:
    _, answer = ask("/api/search", query=0, k=3)
    for photo in answer["photos"]:
        status, heat = ask("/api/map", search=answer["search"], row=photo["row"])
        assert status == 200, heat
        values = base64.b64decode(heat["data"])
        assert max(heat["h"], heat["w"]) == 24 and len(values) == heat["h"] * heat["w"]
        assert heat["flat"] or max(values) > 128
    assert ask("/api/map", search="of-another-server", row=0) == (
        410,
        {"error": "that search is not among the latest 256; search again"},
    )


def test_inliers_of_a_photo_with_itself(ask: Ask) -> None:
    """Every line ends where it begins, and the box stays where it is."""
    width, height = (ask("/api/photo/7")[1][side] for side in ("width", "height"))
    box = [0.1 * width, 0.2 * height, 0.9 * width, 0.8 * height]
    _, answer = ask("/api/search", photo=7, rerank="geometry", box=",".join(map(str, box)))
    first, *others = answer["photos"]
    assert (first["row"], first["promoted"]) == (7, True) and first["inliers"] >= 6
    assert first["score"] == pytest.approx(first["inliers"], abs=0.5)
    status, inliers = ask("/api/inliers", search=answer["search"], row=7)
    assert (status, inliers["row"], inliers["counted"]) == (200, 7, first["inliers"])
    assert len(inliers["lines"]) == inliers["inliers"] <= inliers["matches"]
    assert max(abs(x - u) + abs(y - v) for x, y, u, v in inliers["lines"]) <= 4
    corners = [(100, 200), (900, 200), (900, 800), (100, 800)]
    for corner, place in zip(corners, inliers["box"], strict=True):
        assert place == pytest.approx(corner, abs=12)
    unlike = next(photo for photo in others if not photo["promoted"])
    assert ask("/api/inliers", search=answer["search"], row=unlike["row"])[1]["counted"] == unlike["inliers"]
    assert "geometry" in ask("/api/about")[1]["rerankers"]
    plain = ask("/api/search", photo=7, rerank="")[1]["search"]
    for parameters, status, message in (
        ({"search": plain, "row": 7}, 400, "that search verified no photos; search with rerank=geometry"),
        ({"search": answer["search"], "row": 999}, 404, "photo 999 does not exist"),
        ({"search": "gone", "row": 7}, 410, "that search is not among the latest 256"),
        ({"row": 7}, 400, "inliers take search=ID"),
    ):
        code, refused = ask("/api/inliers", **parameters)
        assert code == status and message in refused["error"]


def test_photos_come_by_row_encoded_anew(ask: Ask, extracted: Path, server: RetrievalServer) -> None:
    for size, side in (("small", 96), ("large", 96)):
        status, content = ask("/photo/0", size=size, v="x")
        with Image.open(io.BytesIO(content)) as image:
            assert (status, image.format, max(image.size)) == (200, "JPEG", side)  # never enlarged
    assert ask("/query/0")[0] == 200
    assert ask("/photo/0", size="../../secret")[0] == 400
    n = len(server.engine.names)
    assert ask(f"/photo/{n}") == (404, {"error": f"photo {n} does not exist; rows are 0 to {n - 1}"})
    assert ask("/query/4") == (404, {"error": "query 4 does not exist; rows are 0 to 3"})


BAD_SEARCHES = (
    ({"query": 0, "k": 0}, 400, "k must be 1 to"),
    ({"query": 0, "k": 501}, 400, "k must be 1 to"),
    ({"query": 0, "k": "many"}, 400, "k must be a whole number, found 'many'"),
    ({"query": 99}, 404, "query 99 does not exist; rows are 0 to 3"),
    ({"photo": "../../etc/passwd"}, 400, "photo must be a whole number"),
    ({}, 400, "names query=ROW or photo=ROW"),
    ({"query": 0, "photo": 0}, 400, "one of them"),
    ({"query": 0, "box": "0,0,5000,10"}, 400, "reaches outside the photo of"),
    ({"query": 0, "box": "-9,0,20,20"}, 400, "reaches outside the photo of"),
    ({"query": 0, "box": "20,20,10,10"}, 400, "bbx is inverted or empty"),
    ({"query": 0, "box": "1,2,3"}, 400, "must be four numbers"),
    ({"query": 0, "box": "nan,0,9,9"}, 400, "must be four numbers"),
    ({"query": 0, "box": "a,b,c,d"}, 400, "box takes four numbers X1,Y1,X2,Y2; found 'a,b,c,d'"),
    ({"query": 0, "rerank": "magic"}, 400, "rerank takes up to 4 of superglobal"),
    ({"query": 0, "rerank": "os.path:Step"}, 400, "rerank takes up to 4 of superglobal"),
    ({"query": 0, "rerank": "aqe,aqe,aqe,aqe,aqe"}, 400, "rerank takes up to 4"),
    ({"query": 0, "file": "/etc/passwd"}, 400, "unknown parameter 'file'"),
)


@pytest.mark.parametrize(
    ("parameters", "status", "message"), BAD_SEARCHES, ids=[urlencode(entry[0]) or "nothing" for entry in BAD_SEARCHES]
)
def test_bad_searches(ask: Ask, parameters: dict[str, Any], status: int, message: str) -> None:
    answer_status, answer = ask("/api/search", **parameters)
    assert (answer_status, set(answer)) == (status, {"error"})
    assert message in answer["error"] and "\n" not in answer["error"]


def test_a_box_outside_of_an_upload(ask: Ask) -> None:
    assert ask("/api/search", jpeg(80, 60), box="0,0,100,50") == (
        400,
        {"error": "box [0.0, 0.0, 100.0, 50.0] reaches outside the photo of 80 x 60 px"},
    )


def test_searching_by_an_index(extracted: Path, photos: Path, ultron: Run, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    code, _, error = ultron("index", extracted / "database.h5", "--out", tmp_path / "flat.index")
    assert code == 0, error
    photo = next((photos / "jpg").glob("*.jpg"))
    code, out, error = ultron(
        "search", photo, "--database", extracted / "database.h5", "--index", tmp_path / "flat.index", "-k", 5, "--json"
    )
    assert code == 0, error
    from ultron_cli.serve.limits import read_upload

    with PhotoSearch(None, ServeConfig(), options=SearchOptions(index=tmp_path / "flat.index"), device="cpu") as engine:
        answer = engine.find(read_upload(photo.read_bytes(), engine.config), k=5)
        assert engine.about()["search"] == answer["method"] == "flat"
    assert pairs(answer["photos"]) == pairs(json.loads(out)["results"][0]["photos"])
    with pytest.raises(Refused, match="the server is stopping"):
        engine.heat(answer["search"], 0)
    (tmp_path / "flat.index" / "names.json").write_text(json.dumps(["other"] * len(engine.names)))
    with pytest.raises(UltronError, match="holds other photos than"):
        PhotoSearch(None, ServeConfig(), options=SearchOptions(index=tmp_path / "flat.index"), device="cpu")


def test_a_whitening_is_applied_to_uploads(extracted: Path, photos: Path, ultron: Run, tmp_path: Path) -> None:
    from ultron_cli.retrieval.whitening import read_whitening
    from ultron_cli.serve.limits import read_upload

    database, photo, whitening = extracted / "database.h5", next((photos / "jpg").glob("*.jpg")), tmp_path / "w.h5"
    code, _, error = ultron("whiten", database, "--method", "pca", "--dim", 12, "--out", whitening)
    assert code == 0, error
    code, out, error = ultron("search", photo, "--database", database, "--whiten", whitening, "-k", 5, "--json")
    assert code == 0, error
    with PhotoSearch(
        database, ServeConfig(), options=SearchOptions(whitening=read_whitening(whitening)), device="cpu"
    ) as engine:
        answer = engine.find(read_upload(photo.read_bytes(), engine.config), k=5)
        assert (engine.about()["dim"], engine.about()["whitening"]) == (12, "pca to 12-d")
    assert pairs(answer["photos"]) == pairs(json.loads(out)["results"][0]["photos"])


def test_a_photo_replaced_since_it_was_described_is_not_shown_with_its_score(server: RetrievalServer, ask: Ask) -> None:
    _, path = server.engine.path_of("photo", 3)
    content = path.read_bytes()
    status, before = ask("/photo/3", size="small")
    assert status == 200
    try:
        _, other = server.engine.path_of("photo", 4)
        path.write_bytes(other.read_bytes())
        assert ask("/photo/3", size="small")[0] == 404
        assert ask("/api/search", photo=3)[0] == 404
    finally:
        path.write_bytes(content)
    assert ask("/photo/3", size="small") == (200, before)  # the same photo again, though its times are others


def test_a_kept_thumbnail_counts_as_long_as_its_file_is_the_same(server: RetrievalServer, ask: Ask) -> None:
    _, path = server.engine.path_of("query", 0)
    content = path.read_bytes()
    _, before = ask("/query/0", size="small")
    try:
        path.write_bytes(server.engine.path_of("photo", 4)[1].read_bytes())
        assert ask("/query/0", size="small")[1] != before
    finally:
        path.write_bytes(content)
    assert ask("/query/0", size="small")[1] == before
