"""Building blocks of the rendered landmarks: flat faces with a texture, put together to boxes, roofs, round towers and
domes.

World axes in metres: x to the right along the front, y away from the front, z up; the front wall looks towards -y
(azimuth 0).
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ultron_cli.datasets.toy.draws import cosine, sine

Point = tuple[float, float, float]
# origin, edge_u, edge_v, tint, shrink, texture, two_sided, repeats: the columns of a Mesh
Face = tuple[Point, Point, Point, Point, tuple[float, float], int, bool, bool]
N_LEVELS = 5


@dataclass(frozen=True, kw_only=True)
class Atlas:
    """All textures in one flat array, each at N_LEVELS sizes (every next one half as wide and high)."""

    texels: np.ndarray  # (T,) uint32, the four bytes of a tile's texel
    offset: np.ndarray  # (textures, N_LEVELS) int64, as width and height
    width: np.ndarray
    height: np.ndarray

    def followed_by(self, other: "Atlas") -> "Atlas":
        """Both atlases in one; the textures of `other` count on from this one's."""
        joined = {
            name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in ("texels", "width", "height")
        }
        return Atlas(offset=np.concatenate([self.offset, other.offset + len(self.texels)]), **joined)


def pack_atlas(tiles: list[np.ndarray]) -> Atlas:
    """Makes the smaller levels of (h, w, 4) uint8 tiles: colours are averaged, tags taken from one texel of four."""
    parts, offset, width, height, filled = [], [], [], [], 0
    for tile in tiles:
        for _ in range(N_LEVELS):
            parts.append(np.ascontiguousarray(tile).reshape(-1))
            offset.append(filled)
            height.append(tile.shape[0])
            width.append(tile.shape[1])
            filled += tile.shape[0] * tile.shape[1]
            if min(tile.shape[:2]) >= 4:
                even = tile[: tile.shape[0] // 2 * 2, : tile.shape[1] // 2 * 2]
                wide = even[..., :3].astype(np.uint16)
                mean = (wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2] + 2) // 4
                tile = np.concatenate([mean.astype(np.uint8), even[1::2, 1::2, 3:]], axis=2)
    shape = (len(tiles), N_LEVELS)
    tables = (np.array(column, np.int64).reshape(shape) for column in (offset, width, height))
    return Atlas(
        texels=np.concatenate(parts).view("<u4") if parts else np.zeros(0, "<u4"),
        **dict(zip(("offset", "width", "height"), tables, strict=True)),
    )


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """Flat faces. Each is spanned by edge_u and edge_v from `origin`; its texture's rows run along edge_u, row 0 at the
    origin.
    """

    origin: np.ndarray  # (F, 3) float64, as edge_u, edge_v and tint
    edge_u: np.ndarray
    edge_v: np.ndarray
    tint: np.ndarray
    shrink: np.ndarray  # (F, 2) float64, by which share the far edge is shorter at its two ends; 0.5, 0.5 is a triangle
    texture: np.ndarray  # (F,) int64
    two_sided: np.ndarray  # (F,) bool
    repeats: np.ndarray  # (F,) bool: the texture goes on beyond its first copy

    def followed_by(self, other: "Mesh") -> "Mesh":
        """Both meshes in one, this one's faces first."""
        return Mesh(
            **{name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in self.__dataclass_fields__}
        )

    def take(self, rows: np.ndarray) -> "Mesh":
        """The faces of `rows`."""
        return Mesh(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})

    def corners(self) -> np.ndarray:
        """(F, 4, 3) float64: the corners of every face, in metres."""
        near_far = self.origin + self.edge_v
        left, right = self.edge_u * self.shrink[:, :1], self.edge_u * (1 - self.shrink[:, 1:])
        return np.stack([self.origin, self.origin + self.edge_u, near_far + left, near_far + right], axis=1)


