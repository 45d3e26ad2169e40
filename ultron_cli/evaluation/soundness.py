"""What makes a score worth little, told with it: landmarks that were seen in training, few queries, one landmark that
outweighs the others.

That queries are in the database and distractors among its photos is told by retrieval/overlap.py.
"""

from collections.abc import Mapping, Sequence
from pathlib import PurePath

from ultron_cli.console import counted
from ultron_cli.datasets.protocols import GroundTruth
from ultron_cli.evaluation.landmarks import landmarks_of
from ultron_cli.evaluation.metrics import RevisitedResult
from ultron_cli.retrieval.origin import LearnedFrom, Origin

FEWEST_QUERIES = 20  # with positives; the interval of fewer is told too narrow by the bootstrap
LARGEST_SHARE = 0.5  # of all positives that one landmark may have
# Datasets of the same landmarks under several names.
LANDMARKS_OF = {"oxford5k": "Oxford", "roxford5k": "Oxford", "paris6k": "Paris", "rparis6k": "Paris"}
# Training photos that show landmarks of an evaluation set: how many of its 70 queries (Song et al., On train-test class
# overlap and detection for image retrieval, CVPR 2024). rgldv2-clean is without them; neither NC-clean nor
# retrieval-SfM-120k has any.
SHARED_QUERIES = {"Oxford": 36, "Paris": 38}
GLDV2 = ("gldv2-clean", "gldv2-train")
GLDV2_LANDMARKS = (81_313, 203_094)  # of the clean list and of all; a copy may have another name


def weaknesses(truth: GroundTruth, results: Mapping[str, RevisitedResult], dataset: str, origin: Origin) -> list[str]:
    """What takes worth from these scores, a sentence each."""
    phrases = [
        phrase
        for what, learned in (
            ("the weights were trained", origin.weights and origin.weights.trained_on),
            ("the whitening was learned", origin.whitening_learned_from),
        )
        if learned and (phrase := _overlap_phrase(what, learned, dataset, origin))
    ]
    if origin.fusion and origin.fusion.caution:
        phrases.append(origin.fusion.caution)
    few = {name: result.queries_used for name, result in results.items() if 0 < result.queries_used < FEWEST_QUERIES}
    if few:
        counts = ", ".join(f"{name} {n}" for name, n in few.items())
        phrases.append(
            f"fewer than {FEWEST_QUERIES} queries have positives ({counts}): a few photos more or less change mAP by "
            "points; its interval is rather too narrow"
        )
    names, share = _largest_landmark(truth)
    if names and share >= LARGEST_SHARE:
        more = f" and {counted(len(names) - 1, 'more query', 'more queries')}" if len(names) > 1 else ""
        phrases.append(
            f"one landmark has {100 * share:.0f} % of all positives (query {names[0]}{more}): mAP tells of it more "
            "than of the others"
        )
    return phrases


def _overlap_phrase(what: str, learned: LearnedFrom, dataset: str, origin: Origin) -> str | None:
    """How training photos and evaluated ones show the same landmarks, as far as is recorded; None if they do not."""
    name = learned.dataset or PurePath(learned.folder or "").name
    landmarks = LANDMARKS_OF.get(dataset)
    folders = {origin.dataset_folder, origin.database_folder} - {None}
    # By name alone only where no folder is known: a folder of photos to train on and one to evaluate on may both belong
    # to the dataset.
    is_same = learned.folder in folders if learned.folder else name == dataset
    if is_same or (landmarks is not None and LANDMARKS_OF.get(name) == landmarks):
        return f"{what} on {name}, whose landmarks are evaluated: scores are too high; learn from other landmarks"
    is_gldv2 = name in GLDV2 or learned.n_landmarks in GLDV2_LANDMARKS
    if is_gldv2 and landmarks in SHARED_QUERIES and not learned.excluded:
        return (
            f"{what} on {name}, which shows the landmarks of {SHARED_QUERIES[landmarks]} of the 70 queries of "
            f"{dataset} (Song et al., CVPR 2024): scores are too high; compare with systems of the same "
            "training photos alone, or learn from rgldv2-clean"
        )
    return None


def _largest_landmark(truth: GroundTruth) -> tuple[Sequence[str], float]:
    """The queries of the landmark with the most positives, and its share of all; nothing for a single landmark."""
    landmarks = landmarks_of(truth)
    if len(landmarks) < 2:
        return (), 0.0
    largest = max(landmarks, key=lambda landmark: len(landmark.photos))
    share = len(largest.photos) / sum(len(landmark.photos) for landmark in landmarks)
    return [truth.query_names[row] for row in largest.queries], share
