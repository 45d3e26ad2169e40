"""The plans of the rendered landmarks: which parts a church, a palace or a castle has, and how their sizes vary.
Lengths in metres."""

from collections.abc import Callable

from ultron_cli.datasets.toy import facades
from ultron_cli.datasets.toy.parts import CROWNS, Site, add_crown, block, parapet, round_tower, square_tower, windowed
from ultron_cli.datasets.toy.solids import DOME_PROFILES


def _church(site: Site) -> None:
    draws, shape = site.draws, site.shape
    half, deep, tall = draws.uniform(5.5, 8.0), draws.uniform(13, 19), draws.uniform(11, 15)
    rise = half * draws.uniform(0.9, 1.5)
    block(site, (-half, half), (-deep, deep), (0, tall), "rose")
    end = shape.texture(facades.gable(draws, site.style, 2 * half, rise, feature=draws.choice(("", "rose", "clock"))))
    shape.gable_roof((-half, half), (-deep, deep), (tall, tall + rise), cover=site.cover, gable=end, along="y")
    if draws.chance(0.6):  # aisles under lean-to roofs, as lower blocks
        aisle = draws.uniform(2.6, 4.0)
        block(site, (-half - aisle, half + aisle), (-deep + 2.5, deep - 3), (0, tall * 0.55))
    crown, tower_half = draws.choice(CROWNS), draws.uniform(2.4, 3.4)
    tower_tall = tall + rise + draws.uniform(-1, 10)
    layout = draws.choice(("twins", "twins", "left", "right", "middle", "crossing"))
    if layout == "crossing":
        wall = windowed(site, tower_half * 0.8, rise + 6)
        shape.drum((0, deep * 0.3), (tower_half * 1.2, tower_half * 1.2), (tall, tall + rise + 4), wall, sides=8)
        shape.dome(
            (0, deep * 0.3),
            tower_half * 1.25,
            tall + rise + 4,
            tower_half * 1.4,
            site.cover,
            draws.choice(tuple(DOME_PROFILES)),
            sides=8,
        )
        block(site, (-half - 5, half + 5), (deep * 0.3 - 4, deep * 0.3 + 4), (0, tall * 0.9))
        return
    places = {"twins": (-1, 1), "left": (-1,), "right": (1,), "middle": (0,)}[layout]
    wall = None
    for place in places:
        at = (place * (half + tower_half * 0.7), -deep + tower_half * (0.6 if place else -0.6))
        wall = square_tower(site, at, tower_half, tower_tall, crown, wall=wall, clock=draws.chance(0.3))


def _palace(site: Site) -> None:
    draws, shape = site.draws, site.shape
    half, deep, tall = draws.uniform(15, 22), draws.uniform(6, 9), draws.uniform(10, 15)
    block(site, (-half, half), (-deep, deep), (0, tall))
    middle, out = draws.uniform(4, 6.5), draws.uniform(1.2, 3.0)
    lift = draws.uniform(0, 4)
    block(site, (-middle, middle), (-deep - out, deep + 1), (0, tall + lift), "portal")
    top = draws.choice(("pediment", "mansard", "dome", "balustrade"))
    roof_kind = draws.choice(("mansard", "balustrade", "hip"))
    if roof_kind == "balustrade":
        parapet(site, (-half, half), (-deep, deep), tall, "balustrade")
    else:
        inset = 1.6 if roof_kind == "mansard" else deep
        shape.hip_roof(
            (-half, half),
            (-deep, deep),
            (tall, tall + draws.uniform(2.6, 4.5)),
            cover=site.cover,
            inset=inset,
            top=site.flat,
        )
    crown_foot = tall + lift
    if top == "pediment":
        rise = middle * 0.55
        end = shape.texture(
            facades.gable(draws, site.style, 2 * middle, rise, feature=draws.choice(("", "clock", "rose")))
        )
        shape.gable_roof(
            (-middle, middle),
            (-deep - out, deep),
            (crown_foot, crown_foot + rise),
            cover=site.cover,
            gable=end,
            along="y",
        )
    elif top == "dome":
        wall = windowed(site, middle * 0.45, 3.4, floors=1)
        shape.drum((0, 0), (middle * 0.85, middle * 0.85), (crown_foot, crown_foot + 3.4), wall)
        shape.dome(
            (0, 0),
            middle * 0.9,
            crown_foot + 3.4,
            middle * draws.uniform(0.8, 1.3),
            site.cover,
            draws.choice(tuple(DOME_PROFILES)),
        )
    else:
        shape.hip_roof(
            (-middle, middle),
            (-deep - out, deep),
            (crown_foot, crown_foot + 5),
            cover=site.cover,
            inset=2.0,
            top=site.flat,
        )
    if draws.chance(0.6):
        wing, higher = draws.uniform(2.6, 4.2), draws.uniform(0.5, 5)
        crown, wall = draws.choice(("pyramid", "hip", "dome", "lantern")), None
        for side in (-1, 1):
            wall = square_tower(
                site, (side * (half - wing * 0.5), -deep + wing * 0.5), wing, tall + higher, crown, wall=wall
            )


