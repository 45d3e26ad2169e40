"""One photo of a landmark: camera, surroundings, light and weather turned into pixels."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ultron_cli.datasets.toy.building import Building
from ultron_cli.datasets.toy.draws import Draws, cosine, sine
from ultron_cli.datasets.toy.lens import develop, paint_sky
from ultron_cli.datasets.toy.light import Sky, face_light, sky_for, sun_direction
from ultron_cli.datasets.toy.raster import SAMPLES, Camera, Frame, draw, look_at, new_frame
from ultron_cli.datasets.toy.shading import Light, shade, sunlit
from ultron_cli.datasets.toy.solids import Atlas, Mesh, Shape
from ultron_cli.datasets.toy.street import Street, add_house
from ultron_cli.datasets.toy.views import View

WINDOW_GLOW = (1.0, 0.72, 0.34)


@dataclass(frozen=True, kw_only=True)
class Photo:
    """A photo, and how much of the landmark it shows."""

    pixels: np.ndarray  # (H, W, 3) uint8
    box: tuple[int, int, int, int]  # the landmark's, x1, y1, x2, y2 in pixels
    visible: float  # share of the landmark that is in the photo and not hidden, 0 to 1
    share: float  # of the photo's pixels that show the landmark, 0 to 1


def photo_size(aspect: tuple[int, int], max_side_px: int) -> tuple[int, int]:
    """(width, height) in pixels with the longer side at max_side_px, both even."""
    longest = max(aspect)
    width, height = (max(2, max_side_px * side // longest // 2 * 2) for side in aspect)
    return width, height


def place_camera(building: Building, view: View, width_px: int, height_px: int) -> Camera:
    """The camera for a view, for a picture of that many (sub)pixels."""
    across, along = abs(cosine(view.azimuth_deg)), abs(sine(view.azimuth_deg))
    seen_width, tall = building.size_m[0] * across + building.size_m[1] * along, building.size_m[2]
    x, y = view.distance_m * sine(view.azimuth_deg), -view.distance_m * cosine(view.azimuth_deg)
    position, axes = look_at((x, y, view.elevation_m), (0.0, 0.0, tall * 0.46), view.roll_deg)
    focal = view.fill * view.distance_m / max(seen_width / width_px, tall / height_px)
    centre = (width_px * (0.5 + view.shift[0]), height_px * (0.5 + view.shift[1]))
    return Camera(
        position=position, axes=axes, focal_px=focal, width_px=width_px, height_px=height_px, centre_px=centre
    )


def _surroundings(building: Building, view: View, camera: Camera, street: Street, draws: Draws) -> tuple[Mesh, Mesh]:
    """Houses (which cast shadows), and the ground with everything that stands on it in front."""
    houses, things = Shape(), Shape()
    ahead, aside = (
        (-sine(view.azimuth_deg), cosine(view.azimuth_deg)),
        (cosine(view.azimuth_deg), sine(view.azimuth_deg)),
    )
    radius = 0.55 * (building.size_m[0] + building.size_m[1]) / 1.4
    at = (-ahead[0] * view.distance_m, -ahead[1] * view.distance_m)

    def ground_point(depth: float, left_right: float) -> tuple[float, float]:
        return at[0] + ahead[0] * depth + aside[0] * left_right, at[1] + ahead[1] * depth + aside[1] * left_right

    for _ in range(draws.integer(3, 8)):
        depth = view.distance_m + radius + draws.uniform(9, 60)
        x, y = ground_point(depth, draws.uniform(-0.62, 0.62) * camera.width_px / camera.focal_px * depth)
        add_house(houses, draws, street, x, y)
    for side in (-1, 1):
        if draws.chance(0.55):
            x, y = ground_point(
                view.distance_m + draws.uniform(-0.3, 0.3) * radius, side * (radius + draws.uniform(11, 20))
            )
            add_house(houses, draws, street, x, y)
    if view.occlusion > 0.7:  # the landmark stands behind other houses
        for side in (-0.12, 0.14):
            depth = view.distance_m - radius - 9.0 - draws.uniform(0.0, 8.0)
            x, y = ground_point(max(14.0, depth), (view.shift[0] + side) * building.size_m[0] + draws.uniform(-2, 2))
            add_house(houses, draws, street, x, y, tall_m=building.size_m[2] * draws.uniform(0.55, 0.85))
    pavement = street.pavements[
        "cobbles" if view.weather == "snow" else building.ground
    ]  # grey shows white under snow, a lawn would not
    things.face((-400.0, -400.0, 0.0), (16.0, 0, 0), (0, 16.0, 0), pavement, repeats=True)
    free = max(6.0, view.distance_m - radius * 0.95)
    _occluders(things, view, camera, street, draws, ground_point, aside, free)
    return houses.mesh(), things.mesh()


def _occluders(
    shape: Shape,
    view: View,
    camera: Camera,
    street: Street,
    draws: Draws,
    ground_point: Callable[[float, float], tuple[float, float]],
    aside: tuple[float, float],
    free: float,
) -> None:
    """Puts people, trees, lamp posts and vehicles between the camera and the landmark, in a depth of `free` metres.

    ground_point: (x, y) of a depth and a place left (-) or right of the line of sight, in metres.
    """
    tree_kind = "bare tree" if view.weather == "snow" else "tree"
    amounts = {
        "person": int(draws.uniform(1, 16) * (0.4 + view.occlusion)),
        "lamp": draws.integer(0, 2),
        "vehicle": int(draws.uniform(0, 3.2) * view.occlusion + 0.35),
        tree_kind: int(draws.uniform(0.3, 4.2) * view.occlusion + 0.4),
    }
    if view.occlusion > 0.7:
        amounts[tree_kind] += draws.integer(2, 4)
    for kind, amount in amounts.items():
        for _ in range(amount):
            sprite = draws.choice(street.sprites[kind])
            nearest = {"person": 0.22, "vehicle": 0.4}.get(kind, 0.38) if view.fill < 2 else 0.6
            depth = free * draws.uniform(nearest, 1.0)
            centre = draws.uniform(-0.55, 0.55)
            if kind == tree_kind and view.occlusion < 0.7:  # trees mostly at the sides, as people step away from them
                centre = draws.sign() * draws.uniform(0.22, 0.6)
            x, y = ground_point(depth, centre * camera.width_px / camera.focal_px * depth)
            scale = draws.uniform(0.85, 1.15)
            half = sprite.width_m * scale / 2
            flip = draws.sign() if kind != "vehicle" else 1.0
            shade = draws.uniform(0.8, 1.15)
            shape.tint = (shade, shade, shade)
            shape.face(
                (x - aside[0] * half * flip, y - aside[1] * half * flip, 0.0),
                (aside[0] * 2 * half * flip, aside[1] * 2 * half * flip, 0.0),
                (0.0, 0.0, sprite.height_m * scale),
                sprite.texture,
                two_sided=True,
            )
    shape.tint = (1.0, 1.0, 1.0)


def _landmark_box(mesh: Mesh, camera: Camera) -> tuple[tuple[int, int, int, int], float]:
    """The landmark's box in whole (sub)pixels, cut to the photo, and the share of the uncut box that is inside."""
    x, y, _ = camera.project(mesh.corners().reshape(-1, 3))
    low_x, high_x, low_y, high_y = float(x.min()), float(x.max()), float(y.min()), float(y.max())
    x1, x2 = max(0.0, min(low_x, camera.width_px - 4.0)), min(float(camera.width_px), max(high_x, 4.0))
    y1, y2 = max(0.0, min(low_y, camera.height_px - 4.0)), min(float(camera.height_px), max(high_y, 4.0))
    inside = (x2 - x1) * (y2 - y1) / max(1.0, (high_x - low_x) * (high_y - low_y))
    step = SAMPLES
    return (
        int(x1 / step),
        int(y1 / step),
        max(int(x1 / step) + 1, int(x2 / step)),
        max(int(y1 / step) + 1, int(y2 / step)),
    ), min(1.0, inside)


