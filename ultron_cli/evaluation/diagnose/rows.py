"""What two sets of descriptors of the same photos tell of their difference without the photos."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ultron_cli.evaluation.diagnose.causes import SAME, Cause
from ultron_cli.evaluation.diagnose.settings import NO_FLAG

EXPLAINED = 0.02  # a way that leaves at most this share of what differed is taken as the cause
UNIT = 1e-3  # rows whose norms differ by less from 1 are unit vectors
MAP_STEPS = 30  # of fitting a linear map and the lengths of its rows in turn
SAME_GRAM = 1e-3  # cosines among photos, that agree up to this, belong to turned descriptors


@dataclass(frozen=True, kw_only=True)
class RowsShown:
    """What descriptors alone show."""

    reference: np.ndarray  # (n, D') float64 unit rows, each of the photo of ours in its place
    cause: Cause | None  # that explains them
    misnamed: Cause | None  # rows of the reference that stand under other photos' names
    notes: tuple[str, ...]  # what is odd of the reference


def shown_by_rows(ours: np.ndarray, reference: np.ndarray, row_of_ours: np.ndarray) -> RowsShown:
    """ours: (n, D) float64 unit rows; reference: (n, D') float64 as stored, in its file's order; row_of_ours: (n,) of
    our file."""
    norms = np.linalg.norm(reference, axis=1)
    notes = []
    if np.abs(norms - 1).max() > UNIT:
        notes.append(
            f"the reference's descriptors are not of unit norm ({norms.min():.3g} to {norms.max():.3g}): made so here, "
            "searched as they are they rank otherwise"
        )
    reference = unit(reference)
    if ours.shape[1] != reference.shape[1]:
        notes.append(
            f"the reference has {reference.shape[1]} dimensions, ours {ours.shape[1]}: another whitening or another "
            f"network (their cosines among the photos correlate by {_gram_correlation(ours, reference):.3f}); if you "
            "have its file, `ultron diagnose --whiten`"
        )
        return RowsShown(reference=reference, cause=None, misnamed=None, notes=tuple(notes))
    misnamed = None
    places = _places(ours, reference)
    if places is not None:
        before = cosine(ours, reference)
        reference = reference[places]
        misnamed = Cause(
            setting="names",
            ours="each descriptor under its photo's name",
            reference=_order_text(places, row_of_ours),
            mend="write the reference's names and descriptors in one order",
            cosine_before=before,
            cosine=cosine(ours, reference),
        )
    return RowsShown(reference=reference, cause=_cause(ours, reference), misnamed=misnamed, notes=tuple(notes))


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of unit norm; one of zeros stays."""
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-30)


def cosine(rows: np.ndarray, others: np.ndarray) -> float:
    """Mean cosine of unit rows."""
    return float(np.einsum("nd,nd->n", rows, others).mean())


def _places(ours: np.ndarray, reference: np.ndarray) -> np.ndarray | None:
    """(n,) int64: the row of the reference that belongs to each of ours, where these are clearly others than those of
    the same names; else None."""
    from scipy.optimize import linear_sum_assignment

    cosines = ours @ reference.T
    _, places = linear_sum_assignment(-cosines)
    n = len(places)
    by_name, by_cosine = cosines.trace() / n, cosines[np.arange(n), places].mean()
    is_misnamed = (places != np.arange(n)).mean() > 0.5 and 1 - by_cosine < 0.5 * (1 - by_name)
    return places if is_misnamed and n > 2 else None


def _order_text(places: np.ndarray, row_of_ours: np.ndarray) -> str:
    n = len(places)
    counts = np.bincount((places - np.arange(n)) % n)
    shift = int(counts.argmax())
    if counts[shift] >= 0.9 * n:
        by = min(shift, shift - n, key=abs)
        return f"names and descriptors shifted by {abs(by)} row{'s' if abs(by) > 1 else ''}"
    if (np.argsort(np.argsort(row_of_ours)) == places).mean() >= 0.9:
        return "descriptors in the order of our file under names in another order"
    return "descriptors in another order than their names"


