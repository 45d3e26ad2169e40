"""Local features of photos, and what pairs of them say: matches, and a geometry that explains them.

Importing this package is light, so that help texts can name the detectors: OpenCV comes with the first one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ultron_cli import user_code
from ultron_cli.configs import apply_set, from_dict, from_signature, one_of, to_dict
from ultron_cli.errors import UltronError

if TYPE_CHECKING:
    import torch

    from ultron_cli.local.detectors import Detector
    from ultron_cli.local.matchers import Matcher


@dataclass(frozen=True, kw_only=True)
class DetectorEntry:
    """A kind of detector: where its settings and its class are. They are imported when they are used."""

    module: str  # of this package
    settings: str  # name of the frozen dataclass of its settings
    # Name of what is made of the settings; None where it takes a network too (retrieval/local_features/dense.py).
    detector: str | None
    takes_weights: bool = False  # a network of its own, of a file that its settings name

    def settings_type(self) -> type:
        """The class of its settings."""
        return getattr(self._imported(), self.settings)

    def detector_type(self) -> type:
        """Its class, of a detector that takes no network."""
        assert self.detector is not None
        return getattr(self._imported(), self.detector)

    def _imported(self) -> object:
        return import_module(f"{__name__}.{self.module}")


@dataclass(frozen=True, kw_only=True)
class DetectorChoice:
    """A detector by name, or by import path, and its settings."""

    name: str
    settings: object  # of the entry's settings_type; of a detector by import path a dict
    part: user_code.UserPart | None = None  # of a detector by import path

    def stored_settings(self) -> dict[str, object]:
        """As files store them."""
        return dict(self.settings) if isinstance(self.settings, dict) else to_dict(self.settings)

    @property
    def needs_network(self) -> bool:
        """Whether the features are of the map of the network that describes the photos."""
        return self.part is None and DETECTORS[self.name].detector is None

    def make(self, device: "torch.device | str" = "cpu") -> "Detector":
        """The detector, of one that needs no network of another's. device: of a network of its own. Raises UltronError
        for what a class by import path does not take, or lacks, and where a package or weights are missing."""
        if self.part is None:
            entry = DETECTORS[self.name]
            return entry.detector_type()(self.settings, *([device] if entry.takes_weights else []))
        return import_module(f"{__name__}.detectors").user_detector(self.part, self.stored_settings())


def choose_detector(name: str, assignments: Sequence[str] = ()) -> DetectorChoice:
    """The detector of --local with the settings of --local-set. Code that the name is an import path of is run. Raises
    UltronError for unknown ones."""
    values = apply_set({}, assignments, setting="local_set", example=EXAMPLE)
    if not user_code.is_import_path(name):
        one_of("local", name, tuple(DETECTORS))
        return DetectorChoice(name=name, settings=from_dict(DETECTORS[name].settings_type(), values))
    user_code.permit(name)
    return DetectorChoice(name=name, settings=values, part=user_code.load(name, "detector", DETECTORS))


def recorded_detector(
    name: str,
    settings: Mapping[str, object],
    code_sha256: str | None,
    maker: str | Path,
    weights_path: str | None = None,
) -> DetectorChoice:
    """The detector that a file says its features were found by. maker: the file; weights_path: of the weights that it
    was found by, whose SHA-256 is in the settings.

    Raises UltronError for an unknown one, and for one by import path whose code nobody has named.
    """
    if not user_code.is_import_path(name):
        one_of(f"the detector of {maker}", name, tuple(DETECTORS))
        if DETECTORS[name].takes_weights:
            settings = {**settings, "weights": weights_path or ""}
        return DetectorChoice(name=name, settings=from_dict(DETECTORS[name].settings_type(), settings))
    record = user_code.CodeRecord(sha256=code_sha256 or "")
    with user_code.stored_code({name: record}, maker):
        return DetectorChoice(name=name, settings=dict(settings), part=user_code.load(name, "detector", DETECTORS))


@dataclass(frozen=True, kw_only=True)
class MatcherEntry:
    """A kind of matcher: where its settings and its class are. They are imported when they are used."""

    module: str  # of this package
    settings: str  # name of the frozen dataclass of its settings
    matcher: str  # name of what is made of the settings

    def part(self, name: str) -> type:
        """Its class, or that of its settings."""
        return getattr(import_module(f"{__name__}.{self.module}"), name)


@dataclass(frozen=True, kw_only=True)
class MatcherChoice:
    """A matcher by name, or by import path, and its settings."""

    name: str
    settings: object  # of the entry's settings; of a matcher by import path a dict
    part: user_code.UserPart | None = None  # of a matcher by import path

    @cached_property
    def made(self) -> "Matcher":
        """The matcher. Raises UltronError for what a class by import path does not take, or lacks, and where a package
        or weights are missing."""
        if self.part is None:
            entry = MATCHERS[self.name]
            return entry.part(entry.matcher)(self.settings)
        matchers = import_module(f"{__name__}.matchers")
        self.part.require_method("match", matchers.Matcher)
        made = self.part.made(settings=self.settings_stored, prefix="geometry.matching.")
        return matchers.UserMatcher(self.part, made)

    @property
    def settings_stored(self) -> dict[str, object]:
        """As files store them."""
        return dict(self.settings) if isinstance(self.settings, dict) else to_dict(self.settings)

    @property
    def identity(self) -> dict[str, object]:
        """All that shapes its matches."""
        weights_sha256 = getattr(self.made, "weights_sha256", None)
        settings = {
            name: value for name, value in self.settings_stored.items() if name != "weights" or not weights_sha256
        }
        return {
            "name": self.name.rpartition("/")[2],
            "settings": settings,
            "code_sha256": self.part.sha256 if self.part else None,
            "weights_sha256": weights_sha256,
        }


def choose_matcher(name: str, settings: Mapping[str, object]) -> MatcherChoice | None:
    """A matcher by name or import path; None for mutual nearest features, which take no settings here. Code is run
    that a person has named. Raises UltronError for unknown ones."""
    if user_code.is_import_path(name):
        return MatcherChoice(name=name, settings=dict(settings), part=user_code.load(name, "matcher", MATCHERS))
    one_of("geometry.matcher", name, (MUTUAL, *MATCHERS))
    if name == MUTUAL:
        if settings:
            raise UltronError(
                f"`geometry.matching` is of a matcher that has settings; found {next(iter(settings))} of {MUTUAL}, "
                "whose only one is geometry.ratio"
            )
        return None
    kind = MATCHERS[name].part(MATCHERS[name].settings)
    return MatcherChoice(name=name, settings=kind(**from_signature(kind, settings, prefix="geometry.matching.")))


EXAMPLE = "sigma=1.2"  # of --local-set

DETECTORS = {
    "rootsift": DetectorEntry(module="detectors", settings="SiftSettings", detector="RootSift"),
    "sift": DetectorEntry(module="detectors", settings="SiftSettings", detector="Sift"),
    "orb": DetectorEntry(module="detectors", settings="OrbSettings", detector="Orb"),
    "dense": DetectorEntry(module="dense", settings="DenseSettings", detector=None),
    "disk": DetectorEntry(module="learned", settings="DiskSettings", detector="Disk", takes_weights=True),
    "aliked": DetectorEntry(module="learned", settings="AlikedSettings", detector="Aliked", takes_weights=True),
    "xfeat": DetectorEntry(module="learned", settings="XFeatSettings", detector="XFeat", takes_weights=True),
}

MUTUAL = "mutual"  # nearest features, of each other
MATCHERS = {"lightglue": MatcherEntry(module="lightglue", settings="LightGlueSettings", matcher="LightGlue")}
