"""Daylight and weather: the colour of sky and sun, and how much of each every face gets. Here colours are linear light:
1.0 is white paper at noon."""

from dataclasses import dataclass, replace

import numpy as np

from ultron_cli.datasets.toy.draws import Draws, cosine, sine
from ultron_cli.datasets.toy.raster import cross, unit
from ultron_cli.datasets.toy.solids import Mesh
from ultron_cli.datasets.toy.views import View
from ultron_cli.datasets.toy.walls import Colour, times


@dataclass(frozen=True, kw_only=True)
class Sky:
    """The light of one time of day in one weather. Colours are linear light."""

    sun: Colour
    sun_elevation_deg: float
    ambient: Colour
    horizon: Colour
    zenith: Colour
    clouds: float = 0.15  # 0 to 1
    flood: Colour = (0.0, 0.0, 0.0)  # of lamps that shine up at the landmark
    fog_m: float = 2500.0  # distance at which a quarter of the contrast is left
    windows_lit: float = 0.0  # share of the panes with light behind
    window_glow: float = 0.8  # brightness of a lit pane
    rain: float = 0.0  # 0 to 1
    snow: float = 0.0  # 0 to 1


LIGHTS = {
    "noon": Sky(
        sun=(1.15, 1.08, 0.96),
        sun_elevation_deg=52,
        ambient=(0.42, 0.47, 0.56),
        horizon=(0.62, 0.74, 0.88),
        zenith=(0.14, 0.3, 0.66),
    ),
    "afternoon": Sky(
        sun=(1.18, 1.0, 0.78),
        sun_elevation_deg=33,
        ambient=(0.4, 0.43, 0.51),
        horizon=(0.68, 0.74, 0.8),
        zenith=(0.16, 0.32, 0.64),
    ),
    "golden": Sky(
        sun=(1.25, 0.7, 0.3),
        sun_elevation_deg=13,
        ambient=(0.33, 0.32, 0.39),
        horizon=(0.95, 0.58, 0.3),
        zenith=(0.22, 0.3, 0.52),
        windows_lit=0.06,
    ),
    "dusk": Sky(
        sun=(0.0, 0.0, 0.0),
        sun_elevation_deg=8,
        ambient=(0.2, 0.175, 0.29),
        horizon=(0.62, 0.27, 0.24),
        zenith=(0.05, 0.06, 0.2),
        windows_lit=0.4,
        flood=(0.1, 0.07, 0.03),
    ),
    "night": Sky(
        sun=(0.0, 0.0, 0.0),
        sun_elevation_deg=8,
        ambient=(0.022, 0.026, 0.05),
        horizon=(0.05, 0.045, 0.06),
        zenith=(0.008, 0.01, 0.03),
        windows_lit=0.5,
        window_glow=0.65,
        flood=(0.6, 0.42, 0.2),
    ),
}


def _grey(sky: Sky, amount: float, tone: float) -> Sky:
    """The sky under clouds: less sun, and all colours drawn to grey by `amount`."""

    def mix(colour: Colour) -> Colour:
        mean = (colour[0] + colour[1] + colour[2]) / 3
        red, green, blue = ((channel + (mean - channel) * amount) * tone for channel in colour)
        return red, green, blue

    horizon = mix(sky.horizon)
    zenith = tuple(z + (h - z) * 0.75 * amount for z, h in zip(mix(sky.zenith), horizon, strict=True))
    ambient = tuple(a + 0.42 * s * amount for a, s in zip(mix(sky.ambient), sky.sun, strict=True))
    return replace(sky, sun=times(sky.sun, 1 - amount), ambient=ambient, horizon=horizon, zenith=zenith)


def sky_for(light: str, weather: str) -> Sky:
    """The light of a time of day in a weather."""
    sky = LIGHTS[light]
    lit = max(sky.windows_lit, 0.0)
    if weather == "cloudy":
        return replace(_grey(sky, 0.3, 1.0), clouds=0.6)
    if weather == "overcast":
        return replace(_grey(sky, 0.96, 0.9), clouds=1.0)
    if weather == "fog":
        return replace(_grey(sky, 0.98, 0.95), clouds=0.0, fog_m=120.0, windows_lit=max(lit, 0.1))
    if weather == "rain":
        return replace(_grey(sky, 0.97, 0.62), clouds=1.0, fog_m=420.0, rain=1.0, windows_lit=max(lit, 0.25))
    if weather == "snow":
        return replace(_grey(sky, 0.9, 0.95), clouds=0.9, fog_m=260.0, snow=1.0, windows_lit=max(lit, 0.1))
    return sky


def sun_direction(view: View) -> np.ndarray:
    """(3,) unit vector towards the sun, which stands somewhere on the front's side of the landmark."""
    elevation = LIGHTS[view.light].sun_elevation_deg
    flat = cosine(elevation)
    return np.array([sine(view.sun_azimuth_deg) * flat, -cosine(view.sun_azimuth_deg) * flat, sine(elevation)])


def face_light(
    mesh: Mesh, sky: Sky, sun: np.ndarray, n_landmark: int, n_solid: int, draws: Draws
) -> tuple[np.ndarray, np.ndarray]:
    """(F + 1, 3) float32 twice: light from all around, and from the sun where no shadow falls. The last row (face -1)
    is the sky's, unused.

    The first n_landmark faces are floodlit at night; those up to n_solid have walls with a normal; the rest (ground,
    people, trees) are lit alike from all sides.
    """
    normal = unit(cross(mesh.edge_u, mesh.edge_v))
    n_faces = len(normal)
    standing = np.arange(n_faces) > n_solid  # the ground is the face n_solid
    facing_sun = np.where(
        standing, 0.55, np.maximum(0.0, normal[:, 0] * sun[0] + normal[:, 1] * sun[1] + normal[:, 2] * sun[2])
    )
    sideways = normal[:, 0] * 0.8 + normal[:, 1] * 0.6
    openness = np.where(standing, 0.85, 0.74 + 0.26 * normal[:, 2] + 0.1 * sideways)
    tint = mesh.tint.copy()
    flood = np.zeros((n_faces, 3))
    hue = draws.choice(((1.0, 1.0, 1.0), (1.15, 0.8, 0.5), (0.8, 1.0, 1.3), (1.1, 0.75, 1.1)))
    lift = np.where(normal[:, 2] > 0.2, 0.3, 0.8 + 0.3 * sideways)
    for channel in range(3):
        flood[:n_landmark, channel] = sky.flood[channel] * hue[channel] * lift[:n_landmark]
        flood[n_landmark:, channel] = sky.flood[channel] * 0.12
    if sky.snow:  # roofs and the ground under snow: far lighter and bluish, the texture shows through a little
        white = (normal[:, 2] > 0.35) & ~standing
        for channel, whiteness in enumerate((2.1, 2.3, 2.6)):
            tint[white, channel] = tint[white, channel] * whiteness + 0.25
    if sky.rain:
        tint[normal[:, 2] > 0.9] *= 0.7
    rows = []
    for light, share in ((sky.ambient, openness), (sky.sun, facing_sun)):
        table = np.zeros((n_faces + 1, 3))
        for channel in range(3):
            table[:n_faces, channel] = tint[:, channel] * light[channel] * share
        rows.append(table)
    rows[0][:n_faces] += flood
    return rows[0].astype(np.float32), rows[1].astype(np.float32)
