"""Matchers: by name, by import path, and LightGlue with weights of a file."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.local.sift_for_tests import facade, rootsift, seen_by, turned_wall
from ultron_cli import user_code
from ultron_cli.errors import UltronError
from ultron_cli.local import choose_matcher
from ultron_cli.local.verification import VerifiablePhoto, VerifiableQuery, VerifySettings, verify
from ultron_cli.retrieval.rerank import parse_rerank
from ultron_cli.retrieval.rerank.geometry import GeometryConfig

SMALL = {"input_dim": 128, "descriptor_dim": 32, "num_heads": 2, "n_layers": 2, "add_scale_ori": True}


@pytest.fixture(scope="module")
def wall() -> tuple[VerifiableQuery, VerifiablePhoto]:
    """A wall and another view of it."""
    pictures = facade(0, 200), seen_by(facade(0, 200), turned_wall(15, 200))
    first, second = (VerifiablePhoto.of(rootsift(picture, 100), max_side_px=100) for picture in pictures)
    return VerifiableQuery.of(first, (0, 0, 199, 120)), second


def user_matcher(folder: Path, body: str) -> VerifySettings:
    """The settings of a matcher whose `match` has this body."""
    file = folder / "matcher.py"
    file.write_text(f"import numpy as np\n\n\nclass Mine:\n    def match(self, query, photo):\n        {body}\n")
    user_code.permit(str(file))
    return VerifySettings(matcher=choose_matcher(f"{file}:Mine", {}))


def test_a_matcher_gets_the_features_of_the_box_as_detected(
    wall: tuple[VerifiableQuery, VerifiablePhoto], tmp_path: Path
) -> None:
    """Detected at 100 px in photos of 200: the box ends at half of 120."""
    body = "assert query.size == photo.size == (100, 100) and 50 < query.positions[:, 1].max() <= 60; "
    body += "n = min(len(query), len(photo)); return np.stack([np.arange(n)[::-1], np.arange(n)], axis=1)"
    verified = verify(*wall, user_matcher(tmp_path, body))
    rows = verified.matches[:, 0]
    assert (np.diff(rows) > 0).all() and set(rows) <= set(wall[0].rows.tolist())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return [[0, 0]]", r"must give an \(m, 2\) array; found list"),
        ("return np.zeros((3, 3), int)", r"must give an \(m, 2\) array; found \(3, 3\)"),
        ("return np.zeros((1, 2))", "must give integers; found float64"),
        ("return np.array([[0, 10_000]])", r"must give features from 0 to \d+; found"),
        ("return np.array([[0, 1], [0, 2]])", "must give each feature at most once; found 1 repeated"),
    ],
)
def test_what_are_no_matches_is_refused(
    wall: tuple[VerifiableQuery, VerifiablePhoto], tmp_path: Path, body: str, message: str
) -> None:
    with pytest.raises(UltronError, match=rf"matcher\.py, line 5: Mine {message}"):
        verify(*wall, user_matcher(tmp_path, body))


def test_matchers_are_chosen_by_name(tmp_path: Path) -> None:
    assert choose_matcher("mutual", {}) is None and GeometryConfig().verification.matcher is None
    for assignments, message in (
        (["geometry.matcher=magic"], "`geometry.matcher` must be one of mutual, lightglue; found 'magic'"),
        (["geometry.matching.weights=a"], "is of a matcher that has settings; found weights of mutual"),
        (["geometry.matcher=lightglue"], "weights"),
        (["geometry.matcher=lightglue", "geometry.matching.weight=a"], "weight"),
    ):
        with pytest.raises(UltronError, match=message):
            parse_rerank("geometry", assignments)
    config = dataclasses.replace(GeometryConfig(), matcher="theirs.py:Match")  # as a rank file may say
    with pytest.raises(UltronError, match=r"matcher theirs\.py:Match is code, which is run only if you name it"):
        _ = config.verification


def lightglue_weights(path: Path, **shape) -> Path:
    """Weights of a small network, drawn, under the names that were published."""
    network = pytest.importorskip("kornia.feature").LightGlue(features=None, **{**SMALL, **shape})
    renamed = {}
    for name, tensor in network.state_dict().items():
        parts = name.split(".")
        if parts[0] == "transformers":
            name = ".".join([parts[2], parts[1], *parts[3:]])
        renamed[name] = tensor
    torch.save(renamed, path)
    return path


def test_lightglue_matches_with_weights_of_a_file(
    wall: tuple[VerifiableQuery, VerifiablePhoto], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    path = lightglue_weights(tmp_path / "sift_lightglue.pth")
    settings = ["geometry.matcher=lightglue", f"geometry.matching.weights={path}", "geometry.matching.least_score=0"]
    (step,) = parse_rerank("geometry", settings)
    verification = step.config.verification
    matcher = verification.matcher.made
    query, photo = wall[0].as_detected, wall[1].as_detected
    matches = matcher.match(query, photo)
    assert matches.dtype == np.int64 and len(matches) > 0
    assert all(len(np.unique(column)) == len(column) for column in matches.T)
    assert matches[:, 0].max() < len(query) and matches[:, 1].max() < len(photo)
    np.testing.assert_array_equal(matches, matcher.match(query, photo))
    assert verify(*wall, verification).n_matches <= len(matches)
    identity = verification.identity["matcher"]
    assert "weights" not in identity["settings"] and len(identity["weights_sha256"]) == 64
    none = dataclasses.replace(
        query,
        **{name: getattr(query, name)[:0] for name in ("positions", "scales", "angles", "strengths", "descriptors")},
    )
    assert matcher.match(none, photo).shape == (0, 2)
    narrow = dataclasses.replace(photo, descriptors=photo.descriptors[:, :64])
    with pytest.raises(UltronError, match="match descriptors of 128 values, and the local features have 64"):
        matcher.match(query, narrow)


def test_files_that_are_no_weights_of_lightglue(tmp_path: Path) -> None:
    pytest.importorskip("kornia")
    path = tmp_path / "w.pth"
    whole = torch.load(lightglue_weights(tmp_path / "whole.pth", add_scale_ori=False), weights_only=True)
    cut = {name: tensor for name, tensor in whole.items() if "ffn" not in name}
    bent = {**whole, "posenc.Wr.weight": torch.zeros(8, 3)}
    wrong = {**whole, "log_assignment.1.final_proj.weight": torch.zeros(3, 3)}
    for content in ({}, [1], {"a": torch.zeros(2)}, cut, bent, wrong, {**whole, "more.weight": torch.zeros(2)}):
        torch.save(content, path)
        with pytest.raises(UltronError, match=r"w\.pth holds no weights of LightGlue \("):
            _ = choose_matcher("lightglue", {"weights": str(path)}).made
    path.write_bytes(b"none")
    with pytest.raises(UltronError, match="not a weights file"):
        _ = choose_matcher("lightglue", {"weights": str(path)}).made
