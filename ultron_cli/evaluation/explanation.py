"""Why a score is what it is: its slices, worst first, and what stands between it and a perfect one."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ultron_cli.console import counted, lines, table
from ultron_cli.datasets.protocols import Protocol
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.attributes import Attribute, QueryAttribute, attributes_of, in_bins
from ultron_cli.evaluation.ceilings import MOST_SHOWN, Confusion, Hubness, ceilings, confusions, hubness
from ultron_cli.evaluation.evaluate import ScoredRanking
from ultron_cli.evaluation.intervals import RESAMPLES, SEED
from ultron_cli.evaluation.result import interval_text, percent
from ultron_cli.evaluation.significance import p_text
from ultron_cli.evaluation.slices import (
    Positives,
    Slice,
    Sliced,
    corrected,
    photo_slices,
    positives_of,
    query_slices,
)

MOST_SLICES = 12  # on the screen
ALL_IN = "the evaluation's JSON"


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What is behind the score of one protocol; scores are fractions."""

    protocol: Protocol
    mAP: float
    slices: tuple[Slice, ...] = ()  # the worst first
    ceilings: dict[int, float] | None = None  # depth -> mAP that re-ranking so many photos could at best give
    confusions: tuple[Confusion, ...] = ()  # the most frequent first
    hubness: Hubness | None = None

    def to_json(self) -> dict[str, object]:
        """What an Evaluation JSON has beside its scores."""
        content: dict[str, object] = {}
        if self.slices:
            slices = [asdict(part) | {"difference": part.difference} for part in self.slices]
            content["slices"] = {self.protocol: slices}
        if self.ceilings is not None and self.hubness is not None:
            content["ceilings"] = {self.protocol: {str(depth): mAP for depth, mAP in self.ceilings.items()}}
            content["confusions"] = {self.protocol: [asdict(part) for part in self.confusions]}
            content["hubness"] = {self.protocol: asdict(self.hubness)}
        return content

    def text(self) -> str:
        """As people read it."""
        return lines(_slices_text(self), _ceilings_text(self))


def explain(
    scored: ScoredRanking, protocol: Protocol, attribute_names: Sequence[str] = (), *, with_ceilings: bool = False
) -> Explanation:
    """Slices by the attributes named (attributes.py), and the ceilings. Raises UltronError for an unknown attribute,
    and where no query has positives under the protocol."""
    result = scored.results[protocol]
    if not result.queries_used:
        raise UltronError(f"no query has positives under protocol {protocol}; choose another `protocol`")
    rows, truth = scored.rows, scored.truth
    slices: tuple[Slice, ...] = ()
    if attribute_names:
        folder = scored.ranking.origin.dataset_folder
        slices = slices_of(
            scored, protocol, attributes_of(attribute_names, truth, protocol, Path(folder) if folder else None)
        )
    explanation = Explanation(protocol=protocol, mAP=result.mAP, slices=slices)
    if not with_ceilings:
        return explanation
    return Explanation(
        protocol=protocol,
        mAP=result.mAP,
        slices=slices,
        ceilings=ceilings(rows, truth, protocol),
        confusions=tuple(confusions(rows, truth, protocol)),
        hubness=hubness(rows, truth, protocol, scored.photo_name, len(scored.ranking.database_names)),
    )


def slices_of(scored: ScoredRanking, protocol: Protocol, attributes: Sequence[Attribute]) -> tuple[Slice, ...]:
    """The slices of all attributes, the worst first, corrected for their number."""
    ap = scored.results[protocol].ap
    positives: dict[int, Positives] = {}
    for query in np.flatnonzero(~np.isnan(ap)).tolist():
        positives[query] = positives_of(np.asarray(scored.rows[query]), *scored.truth.split(query, protocol))
    slices: list[Sliced] = []
    for attribute in attributes:
        if isinstance(attribute, QueryAttribute):
            slice_of = in_bins(attribute.values)
            slices += query_slices(attribute.name, [slice_of.get(value) for value in attribute.values], ap)
        else:
            values = {
                query: [attribute.value_of(query, photo) for photo in ranked.photos.tolist()]
                for query, ranked in positives.items()
            }
            slice_of = in_bins(value for row in values.values() for value in row)
            named_values = {query: [slice_of.get(value) for value in row] for query, row in values.items()}
            slices += photo_slices(attribute.name, named_values, positives)
    return tuple(corrected(slices))


def _slices_text(explanation: Explanation) -> str:
    if not explanation.slices:
        return ""
    rows = [
        (
            *(part.name, part.of, str(part.n_queries), "-" if part.n_photos is None else str(part.n_photos)),
            *(percent(part.mAP), interval_text(part.interval), percent(part.rest)),
            *(f"{100 * part.difference:+.2f}", p_text(part.p_holm)),
        )
        for part in explanation.slices
    ]
    columns = ("slice", "of", "queries", "photos", "mAP", "95 % interval", "rest", "difference", "p (Holm)")
    n_less = sum(part.is_worse for part in explanation.slices)
    worst = explanation.slices[0]
    if n_less:
        verdict = f"{worst.name} is worst, {-100 * worst.difference:.1f} points below the rest"
        verdict += f"; {counted(n_less, 'slice is', 'slices are')} below the rest beyond chance"
    else:
        verdict = "no slice is below the rest beyond chance"
    return lines(
        f"slices of {explanation.protocol} (mAP {percent(explanation.mAP)}), the worst first:",
        table(columns, rows, left=2, what="slices", most=MOST_SLICES, all_in=ALL_IN),
        verdict,
        "of queries: mAP against that of the other queries; of photos: mAP of these positives alone, against as many "
        f"of the same queries' positives at random. p: permutation tests, two-sided, of photos by rank ({RESAMPLES:,} "
        f"draws, seed {SEED}), after Holm's correction for {len(explanation.slices)} slices",
    )


def _ceilings_text(explanation: Explanation) -> str:
    if explanation.ceilings is None or explanation.hubness is None:
        return ""
    best = ", ".join(f"{depth:,}: {percent(mAP)}" for depth, mAP in explanation.ceilings.items())
    hubs = explanation.hubness
    skewness = "-" if hubs.skewness is None else f"{hubs.skewness:.1f}"
    taken = [(part.landmark, part.taken_for, part.n_photos, part.n_queries) for part in explanation.confusions]
    wrong = [(hub.photo, hub.n_wrong, hub.n_rankings) for hub in hubs.hubs]
    return lines(
        f"what re-ranking the first photos could at best give ({explanation.protocol}, {percent(explanation.mAP)} "
        f"now): {best}",
        "landmarks taken for others, in the places of their positives:"
        if taken
        else "no landmark is taken for another",
        table(
            ("landmark", "taken for", "photos", "queries"), taken, left=2, what="pairs", most=MOST_SHOWN, all_in=ALL_IN
        )
        if taken
        else "",
        f"photos among the first {hubs.places} of many rankings (a photo is in {hubs.mean:.1f} on average; skewness "
        f"{skewness}):",
        table(("photo", "wrong in", "rankings"), wrong, what="photos") if wrong else "none is wrong in two rankings",
    )
