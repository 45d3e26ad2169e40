"""The settings of a recipe that are tried, the values that people's programs have for each, and how they are mended."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import cast

from ultron_cli.configs import SCALE_SETS
from ultron_cli.datasets.photos import INTERPOLATIONS
from ultron_cli.evaluation.diagnose.recipes import COLOURS, Colours, Means, Numbers, Recipe

SIDES_PX = (
    *(64, 96, 128, 160, 192, 224, 256, 320, 362, 384, 448, 480, 512, 550, 600, 640, 768, 800, 1000, 1024, 1200, 1600),
)
MOST_TIMES_PIXELS = 5.0  # more or fewer than ours: a longest side that is further away is not tried
SCALES = SCALE_SETS["5"]  # whose subsets are tried
EXPONENTS = (1.0, 2.0, 2.5, 3.0, 4.0, 4.6, 5.0, 6.0, 8.0, math.inf)
NO_FLAG = "no flag of ultron makes it so"
Values = Callable[[Recipe, Means], Iterable[object]]
Text = Callable[[object], str]  # of a value


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """A field of Recipe: which values are tried, what they are called, and how ours is made as the reference's."""

    key: str  # the field
    words: str
    values: Values
    names: Mapping[object, str] = field(default_factory=dict)  # of values that do not stand for themselves
    text: Text = str  # of the others
    mends: Mapping[object, str] = field(default_factory=dict)  # by the reference's value: a command, or what to do
    mend: Text | None = None  # of the others; None: there is no flag
    is_costly: bool = False  # whether its values make photos much larger

    def variants(self, recipe: Recipe, means: Means) -> list[Recipe]:
        """The recipe with each other value of this setting."""
        values = [value for value in dict.fromkeys(self.values(recipe, means)) if value != self.of(recipe)]
        return [self.put(recipe, value) for value in values]

    def of(self, recipe: Recipe) -> object:
        """Its value in a recipe."""
        return getattr(recipe, self.key)

    def put(self, recipe: Recipe, value: object) -> Recipe:
        """The recipe with this value."""
        return replace(recipe, **{self.key: value})

    def in_words(self, value: object) -> str:
        """A value in words."""
        return self.names[value] if value in self.names else self.text(value)

    def mended(self, value: object) -> str:
        """How ours is made as a reference of this value."""
        if value in self.mends:
            return self.mends[value]
        return self.mend(value) if self.mend else NO_FLAG


def _each(*values: object) -> Values:
    """The same values for every recipe."""
    return lambda recipe, means: values


def _of_boxes(*values: object) -> Values:
    return lambda recipe, means: values if recipe.crop == "bbx" else ()


def _of_several_scales(*values: object) -> Values:
    return lambda recipe, means: values if len(recipe.scales) > 1 else ()


def _sides(recipe: Recipe, means: Means) -> Iterable[object]:
    current = recipe.max_side_px
    for side in SIDES_PX:
        if current is None or 1 / MOST_TIMES_PIXELS <= (side / current) ** 2 <= MOST_TIMES_PIXELS:
            yield side
    if current is not None and current >= 640:
        yield None


def _measured(recipe: Recipe, means: Means) -> Iterable[object]:
    if recipe.max_side_px is not None:
        yield from ("longest", "shortest", "square", *(["whole photo"] if recipe.crop == "bbx" else []))


def _interpolations(recipe: Recipe, means: Means) -> Iterable[object]:
    return INTERPOLATIONS if recipe.antialias else ("bilinear", "bicubic", "nearest")


def _colours(recipe: Recipe, means: Means) -> Iterable[object]:
    mean, sd = recipe.colours
    return (*COLOURS.values(), (mean[::-1], sd[::-1]))


def _scales(recipe: Recipe, means: Means) -> Iterable[object]:
    near = [scale for scale in SCALES if not any(math.isclose(scale, other, rel_tol=1e-3) for other in recipe.scales)]
    every = sorted((*near, *recipe.scales))
    for n in range(1, len(every) + 1):
        yield from (scales for scales in combinations(every, n) if set(scales) != set(recipe.scales))


def _scalings(recipe: Recipe, means: Means) -> Iterable[object]:
    return ("bilinear", "bilinear-rounded", "antialias", "area") if set(recipe.scales) != {1.0} else ()


def _exponents(recipe: Recipe, means: Means) -> Iterable[object]:
    return [value for value in (*EXPONENTS, None) if value != means.exponent] if means.may_pool else ()


def _joins(recipe: Recipe, means: Means) -> Iterable[object]:
    return ("mean", "max", *(() if means.may_be_negative else ("gem",))) if len(recipe.scales) > 1 else ()


