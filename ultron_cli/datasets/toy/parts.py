"""Parts that landmarks are made of: blocks with windows, parapets, square and round towers, and what crowns them.
Lengths in metres."""

from dataclasses import dataclass

from ultron_cli.datasets.toy import facades
from ultron_cli.datasets.toy.draws import Draws
from ultron_cli.datasets.toy.solids import DOME_PROFILES, Shape
from ultron_cli.datasets.toy.walls import WallStyle

CROWNS = ("pyramid", "spire", "dome", "battlement", "lantern", "hip")  # of square towers


@dataclass(frozen=True)
class Site:
    """What a plan draws with: the shape it adds to, and the textures that all parts of the building share."""

    draws: Draws
    style: WallStyle
    shape: Shape
    cover: int
    flat: int
    stone: int


def windowed(site: Site, width: float, height: float, feature: str = "", floors: int | None = None) -> int:
    """A new texture: a wall with windows, that many metres wide and high (see facades.facade)."""
    return site.shape.texture(facades.facade(site.draws, site.style, width, height, feature=feature, floors=floors))


def block(
    site: Site,
    x: tuple[float, float],
    y: tuple[float, float],
    z: tuple[float, float],
    feature: str = "",
    two_kinds: bool = True,
) -> None:
    """A box with windows on all sides, its front with a feature, its back without."""
    width, depth, height = x[1] - x[0], y[1] - y[0], z[1] - z[0]
    front = windowed(site, width, height, feature)
    side = windowed(site, depth, height) if two_kinds else front
    site.shape.box(
        x, y, z, front=front, side=side, back=windowed(site, width, height) if feature else front, top=site.flat
    )


def parapet(site: Site, x: tuple[float, float], y: tuple[float, float], foot: float, kind: str) -> None:
    """A railing or battlement along the upper edge of a box."""
    height = 1.1 if kind == "balustrade" else 1.6
    width = max(x[1] - x[0], 2.0)
    tile = (
        facades.balustrade(site.style, width, height)
        if kind == "balustrade"
        else facades.battlement(site.draws, site.style, width, height, 0.9)
    )
    texture = site.shape.texture(tile)
    site.shape.box(x, y, (foot, foot + height), front=texture, side=texture, two_sided=True)


def add_crown(site: Site, centre: tuple[float, float], half: float, foot: float, kind: str) -> None:
    """What crowns a square tower: "pyramid", "spire", "dome", "battlement", "lantern" or "hip"."""
    shape, (cx, cy), draws = site.shape, centre, site.draws
    x, y = (cx - half, cx + half), (cy - half, cy + half)
    if kind == "battlement":
        parapet(site, (x[0] - 0.4, x[1] + 0.4), (y[0] - 0.4, y[1] + 0.4), foot - 0.4, "battlement")
    elif kind in ("pyramid", "hip"):
        rise = half * (3.2 if kind == "pyramid" else 1.3)
        shape.hip_roof(
            (x[0] - 0.3, x[1] + 0.3), (y[0] - 0.3, y[1] + 0.3), (foot, foot + rise), cover=site.cover, inset=half + 0.3
        )
    elif kind == "spire":
        shape.drum(centre, (half * 0.98, 0.0), (foot, foot + half * 6.0), site.cover, sides=8)
        for sx, sy in ((-1, -1), (1, -1), (-1, 1), (1, 1)):
            shape.drum(
                (cx + sx * half * 0.82, cy + sy * half * 0.82),
                (half * 0.2, 0.0),
                (foot, foot + half * 1.6),
                site.stone,
                sides=4,
            )
    else:
        ring = windowed(site, half * 0.7, half * 1.2, floors=1)
        shape.drum(centre, (half * 0.86, half * 0.86), (foot, foot + half * 1.2), ring, sides=8)
        if kind == "lantern":
            shape.drum(centre, (half * 0.95, 0.0), (foot + half * 1.2, foot + half * 2.6), site.cover, sides=8)
        else:
            shape.dome(
                centre,
                half * 0.95,
                foot + half * 1.2,
                half * 1.3,
                site.cover,
                draws.choice(tuple(DOME_PROFILES)),
                sides=8,
            )


def square_tower(
    site: Site,
    centre: tuple[float, float],
    half: float,
    height: float,
    crown: str,
    *,
    wall: int | None = None,
    clock: bool = False,
) -> int:
    """A square tower from the ground; returns its wall texture for twins."""
    if wall is None:
        wall = windowed(site, 2 * half, height, "clock" if clock else "")
    (cx, cy) = centre
    site.shape.box((cx - half, cx + half), (cy - half, cy + half), (0, height), front=wall, side=wall, top=site.flat)
    add_crown(site, centre, half, height, crown)
    return wall


def round_tower(
    site: Site, centre: tuple[float, float], radius: float, height: float, crown: str, wall: int | None = None
) -> int:
    """A round tower from the ground with a cone, a dome or battlements; returns its wall texture."""
    shape = site.shape
    wall = windowed(site, radius * 0.65, height) if wall is None else wall
    shape.drum(centre, (radius, radius), (0, height), wall)
    if crown == "battlement":
        texture = shape.texture(facades.battlement(site.draws, site.style, radius * 0.72, 1.8, radius * 0.18))
        shape.drum(centre, (radius, radius * 1.12), (height - 1.0, height), site.stone)
        shape.drum(centre, (radius * 1.12, radius * 1.12), (height, height + 1.8), texture, two_sided=True)
    elif crown == "cone":
        shape.drum(centre, (radius * 1.15, 0.0), (height, height + radius * site.draws.uniform(2.0, 3.2)), site.cover)
    else:
        shape.dome(
            centre, radius * 1.04, height, radius * 1.1, site.cover, site.draws.choice(tuple(DOME_PROFILES)), sides=10
        )
    return wall