class Shape:
    """Collects faces and their tiles; `mesh()` and `atlas()` give them as arrays."""

    def __init__(self, first_texture: int = 0) -> None:
        self.first_texture = first_texture
        self.tiles: list[np.ndarray] = []
        self.tint: Point = (1.0, 1.0, 1.0)  # multiplies the colours of the faces added from now on
        self._faces: list[Face] = []

    def texture(self, tile: np.ndarray) -> int:
        """Takes up a tile and returns its number."""
        self.tiles.append(tile)
        return self.first_texture + len(self.tiles) - 1

    def face(
        self,
        origin: Point,
        edge_u: Point,
        edge_v: Point,
        texture: int,
        *,
        shrink: tuple[float, float] = (0.0, 0.0),
        two_sided: bool = False,
        repeats: bool = False,
    ) -> None:
        """Adds one face; seen from outside, edge_u points right and edge_v up."""
        self._faces.append((origin, edge_u, edge_v, self.tint, shrink, texture, two_sided, repeats))

    def mesh(self) -> Mesh:
        """The faces so far."""
        columns = list(zip(*self._faces, strict=True)) if self._faces else [[]] * 8
        vectors = [np.array(column, np.float64).reshape(-1, 3) for column in columns[:4]]
        return Mesh(
            origin=vectors[0],
            edge_u=vectors[1],
            edge_v=vectors[2],
            tint=vectors[3],
            shrink=np.array(columns[4], np.float64).reshape(-1, 2),
            texture=np.array(columns[5], np.int64),
            two_sided=np.array(columns[6], bool),
            repeats=np.array(columns[7], bool),
        )

    def atlas(self) -> Atlas:
        """The tiles so far."""
        return pack_atlas(self.tiles)

    def box(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        z: tuple[float, float],
        *,
        front: int,
        side: int,
        back: int | None = None,
        top: int | None = None,
        two_sided: bool = False,
    ) -> None:
        """Four walls and, with `top`, a flat roof."""
        (x0, x1), (y0, y1), up = x, y, (0.0, 0.0, z[1] - z[0])
        self.face((x0, y0, z[0]), (x1 - x0, 0, 0), up, front, two_sided=two_sided)
        self.face((x1, y0, z[0]), (0, y1 - y0, 0), up, side, two_sided=two_sided)
        self.face((x1, y1, z[0]), (x0 - x1, 0, 0), up, front if back is None else back, two_sided=two_sided)
        self.face((x0, y1, z[0]), (0, y0 - y1, 0), up, side, two_sided=two_sided)
        if top is not None:
            self.face((x0, y0, z[1]), (x1 - x0, 0, 0), (0, y1 - y0, 0), top)

    def gable_roof(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        z: tuple[float, float],
        *,
        cover: int,
        gable: int,
        along: str,
        eaves: float = 0.5,
    ) -> None:
        """Two slopes with the ridge along "x" or "y", and the two triangles under its ends."""
        (x0, x1), (y0, y1), (z0, z1) = x, y, z
        rise = z1 - z0
        if along == "y":
            half, drop = (x1 - x0) / 2, eaves * rise / (x1 - x0) * 2
            self.face((x0, y0, z0), (x1 - x0, 0, 0), (0, 0, rise), gable, shrink=(0.5, 0.5))
            self.face((x1, y1, z0), (x0 - x1, 0, 0), (0, 0, rise), gable, shrink=(0.5, 0.5))
            self.face(
                (x1 + eaves, y0 - eaves, z0 - drop),
                (0, y1 - y0 + 2 * eaves, 0),
                (-half - eaves, 0, rise + drop),
                cover,
                two_sided=True,
            )
            self.face(
                (x0 - eaves, y1 + eaves, z0 - drop),
                (0, y0 - y1 - 2 * eaves, 0),
                (half + eaves, 0, rise + drop),
                cover,
                two_sided=True,
            )
        else:
            half, drop = (y1 - y0) / 2, eaves * rise / (y1 - y0) * 2
            self.face((x1, y0, z0), (0, y1 - y0, 0), (0, 0, rise), gable, shrink=(0.5, 0.5))
            self.face((x0, y1, z0), (0, y0 - y1, 0), (0, 0, rise), gable, shrink=(0.5, 0.5))
            self.face(
                (x0 - eaves, y0 - eaves, z0 - drop),
                (x1 - x0 + 2 * eaves, 0, 0),
                (0, half + eaves, rise + drop),
                cover,
                two_sided=True,
            )
            self.face(
                (x1 + eaves, y1 + eaves, z0 - drop),
                (x0 - x1 - 2 * eaves, 0, 0),
                (0, -half - eaves, rise + drop),
                cover,
                two_sided=True,
            )

    def hip_roof(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        z: tuple[float, float],
        *,
        cover: int,
        inset: float,
        top: int | None = None,
    ) -> None:
        """Four slopes that draw in by `inset` metres; with `top`, a flat cap (a mansard). All four meet if inset is
        half the width."""
        (x0, x1), (y0, y1), rise = x, y, z[1] - z[0]
        wide, deep = x1 - x0, y1 - y0
        by_x, by_y = min(0.5, inset / wide), min(0.5, inset / deep)
        in_x, in_y = by_x * wide, by_y * deep
        self.face((x0, y0, z[0]), (wide, 0, 0), (0, in_y, rise), cover, shrink=(by_x, by_x))
        self.face((x1, y0, z[0]), (0, deep, 0), (-in_x, 0, rise), cover, shrink=(by_y, by_y))
        self.face((x1, y1, z[0]), (-wide, 0, 0), (0, -in_y, rise), cover, shrink=(by_x, by_x))
        self.face((x0, y1, z[0]), (0, -deep, 0), (in_x, 0, rise), cover, shrink=(by_y, by_y))
        if top is not None and by_x < 0.5 and by_y < 0.5:
            self.face((x0 + in_x, y0 + in_y, z[1]), (wide - 2 * in_x, 0, 0), (0, deep - 2 * in_y, 0), top)

    def drum(
        self,
        centre: tuple[float, float],
        radius: tuple[float, float],
        z: tuple[float, float],
        texture: int,
        *,
        sides: int = 10,
        two_sided: bool = False,
    ) -> None:
        """A ring of `sides` faces from radius[0] at z[0] to radius[1] at z[1]: a round tower, or a cone where radius[1]
        is 0."""
        step = 360.0 / sides
        angles = [(k - 0.5) * step - 90.0 for k in range(sides + 1)]
        directions = [(cosine(angle), sine(angle)) for angle in angles]
        grows = radius[1] > radius[0]
        wide, narrow = max(radius), min(radius)
        z_wide, z_narrow = (z[1], z[0]) if grows else z
        narrowing = 0.5 - 0.5 * narrow / wide
        for (ax, ay), (bx, by) in pairwise(directions):
            if grows:  # hangs from its wider, upper edge, so that the texture never has to reach beyond its own width
                ax, ay, bx, by = bx, by, ax, ay
            edge = (wide * (bx - ax), wide * (by - ay), 0.0)
            middle = ((ax + bx) / 2, (ay + by) / 2)
            rise = (middle[0] * (narrow - wide), middle[1] * (narrow - wide), z_narrow - z_wide)
            self.face(
                (centre[0] + wide * ax, centre[1] + wide * ay, z_wide),
                edge,
                rise,
                texture,
                shrink=(narrowing, narrowing),
                two_sided=two_sided,
            )

    def dome(
        self,
        centre: tuple[float, float],
        radius: float,
        foot: float,
        height: float,
        texture: int,
        profile: str,
        *,
        sides: int = 12,
    ) -> float:
        """Rings after a profile of DOME_PROFILES; returns the height of its top in metres."""
        points = DOME_PROFILES[profile]
        for (r0, z0), (r1, z1) in pairwise(points):
            self.drum(
                centre, (r0 * radius, r1 * radius), (foot + z0 * height, foot + z1 * height), texture, sides=sides
            )
        return foot + points[-1][1] * height


# (radius, height) as shares of the dome's own, from the foot to the top
DOME_PROFILES = {
    "round": ((1.0, 0.0), (0.97, 0.26), (0.87, 0.5), (0.7, 0.72), (0.42, 0.91), (0.0, 1.0)),
    "pointed": ((1.0, 0.0), (0.96, 0.28), (0.8, 0.56), (0.5, 0.82), (0.0, 1.1)),
    "onion": ((0.8, 0.0), (1.08, 0.2), (1.05, 0.42), (0.7, 0.66), (0.26, 0.86), (0.0, 1.2)),
    "bell": ((1.0, 0.0), (0.72, 0.18), (0.6, 0.45), (0.5, 0.65), (0.24, 0.82), (0.0, 1.15)),
}
