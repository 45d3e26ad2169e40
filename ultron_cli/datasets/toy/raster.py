"""From flat faces to pixels: perspective, hidden surfaces, and the sun's shadows. Elementwise float arithmetic only, so
results repeat.

A frame keeps for every pixel which face and which texel is seen, and 1/depth; colour comes later (scene.py), once per
pixel.
"""

from dataclasses import dataclass

import numpy as np
from ultron_kernels import rendering

from ultron_cli.datasets.toy.draws import cosine, sine
from ultron_cli.datasets.toy.solids import N_LEVELS, Atlas, Mesh, Point
from ultron_cli.datasets.toy.walls import HOLE, TEXELS_PER_M

NEAR_M = 0.3
SAMPLES = 2  # pixels of a frame that make one of the photo, per axis


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sum over the last axis of length 3, always in the same order (a BLAS or pairwise sum may differ between
    machines)."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross product over the last axis."""
    return np.stack(
        [
            a[..., 1] * b[..., 2] - a[..., 2] * b[..., 1],
            a[..., 2] * b[..., 0] - a[..., 0] * b[..., 2],
            a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0],
        ],
        axis=-1,
    )


def unit(vector: np.ndarray) -> np.ndarray:
    """The vectors of the last axis at length 1 (sqrt and / are exactly rounded on every machine)."""
    return vector / np.sqrt(dot(vector, vector))[..., None]


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera."""

    position: np.ndarray  # (3,) float64, metres
    axes: np.ndarray  # (3, 3) float64, rows right, up, forward
    focal_px: float
    width_px: int
    height_px: int
    centre_px: tuple[float, float]

    def to_camera(self, vectors: np.ndarray) -> np.ndarray:
        """Turns (..., 3) world vectors into the camera's axes."""
        return np.stack([dot(vectors, axis) for axis in self.axes], axis=-1)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(x, y, depth) of (..., 3) world points: pixels and metres; x and y mean nothing where depth is below
        NEAR_M."""
        local = self.to_camera(points - self.position)
        depth = np.maximum(local[..., 2], NEAR_M)
        return (
            self.centre_px[0] + self.focal_px * local[..., 0] / depth,
            self.centre_px[1] - self.focal_px * local[..., 1] / depth,
            local[..., 2],
        )


def look_at(position: Point, target: Point, roll_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """Position and axes of a camera that looks at `target`."""
    eye = np.array(position, np.float64)
    forward = unit(np.array(target, np.float64) - eye)
    right = unit(np.array([forward[1], -forward[0], 0.0]))
    up = cross(right, forward)
    turn, lean = cosine(roll_deg), sine(roll_deg)
    return eye, np.stack([right * turn + up * lean, up * turn - right * lean, forward])


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What every pixel shows."""

    inverse_depth: np.ndarray  # (H, W) float32, 1/m, 0 for sky
    face: np.ndarray  # (H, W) int32, -1 for sky
    texel: np.ndarray  # (H, W) int32, index into the atlas


@dataclass(frozen=True, kw_only=True)
class Facet:
    """One face as a camera sees it."""

    number: int  # in the frame
    x0: int  # corner of its pixel box
    y0: int
    plane: np.ndarray  # (3, 3) float32, the row of `_planes`
    left: np.float32  # how much its sides lean in, texels of u per texel of v
    right: np.float32
    two_sided: bool
    repeats: bool
    texture: int
    offset: int  # of the texture in the atlas, at the level that is drawn; width and height are of that level too
    width: int
    height: int


def new_frame(camera: Camera) -> Frame:
    """A frame that shows nothing but sky."""
    shape = (camera.height_px, camera.width_px)
    return Frame(
        inverse_depth=np.zeros(shape, np.float32), face=np.full(shape, -1, np.int32), texel=np.zeros(shape, np.int32)
    )