def _cause(ours: np.ndarray, reference: np.ndarray) -> Cause | None:
    """The one way to make the reference's descriptors of ours alone that explains them."""
    before = cosine(ours, reference)
    if 1 - before <= SAME:
        return None
    for setting, text, mend, after in _ways(ours, reference):
        if 1 - after <= max(EXPLAINED * (1 - before), SAME):
            return Cause(
                setting=setting,
                ours="descriptors as the network gives them",
                reference=text,
                mend=mend,
                cosine_before=before,
                cosine=after,
            )
    return None


def _ways(ours: np.ndarray, reference: np.ndarray) -> Iterator[tuple[str, str, str, float]]:
    """(setting, the reference's way, what mends it, cosine after it), the simplest first."""
    n, dim = ours.shape
    rooted = unit(np.sign(ours) * np.sqrt(np.abs(ours)))
    yield "normalisation of components", "signed root of each", NO_FLAG, cosine(rooted, reference)
    if n > 2:
        mean = ours.mean(axis=0)
        yield "centring", "the mean of all photos subtracted", "`ultron whiten`", cosine(unit(ours - mean), reference)
    if n >= 8:
        matched, signs = _matched_dims(ours, reference)
        order = "in their order" if (matched == np.arange(dim)).all() else "in another order"
        turned = f", {int((signs < 0).sum())} with the other sign" if (signs < 0).any() else ""
        yield "dimensions", order + turned, NO_FLAG, cosine(unit(ours[:, matched] * signs), reference)
        if _gram_difference(ours, reference) <= SAME_GRAM:
            yield (
                "basis",
                "all descriptors turned by one rotation (orthogonal Procrustes), which changes no ranking",
                "nothing to mend, unless queries and database are of both files",
                _procrustes_cosine(ours, reference),
            )
    if n >= 4 * dim:
        yield (
            "whitening",
            "another linear map, as a whitening of other photos",
            "`ultron whiten`",
            _map_cosine(ours, reference),
        )


def _matched_dims(ours: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(D,) int64: our dimension that goes most with each of the reference's, and (D,) its sign."""
    products = unit((reference - reference.mean(axis=0)).T) @ unit((ours - ours.mean(axis=0)).T).T
    matched = np.abs(products).argmax(axis=1)
    return matched, np.where(products[np.arange(len(matched)), matched] < 0, -1.0, 1.0)


def _gram_difference(ours: np.ndarray, reference: np.ndarray) -> float:
    """The largest difference of two photos' cosine."""
    return float(np.abs(ours @ ours.T - reference @ reference.T).max())


def _gram_correlation(ours: np.ndarray, reference: np.ndarray) -> float:
    """Correlation of the cosines among photos; 0 where there are too few."""
    pairs = np.triu_indices(len(ours), 1)
    a, b = (ours @ ours.T)[pairs], (reference @ reference.T)[pairs]
    return float(np.corrcoef(a, b)[0, 1]) if len(a) > 2 and a.std() > 0 and b.std() > 0 else 0.0


def _procrustes_cosine(ours: np.ndarray, reference: np.ndarray) -> float:
    """Mean cosine after the best rotation of ours: the nuclear norm of ours' reference, over n (Schönemann 1966)."""
    of_ours, of_reference = (np.linalg.qr(rows.T).R for rows in (ours, reference))
    return float(np.linalg.svd(of_ours @ of_reference.T, compute_uv=False).sum() / len(ours))


def _map_cosine(ours: np.ndarray, reference: np.ndarray) -> float:
    """Mean cosine of the second half of the photos after the linear map that suits the first half best."""
    half = len(ours) // 2
    with_one = np.concatenate([ours, np.ones((len(ours), 1))], axis=1)
    lengths = np.ones(half)  # of the mapped rows, before they were made unit
    projection = np.zeros((with_one.shape[1], reference.shape[1]))
    for _ in range(MAP_STEPS):
        projection, *_ = np.linalg.lstsq(with_one[:half], reference[:half] * lengths[:, None], rcond=None)
        lengths = np.einsum("nd,nd->n", with_one[:half] @ projection, reference[:half]).clip(min=1e-3)
        lengths /= lengths.mean()
    return cosine(unit(with_one[half:] @ projection), reference[half:])
