"""Colours of what a frame shows: texture times light, shadows, fog by depth. Linear light: 1.0 is white at noon."""

from dataclasses import dataclass

import numpy as np
from ultron_kernels import rendering

from ultron_cli.datasets.toy.lens import blurred
from ultron_cli.datasets.toy.raster import SAMPLES, Camera, Frame, sun_map
from ultron_cli.datasets.toy.solids import Atlas, Mesh

SUN_MAP_PX = 224
LEAST_NEARNESS = np.float32(1e-4)


@dataclass(frozen=True, kw_only=True)
class Light:
    """What colours the pixels, beside texture and depth."""

    ambient: np.ndarray  # (F + 1, 3) float32 by face, from all around; the last row is the sky's, unused
    direct: np.ndarray  # the same, from the sun where no shadow falls
    lit: np.ndarray  # (H, W) float32, the share of the sun that reaches the pixel
    backdrop: np.ndarray  # (3, H, W) float32, the sky
    panes_lit: np.ndarray  # (256,) bool by a texel's tag
    glow: np.ndarray  # (3,) float32, the colour of a lit pane
    horizon: np.ndarray  # (3,) float32, the colour of fog
    fog: np.float32  # 1/m: at this nearness a quarter of the contrast is left; 0 for none


def shade(frame: Frame, atlas: Atlas, light: Light) -> np.ndarray:
    """(3, H, W) float32: each pixel the mean of its samples in the frame."""
    if not rendering.is_ready(worth_building=False):
        return shade_literally(frame, atlas, light)
    total = np.empty_like(light.backdrop)
    rendering.run(
        rendering.Shading,
        height=total.shape[1],
        width=total.shape[2],
        samples=SAMPLES,
        inverse_depth=frame.inverse_depth,
        face=frame.face,
        texel=frame.texel,
        texels=atlas.texels,
        **vars(light),
        total=total,
    )
    return total


def shade_literally(frame: Frame, atlas: Atlas, light: Light) -> np.ndarray:
    """shade; kernels/csrc/rendering/shading.cpp does the same."""
    total = np.zeros_like(light.backdrop)
    tone_of = np.arange(256, dtype=np.float32) / np.float32(255)
    albedo_of = tone_of * tone_of
    for y in range(SAMPLES):
        for x in range(SAMPLES):
            part = (slice(y, None, SAMPLES), slice(x, None, SAMPLES))
            face, texel = frame.face[part], atlas.texels.take(frame.texel[part])
            is_sky = face < 0
            glows = light.panes_lit.take(texel >> np.uint32(24))
            clear = _clearness(frame.inverse_depth[part], light.fog)
            for channel in range(3):
                colour = albedo_of.take((texel >> np.uint32(8 * channel)) & np.uint32(255))
                colour *= light.ambient[face, channel] + light.direct[face, channel] * light.lit
                colour[glows] = light.glow[channel]
                if light.fog:
                    colour = (colour - light.horizon[channel]) * clear + light.horizon[channel]
                np.copyto(colour, light.backdrop[channel], where=is_sky)
                total[channel] += np.minimum(colour, np.float32(1.3))
    return total * np.float32(1 / (SAMPLES * SAMPLES))


def _clearness(inverse_depth: np.ndarray, fog: np.float32) -> np.ndarray:
    """What is left of the contrast at each pixel's depth (a quotient in place of the exponential, which is not the same
    everywhere)."""
    clear = 1 / (1 + fog / np.maximum(inverse_depth, LEAST_NEARNESS))
    return clear * clear


@dataclass(frozen=True, kw_only=True)
class SunRays:
    """Where the pixels of a photo lie as the sun sees them. Float32 throughout."""

    ray_x: np.ndarray  # (W,), of a ray of forward 1 through each column, in the camera's axes
    ray_y: np.ndarray  # (H,)
    position: np.ndarray  # (3,), of the camera in the sun's axes, metres
    turn: np.ndarray  # (3, 3), the camera's axes in the sun's
    focal_px: np.float32  # of the sun's camera
    centre_x: np.float32
    centre_y: np.float32
    first: np.ndarray  # (side, side), inverse depths of what the sun sees first
    bias_m: np.float32  # so much behind it is lit too, or faces would shade themselves


def sunlit(frame: Frame, camera: Camera, mesh: Mesh, atlas: Atlas, sun: np.ndarray, extent_m: float) -> np.ndarray:
    """(H, W) float32, 1 where the sun reaches the pixel's first sample and 0 in a shadow, with soft edges."""
    sun_camera, first = sun_map(mesh, atlas, sun, extent_m, SUN_MAP_PX)
    columns, rows = np.arange(0, camera.width_px, SAMPLES), np.arange(0, camera.height_px, SAMPLES)
    rays = SunRays(
        ray_x=((columns - camera.centre_px[0]) / camera.focal_px).astype(np.float32),
        ray_y=((camera.centre_px[1] - rows) / camera.focal_px).astype(np.float32),
        position=sun_camera.to_camera(camera.position - sun_camera.position).astype(np.float32),
        turn=sun_camera.to_camera(camera.axes).astype(np.float32),
        focal_px=np.float32(sun_camera.focal_px),
        centre_x=np.float32(sun_camera.centre_px[0]),
        centre_y=np.float32(sun_camera.centre_px[1]),
        first=first,
        bias_m=np.float32(extent_m * 0.014),
    )
    is_ready = rendering.is_ready(worth_building=False)
    return blurred((reached_compiled if is_ready else reached_literally)(frame, rays))


def reached_compiled(frame: Frame, rays: SunRays) -> np.ndarray:
    """reached_literally, several times as fast."""
    lit = np.empty((len(rays.ray_y), len(rays.ray_x)), np.float32)
    rendering.run(
        rendering.Sunlight,
        height=lit.shape[0],
        width=lit.shape[1],
        samples=SAMPLES,
        inverse_depth=frame.inverse_depth,
        **vars(rays),
        n_side=len(rays.first),
        lit=lit,
    )
    return lit


def reached_literally(frame: Frame, rays: SunRays) -> np.ndarray:
    """(H, W) float32, 1 where the sun reaches the pixel's first sample, else 0."""
    depth = 1 / np.maximum(frame.inverse_depth[::SAMPLES, ::SAMPLES], LEAST_NEARNESS)
    ray_x, ray_y = rays.ray_x[None, :], rays.ray_y[:, None]
    x, y, z = (
        rays.position[k] + (rays.turn[0, k] * ray_x + rays.turn[1, k] * ray_y + rays.turn[2, k]) * depth
        for k in range(3)
    )
    scale = rays.focal_px / z
    last = len(rays.first) - 1
    column = np.clip(x * scale + rays.centre_x, 0, last).astype(np.int32)
    row = np.clip(rays.centre_y - y * scale, 0, last).astype(np.int32)
    return (rays.first[row, column] * (z - rays.bias_m) < 1).astype(np.float32)
