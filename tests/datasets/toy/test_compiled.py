"""The compiled rendering against NumPy's: the same bits."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ultron_kernels import rendering

from tests.datasets.toy.test_dataset import hashes
from ultron_cli.datasets.toy import ToyConfig, make_toy, raster, scene, shading
from ultron_cli.datasets.toy.building import Building, make_building
from ultron_cli.datasets.toy.draws import Draws
from ultron_cli.datasets.toy.raster import Camera, Frame, draw, new_frame, sun_map
from ultron_cli.datasets.toy.solids import Atlas, Mesh
from ultron_cli.datasets.toy.street import Street, make_street
from ultron_cli.datasets.toy.views import View, draw_view

pytestmark = pytest.mark.slow
SIDE_PX = 300  # of a frame


@pytest.fixture(autouse=True)
def built() -> None:
    if not rendering.is_ready(worth_building=True):
        pytest.skip("the compiled rendering cannot be had on this machine")


def some_view(building: Building, seed: int, **changes: object) -> tuple[View, Draws]:
    draws = Draws(seed, "photo", building.name)
    view = draw_view(draws, "any", 2.0, building.size_m, building.main_azimuth_deg)
    return replace(view, **changes), draws


def whole_scene(seed: int, **changes: object) -> tuple[Camera, Mesh, Atlas, Building, Street]:
    """A building, its houses, the repeating ground, and what stands on it."""
    street = make_street(seed)
    building = make_building(seed, f"landmark-{seed}", street.atlas)
    view, draws = some_view(building, seed, **changes)
    camera = scene.place_camera(building, view, SIDE_PX, SIDE_PX - 7)
    houses, things = scene._surroundings(building, view, camera, street, draws)
    return camera, building.mesh.followed_by(houses).followed_by(things), building.atlas, building, street


def assert_same(compiled: Frame, literal: Frame) -> None:
    for name in ("inverse_depth", "face", "texel"):
        result, expected = getattr(compiled, name), getattr(literal, name)
        assert result.dtype == expected.dtype and np.array_equal(result.view(np.int32), expected.view(np.int32))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("occlusion", [0.1, 1.0])
def test_frames_are_the_same(seed: int, occlusion: float, monkeypatch: pytest.MonkeyPatch) -> None:
    camera, mesh, atlas, *_ = whole_scene(seed, fill=0.7, occlusion=occlusion, elevation_m=(1.7, 24.0)[seed % 2])
    assert mesh.two_sided.any() and mesh.repeats.any() and mesh.shrink.any()
    compiled, literal = new_frame(camera), new_frame(camera)
    draw(compiled, camera, mesh, atlas, first_face=seed)
    draw(compiled, camera, mesh, atlas, first_face=1000)  # nothing is nearer than itself
    monkeypatch.setattr(raster, "_draw_compiled", raster._draw_literally)
    draw(literal, camera, mesh, atlas, first_face=seed)
    assert_same(compiled, literal)
    shown = mesh.repeats[literal.face[literal.face >= 0] - seed]
    assert not shown.all() and (shown.any() or occlusion == 1)


@pytest.mark.parametrize("seed", range(4))
def test_what_the_sun_sees_and_reaches_is_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    camera, mesh, atlas, *_ = whole_scene(seed)
    frame = new_frame(camera)
    draw(frame, camera, mesh, atlas)
    sun = raster.unit(np.array([seed - 1.5, -1.0, 0.2 + 0.2 * seed]))
    results = []
    for _ in range(2):
        _, first = sun_map(mesh, atlas, sun, 40.0, 224)
        results.append((first, shading.sunlit(frame, camera, mesh, atlas, sun, 40.0)))
        monkeypatch.setattr(raster, "_draw_compiled", raster._draw_literally)
        monkeypatch.setattr(shading, "reached_compiled", shading.reached_literally)
    (first, lit), (expected_first, expected_lit) = results
    assert np.array_equal(first, expected_first) and np.array_equal(lit, expected_lit)
    assert first.any() and 0 < lit.mean() < 1


@pytest.mark.parametrize("light", ["noon", "golden", "dusk", "night"])
@pytest.mark.parametrize("weather", ["clear", "overcast", "fog", "rain", "snow"])
def test_photos_are_the_same(light: str, weather: str, monkeypatch: pytest.MonkeyPatch) -> None:
    street = make_street(len(weather))
    building = make_building(len(light), f"{light}-{weather}", street.atlas)
    photos = []
    for setting in ("auto", "off"):
        monkeypatch.setenv("ULTRON_KERNELS", setting)
        view, draws = some_view(building, 3, light=light, weather=weather)
        photos.append(scene.render(building, view, street, draws, 120))
    assert (
        np.array_equal(photos[0].pixels, photos[1].pixels) and replace(photos[0], pixels=photos[1].pixels) == photos[1]
    )


def test_files_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ToyConfig(n_train_landmarks=3, n_eval_landmarks=1, n_distractors=3, difficulty=1.5, max_side_px=80)
    make_toy(tmp_path / "compiled", config, workers=0)
    monkeypatch.setenv("ULTRON_KERNELS", "off")
    make_toy(tmp_path / "literal", config, workers=0)
    assert hashes(tmp_path / "compiled") == hashes(tmp_path / "literal")
