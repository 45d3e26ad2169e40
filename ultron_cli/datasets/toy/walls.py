"""What rendered walls look like: stone, brick, plaster and timber, windows, cornices, portals, friezes, painted as
small images.

A tile is (h, w, 4) uint8 with row 0 at the ground: red, green, blue, and a tag: 0 solid, 1 to 250 a window pane (its
number decides whether it is lit at night), 255 a hole.
"""

from dataclasses import dataclass

import numpy as np

from ultron_cli.datasets.toy.draws import Draws, value_noise

TEXELS_PER_M = 12
HOLE = 255
Colour = tuple[float, float, float]

# Few and shared, so that many landmarks have the same colours. (wall, trim)
WALL_COLOURS: dict[str, tuple[Colour, Colour]] = {
    "sandstone": ((196, 168, 126), (222, 200, 162)),
    "limestone": ((205, 196, 178), (226, 220, 206)),
    "brick": ((156, 84, 64), (206, 190, 164)),
    "granite": ((142, 140, 138), (178, 176, 172)),
    "ochre": ((206, 160, 92), (230, 218, 190)),
    "rose": ((198, 142, 122), (228, 212, 196)),
    "brown": ((132, 102, 80), (176, 148, 118)),
}
ROOF_COLOURS: dict[str, Colour] = {
    "tiles": (150, 78, 54),
    "slate": (84, 90, 100),
    "copper": (98, 146, 126),
    "lead": (128, 130, 132),
}
WINDOWS = ("rectangle", "round", "pointed", "segment", "pair", "oculus", "cross")


@dataclass(frozen=True, kw_only=True)
class WallStyle:
    """The vocabulary of one building. Lengths in metres, colours 0 to 255."""

    wall: Colour
    trim: Colour
    roof: Colour
    material: str  # ashlar, courses, brick, plaster, banded or timber
    windows: tuple[str, ...]  # by floor, from the ground; the last one goes on
    bay_m: float
    floor_m: float
    window_width: float  # share of a bay
    window_height: float  # share of a floor
    base_m: float
    pilasters: int  # one every so many bays; 0 for none
    string_courses: bool
    quoins: bool
    pediments: bool
    frieze: np.ndarray  # (7, 7) bool, a mirrored pattern
    frieze_floor: int  # below which floor it runs; -1 for none
    arcade: bool  # a row of blind arches under the cornice


def draw_style(draws: Draws) -> WallStyle:
    """A style from the shared vocabulary; colours vary only a little about the shared ones."""
    wall, trim = WALL_COLOURS[draws.choice(tuple(WALL_COLOURS))]
    roof = ROOF_COLOURS[draws.choice(tuple(ROOF_COLOURS))]
    shade = draws.uniform(0.92, 1.06)
    half = draws.bytes(7, 4) > 120
    return WallStyle(
        wall=times(wall, shade),
        trim=(
            trim[0] * draws.uniform(0.9, 1.05),
            trim[1] * draws.uniform(0.9, 1.05),
            trim[2] * draws.uniform(0.9, 1.05),
        ),
        roof=roof,
        material=draws.weighted({"ashlar": 3, "courses": 2, "brick": 2, "plaster": 3, "banded": 1, "timber": 0.6}),
        windows=tuple(draws.choice(WINDOWS) for _ in range(draws.integer(1, 3))),
        bay_m=draws.uniform(2.4, 4.4),
        floor_m=draws.uniform(3.4, 5.6),
        window_width=draws.uniform(0.34, 0.6),
        window_height=draws.uniform(0.5, 0.74),
        base_m=draws.choice((0.6, 1.2, 2.0)),
        pilasters=draws.choice((0, 0, 1, 2, 3)),
        string_courses=draws.chance(0.6),
        quoins=draws.chance(0.4),
        pediments=draws.chance(0.35),
        frieze=np.concatenate([half, half[:, 2::-1]], axis=1),
        frieze_floor=draws.choice((-1, 1, 1, 2)),
        arcade=draws.chance(0.35),
    )


