"""Rankings by name, as other tools read and write them: what goes out, and what comes in."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from re import Pattern

import numpy as np

from ultron_cli.errors import UltronError
from ultron_cli.schema.values import shown

LARGEST_SCORE = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class NamedRanking:
    """The ranking of one query on its way out, best first."""

    query: str
    photos: Sequence[str]
    scores: Sequence[str]  # the shortest texts that read back as the same float32


@dataclass(frozen=True, kw_only=True)
class NamedRun:
    """The rankings of a file of another tool, each in the order of the file."""

    query_names: list[str]
    photo_names: list[str]  # each once
    rows: list[np.ndarray]  # per query (n,) int64 into photo_names, each once
    scores: list[np.ndarray]  # per query (n,) float64, finite in float32


class RunBuilder:
    """Gathers a NamedRun line by line, in 16 bytes per line and the names once."""

    def __init__(self, path: Path) -> None:
        """path: of the file, for messages."""
        self._path = path
        self._row_of: dict[str, int] = {}
        self._lists: dict[str, tuple[array[int], array[float]]] = {}

    def begin(self, query: str) -> None:
        """Notes a query, which may have no photo."""
        self._lists.setdefault(query, (array("q"), array("d")))

    def add(self, query: str, photo: str, score: float, where: str) -> None:
        """Adds a photo to a query's ranking. where: for messages, after the file's name."""
        if not query or not photo:
            raise UltronError(f"{self._path}{where}: a {'photo' if query else 'query'} without a name; name each")
        if not -LARGEST_SCORE <= score <= LARGEST_SCORE:
            raise UltronError(
                f"{self._path}{where}: a score must be a finite number of float32, found {score}; write numbers"
            )
        self.begin(query)
        rows, scores = self._lists[query]
        rows.append(self._row_of.setdefault(photo, len(self._row_of)))
        scores.append(score)

    def run(self) -> NamedRun:
        """What was gathered. Raises UltronError where it is nothing, or a photo stands twice in a ranking."""
        if not self._row_of:
            raise UltronError(f"{self._path} holds no ranking; check the path, or name its `format`")
        names = list(self._row_of)
        rows_by_query = [np.array(rows, np.int64) for rows, _ in self._lists.values()]
        for query, rows in zip(self._lists, rows_by_query, strict=True):
            ordered = np.sort(rows)
            twice = ordered[1:][ordered[1:] == ordered[:-1]]
            if twice.size:
                raise UltronError(
                    f"{self._path}: {shown(names[twice[0]])} stands twice in the ranking of {shown(query)}; leave one"
                )
        return NamedRun(
            query_names=list(self._lists),
            photo_names=names,
            rows=rows_by_query,
            scores=[np.array(scores, np.float64) for _, scores in self._lists.values()],
        )


@dataclass(frozen=True, kw_only=True)
class RankFormat:
    """A format of rankings, or of the pairs of photos that a reconstruction matches."""

    # The parts of the text of a file. They get the rankings, which are made when they are asked for, and a word that
    # names the run.
    write: Callable[[Iterable[NamedRanking], str], Iterator[str]]
    read: Callable[[Path], NamedRun] | None = None
    unfit: Pattern[str] | None = None  # matches names that the format cannot carry
    unfit_rule: str = ""  # why, in words
    is_pairs: bool = False  # of files of photos, not of names in a ground truth
    has_scores: bool = True


def score_of(text: str, path: Path, where: str) -> float:
    """A score as people write numbers. Raises UltronError."""
    try:
        if "_" in text:  # which Python takes for a separator
            raise ValueError
        return float(text)
    except ValueError:
        raise UltronError(f"{path}{where}: a score must be a number, found {shown(text)}; correct the line") from None


def score_texts(scores: np.ndarray) -> list[str]:
    """The shortest texts that read back as the same float32. scores: (n,) float32, finite."""
    return scores.astype("U").tolist()


def falling(scores: np.ndarray) -> np.ndarray:
    """(Q, K) float32: the scores, each lowered to the next float32 below the one before it wherever it does not fall by
    itself. Scores that fall keep their bits.

    scores: (Q, K) float32, finite or, at the end of a row, -infinity.
    """
    bits = scores.view(np.int32).astype(np.int64)
    keys = np.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))  # in the order of the values, neighbours differ by 1
    columns = np.arange(scores.shape[1])
    lowered = np.minimum.accumulate(keys + columns, axis=1) - columns
    magnitudes = np.where(lowered >= 0, lowered, -lowered | 0x80000000).astype(np.uint32)
    return np.where(lowered == keys, scores, magnitudes.view(np.float32))


def n_not_falling(scores: np.ndarray, is_photo: np.ndarray) -> tuple[int, int]:
    """(scores that are not below the one before them, of these the higher ones). scores: (Q, K) float32; is_photo: (Q,
    K) bool, False behind the end of a row."""
    later, earlier = scores[:, 1:], scores[:, :-1]
    n_higher = int(((later > earlier) & is_photo[:, 1:]).sum())
    return int(((later == earlier) & is_photo[:, 1:]).sum()) + n_higher, n_higher
