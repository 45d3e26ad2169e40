"""What stands around and in front of a landmark: other houses, people, trees, lamp posts and vehicles, as textures and
as faces."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ultron_cli.datasets.toy import facades
from ultron_cli.datasets.toy.draws import Draws
from ultron_cli.datasets.toy.solids import Atlas, Shape
from ultron_cli.datasets.toy.walls import HOLE, ROOF_COLOURS, Colour, draw_style, fill, times

# of each kind in a data set
N_HOUSES = 10
N_PEOPLE = 12
N_TREES = 6
N_VEHICLES = 6


@dataclass(frozen=True, kw_only=True)
class Sprite:
    """An upright picture of something: its texture and its size in metres."""

    texture: int
    width_m: float
    height_m: float


@dataclass(frozen=True, kw_only=True)
class Street:
    """Textures that all photos of one data set share."""

    atlas: Atlas
    houses: list[tuple[int, int]]  # (wall, roof) textures
    sprites: dict[str, list[Sprite]]
    pavements: dict[str, int]


def _empty(height: int, width: int, colour: Colour) -> np.ndarray:
    tile = np.zeros((height, width, 4), np.uint8)
    fill(tile, 0, height, 0, width, colour, HOLE)
    return tile


def _disc(tile: np.ndarray, y: float, x: float, radius_y: float, radius_x: float, colour: Colour, tag: int = 0) -> None:
    rows, columns = (
        np.arange(tile.shape[0], dtype=np.float32)[:, None] - np.float32(y),
        np.arange(tile.shape[1], dtype=np.float32)[None, :] - np.float32(x),
    )
    inside = rows * rows / np.float32(radius_y * radius_y) + columns * columns / np.float32(radius_x * radius_x) <= 1
    tile[inside] = (*(min(255, max(0, int(channel))) for channel in colour), tag)


def person(draws: Draws) -> np.ndarray:
    """(64, 28, 4) uint8: someone standing, 1.8 m tall."""
    coat = (draws.uniform(30, 220), draws.uniform(30, 200), draws.uniform(30, 220))
    legs = times((70, 72, 90), draws.uniform(0.5, 1.4))
    tile = _empty(64, 28, coat)
    stride = draws.integer(2, 5)
    fill(tile, 0, 30, 14 - stride - 3, 14 - stride + 2, legs)
    fill(tile, 0, 30, 14 + stride - 3, 14 + stride + 2, times(legs, 0.85))
    _disc(tile, 38, 14, 16, 8, coat)
    fill(tile, 22, 48, 8, 20, coat)
    fill(tile, 26, 46, 5, 8, times(coat, 0.8))
    fill(tile, 26, 46, 20, 23, times(coat, 0.7))
    skin = times((214, 172, 142), draws.uniform(0.45, 1.1))
    _disc(tile, 57, 14, 6, 5, skin)
    _disc(tile, 60, 14, 4, 5.4, times((80, 60, 44), draws.uniform(0.3, 2.2)))
    return tile


def tree(draws: Draws, bare: bool) -> np.ndarray:
    """(128, 104, 4) uint8: a trunk under a crown of many round tufts, light above and dark below; or bare branches."""
    green = times(draws.choice(((74, 104, 46), (92, 112, 52), (58, 90, 50), (128, 112, 50))), draws.uniform(0.8, 1.15))
    tile = _empty(128, 104, green if not bare else (84, 72, 62))
    fill(tile, 0, 64, 49, 56, (72, 58, 46))
    if bare:
        for _ in range(26):
            x, y, lean = 52.0, draws.uniform(36, 70), draws.uniform(-1.5, 1.5)
            for step in range(draws.integer(14, 44)):
                fill(tile, y, y + 2, x, x + (3 if step < 12 else 2), (78, 66, 56))
                x, y = x + lean, y + 1.2
        return tile
    tufts = sorted((draws.uniform(44, 118), draws.uniform(10, 94)) for _ in range(70))
    for y, x in tufts:
        off_y, off_x = (y - 80) / 44, (x - 52) / 46
        if off_y * off_y + off_x * off_x < 1:
            _disc(
                tile,
                y,
                x,
                draws.uniform(5, 10),
                draws.uniform(5, 11),
                times(green, 0.55 + (y - 40) / 120 + draws.uniform(-0.12, 0.16)),
            )
    speckle = draws.bytes(128, 104)
    tile[(speckle < 26) & (np.arange(128) > 44)[:, None], 3] = HOLE
    leaf = (speckle > 200) & (tile[..., 3] == 0)
    tile[leaf, :3] = np.minimum(tile[leaf, :3].astype(np.uint16) * 5 // 4, 255).astype(np.uint8)
    return tile


def lamp_post(draws: Draws) -> np.ndarray:
    """(140, 24, 4) uint8: a lamp on a pole."""
    tile = _empty(140, 24, (60, 62, 62))
    fill(tile, 0, 122, 11, 13, (52, 56, 56))
    fill(tile, 0, 10, 9, 15, (48, 52, 52))
    fill(tile, 122, 134, 8, 16, (226, 214, 180), tag=250)
    fill(tile, 134, 137, 6, 18, (44, 48, 48))
    return tile


def vehicle(draws: Draws, kind: str) -> np.ndarray:
    """A car (36, 104, 4) or a bus (64, 220, 4), uint8, from the side."""
    paint = draws.choice(
        ((188, 40, 36), (230, 230, 228), (40, 44, 52), (46, 84, 150), (170, 172, 176), (214, 170, 40), (60, 110, 80))
    )
    h, w = (36, 104) if kind == "car" else (64, 220)
    tile = _empty(h, w, paint)
    if kind == "car":
        fill(tile, 7, 20, 3, 101, paint)
        for row in range(20, 34):
            lean = (row - 20) * 0.9
            fill(tile, row, row + 1, 22 + lean, 84 - lean * 0.7, paint)
        for row in range(21, 31):
            lean = (row - 20) * 0.9
            fill(tile, row, row + 1, 27 + lean, 51, (46, 54, 62), 0)
            fill(tile, row, row + 1, 54, 79 - lean * 0.7, (46, 54, 62), 0)
        wheels, radius = (22, 82), 8
    else:
        fill(tile, 8, 62, 2, 218, paint)
        fill(tile, 32, 54, 6, 214, (52, 60, 68))
        for x in range(6, 214, 30):
            fill(tile, 32, 54, x, x + 2, paint)
        fill(tile, 8, 14, 2, 218, times(paint, 0.6))
        wheels, radius = (40, 176), 10
    for x in wheels:
        _disc(tile, radius, x, radius, radius, (30, 30, 32))
        _disc(tile, radius, x, radius * 0.5, radius * 0.5, (150, 150, 152))
    return tile


@lru_cache(maxsize=2)
def make_street(seed: int) -> Street:
    """The shared surroundings for a data set's seed (kept, as every photo needs them)."""
    draws = Draws(seed, "street")
    shape = Shape()
    pavements = {kind: shape.texture(facades.pavement(draws, kind)) for kind in facades.PAVEMENTS}
    houses = []
    for _ in range(N_HOUSES):
        style = draw_style(draws)
        wall = shape.texture(facades.facade(draws, style, draws.uniform(10, 16), draws.uniform(9, 16)))
        houses.append((wall, shape.texture(facades.roof(draws, draws.choice(tuple(ROOF_COLOURS.values())), 8, 5, 0))))
    sprites = {
        "person": [Sprite(texture=shape.texture(person(draws)), width_m=0.8, height_m=1.8) for _ in range(N_PEOPLE)],
        "tree": [
            Sprite(texture=shape.texture(tree(draws, bare=False)), width_m=7.0, height_m=8.6) for _ in range(N_TREES)
        ],
        "bare tree": [
            Sprite(texture=shape.texture(tree(draws, bare=True)), width_m=7.0, height_m=8.6) for _ in range(2)
        ],
        "lamp": [Sprite(texture=shape.texture(lamp_post(draws)), width_m=0.9, height_m=5.2)],
        "vehicle": [
            Sprite(texture=shape.texture(vehicle(draws, "car")), width_m=4.3, height_m=1.5) for _ in range(N_VEHICLES)
        ]
        + [Sprite(texture=shape.texture(vehicle(draws, "bus")), width_m=10.5, height_m=3.1) for _ in range(2)],
    }
    return Street(atlas=shape.atlas(), houses=houses, sprites=sprites, pavements=pavements)


def add_house(shape: Shape, draws: Draws, street: Street, x: float, y: float, tall_m: float | None = None) -> None:
    """An ordinary house about (x, y) with a gable, hip or flat roof, its walls tall_m high."""
    wall, cover = draws.choice(street.houses)
    wide, deep, tall = draws.uniform(5, 9), draws.uniform(5, 8), draws.uniform(6, 17) if tall_m is None else tall_m
    shade = draws.uniform(0.8, 1.1)
    shape.tint = (shade * draws.uniform(0.92, 1.08), shade, shade * draws.uniform(0.9, 1.08))
    shape.box((x - wide, x + wide), (y - deep, y + deep), (0, tall), front=wall, side=wall, top=cover)
    kind = draws.choice(("x", "y", "hip", "flat"))
    if kind == "hip":
        shape.hip_roof((x - wide, x + wide), (y - deep, y + deep), (tall, tall + 3), cover=cover, inset=min(wide, deep))
    elif kind != "flat":
        shape.gable_roof(
            (x - wide, x + wide),
            (y - deep, y + deep),
            (tall, tall + draws.uniform(3, 5)),
            cover=cover,
            gable=wall,
            along=kind,
        )
    shape.tint = (1.0, 1.0, 1.0)
