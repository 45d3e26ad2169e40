"""What is to be told of a ranking: `ultron ranks info`."""

from typing import TypedDict

import numpy as np

from ultron_cli.retrieval.exchange.run import n_not_falling
from ultron_cli.retrieval.rankings import PADDING, Ranking


class RankFacts(TypedDict):
    """Facts of a ranking."""

    queries: int
    photos: int
    ranked_per_query: str  # `100`, or `0 to 100` where they differ
    scores: str  # from the highest to the lowest
    equal_scores: int  # that equal the one before them
    rising_scores: int  # that exceed the one before them
    made_by: dict[str, str]  # what shaped it, in words


def describe_ranks(ranking: Ranking) -> RankFacts:
    """Facts of a ranking with scores."""
    is_photo = ranking.rows != PADDING
    scores = ranking.with_scores()
    n_ranked = is_photo.sum(axis=1)
    fewest, most = (int(n_ranked.min()), int(n_ranked.max())) if n_ranked.size else (0, 0)
    values = scores[is_photo]
    n_lowered, n_higher = n_not_falling(scores, is_photo)
    return {
        "queries": len(ranking.query_names),
        "photos": len(ranking.database_names),
        "ranked_per_query": str(most) if fewest == most else f"{fewest} to {most}",
        "scores": f"{np.max(values):g} to {np.min(values):g}" if values.size else "none",
        "equal_scores": n_lowered - n_higher,
        "rising_scores": n_higher,
        "made_by": ranking.origin.facts(),
    }