def _boxes(mesh: Mesh, camera: Camera) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per face: whether it may be seen, its pixel box (F, 4) int64 as x0, y0, x1, y1, and its area in pixels (F,)."""
    corners = mesh.corners()
    x, y, depth = camera.project(corners)
    behind = depth < NEAR_M
    crosses = mesh.repeats | (behind.any(axis=1) & ~behind.all(axis=1))
    low_x, high_x, low_y, high_y = x.min(axis=1), x.max(axis=1), y.min(axis=1), y.max(axis=1)
    low_x, low_y = np.where(crosses, 0, low_x), np.where(crosses, 0, low_y)
    high_x, high_y = np.where(crosses, camera.width_px, high_x), np.where(crosses, camera.height_px, high_y)
    box = np.stack(
        [
            np.clip(low_x - 1, 0, camera.width_px),
            np.clip(low_y - 1, 0, camera.height_px),
            np.clip(high_x + 2, 0, camera.width_px),
            np.clip(high_y + 2, 0, camera.height_px),
        ],
        axis=1,
    ).astype(np.int64)
    normal = cross(mesh.edge_u, mesh.edge_v)
    facing = mesh.two_sided | (dot(normal, mesh.origin - camera.position) < 0)
    may_be_seen = facing & (crosses | ~behind.all(axis=1)) & (box[:, 0] < box[:, 2]) & (box[:, 1] < box[:, 3])
    # Shoelace formula over the quadrilateral 0, 1, 3, 2.
    area = np.abs((x[:, 0] - x[:, 3]) * (y[:, 1] - y[:, 2]) - (x[:, 1] - x[:, 2]) * (y[:, 0] - y[:, 3])) / 2
    return may_be_seen, box, np.where(crosses, np.float64(1e9), area)


def draw(frame: Frame, camera: Camera, mesh: Mesh, atlas: Atlas, first_face: int = 0) -> None:
    """Draws the faces into the frame where they are nearer than what is there; they are numbered from `first_face`."""
    if len(mesh.texture) == 0:
        return
    may_be_seen, boxes, area = _boxes(mesh, camera)
    numbers = np.flatnonzero(may_be_seen)
    visible, area = mesh.take(numbers), area[numbers]
    level = np.zeros(len(numbers), np.int64)
    for step in range(N_LEVELS - 1):
        n_texels = (atlas.width[visible.texture, step] * atlas.height[visible.texture, step]).astype(np.float64)
        level = np.where((level == step) & (n_texels > 1.6 * area) & ~visible.repeats, step + 1, level)
    facets = np.zeros(len(numbers), rendering.FACET)
    facets["box"] = boxes[numbers]
    facets["offset"] = atlas.offset[visible.texture, level]
    facets["width"], facets["height"] = width, height = (
        atlas.width[visible.texture, level],
        atlas.height[visible.texture, level],
    )
    facets["plane"] = _planes(visible, camera, width, height)
    facets["shrink"] = visible.shrink * (width / height)[:, None]
    facets["number"] = numbers + first_face
    facets["texture"], facets["two_sided"], facets["repeats"] = visible.texture, visible.two_sided, visible.repeats
    draw_facets = _draw_compiled if rendering.is_ready(worth_building=False) else _draw_literally
    draw_facets(frame, facets, atlas, _level_depths(camera))


def _level_depths(camera: Camera) -> np.ndarray:
    """(N_LEVELS - 1,) float32, metres: beyond each of them a repeating texture is drawn one level smaller, as far
    paving would flicker from pixel to pixel."""
    steps = [camera.focal_px * (1 << step) / (2.5 * TEXELS_PER_M) for step in range(1, N_LEVELS)]
    return np.array(steps, np.float32)


def _draw_compiled(frame: Frame, facets: np.ndarray, atlas: Atlas, level_depths: np.ndarray) -> None:
    """_draw_literally, many times as fast."""
    rendering.run(
        rendering.Drawing,
        facets=facets,
        n_facets=len(facets),
        inverse_depth=frame.inverse_depth,
        face=frame.face,
        texel=frame.texel,
        frame_width=frame.face.shape[1],
        texels=atlas.texels,
        level_offset=atlas.offset,
        level_width=atlas.width,
        n_levels=N_LEVELS,
        level_depth=level_depths,
    )


def _draw_literally(frame: Frame, facets: np.ndarray, atlas: Atlas, level_depths: np.ndarray) -> None:
    """Draws the faces, (F,) of rendering.FACET, one after the other, as kernels/csrc/rendering/raster.cpp."""
    height_px, width_px = frame.face.shape
    columns, rows = np.arange(width_px, dtype=np.float32), np.arange(height_px, dtype=np.float32)[:, None]
    for row in facets:
        x0, y0, x1, y1 = row["box"].tolist()
        facet = Facet(
            number=int(row["number"]),
            x0=x0,
            y0=y0,
            plane=row["plane"],
            left=row["shrink"][0],
            right=row["shrink"][1],
            two_sided=bool(row["two_sided"]),
            repeats=bool(row["repeats"]),
            texture=int(row["texture"]),
            offset=int(row["offset"]),
            width=int(row["width"]),
            height=int(row["height"]),
        )
        _draw_facet(frame, facet, columns[x0:x1], rows[y0:y1], atlas, level_depths)


def _planes(mesh: Mesh, camera: Camera, width: np.ndarray, height: np.ndarray) -> np.ndarray:
    """(F, 3, 3) float32: 1/depth, u/depth and v/depth of every face as a x + b y + c of the pixel; u and v in texels.

    With rays d = (x, y, 1), origin O, edges A and B and N = A x B in the camera's axes: 1/depth = N.d / N.O, and of a
    point P the share along A is (P - O).(B x N) / N.N, the share along B is (P - O).(N x A) / N.N.
    """
    origin, a, b = (
        camera.to_camera(mesh.origin - camera.position),
        camera.to_camera(mesh.edge_u),
        camera.to_camera(mesh.edge_v),
    )
    normal = cross(a, b)
    square = dot(normal, normal)[:, None]
    facing = dot(normal, origin)[:, None]
    inverse = normal / np.where(np.abs(facing) < 1e-9, 1e-9, facing)
    along_a, along_b = cross(b, normal) / square, cross(normal, a) / square
    u = (along_a - inverse * dot(origin, along_a)[:, None]) * (width - 0.5)[:, None]
    v = (along_b - inverse * dot(origin, along_b)[:, None]) * (height - 0.5)[:, None]
    rays = np.stack([inverse, u, v], axis=1)  # (F, 3, 3): coefficients of ray x, ray y, 1
    per_x, per_y = rays[..., 0] / camera.focal_px, -rays[..., 1] / camera.focal_px
    constant = rays[..., 2] - per_x * camera.centre_px[0] - per_y * camera.centre_px[1]
    return np.stack([per_x, per_y, constant], axis=2).astype(np.float32)


def _draw_facet(
    frame: Frame, facet: Facet, x: np.ndarray, y: np.ndarray, atlas: Atlas, level_depths: np.ndarray
) -> None:
    """Draws one face. x: (w,) and y: (h, 1) float32, the columns and rows of its pixel box."""
    (pa, pb, pc), (ua, ub, uc), (va, vb, vc) = facet.plane
    area = (slice(facet.y0, facet.y0 + len(y)), slice(facet.x0, facet.x0 + len(x)))
    nearness = pa * x + (pb * y + pc)
    inside = nearness > frame.inverse_depth[area]
    if not inside.any():
        return
    depth = 1 / np.maximum(nearness, np.float32(1e-4))
    u = ua * x + (ub * y + uc)
    u *= depth
    v = va * x + (vb * y + vc)
    v *= depth
    if not facet.repeats:
        edge = np.float32(0.35)  # faces overlap by a third of a texel, or seams between them would show the sky
        wide, high = np.float32(facet.width - 0.5) + edge, np.float32(facet.height - 0.5) + edge
        inside &= v > -edge
        inside &= v < high
        inside &= u > (facet.left * v - edge if facet.left else -edge)
        inside &= u < (wide - facet.right * v if facet.right else wide)
    # From here on only the pixels of the face: mostly far fewer than those of its box.
    at = np.flatnonzero(inside.reshape(-1))
    if not at.size:
        return
    column, row = u.reshape(-1).take(at).astype(np.int32), v.reshape(-1).take(at).astype(np.int32)
    if facet.repeats:
        texel = _ground_texel(column, row, depth.reshape(-1).take(at), facet, atlas, level_depths)
    else:
        texel = (
            np.int32(facet.offset)
            + np.minimum(row, np.int32(facet.height - 1)) * np.int32(facet.width)
            + np.minimum(column, np.int32(facet.width - 1))
        )
    if facet.two_sided:
        solid = (atlas.texels.take(texel) >> np.uint32(24)) != HOLE
        at, texel = at[solid], texel[solid]
    frame_width = frame.face.shape[1]
    where = at + at // len(x) * (frame_width - len(x)) + (facet.y0 * frame_width + facet.x0)
    frame.inverse_depth.reshape(-1)[where] = nearness.reshape(-1).take(at)
    frame.face.reshape(-1)[where] = facet.number
    frame.texel.reshape(-1)[where] = texel


def _ground_texel(
    column: np.ndarray, row: np.ndarray, depth: np.ndarray, facet: Facet, atlas: Atlas, level_depths: np.ndarray
) -> np.ndarray:
    """(n,) int32 atlas indices on a repeating texture, from smaller levels the farther away."""
    level = np.zeros(len(depth), np.int32)
    for least in level_depths:
        level += depth > least
    offset, width = (
        atlas.offset[facet.texture].astype(np.int32).take(level),
        atlas.width[facet.texture].astype(np.int32).take(level),
    )
    return (
        offset
        + (np.mod(row, np.int32(facet.height)) >> level) * width
        + (np.mod(column, np.int32(facet.width)) >> level)
    )


def sun_map(mesh: Mesh, atlas: Atlas, sun: np.ndarray, extent_m: float, side_px: int) -> tuple[Camera, np.ndarray]:
    """Seen from the sun: a far camera with a very long lens, and (side_px, side_px) float32 inverse depths of what it
    sees first."""
    distance = 2000.0
    x, y, z = (float(part) * distance for part in sun)
    position, axes = look_at((x, y, z), (0.0, 0.0, extent_m * 0.25), 0.0)
    camera = Camera(
        position=position,
        axes=axes,
        focal_px=side_px * distance / (2 * extent_m),
        width_px=side_px,
        height_px=side_px,
        centre_px=(side_px / 2, side_px / 2),
    )
    frame = new_frame(camera)
    draw(frame, camera, mesh, atlas)
    return camera, frame.inverse_depth