def render(building: Building, view: View, street: Street, draws: Draws, max_side_px: int) -> Photo:
    """Takes the photo. The building must be made on top of this street's atlas."""
    width, height = photo_size(view.aspect, max_side_px)
    camera = place_camera(building, view, width * SAMPLES, height * SAMPLES)
    atlas = building.atlas
    houses, things = _surroundings(building, view, camera, street, draws)
    frame = new_frame(camera)
    draw(frame, camera, building.mesh, atlas)
    n_landmark = len(building.mesh.texture)
    n_alone = int(np.count_nonzero(frame.face >= 0))
    draw(frame, camera, houses, atlas, n_landmark)
    draw(frame, camera, things, atlas, n_landmark + len(houses.texture))
    n_seen = int(np.count_nonzero((frame.face >= 0) & (frame.face < n_landmark)))
    box, inside = _landmark_box(building.mesh, camera)
    solid = building.mesh.followed_by(houses)
    pixels = _photographed(frame, camera, building, view, solid, solid.followed_by(things), atlas, draws)
    return Photo(
        pixels=pixels,
        box=box,
        visible=round(inside * n_seen / max(1, n_alone), 4),
        share=round(n_seen / frame.face.size, 4),
    )


def _photographed(
    frame: Frame, camera: Camera, building: Building, view: View, solid: Mesh, mesh: Mesh, atlas: Atlas, draws: Draws
) -> np.ndarray:
    """(H, W, 3) uint8: texture times light, fog by depth, the sky behind, then the camera's own effects."""
    sky: Sky = sky_for(view.light, view.weather)
    sun = sun_direction(view)
    n_landmark = len(building.mesh.texture)
    ambient, direct = face_light(mesh, sky, sun, n_landmark, len(solid.texture), draws)
    height, width = frame.face.shape[0] // SAMPLES, frame.face.shape[1] // SAMPLES
    lit = np.ones((height, width), np.float32)
    if sky.sun[0] > 0.05:
        extent = 0.62 * (building.size_m[0] + building.size_m[1]) + 0.5 * building.size_m[2]
        lit = sunlit(frame, camera, solid, atlas, sun, extent)
    backdrop = paint_sky(sky, view, draws, height, width, camera.centre_px[1] / SAMPLES, camera.focal_px / SAMPLES)
    panes_lit = np.zeros(256, bool)
    panes_lit[1:251] = draws.bytes(250) < int(sky.windows_lit * 255)
    panes_lit[250] = sky.windows_lit > 0
    light = Light(
        ambient=ambient,
        direct=direct,
        lit=lit,
        backdrop=backdrop,
        panes_lit=panes_lit,
        glow=np.array([channel * sky.window_glow for channel in WINDOW_GLOW], np.float32),
        horizon=np.array(sky.horizon, np.float32),
        fog=np.float32(1 / sky.fog_m if sky.fog_m < 2000 else 0),
    )
    return develop(shade(frame, atlas, light), view, sky, draws)
