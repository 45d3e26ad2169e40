"""The definition of revisitop spelled out photo by photo, slow on purpose: what metrics.py is compared with.

Written from the paper (Radenovic et al., CVPR 2018) and from what the reference program computes, independently of
metrics.py: no arrays, no shared code, every place in a ranking looked at in turn.
"""

import math

LABELS_OF = {
    "easy": {"positive": ["easy"], "ignored": ["junk", "hard"]},
    "medium": {"positive": ["easy", "hard"], "ignored": ["junk"]},
    "hard": {"positive": ["hard"], "ignored": ["junk", "easy"]},
}


def literal_query(ranking, positive, ignored, cuts=(1, 5, 10)):
    """(AP, [precision at each cut]) of one query; NaN without positives, zeros where no positive is in the ranking."""
    positive, ignored = [int(photo) for photo in positive], [int(photo) for photo in ignored]
    if not positive:
        return math.nan, [math.nan] * len(cuts)
    wanted, skipped = set(positive), set(ignored)
    places = []  # of the positives met, counted without the ignored photos above them
    n_ignored = 0
    for place, photo in enumerate(int(photo) for photo in ranking):
        if photo in wanted:
            places.append(place - n_ignored)
        if photo in skipped:
            n_ignored += 1
    ap = 0.0
    for n_before, place in enumerate(places):
        left = n_before / place if place > 0 else 1.0
        right = (n_before + 1) / (place + 1)
        ap += (left + right) / 2 * (1 / len(positive))
    precisions = []
    for cut in cuts:
        if not places:
            precisions.append(0.0)
            continue
        cut = min(cut, max(places) + 1)
        precisions.append(sum(1 for place in places if place + 1 <= cut) / cut)
    return ap, precisions


def literal_map(rankings, ground_truth, protocol, cuts=(1, 5, 10)):
    """(mAP, [mP at each cut], [AP per query]) over the queries that have positives."""
    aps, precisions = [], []
    for ranking, truth in zip(rankings, ground_truth.queries, strict=True):
        rows = {
            side: [row for label in labels for row in getattr(truth, label)]
            for side, labels in LABELS_OF[protocol].items()
        }
        ap, at_cuts = literal_query(ranking, rows["positive"], rows["ignored"], cuts)
        aps.append(ap)
        precisions.append(at_cuts)
    used = [query for query, ap in enumerate(aps) if not math.isnan(ap)]
    if not used:
        return math.nan, [math.nan] * len(cuts), aps
    mean_ap = sum(aps[query] for query in used) / len(used)
    return mean_ap, [sum(precisions[query][i] for query in used) / len(used) for i in range(len(cuts))], aps