def _whitenings(recipe: Recipe, means: Means) -> Iterable[object]:
    several = ("of each scale",) if len(recipe.scales) > 1 else ()
    return ("none", "after joining", *several) if means.has_whitening else ()


def _six_numbers(value: object) -> str:
    mean, sd = (", ".join(f"{number:g}" for number in numbers) for numbers in cast(Colours, value))
    return f"{mean} and {sd}"


def _numbers(value: object) -> str:
    return ",".join(f"{number:.4g}" for number in cast(Numbers, value))


# In the order in which they are tried: what is mistaken most often first, what costs most last.
SETTINGS = (
    Setting(
        key="crop",
        words="crop of queries",
        values=_each("bbx", "none"),
        names={"bbx": "cropped to the box", "none": "whole photos"},
        mends={"bbx": "`ultron extract` without --no-crop", "none": "`ultron extract --no-crop`"},
    ),
    Setting(key="channels", words="channel order", values=_each("RGB", "BGR")),
    Setting(
        key="colours",
        words="mean and sd",
        values=_colours,
        names={colours: name for name, colours in COLOURS.items()},
        text=_six_numbers,
    ),
    Setting(
        key="exif",
        words="EXIF orientation",
        values=_each("upright", "as stored"),
        names={"upright": "photos turned upright", "as stored": "photos as they are stored"},
    ),
    Setting(
        key="box_edges",
        words="edges of the box",
        values=_of_boxes("rounded", "truncated", "outward"),
        names={"outward": "rounded outward"},
    ),
    Setting(
        key="interpolation",
        words="filter of resizing",
        values=_interpolations,
        mend=lambda value: f"`ultron extract --interpolation {value}`",
    ),
    Setting(
        key="antialias",
        words="antialiasing when photos shrink",
        values=_each(True, False),
        names={True: "with", False: "without"},
    ),
    Setting(
        key="rounding",
        words="rounding of sides",
        values=_each("nearest", "down", "up", "thumbnail"),
        names={"nearest": "to the nearest", "thumbnail": "as Pillow's thumbnail does"},
    ),
    Setting(
        key="resize",
        words="small photos",
        values=lambda recipe, means: ("down", "always") if recipe.max_side_px else (),
        names={"always": "enlarged", "down": "left as they are"},
        mend=lambda value: f"`ultron extract --resize {value}`",
    ),
    Setting(
        key="measured",
        words="side that is brought to size",
        values=_measured,
        names={
            "longest": "the longest",
            "shortest": "the shortest",
            "square": "both, to a square",
            "whole photo": "the longest of the whole photo, before the crop",
        },
    ),
    Setting(
        key="flip",
        words="flips",
        values=_each("none", "mirrored", "both"),
        names={"mirrored": "mirrored photos", "both": "photo and mirrored photo"},
    ),
    Setting(
        key="exponent",
        words="pooling",
        values=_exponents,
        names={None: "the model's", 1.0: "the mean (exponent 1)", math.inf: "the maximum"},
        text=lambda value: f"GeM of exponent {value:g}",
        mends={1.0: "`ultron extract --set model.pooling=avg`", math.inf: "`ultron extract --set model.pooling=max`"},
        mend=lambda value: f"`ultron extract --set model.p={value:g}`",
    ),
    Setting(
        key="scales",
        words="scales",
        values=_scales,
        text=_numbers,
        mend=lambda value: f"`ultron extract --scales {_numbers(value)}`",
    ),
    Setting(
        key="join",
        words="join of the scales",
        values=_joins,
        names={"max": "maximum", "gem": "GeM"},
        mends={"gem": "`ultron extract --set model.scale_gem=true`"},
    ),
    Setting(
        key="scale_norm",
        words="normalisation of each scale",
        values=_of_several_scales(True, False),
        names={True: "unit before they are joined", False: "none before they are joined"},
    ),
    Setting(
        key="whitening",
        words="whitening",
        values=_whitenings,
        mends={
            "none": "`ultron extract` without --whiten",
            "after joining": "`ultron extract --whiten`",
        },
    ),
    Setting(
        key="power",
        words="normalisation of components",
        values=_each("none", "signed root"),
        names={"signed root": "signed root of each"},
    ),
    Setting(key="scaling", words="how photos are brought to further scales", values=_scalings),
    Setting(
        key="max_side_px",
        words="longest side",
        values=_sides,
        is_costly=True,
        names={None: "no limit"},
        text=lambda value: f"{value} px",
        mends={None: "`ultron extract --max-side 0`"},
        mend=lambda value: f"`ultron extract --max-side {value}`",
    ),
)