def texels(length_m: float) -> int:
    """Metres as texels, at least 1."""
    return max(1, int(length_m * TEXELS_PER_M + 0.5))


def fill(tile: np.ndarray, y0: float, y1: float, x0: float, x1: float, colour: Colour, tag: int = 0) -> None:
    """Paints a rectangle, given in texels and cut to the tile."""
    rows, columns = slice(max(0, int(y0)), max(0, int(y1))), slice(max(0, int(x0)), max(0, int(x1)))
    tile[rows, columns, :3] = [min(255, max(0, int(channel))) for channel in colour]
    tile[rows, columns, 3] = tag


def times(colour: Colour, factor: float) -> Colour:
    """The colour made lighter or darker."""
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def _blocks(draws: Draws, h: int, w: int, block_h: int, block_w: int, spread: float, joint: float) -> np.ndarray:
    """(h, w) float32 brightness of stones laid in bond, each with its own tone, the joints darker."""
    y, x = np.arange(h)[:, None], np.arange(w)[None, :]
    row = y // block_h
    along = x + (row % 2) * (block_w // 2)
    tones = (draws.bytes(h // block_h + 1, w // block_w + 2).astype(np.float32) - 127.5) / np.float32(127.5)
    tone = 1 + np.float32(spread) * tones[row, along // block_w]
    return np.where((y % block_h == 0) | (along % block_w == 0), tone * np.float32(joint), tone)


def bare_wall(draws: Draws, style: WallStyle, h: int, w: int) -> np.ndarray:
    """(h, w, 4) uint8: the material alone, with grain, stains and darker feet."""
    if style.material == "ashlar":
        tone = _blocks(draws, h, w, 8, 16, 0.12, 0.78)
    elif style.material == "courses":
        tone = _blocks(draws, h, w, 5, 40, 0.05, 0.84)
    elif style.material == "brick":
        tone = _blocks(draws, h, w, 3, 9, 0.16, 0.88)
    elif style.material == "banded":
        tone = (
            _blocks(draws, h, w, 8, 20, 0.06, 0.85)
            * np.where(np.arange(h) // 8 % 2 == 0, np.float32(1.08), np.float32(0.7))[:, None]
        )
    else:
        tone = np.ones((h, w), np.float32)
    grain = (draws.bytes(h, w).astype(np.float32) - 127.5) / np.float32(127.5)
    feet = np.minimum(np.arange(h, dtype=np.float32)[:, None] / np.float32(30.0) + np.float32(0.8), np.float32(1.0))
    tone = (
        tone
        * feet
        * (
            1
            + np.float32(0.045) * grain
            + np.float32(0.08) * value_noise(draws, h, w, 24)
            + np.float32(0.04) * value_noise(draws, h, w, 7)
        )
    )
    tile = np.zeros((h, w, 4), np.uint8)
    for channel in range(3):
        tile[..., channel] = np.clip(tone * np.float32(style.wall[channel]), 0, 255)
    if style.material == "timber":
        _timber(tile, style)
    return tile


def _timber(tile: np.ndarray, style: WallStyle) -> None:
    """Dark beams: posts, rails and one diagonal in every panel."""
    h, w = tile.shape[:2]
    y, x = np.arange(h)[:, None], np.arange(w)[None, :]
    panel_h, panel_w = texels(style.floor_m / 2), texels(style.bay_m / 2)
    slant = (x % panel_w) * panel_h - (y % panel_h) * panel_w
    flipped = (panel_w - x % panel_w) * panel_h - (y % panel_h) * panel_w
    diagonal = np.abs(np.where((x // panel_w) % 2 == 0, slant, flipped)) < 2 * panel_w
    beams = (y % panel_h < 3) | (x % panel_w < 3) | (diagonal & ((y // panel_h) % 2 == 0))
    tile[beams, :3] = (78, 56, 42)


def opening(kind: str, h: int, w: int) -> np.ndarray:
    """(h, w) bool: the shape of a window or door, row 0 at its foot."""
    y = np.arange(h, dtype=np.float32)[:, None] + np.float32(0.5)
    x = np.arange(w, dtype=np.float32)[None, :] + np.float32(0.5 - w / 2)
    half = w / 2
    if kind == "round" and h > half:
        rise = np.maximum(y - np.float32(h - half), 0)
        return x * x + rise * rise <= half * half
    if kind == "pointed" and h > w:
        rise = np.maximum(y - np.float32(h - 0.866 * w), 0)
        far = np.abs(x) + np.float32(half)
        return far * far + rise * rise <= np.float32(w * w)
    if kind == "segment":
        return y <= h - x * x * np.float32(0.7 / half) * np.float32(0.5)
    if kind == "oculus":
        radius = min(h, w) / 2
        centred = y - np.float32(h / 2)
        return x * x + centred * centred <= radius * radius
    return np.ones((h, w), bool)


def paint_window(
    tile: np.ndarray, draws: Draws, style: WallStyle, kind: str, centre_x: float, foot_y: float, width: int, height: int
) -> None:
    """One window with its frame, bars, sill and pediment. Position and size in texels; a part beyond the tile is left
    out."""
    if kind == "pair":
        each = max(3, width * 9 // 20)
        for side in (-1, 1):
            paint_window(tile, draws, style, "round", centre_x + side * width * 0.27, foot_y, each, height)
        return
    width, height = max(3, width), max(4, height)
    frame = 2 if width > 8 else 1
    x0, y0 = int(centre_x - width / 2), int(foot_y)
    if x0 - frame < 0 or y0 < 0 or y0 + height + frame > tile.shape[0] or x0 + width + frame > tile.shape[1]:
        return
    outer = opening(kind, height + frame, width + 2 * frame)
    area = tile[y0 : y0 + height + frame, x0 - frame : x0 + width + frame]
    area[outer, :3] = [min(255, int(channel)) for channel in style.trim]
    shape = opening(kind, height, width)
    area = tile[y0 : y0 + height, x0 : x0 + width]
    depth = (52 + 46 * np.arange(height) / height + draws.uniform(-16, 22)).astype(np.uint8)[:, None]
    pane = np.zeros((height, width, 4), np.uint8)
    pane[..., 0], pane[..., 1], pane[..., 2], pane[..., 3] = (
        depth * 0.82,
        depth * 0.92,
        depth * 1.05,
        draws.integer(1, 250),
    )
    pane[-max(1, height // 9) :, :, :3] //= 2  # the reveal's shadow
    bars = np.zeros((height, width), bool)
    bars[:, width // 2] = width > 5
    if kind == "cross" or height > 2 * width:
        bars[height * 3 // 5] = True
    pane[bars] = (*(int(channel * 0.8) for channel in style.trim), 0)
    area[shape] = pane[shape]
    if kind not in ("oculus", "pointed"):
        fill(tile, y0 - 2, y0, x0 - frame - 1, x0 + width + frame + 1, times(style.trim, 1.04))
        fill(tile, y0 - 3, y0 - 2, x0 - frame - 1, x0 + width + frame + 1, times(style.wall, 0.62))
    if style.pediments and kind in ("rectangle", "cross", "segment"):
        for step in range(5):
            fill(
                tile,
                y0 + height + frame + step,
                y0 + height + frame + step + 1,
                x0 - 3 + step * (width + 6) / 12,
                x0 + width + 3 - step * (width + 6) / 12,
                times(style.trim, 0.86 if step == 0 else 1.05),
            )


def paint_cornice(tile: np.ndarray, style: WallStyle, top: int, depth: int = 8) -> None:
    """A moulding across the whole width whose upper edge is at row `top`: light ledge, dentils, shadow below."""
    w = tile.shape[1]
    fill(tile, top - depth - 5, top - depth, 0, w, times(style.wall, 0.6))
    fill(tile, top - depth, top, 0, w, style.trim)
    fill(tile, top - 2, top, 0, w, times(style.trim, 1.1))
    for x in range(0, w, 6):
        fill(tile, top - depth, top - depth + 3, x, x + 3, times(style.trim, 0.66))


def paint_frieze(tile: np.ndarray, style: WallStyle, foot: int, scale: int = 2) -> None:
    """The building's own pattern, repeated across the width."""
    band = np.repeat(np.repeat(style.frieze, scale, axis=0), scale, axis=1)
    w = tile.shape[1]
    band = np.concatenate([band, np.zeros((band.shape[0], scale), bool)], axis=1)
    band = np.tile(band, (1, w // band.shape[1] + 1))[:, :w]
    area = tile[foot : foot + band.shape[0]]
    band = band[: area.shape[0]]
    area[..., :3][band] = [min(255, int(channel)) for channel in style.trim]
    area[..., :3][~band] = [int(channel * 0.7) for channel in style.wall]
    area[..., 3] = 0


def paint_arcade(tile: np.ndarray, style: WallStyle, foot: int, height: int, width: int) -> None:
    """A row of blind round arches."""
    shape = opening("round", height, max(3, width - 3))
    for x in range(1, tile.shape[1] - width, width):
        area = tile[foot : foot + height, x : x + shape.shape[1], :3]
        area[shape[: area.shape[0]]] = [int(channel * 0.66) for channel in style.wall]
    fill(tile, foot - 2, foot, 0, tile.shape[1], style.trim)


def paint_disc(
    tile: np.ndarray, draws: Draws, style: WallStyle, centre_x: int, centre_y: int, radius: int, kind: str
) -> None:
    """A rose window (rings and spokes of coloured panes) or a clock face. Position and radius in texels."""
    y0, x0 = max(0, centre_y - radius), max(0, centre_x - radius)
    area = tile[y0 : centre_y + radius + 1, x0 : centre_x + radius + 1]
    y = (np.arange(area.shape[0]) + y0 - centre_y).astype(np.float32)[:, None]
    x = (np.arange(area.shape[1]) + x0 - centre_x).astype(np.float32)[None, :]
    square = (x * x + y * y) / np.float32(radius * radius)
    area[square <= 1, :3] = [min(255, int(channel)) for channel in style.trim]
    area[square <= 1, 3] = 0
    if kind == "clock":
        area[square <= 0.72, :3] = (236, 232, 218)
        hands = ((np.abs(x) < 1.2) & (y > 0) & (y < radius * 0.7)) | ((np.abs(y) < 1.2) & (x > 0) & (x < radius * 0.5))
        ticks = (
            (square > 0.56)
            & (square < 0.72)
            & ((np.abs(x) < 1.2) | (np.abs(y) < 1.2) | (np.abs(np.abs(x) - np.abs(y)) < 1.2))
        )
        area[hands | ticks, :3] = (36, 34, 40)
        return
    spokes = (np.abs(x) < 1.3) | (np.abs(y) < 1.3) | (np.abs(x - y) < 1.6) | (np.abs(x + y) < 1.6)
    glass = (square < 0.72) & ~spokes & ~((square > 0.3) & (square < 0.38)) & (square > 0.06)
    area[glass, :3] = (58, 62, 92)
    area[glass, 3] = draws.integer(1, 250)


def paint_portal(
    tile: np.ndarray, draws: Draws, style: WallStyle, centre_x: int, width: int, height: int, kind: str
) -> None:
    """A door in stepped frames."""
    for step, tone in enumerate((1.08, 0.72, 1.0, 0.6)):
        inset = step * 2
        shape = opening(kind, height - inset, max(4, width - 2 * inset))
        x0 = int(centre_x - shape.shape[1] / 2)
        if x0 < 0 or x0 + shape.shape[1] > tile.shape[1] or shape.shape[0] > tile.shape[0]:
            return
        area = tile[: shape.shape[0], x0 : x0 + shape.shape[1]]
        area[shape] = (*(min(255, int(channel * tone)) for channel in style.trim), 0)
    inset = 8
    shape = opening(kind, max(4, height - inset), max(4, width - 2 * inset))
    x0 = int(centre_x - shape.shape[1] / 2)
    tile[: shape.shape[0], x0 : x0 + shape.shape[1]][shape] = (62, 44, 34, 0)