def _temple(site: Site) -> None:
    draws, shape = site.draws, site.shape
    half, deep, tall = draws.uniform(8, 13), draws.uniform(10, 16), draws.uniform(9, 13)
    steps = draws.uniform(1.0, 2.4)
    for k in range(3):
        grow = 2.4 - 0.7 * k
        shape.box(
            (-half - grow, half + grow),
            (-deep - 4 - grow, deep + grow),
            (steps * k / 3, steps * (k + 1) / 3),
            front=site.stone,
            side=site.stone,
            top=site.stone,
        )
    block(site, (-half + 0.8, half - 0.8), (-deep, deep), (steps, tall), "portal")
    count = draws.choice((4, 6, 6, 8))
    columns = shape.texture(
        facades.colonnade(draws, site.style, 2 * half, tall - steps, count, arched=draws.chance(0.25))
    )
    for y in (-deep - 3.4, -deep - 2.9):
        shape.face((-half, y, steps), (2 * half, 0, 0), (0, 0, tall - steps), columns, two_sided=True)
    for side, direction in ((half, 1.0), (-half, -1.0)):
        start = -deep - 3.4 if direction > 0 else deep
        shape.face(
            (side, start, steps), (0, direction * (2 * deep + 3.4), 0), (0, 0, tall - steps), columns, two_sided=True
        )
    beam = windowed(site, 2 * half, 2.2, floors=1)
    shape.box(
        (-half - 0.4, half + 0.4), (-deep - 3.6, deep + 0.4), (tall, tall + 2.2), front=beam, side=beam, top=site.flat
    )
    if draws.chance(0.75):
        rise = half * draws.uniform(0.36, 0.6)
        end = shape.texture(
            facades.gable(draws, site.style, 2 * half, rise, feature=draws.choice(("", "rose", "clock")))
        )
        shape.gable_roof(
            (-half - 0.4, half + 0.4),
            (-deep - 3.6, deep + 0.4),
            (tall + 2.2, tall + 2.2 + rise),
            cover=site.cover,
            gable=end,
            along="y",
        )
    if draws.chance(0.5):
        radius = half * draws.uniform(0.5, 0.75)
        wall = windowed(site, radius * 0.6, 6, floors=1)
        shape.drum((0, deep * 0.3), (radius, radius), (tall + 2, tall + 8), wall)
        shape.dome(
            (0, deep * 0.3),
            radius * 1.03,
            tall + 8,
            radius * draws.uniform(0.8, 1.2),
            site.cover,
            draws.choice(tuple(DOME_PROFILES)),
        )


def _domed(site: Site) -> None:
    draws, shape = site.draws, site.shape
    half, tall = draws.uniform(9, 13), draws.uniform(8, 12)
    block(site, (-half, half), (-half, half), (0, tall), "portal", two_kinds=False)
    parapet(site, (-half, half), (-half, half), tall, draws.choice(("balustrade", "battlement")))
    radius, drum_tall, profile = (
        half * draws.uniform(0.5, 0.78),
        draws.uniform(2.5, 6),
        draws.choice(tuple(DOME_PROFILES)),
    )
    wall = windowed(site, radius * 0.53, drum_tall, floors=1)
    shape.drum((0, 0), (radius, radius), (tall, tall + drum_tall), wall, sides=12)
    peak = shape.dome((0, 0), radius * 1.04, tall + drum_tall, radius * draws.uniform(0.85, 1.3), site.cover, profile)
    shape.drum((0, 0), (0.35, 0.05), (peak - 0.4, peak + 3), site.stone, sides=4)
    corner = draws.choice(("minarets", "small domes", "turrets", "none"))
    wall = None
    for sx, sy in ((-1, -1), (1, -1), (-1, 1), (1, 1)):
        if corner == "minarets":
            wall = round_tower(site, (sx * (half + 2), sy * (half + 2)), 1.5, tall + 12, "cone", wall)
        elif corner == "small domes":
            shape.dome(
                (sx * half * 0.72, sy * half * 0.72), half * 0.24, tall, half * 0.3, site.cover, profile, sides=8
            )
        elif corner == "turrets":
            wall = square_tower(
                site,
                (sx * half * 0.9, sy * half * 0.9),
                half * 0.22,
                tall + 4,
                draws.choice(("pyramid", "dome")),
                wall=wall,
            )
    if draws.chance(0.6):
        block(site, (-half * 0.35, half * 0.35), (-half - 2.2, 0), (0, tall * draws.uniform(0.8, 1.25)), "portal")


