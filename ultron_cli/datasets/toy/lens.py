"""The sky behind, what falls from it, and the camera's own effects. Light is linear, (3, H, W) float32."""

import numpy as np

from ultron_cli.datasets.toy.draws import Draws, value_noise
from ultron_cli.datasets.toy.light import Sky
from ultron_cli.datasets.toy.views import View


def paint_sky(
    sky: Sky, view: View, draws: Draws, height: int, width: int, horizon_row: float, focal_px: float
) -> np.ndarray:
    """(3, height, width) float32: from the horizon's colour up to the zenith's, with clouds, and stars at night."""
    up = (np.float32(horizon_row) - np.arange(height, dtype=np.float32)) / np.float32(focal_px) * np.float32(
        1.1
    ) + np.float32(0.05)
    up = 1 - np.clip(up, 0, 1)
    up = (1 - up * up)[:, None]
    clouds: tuple[np.ndarray, np.ndarray] | None = None  # (heap, cover), (height, width) each
    if sky.clouds:
        cell = max(6, width // 6)
        heap = value_noise(draws, height, width, cell) + np.float32(0.5) * value_noise(
            draws, height, width, max(3, cell // 2)
        )
        heap += np.float32(0.25) * value_noise(draws, height, width, max(2, cell // 4))
        cover = np.clip((heap + np.float32(1.5 * sky.clouds - 0.95)) * np.float32(1.3), 0, 1) * np.float32(0.9)
        clouds = heap, cover
    backdrop = np.empty((3, height, width), np.float32)
    for channel, plane in enumerate(backdrop):
        horizon, zenith = sky.horizon[channel], sky.zenith[channel]
        plane[:] = np.float32(horizon) * (1 - up) + np.float32(zenith) * up
        if clouds is not None:
            heap, cover = clouds
            bright = 0.45 * horizon + 0.5 * (sky.ambient[channel] + 0.35 * sky.sun[channel])
            plane += (np.float32(bright) * (1 + np.float32(0.22) * heap) - plane) * cover
    if view.light == "night":
        stars = (draws.bytes(height, width) == 255) & (draws.bytes(height, width) < 40)
        backdrop[:, stars] += np.float32(0.25)
    return backdrop


def _fall(light: np.ndarray, sky: Sky, draws: Draws) -> None:
    """Adds rain streaks or snowflakes in place."""
    height, width = light.shape[1:]
    if sky.rain:
        drops = draws.bytes(height, width) == 0
        streaks = np.zeros((height, width), bool)
        for step in range(max(4, height // 16)):
            shift = step // 4
            streaks[step:, shift:] |= drops[: height - step, : width - shift]
        light += streaks * np.float32(0.09)
    if sky.snow:
        flakes = draws.bytes(height, width) < 2
        spread = flakes.copy()
        spread[1:] |= flakes[:-1]
        big = flakes & (draws.bytes(height, width) < 60)
        spread[:, 1:] |= big[:, :-1]
        spread[1:, 1:] |= big[:-1, :-1]
        light[:, spread] = light[:, spread] * np.float32(0.35) + np.float32(0.55)


def blurred(light: np.ndarray) -> np.ndarray:
    """(..., H, W) float32 after a 1-2-1 blur along both axes; the border is kept."""
    quarter, half = np.float32(0.25), np.float32(0.5)
    out = light.copy()
    out[..., 1:-1, :] = light[..., :-2, :] * quarter + light[..., 1:-1, :] * half + light[..., 2:, :] * quarter
    again = out.copy()
    again[..., 1:-1] = out[..., :-2] * quarter + out[..., 1:-1] * half + out[..., 2:] * quarter
    return again


def develop(light: np.ndarray, view: View, sky: Sky, draws: Draws) -> np.ndarray:
    """(H, W, 3) uint8 from linear light: precipitation, exposure, white balance, darker corners, blur, tone curve,
    noise."""
    height, width = light.shape[1:]
    _fall(light, sky, draws)
    y = (np.arange(height, dtype=np.float32)[:, None] - np.float32(height / 2)) / np.float32(max(height, width))
    x = (np.arange(width, dtype=np.float32)[None, :] - np.float32(width / 2)) / np.float32(max(height, width))
    corners = np.float32(view.exposure) * (1 - np.float32(0.5) * (x * x + y * y))
    light = light * corners
    light[0] *= np.float32(view.white_balance[0])
    light[2] *= np.float32(view.white_balance[1])
    for _ in range(view.blur):
        light = blurred(light)
    tone = np.sqrt(np.clip(light, 0, 1))
    tone = (
        tone * (np.float32(0.86) + np.float32(0.32) * tone) / (1 + np.float32(0.18) * tone * tone)
    )  # a soft S: deeper shadows, gentle whites
    grain = draws.bytes(2, height, width).astype(np.float32)
    tone *= np.float32(255)
    tone += (grain[0] + grain[1] - np.float32(255)) * np.float32(view.noise / 104.0) + np.float32(0.5)
    return np.ascontiguousarray(np.clip(tone, 0, 255).astype(np.uint8).transpose(1, 2, 0))
