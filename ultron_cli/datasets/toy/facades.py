"""Whole facades, roofs, colonnades and pavements, composed of the elements in walls.py. Tiles are (h, w, 4) uint8, row
0 at the foot."""

import numpy as np

from ultron_cli.datasets.toy import walls
from ultron_cli.datasets.toy.draws import Draws, value_noise
from ultron_cli.datasets.toy.walls import HOLE, WallStyle, fill, texels, times


def facade(
    draws: Draws, style: WallStyle, width_m: float, height_m: float, *, feature: str = "", floors: int | None = None
) -> np.ndarray:
    """A wall with windows in bays and floors. feature: "" or "portal", "rose", "clock" (with the portal where there is
    room below)."""
    h, w = texels(height_m), texels(width_m)
    tile = walls.bare_wall(draws, style, h, w)
    base = texels(style.base_m) if height_m > 6 else 0
    top = 16 if height_m > 5 else 6
    n_floors = floors or max(1, int((height_m - style.base_m) / style.floor_m + 0.5))
    n_bays = max(1, int(width_m / style.bay_m + 0.5))
    floor_h, bay_w = (h - base - top) / n_floors, w / n_bays
    if base:
        fill(tile, 0, base, 0, w, times(style.trim, 0.82))
        for y in range(0, base, 6):
            fill(tile, y, y + 1, 0, w, times(style.trim, 0.6))
    _floors(tile, draws, style, base, floor_h, n_floors, bay_w, n_bays)
    if style.quoins and w > 40:
        for y in range(base, h - top, 14):
            for x0, x1 in ((0, 9), (w - 9, w)):
                fill(tile, y, y + 7, x0, x1, style.trim)
            for x0, x1 in ((0, 6), (w - 6, w)):
                fill(tile, y + 7, y + 14, x0, x1, times(style.trim, 0.9))
    if style.arcade and h > 120:
        walls.paint_arcade(tile, style, h - top - 22, 18, 12)
    if height_m > 5:
        walls.paint_cornice(tile, style, h)
    if feature:
        _feature(tile, draws, style, feature, base + floor_h)
    return tile


def _floors(
    tile: np.ndarray,
    draws: Draws,
    style: WallStyle,
    base: int,
    floor_h: float,
    n_floors: int,
    bay_w: float,
    n_bays: int,
) -> None:
    w = tile.shape[1]
    for floor in range(n_floors):
        foot = base + floor * floor_h
        kind = style.windows[min(floor, len(style.windows) - 1)]
        window_w, window_h = int(bay_w * style.window_width), int(floor_h * style.window_height)
        if kind == "oculus":
            window_h = window_w = min(window_w, window_h)
        for bay in range(n_bays):
            walls.paint_window(
                tile, draws, style, kind, (bay + 0.5) * bay_w, foot + (floor_h - window_h) * 0.55, window_w, window_h
            )
        if style.string_courses and floor:
            fill(tile, foot - 3, foot, 0, w, times(style.trim, 1.02))
            fill(tile, foot - 5, foot - 3, 0, w, times(style.wall, 0.66))
        if style.frieze_floor == floor and floor_h > 34:
            walls.paint_frieze(tile, style, int(foot) - 7)
    if style.pilasters and n_bays > 1:
        for bay in range(0, n_bays + 1, style.pilasters):
            x = min(max(3.0, bay * bay_w), w - 4.0)
            fill(tile, base, base + n_floors * floor_h, x - 3, x + 3, style.trim)
            fill(tile, base, base + n_floors * floor_h, x + 3, x + 5, times(style.wall, 0.64))
            fill(tile, base + n_floors * floor_h - 5, base + n_floors * floor_h, x - 5, x + 5, times(style.trim, 1.08))