def _campanile(site: Site) -> None:
    draws, shape = site.draws, site.shape
    half, tall = draws.uniform(3.4, 5.2), draws.uniform(24, 38)
    square_tower(site, (0, 0), half, tall, draws.choice(CROWNS), clock=draws.chance(0.7))
    out = half * draws.uniform(0.08, 0.22)
    belt = draws.uniform(0.55, 0.8) * tall
    ring = windowed(site, 2 * (half + out), 3.2, floors=1)
    shape.box(
        (-half - out, half + out), (-half - out, half + out), (belt, belt + 3.2), front=ring, side=ring, top=site.flat
    )
    wide, deep, low = draws.uniform(6, 12), draws.uniform(5, 9), draws.uniform(6, 10)
    side = draws.choice((-1.0, 0.0, 1.0))
    block(site, (side * wide - wide, side * wide + wide), (-half * 0.5, -half * 0.5 + 2 * deep), (0, low), "portal")
    shape.hip_roof(
        (side * wide - wide, side * wide + wide),
        (-half * 0.5, -half * 0.5 + 2 * deep),
        (low, low + 3.5),
        cover=site.cover,
        inset=draws.uniform(2, deep),
        top=site.flat,
    )


def _castle(site: Site) -> None:
    draws = site.draws
    half, deep, tall = draws.uniform(11, 17), draws.uniform(9, 14), draws.uniform(8, 12)
    block(site, (-half, half), (-deep, deep), (0, tall), "portal")
    parapet(site, (-half, half), (-deep, deep), tall, "battlement")
    radius, crown, wall = draws.uniform(2.6, 4.2), draws.choice(("battlement", "cone", "cone", "dome")), None
    heights = [tall + draws.uniform(2, 8)] * 4 if draws.chance(0.5) else [tall + draws.uniform(1, 11) for _ in range(4)]
    for (sx, sy), height in zip(((-1, -1), (1, -1), (-1, 1), (1, 1)), heights, strict=True):
        wall = round_tower(site, (sx * half, sy * deep), radius, height, crown, wall)
    keep = draws.uniform(4, 6)
    at = (draws.uniform(-0.5, 0.5) * half, draws.uniform(0.0, 0.4) * deep)
    square_tower(site, at, keep, tall + draws.uniform(7, 15), draws.choice(("battlement", "hip", "pyramid")))
    if draws.chance(0.6):
        gate = round_tower(site, (-4, -deep), 2.0, tall + 3, crown)
        round_tower(site, (4, -deep), 2.0, tall + 3, crown, gate)


