"""One landmark, made from the seed and its name alone: a plan of plans.py, filled in with a style of its own."""

from dataclasses import dataclass

from ultron_cli.datasets.toy import facades
from ultron_cli.datasets.toy.draws import Draws
from ultron_cli.datasets.toy.facades import PAVEMENTS
from ultron_cli.datasets.toy.parts import Site
from ultron_cli.datasets.toy.plans import PLANS
from ultron_cli.datasets.toy.solids import Atlas, Mesh, Shape
from ultron_cli.datasets.toy.walls import WallStyle, bare_wall, draw_style, times


@dataclass(frozen=True, kw_only=True)
class Building:
    """A landmark in its own axes, its footprint centred on the origin."""

    name: str
    plan: str  # a key of PLANS
    atlas: Atlas
    mesh: Mesh
    size_m: tuple[float, float, float]  # extent along x, y and z
    main_azimuth_deg: float  # of its best side
    ground: str  # a key of PAVEMENTS


def make_building(seed: int, name: str, base: Atlas, *, like: str | None = None) -> Building:
    """The landmark of that name; its atlas holds the textures of `base` first, then its own.

    like: another landmark, whose plan and style it has (the same windows and stones) with measures of its own.
    """
    draws = Draws(seed, "building", name)
    plan, style = _plan_and_style(draws)
    if like is not None:
        plan, style = _plan_and_style(Draws(seed, "building", like))
    shape = Shape(first_texture=len(base.offset))
    pattern = draws.choice((0, 0, 1, 2))
    cover = shape.texture(facades.roof(draws, style.roof, 12, 8, pattern))
    flat = shape.texture(facades.roof(draws, times(style.wall, 0.8), 6, 6, 0))
    stone = shape.texture(bare_wall(draws, style, 48, 96))
    PLANS[plan](Site(draws=draws, style=style, shape=shape, cover=cover, flat=flat, stone=stone))
    mesh = shape.mesh()
    corners = mesh.corners().reshape(-1, 3)
    low, high = corners.min(axis=0), corners.max(axis=0)
    mesh.origin[:, :2] -= (low + high)[:2] / 2
    width_m, depth_m, height_m = (float(length) for length in high - low)
    best_side = draws.sign() * draws.uniform(8, 32)  # people step a little aside, so that two walls show
    return Building(
        name=name,
        plan=plan,
        atlas=base.followed_by(shape.atlas()),
        mesh=mesh,
        size_m=(width_m, depth_m, height_m),
        main_azimuth_deg=best_side,
        ground=draws.choice(tuple(PAVEMENTS)),
    )


def _plan_and_style(draws: Draws) -> tuple[str, WallStyle]:
    return draws.choice(tuple(PLANS)), draw_style(draws)