def _feature(tile: np.ndarray, draws: Draws, style: WallStyle, feature: str, first_floor_top: float) -> None:
    h, w = tile.shape[:2]
    if feature in ("rose", "clock"):
        radius = min(w // 4, h // 7, 34) if feature == "rose" else min(w * 2 // 5, h // 8, 18)
        walls.paint_disc(
            tile, draws, style, w // 2, int(h * (0.62 if feature == "rose" else 0.82)), max(6, radius), feature
        )
    if feature != "clock":
        kind = "pointed" if "pointed" in style.windows else "round"
        walls.paint_portal(tile, draws, style, w // 2, min(int(w * 0.5), 56), int(min(first_floor_top + 6, 66)), kind)


def gable(draws: Draws, style: WallStyle, width_m: float, height_m: float, *, feature: str) -> np.ndarray:
    """The triangle under a roof's end, as a rectangle to be cut: bare wall, raking trim, an ornament ("rose", "clock"
    or "")."""
    h, w = texels(height_m), texels(width_m)
    tile = walls.bare_wall(draws, style, h, w)
    y, x = np.arange(h)[:, None], np.arange(w)[None, :]
    to_edge = np.minimum(x * (2 * h) - y * w, (w - x) * (2 * h) - y * w)
    tile[to_edge < 14 * h, :3] = [min(255, int(channel)) for channel in style.trim]
    fill(tile, 0, 4, 0, w, style.trim)
    if feature:
        walls.paint_disc(tile, draws, style, w // 2, h * 2 // 5, max(5, min(h // 4, w // 8)), feature)
    return tile


def roof(draws: Draws, colour: walls.Colour, width_m: float, height_m: float, pattern: int) -> np.ndarray:
    """Roof cover in rows; pattern 0 plain, 1 lozenges in a second tone, 2 standing seams."""
    h, w = texels(height_m), texels(width_m)
    y, x = np.arange(h)[:, None], np.arange(w)[None, :]
    grain = (draws.bytes(h, w).astype(np.float32) - 127.5) / np.float32(127.5)
    tone = 1 + np.float32(0.1) * grain + np.float32(0.1) * value_noise(draws, h, w, 17)
    if pattern == 2:
        tone = np.where(x % 10 == 0, tone * np.float32(0.72), tone)
    else:
        tone = np.where(y % 5 == 0, tone * np.float32(0.78), tone)
    if pattern == 1:
        tone = np.where((np.abs(x % 48 - 24) + np.abs(y % 48 - 24)) < 13, tone * np.float32(1.45), tone)
    tile = np.zeros((h, w, 4), np.uint8)
    for channel in range(3):
        tile[..., channel] = np.clip(tone * np.float32(colour[channel]), 0, 255)
    fill(tile, h - 3, h, 0, w, times(colour, 0.8))
    return tile


def colonnade(
    draws: Draws, style: WallStyle, width_m: float, height_m: float, n_columns: int, *, arched: bool
) -> np.ndarray:
    """Free-standing columns, or piers with round arches between them; the gaps are holes."""
    h, w = texels(height_m), texels(width_m)
    if arched:
        tile = walls.bare_wall(draws, style, h, w)
        pitch = w / n_columns
        shape = walls.opening("round", int(h * 0.86), max(4, int(pitch * 0.66)))
        for column in range(n_columns):
            x0 = int((column + 0.5) * pitch - shape.shape[1] / 2)
            tile[: shape.shape[0], x0 : x0 + shape.shape[1]][shape] = (90, 84, 78, HOLE)
        fill(tile, h - 4, h, 0, w, style.trim)
        return tile
    tile = np.zeros((h, w, 4), np.uint8)
    tile[:] = (*(int(channel * 0.8) for channel in style.trim), HOLE)
    half = max(4, int(w / n_columns * 0.19))
    from_light = np.abs(np.arange(-half, half) + 3.0) / (half + 3)
    round_tone = 1.08 - 0.5 * from_light * from_light - np.where(np.arange(2 * half) % 4 == 0, 0.06, 0)
    for column in range(n_columns):
        x = int((column + 0.5) * w / n_columns)
        for channel in range(3):
            tile[:, x - half : x + half, channel] = np.clip(style.trim[channel] * round_tone, 0, 255).astype(np.uint8)[
                None, :
            ]
        tile[:, x - half : x + half, 3] = 0
        for y0, y1 in ((0, 5), (h - 7, h)):
            fill(tile, y0, y1, x - half - 3, x + half + 3, times(style.trim, 1.05))
    return tile


def battlement(draws: Draws, style: WallStyle, width_m: float, height_m: float, merlon_m: float) -> np.ndarray:
    """A parapet with gaps between the merlons."""
    h, w = texels(height_m), texels(width_m)
    tile = walls.bare_wall(draws, style, h, w)
    gap = (np.arange(w) // texels(merlon_m)) % 2 == 1
    tile[h * 2 // 5 :, gap, 3] = HOLE
    fill(tile, 0, 3, 0, w, times(style.trim, 0.9))
    return tile


def balustrade(style: WallStyle, width_m: float, height_m: float) -> np.ndarray:
    """A stone railing with slits."""
    h, w = texels(height_m), texels(width_m)
    tile = np.zeros((h, w, 4), np.uint8)
    tile[..., :3] = [min(255, int(channel)) for channel in style.trim]
    tile[2:-3, np.arange(w) % 6 < 3, 3] = HOLE
    return tile


PAVEMENTS: dict[str, walls.Colour] = {
    "cobbles": (132, 124, 116),
    "slabs": (168, 160, 148),
    "lawn": (92, 118, 62),
    "asphalt": (92, 92, 94),
}


def pavement(draws: Draws, kind: str) -> np.ndarray:
    """(192, 192, 4) uint8: a square of ground, 16 m wide, that repeats; kind is one of PAVEMENTS."""
    colour = PAVEMENTS[kind]
    side = 192
    y, x = np.arange(side)[:, None], np.arange(side)[None, :]
    grain = (draws.bytes(side, side).astype(np.float32) - 127.5) / np.float32(127.5)
    patches = value_noise(draws, side, side, 24)
    tone = 1 + np.float32(0.08 if kind != "lawn" else 0.2) * grain + np.float32(0.06) * patches
    cell = {"cobbles": 6, "slabs": 24}.get(kind)
    if cell:
        tone = np.where(
            (y % cell == 0) | ((x + (y // cell % 2) * (cell // 2)) % cell == 0), tone * np.float32(0.8), tone
        )
    tile = np.zeros((side, side, 4), np.uint8)
    for channel in range(3):
        tile[..., channel] = np.clip(tone * np.float32(colour[channel]), 0, 255)
    return tile
