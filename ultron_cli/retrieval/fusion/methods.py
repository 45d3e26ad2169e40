"""How the scores, or the places, that several rankings give a photo become one score: METHODS.

CombSUM, CombMNZ, CombANZ, CombMAX, CombMIN and CombMED: Fox and Shaw, Combination of multiple searches, TREC-2, 1994.
WMNZ: Wu and Crestani, Data fusion with estimated weights, CIKM 2002. RRF: Cormack et al., Reciprocal rank fusion,
SIGIR 2009. ISR and Log-ISR: Mourao et al., Multimodal medical information retrieval with unsupervised rank fusion,
Computerized Medical Imaging and Graphics 39, 2015. With equal weights the numbers are those of ranx.

A photo that a ranking lacks has NaN from it. CombSUM then adds nothing, as all do: of z-scores, whose mean is 0, that
puts it before half of the photos that the ranking has.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ultron_cli import user_code
from ultron_cli.configs import one_of
from ultron_cli.errors import UltronError

RRF_K = 60  # of Cormack et al.


@dataclass(frozen=True, kw_only=True)
class FusionMethod:
    """One way of joining."""

    # (m, n) float64 values of n photos from m rankings, NaN where a ranking lacks a photo, each photo in one at least;
    # (m,) weights -> (n,) scores.
    combine: Callable[[np.ndarray, np.ndarray], np.ndarray]
    # (places from 0, k of RRF) -> what a ranking gives the photos there; None: its normalised scores.
    of_places: Callable[[np.ndarray, int], np.ndarray] | None = None
    part: user_code.UserPart | None = None  # of a method by import path


class UserFusion(Protocol):
    """A method that a user names by import path: an object of a class that is made of its settings. Its attribute
    `of_places` says that it looks at places; where it has none, or it is false, it gets normalised scores."""

    def __call__(self, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(n,) finite scores, the best photo's highest, of the n photos of one query. values: (m, n) float64 that m
        rankings give them, scores or places from 0, NaN where a ranking lacks a photo. weights: (m,)."""
        ...


def _weighted(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n,) sum of weight times value."""
    return np.nansum(values * weights[:, None], axis=0)


def _n_ranking(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n,) number of rankings that have each photo; one of weight 0 is none."""
    return (~np.isnan(values) & (weights != 0)[:, None]).sum(axis=0)


def _mnz(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _weighted(values, weights) * _n_ranking(values, weights)


def _wmnz(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.nansum(values, axis=0) * (~np.isnan(values) * weights[:, None]).sum(axis=0)


def _anz(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _weighted(values, weights) / np.maximum(_n_ranking(values, weights), 1)


def _log_mnz(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _weighted(values, weights) * np.log(np.maximum(_n_ranking(values, weights), 1))


def _max(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.nanmax(values * weights[:, None], axis=0)


def _min(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.nanmin(values * weights[:, None], axis=0)


def _median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.nanmedian(values * weights[:, None], axis=0)


def _reciprocal(places: np.ndarray, k: int) -> np.ndarray:
    return 1 / (k + places + 1)


def _inverse_square(places: np.ndarray, _: int) -> np.ndarray:
    return 1 / (places + 1.0) ** 2


def fusion_method(name: str, settings: Mapping[str, object]) -> FusionMethod:
    """A method by its name in METHODS, or by import path (`my.py:Median`), which is run, with its settings. Raises
    UltronError for an unknown one, and for a class that is none."""
    if not user_code.is_import_path(name):
        method = METHODS[one_of("method", name, METHODS)]
        if settings:
            raise UltronError(f"settings are of a method by import path, found method {name}; leave out `set`")
        return method
    user_code.permit(name)
    part = user_code.load(name, "fusion method", METHODS)
    part.require_method("__call__(values, weights)", UserFusion)
    fusion: UserFusion = part.made(settings=settings, prefix="")

    def combine(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        if not values.shape[1]:
            return np.zeros(0)
        with user_code.blaming(fusion, "__call__"):
            scores = np.asarray(fusion(values, weights))
        if scores.shape != values.shape[1:] or scores.dtype.kind not in "fiu" or not np.isfinite(scores).all():
            raise UltronError(
                f"{part.place('__call__')}: {part.name} must give a finite score of each photo, {values.shape[1:]}; "
                f"found {scores.dtype} {scores.shape}"
            )
        return scores

    looks_at_places = bool(getattr(part.target, "of_places", False))
    return FusionMethod(combine=combine, of_places=_places if looks_at_places else None, part=part)


def _places(places: np.ndarray, _: int) -> np.ndarray:
    return places.astype(np.float64)


METHODS: dict[str, FusionMethod] = {
    "rrf": FusionMethod(combine=_weighted, of_places=_reciprocal),
    "combsum": FusionMethod(combine=_weighted),
    "combmnz": FusionMethod(combine=_mnz),
    "wmnz": FusionMethod(combine=_wmnz),
    "combanz": FusionMethod(combine=_anz),
    "combmax": FusionMethod(combine=_max),
    "combmin": FusionMethod(combine=_min),
    "combmed": FusionMethod(combine=_median),
    "isr": FusionMethod(combine=_mnz, of_places=_inverse_square),
    "logisr": FusionMethod(combine=_log_mnz, of_places=_inverse_square),
}