def _town_hall(site: Site) -> None:
    draws, shape = site.draws, site.shape
    half, deep, tall = draws.uniform(9, 14), draws.uniform(7, 10), draws.uniform(11, 16)
    block(site, (-half, half), (-deep, deep), (0, tall), "portal")
    rise = deep * draws.uniform(0.8, 1.3)
    end = shape.texture(facades.gable(draws, site.style, 2 * deep, rise, feature=draws.choice(("", "clock"))))
    shape.gable_roof((-half, half), (-deep, deep), (tall, tall + rise), cover=site.cover, gable=end, along="x")
    n_gables = draws.integer(0, 3)
    for k in range(n_gables):  # stepped gables along the front
        x, wide = ((k + 0.5) / n_gables * 2 - 1) * half, half / n_gables * 0.62
        for step in range(3):
            inner = wide * (1 - step * 0.3)
            piece = windowed(site, 2 * inner, rise * 0.34, floors=1)
            shape.box(
                (x - inner, x + inner),
                (-deep - 0.1, -deep + 1.4),
                (tall + step * rise * 0.3, tall + (step + 1) * rise * 0.3),
                front=piece,
                side=site.stone,
                top=site.flat,
            )
    at = draws.choice(((0.0, -deep + 1.5), (0.0, 0.0), (-half + 1, -deep + 2), (half - 1, -deep + 2)))
    square_tower(
        site, at, draws.uniform(2.6, 4.0), tall + rise + draws.uniform(4, 14), draws.choice(CROWNS), clock=True
    )
    if draws.chance(0.5):
        arcade = shape.texture(facades.colonnade(draws, site.style, 2 * half, 4.6, draws.integer(6, 10), arched=True))
        shape.box(
            (-half, half), (-deep - 3, -deep), (0, 4.6), front=arcade, side=site.stone, top=site.flat, two_sided=True
        )


def _gate(site: Site) -> None:
    draws, shape = site.draws, site.shape
    half, deep, tall = draws.uniform(8, 12), draws.uniform(3, 5), draws.uniform(12, 18)
    count = draws.choice((1, 1, 3, 3))
    arch = facades.colonnade(draws, site.style, 2 * half, tall * 0.72, count, arched=True)
    front = shape.texture(arch)
    for y, direction in ((-deep, 1.0), (deep, -1.0)):
        shape.face((-direction * half, y, 0), (direction * 2 * half, 0, 0), (0, 0, tall * 0.72), front, two_sided=True)
    side = windowed(site, 2 * deep, tall * 0.72)
    shape.face((half, -deep, 0), (0, 2 * deep, 0), (0, 0, tall * 0.72), side, two_sided=True)
    shape.face((-half, deep, 0), (0, -2 * deep, 0), (0, 0, tall * 0.72), side, two_sided=True)
    block(site, (-half - 0.4, half + 0.4), (-deep - 0.4, deep + 0.4), (tall * 0.72, tall))
    top = draws.choice(("attic", "towers", "gable", "quadriga"))
    if top == "attic":
        block(site, (-half * 0.7, half * 0.7), (-deep * 0.7, deep * 0.7), (tall, tall + 4))
    elif top == "gable":
        end = shape.texture(
            facades.gable(draws, site.style, 2 * half, half * 0.45, feature=draws.choice(("", "clock")))
        )
        shape.gable_roof(
            (-half, half), (-deep, deep), (tall, tall + half * 0.45), cover=site.cover, gable=end, along="y"
        )
    elif top == "quadriga":
        for x in (-2.4, -0.8, 0.8, 2.4):
            shape.drum((x, -deep * 0.3), (0.7, 0.2), (tall, tall + 3.4), site.stone, sides=5)
        shape.drum((0, deep * 0.2), (1.0, 0.15), (tall, tall + 5.5), site.stone, sides=6)
    else:
        wall, crown = None, draws.choice(CROWNS)
        for place in (-1, 1):
            wall = square_tower(site, (place * (half + 1.5), 0), 3.0, tall + draws.uniform(2, 5), crown, wall=wall)


def _stepped(site: Site) -> None:
    draws, shape = site.draws, site.shape
    half, foot = draws.uniform(8, 12), 0.0
    n_steps, ratio = draws.integer(3, 5), draws.uniform(0.66, 0.84)
    for step in range(n_steps):
        rise = draws.uniform(6, 10) * (1.4 if step == n_steps - 2 else 1)
        block(
            site,
            (-half, half),
            (-half * 0.8, half * 0.8),
            (foot, foot + rise),
            "portal" if step == 0 else "",
            two_kinds=False,
        )
        foot += rise
        half *= ratio
    add_crown(site, (0, 0), half * 0.8, foot, draws.choice(("pyramid", "spire", "dome", "lantern")))
    if draws.chance(0.5):
        shape.drum((0, 0), (0.3, 0.05), (foot, foot + half * 4), site.stone, sides=4)


PLANS: dict[str, Callable[[Site], None]] = {
    "church": _church,
    "palace": _palace,
    "temple": _temple,
    "domed": _domed,
    "campanile": _campanile,
    "castle": _castle,
    "town hall": _town_hall,
    "gate": _gate,
    "stepped": _stepped,
}
