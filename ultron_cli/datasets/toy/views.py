"""From where, when and in what weather a photo is taken, and how far apart two such photos are (easy, hard or junk)."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Literal

from ultron_cli.datasets.toy.draws import Draws

Light = Literal["noon", "afternoon", "golden", "dusk", "night"]
Weather = Literal["clear", "cloudy", "overcast", "fog", "rain", "snow"]
# "query" and "near" show the best side, "wide" anything else that shows the landmark well, "blocked" hardly shows it.
Purpose = Literal["query", "near", "wide", "blocked", "any"]
Label = Literal["easy", "hard", "junk"]

ASPECTS = {(4, 3): 5, (3, 2): 4, (3, 4): 3, (2, 3): 1.5, (16, 9): 1.5, (1, 1): 0.5}
# How different two lights, or two weathers, make a wall look, as positions on a line from 0 to 1.
LIGHT_TONE: dict[str, float] = {"noon": 0.0, "afternoon": 0.1, "golden": 0.35, "dusk": 0.7, "night": 1.0}
WEATHER_TONE: dict[str, float] = {"clear": 0.0, "cloudy": 0.1, "overcast": 0.35, "rain": 0.6, "snow": 0.75, "fog": 1.0}

EASY_BELOW = 1.3  # pair difficulty
FIT_BELOW: dict[str, float] = {
    "query": 0.65,
    "near": 0.85,
}  # difficulty against the plain view, at the default difficulty
JUNK_VISIBLE_BELOW = 0.25  # as revisitop: less than 25 % of the landmark to be seen
JUNK_SHARE_BELOW = 0.012  # of the photo's pixels
JUNK_TURN_ABOVE_DEG = 112.0  # hardly a wall in common


@dataclass(frozen=True, kw_only=True)
class View:
    """All that decides how a landmark is photographed."""

    azimuth_deg: float
    elevation_m: float
    distance_m: float
    fill: float  # the landmark's larger side as a share of the photo's; above 1 it is cut
    shift: tuple[float, float]  # where the landmark's middle stands, as a share of the photo from its centre
    roll_deg: float
    aspect: tuple[int, int]
    light: Light
    weather: Weather
    sun_azimuth_deg: float
    occlusion: float  # how much is put in front, 0 to 1
    exposure: float  # factor
    white_balance: tuple[float, float]  # factors of red and blue
    noise: float  # of pixel values 0 to 255
    blur: int  # passes
    jpeg_quality: int

    def as_json(self) -> dict[str, object]:
        """Plain values, rounded to what matters."""
        return {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(self).items()}


def draw_view(
    draws: Draws, purpose: Purpose, difficulty: float, size_m: tuple[float, float, float], main_azimuth_deg: float
) -> View:
    """A view of a landmark of that size. difficulty 0 to 2 widens all spreads; 0.4 is the default."""
    if purpose == "any":
        purposes: dict[Purpose, float] = {"near": 0.4, "wide": 0.5, "blocked": 0.06 * difficulty}
        purpose = draws.weighted(purposes)
    calm = purpose in ("query", "near")
    away = (
        draws.uniform(22, 70) * draws.sign()
        if purpose == "wide"
        else draws.bell(24.0 if purpose == "blocked" else 12.0)
    )
    azimuth = main_azimuth_deg + away * difficulty
    azimuth = min(95.0, max(-95.0, azimuth))
    diagonal = math.sqrt(size_m[0] * size_m[0] + size_m[1] * size_m[1])
    distance = max(diagonal * draws.uniform(0.85, 2.2 if calm else 2.8), size_m[2] * draws.uniform(1.1, 1.6))
    zoom = draws.weighted({"whole": 0.42, "detail": 0.3, "far": 0.28})
    spread = 0.5 + 0.5 * difficulty
    if calm:
        fill = 0.82 + draws.uniform(-0.2, 0.2) * difficulty
    elif purpose == "blocked":
        fill = draws.choice(
            (draws.uniform(0.08, 0.115), draws.uniform(0.5, 0.9), draws.uniform(2.5, 3.3), draws.uniform(2.5, 3.3))
        )
    else:
        fill = {
            "whole": draws.uniform(0.6, 1.1),
            "detail": 1.0 + draws.uniform(0.15, 0.75) * spread,
            "far": 0.58 - draws.uniform(0.0, 0.3) * spread,
        }[zoom]
    reach = 0.16 if fill < 1.1 else 0.3 * fill
    reach = (0.06 if calm else reach) * spread
    harsh = difficulty * (0.5 if calm else 1.0)
    seldom = 0.1 if calm else 1.0
    lights: dict[Light, float] = {
        "noon": 3,
        "afternoon": 3,
        "golden": 1.6 * harsh,
        "dusk": 0.9 * harsh * seldom,
        "night": 1.2 * harsh * seldom,
    }
    weathers: dict[Weather, float] = {
        "clear": 3,
        "cloudy": 2.4,
        "overcast": 1.4 * spread,
        "fog": 0.5 * harsh * seldom,
        "rain": 0.7 * harsh,
        "snow": 0.6 * harsh * seldom,
    }
    light = draws.weighted(lights)
    weather = draws.weighted(weathers)
    if purpose == "query":
        weather = "cloudy" if weather in ("fog", "snow") else weather
        light = "golden" if light in ("night", "dusk") else light
    occlusion = {"query": 0.12, "near": 0.22, "wide": 0.42, "blocked": 1.0, "any": 0.3}[purpose] * (
        1.0 if purpose == "blocked" else difficulty
    )
    return View(
        azimuth_deg=azimuth,
        elevation_m=draws.weighted({1.7: 5, 4.0: 2, 11.0: 1.2 * spread, 24.0: 0.6 * spread}),
        distance_m=distance,
        fill=fill,
        shift=(draws.uniform(-reach, reach), draws.uniform(-reach, reach) * 0.7),
        roll_deg=draws.bell(1.2 * spread),
        aspect=draws.weighted(ASPECTS),
        light=light,
        weather=weather,
        sun_azimuth_deg=draws.uniform(-110, 110),
        occlusion=min(1.0, occlusion * draws.uniform(0.6, 1.4)),
        exposure=1.0 + draws.bell(0.16 * spread),
        white_balance=(1.0 + draws.bell(0.07 * spread), 1.0 + draws.bell(0.07 * spread)),
        noise=draws.uniform(0.5, 3.0) + (4.0 if light == "night" else 0.0),
        blur=draws.weighted({0: 5, 1: 2 * spread, 2: 0.7 * harsh}),
        jpeg_quality=draws.integer(62, 93),
    )


def _turn_deg(a: View, b: View) -> float:
    return abs((a.azimuth_deg - b.azimuth_deg + 180.0) % 360.0 - 180.0)


def pair_difficulty(query: View, photo: View, visible: float) -> float:
    """How hard it is to recognise one view in the other, from 0; the parts that count 1 are: 50 degrees of turn, a
    scale of 3, day against night."""
    scale = abs(math.log2(query.fill / photo.fill)) / math.log2(3.0)
    light = abs(LIGHT_TONE[query.light] - LIGHT_TONE[photo.light])
    weather = 0.6 * abs(WEATHER_TONE[query.weather] - WEATHER_TONE[photo.weather])
    hidden = 1.4 * (1.0 - visible)
    return round(_turn_deg(query, photo) / 50.0 + scale + light + weather + hidden, 4)


def is_junk(visible: float, share: float) -> bool:
    """Whether too little of the landmark is to be seen for anyone to recognise it."""
    return visible < JUNK_VISIBLE_BELOW or share < JUNK_SHARE_BELOW


def is_fit(purpose: Purpose, score: float, visible: float | None, share: float | None, difficulty: float) -> bool:
    """Whether a photo came out as meant: a query or near view easy enough, a blocked one junk, a wide one not junk.

    visible, share: None before the photo is taken; then only what is sure already speaks against it.
    """
    if purpose in FIT_BELOW:
        return score < FIT_BELOW[purpose] * max(1.0, difficulty)
    return purpose == "any" or visible is None or share is None or is_junk(visible, share) == (purpose == "blocked")


def label_pair(query: View, photo: View, visible: float, share: float) -> Label:
    """The label of a photo for a query.

    visible: the part of the landmark that is in the photo and not hidden; share: of the photo's pixels that show it.
    """
    if is_junk(visible, share) or _turn_deg(query, photo) > JUNK_TURN_ABOVE_DEG:
        return "junk"
    return "easy" if pair_difficulty(query, photo, visible) < EASY_BELOW else "hard"


def plain_view(view: View, main_azimuth_deg: float) -> View:
    """The view that a photo's own difficulty is measured against: the best side, whole, on a clear day."""
    return replace(view, azimuth_deg=main_azimuth_deg, fill=0.82, light="noon", weather="clear")
