"""ASMK: the database ordered by its local features' visual words (local/asmk.py), whatever the ranking was.

It is a search of its own that stands where steps do: behind any ranking of the photos, before `geometry`.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ultron_cli.configs import within
from ultron_cli.console import counted, log
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.local import asmk as kernels
from ultron_cli.machine import size_text
from ultron_cli.retrieval.local_features.files import LocalFeatureFile, open_local_features
from ultron_cli.retrieval.local_features.opened import EXTRACT, OpenLocalFeatures, file_identity, require_alike
from ultron_cli.retrieval.local_features.words import StoredWords, read_words, write_words
from ultron_cli.retrieval.rerank.state import RerankState, Scored, put_in_front

SEED = 0  # of the features that words are learned of
PHOTOS_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class AsmkConfig:
    """The kernel is HOW's. Words learned of the searched photos themselves, as here unless `words_of` names others, are
    of more use to them than words of other photos, of which published scores are."""

    m: int = 0  # photos of each ranking that are ordered anew; 0: the whole database
    words: int = 0  # visual words; 0: one for 40 features, at most 65,536
    words_of: str = ""  # a file of local features that words are learned of; empty: those of the database
    binary: bool = True
    alpha: float = 3.0
    threshold: float = 0.0
    assigned: int = 5  # words of a query's feature

    def __post_init__(self) -> None:
        within("asmk.m", self.m, 0, 1_000_000)
        within("asmk.words", self.words, 0, 1 << 24)
        _ = self.kernel

    @property
    def n_needed(self) -> int:
        """Photos of a ranking that the step looks at."""
        return self.m

    @property
    def kernel(self) -> kernels.AsmkSettings:
        """How two photos' vectors are compared."""
        return kernels.AsmkSettings(
            binary=self.binary, alpha=self.alpha, threshold=self.threshold, assigned=self.assigned
        )


def asmk(state: RerankState, config: AsmkConfig) -> RerankState:
    """Orders every query's first M photos, or all, by ASMK. Raises UltronError if there are no local features, or they
    are bits."""
    with OpenLocalFeatures(state.local, "asmk") as features:
        files = features.photos.files
        if files[0].info.comparison != "l2":
            raise UltronError(
                f"asmk adds up descriptors, and those of {files[0].path} are bits; make others with {EXTRACT}"
            )
        stored = stored_words(files, config)
        search = kernels.Asmk(stored.words, config.kernel)
        search.fill(stored.content, sum(file.n for file in files))
        numbers = features.photos.numbers()
        fronts = []
        for query in range(len(state.queries)):
            scores = search.scores(features.descriptors_of_query(query))
            rows = state.first_rows(query, config.m) if config.m else np.arange(state.n_database)
            of_rows = numbers[rows]
            fronts.append((rows, np.where(of_rows >= 0, scores[of_rows], 0)))
        bytes_per_photo = (stored.content.vectors.nbytes + 8 * len(stored.content.words)) / len(numbers)
    log.info(
        "asmk: %s, %.0f vectors a photo, %s per photo",
        counted(len(stored.words), "visual word"),
        len(stored.content.words) / len(numbers),
        size_text(bytes_per_photo),
    )
    measured = {
        "n_words": len(stored.words),
        "words_of": config.words_of or "the searched photos",
        "vectors_per_photo": round(len(stored.content.words) / len(numbers), 1),
        "bytes_per_photo": round(bytes_per_photo),
    }
    ranking = put_in_front(state.ranking, _cut(fronts, state.ranking.rows.shape[1]), in_place=state.in_place)
    return dataclasses.replace(state, ranking=ranking, measured=measured)


def _cut(fronts: list[Scored], k: int) -> list[Scored]:
    """The k best of each front."""
    best = []
    for rows, scores in fronts:
        order = np.lexsort((rows, -scores.astype(np.float32)))[:k]
        best.append((rows[order], scores[order]))
    return best


def stored_words(files: list[LocalFeatureFile], config: AsmkConfig) -> StoredWords:
    """The visual words and vectors of a database: those that lie beside it, or new ones, which are then put there."""
    n_features, n_photos = sum(file.n_features for file in files), sum(file.n for file in files)
    teacher = open_local_features(Path(config.words_of).expanduser()) if config.words_of else None
    try:
        if teacher is not None:
            require_alike(teacher, files[0])
        teachers = [teacher] if teacher is not None else files
        n_words = kernels.number_of_words(sum(file.n_features for file in teachers), config.words)
        made_of = {
            "version": kernels.VERSION,
            "binary": config.binary,
            "words": n_words,
            "seed": SEED,
            "words_of": [file_identity(file) for file in teachers],
            "photos": [file_identity(file) for file in files],
        }
        digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
        path = files[0].path.with_suffix(f".asmk-{digest[:8]}.h5")
        if path.is_file():
            try:
                if (stored := read_words(path, digest, n_photos)) is not None:
                    return stored
            except UltronError as error:
                log.info("%s", error)
        started_s = time.perf_counter()
        words = kernels.learn_words(_sample(teachers), n_words)
        learned_s = time.perf_counter() - started_s
        content = kernels.Asmk(words, config.kernel).vectors_of(_numbered(files))
        log.info(
            "asmk: %s learned in %.0f s, %s of %s put to them in %.0f s",
            counted(n_words, "word"),
            learned_s,
            counted(n_features, "feature"),
            counted(n_photos, "photo"),
            time.perf_counter() - started_s - learned_s,
        )
    finally:
        if teacher is not None:
            teacher.close()
    stored = StoredWords(words, content)
    try:
        write_words(path, stored, digest)
    except (UltronError, WorkFailed) as error:
        log.info("visual words are not kept: %s", error)
    return stored


def _sample(files: list[LocalFeatureFile]) -> np.ndarray:
    """(n, D) float32 unit features of files, at most TRAINING_FEATURES, drawn evenly."""
    n_features = sum(file.n_features for file in files)
    is_drawn = np.ones(n_features, bool)
    if n_features > kernels.TRAINING_FEATURES:
        is_drawn[:] = False
        is_drawn[np.random.default_rng(SEED).choice(n_features, kernels.TRAINING_FEATURES, replace=False)] = True
    parts, first = [], 0
    for file in files:
        for _, photos in file.blocks(PHOTOS_AT_ONCE):
            for photo in photos:
                parts.append(kernels.unit_rows(photo.descriptors[is_drawn[first : first + len(photo)]]))
                first += len(photo)
    return np.concatenate(parts)


def _numbered(files: list[LocalFeatureFile]) -> Iterator[tuple[int, np.ndarray]]:
    """(number, descriptors) of the photos of files, one after the other."""
    first = 0
    for file in files:
        for start, photos in file.blocks(PHOTOS_AT_ONCE):
            yield from ((first + start + i, photo.descriptors) for i, photo in enumerate(photos))
        first += file.n
