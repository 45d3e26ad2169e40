"""ASMK, aggregated selective match kernels, over the local features of photos (Tolias, Avrithis and Jegou, IJCV 2016;
as HOW is searched, Tolias, Jenicek and Chum, ECCV 2020).

Every feature goes to its visual word; what a photo's features of one word are away from it is added up to one vector,
which is binarised. Two photos are as similar as their vectors of the words that both have. Words, vectors and kernel
are those of the package asmk, by the authors of HOW; the inverted file is filled at once instead of row by row.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from ultron_cli.configs import within
from ultron_cli.errors import UltronError

TRAINING_FEATURES = 1_000_000  # of which words are learned, at most
FEATURES_PER_WORD = 40  # Faiss asks for 39
MOST_WORDS = 65536  # of HOW
VERSION = 1  # of stored vectors: raise it when the same features and settings no longer give the same


@dataclass(frozen=True, kw_only=True)
class AsmkSettings:
    """Defaults are those of HOW's code."""

    binary: bool = True  # one bit for each dimension of a photo's vector of a word
    alpha: float = 3.0  # power of similarities
    threshold: float = 0.0  # similarities below it count nothing
    assigned: int = 5  # nearest words of a query's feature; a photo's feature has one

    def __post_init__(self) -> None:
        within("asmk.alpha", self.alpha, 0, 100)
        within("asmk.threshold", self.threshold, -1, 1)
        within("asmk.assigned", self.assigned, 1, 100)


@dataclass(frozen=True, eq=False)
class PhotoVectors:
    """Vectors of photos by word, photo after photo."""

    vectors: np.ndarray  # (A, ceil(D / 32)) uint32 where they are binary, else (A, D) float32 of unit norm
    words: np.ndarray  # (A,) int64
    photos: np.ndarray  # (A,) int64, ascending


def asmk_package() -> SimpleNamespace:
    """The modules of the package asmk. Raises UltronError, with how to install it, where it is absent."""
    try:
        from asmk import codebook, index, inverted_file, kernel
    except ImportError as error:
        raise UltronError(
            f'ASMK needs the package asmk, which cannot be imported ({error}); install it: pip install "ultron[asmk]"'
        ) from None
    return SimpleNamespace(codebook=codebook, index=index, inverted_file=inverted_file, kernel=kernel)


def unit_rows(descriptors: np.ndarray) -> np.ndarray:
    """(n, D) descriptors of any type as float32 rows of unit norm; zeros stay zeros."""
    rows = descriptors.astype(np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)


def number_of_words(n_features: int, n_words: int = 0) -> int:
    """n_words, or for 0 as many as so many features tell apart. Raises UltronError if there are fewer features."""
    if n_words > n_features:
        raise UltronError(
            f"visual words are centres of local features: found {n_words:,} words for {n_features:,}; ask for fewer"
        )
    return n_words or min(MOST_WORDS, max(1, n_features // FEATURES_PER_WORD))


def learn_words(features: np.ndarray, n_words: int) -> np.ndarray:
    """(n_words, D) float32 centres of (n, D) unit features, n at least n_words."""
    return asmk_package().index.FaissL2Index().cluster(features, n_words)


class Asmk:
    """Words, and the vectors of a database's photos once they have been added."""

    def __init__(self, words: np.ndarray, settings: AsmkSettings) -> None:
        """words: (W, D) float32."""
        self._package = asmk_package()
        self.settings = settings
        self.words = words
        self._codebook = self._package.codebook.Codebook(
            size=len(words), index_factory=self._package.index.FaissL2Index()
        )
        self._codebook.index(np.ascontiguousarray(words, np.float32))
        self._kernel = self._package.kernel.ASMKKernel(self._codebook, binary=settings.binary)
        self._inverted_file = None

    def vectors(self, descriptors: np.ndarray, *, n_assigned: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """(vectors, words) of one photo with (n, D) descriptors, n over 0."""
        quantized = self._codebook.quantize(unit_rows(descriptors), multiple_assignment=n_assigned)
        return self._kernel.aggregate_image(*quantized)

    def vectors_of(self, photos: Iterable[tuple[int, np.ndarray]]) -> PhotoVectors:
        """photos: (number, descriptors) by ascending number; those without features have no vectors."""
        parts = [(number, *self.vectors(descriptors)) for number, descriptors in photos if len(descriptors)]
        if not parts:
            raise UltronError("no photo of the database has local features; extract those of another kind")
        return PhotoVectors(
            vectors=np.concatenate([vectors for _, vectors, _ in parts]),
            words=np.concatenate([words for _, _, words in parts]).astype(np.int64),
            photos=np.repeat([number for number, _, _ in parts], [len(words) for _, _, words in parts]),
        )

    def fill(self, content: PhotoVectors, n_photos: int) -> None:
        """Takes the vectors of a database of n_photos photos, numbered from 0."""
        order = np.argsort(content.words, kind="stable")
        counts = np.bincount(content.words, minlength=len(self.words))
        ends = np.cumsum(counts)[:-1]
        lists = (np.split(array[order], ends) for array in (content.vectors, content.photos))
        vectors, photos = ([part if len(part) else None for part in parts] for parts in lists)
        self._inverted_file = self._package.inverted_file.IVF(
            np.bincount(content.photos, minlength=n_photos).astype(np.float64),
            n_photos,
            vectors,
            photos,
            counts.astype(np.int32),
            np.ones(len(self.words), np.float32),
            0,
            use_idf=False,
        )

    def scores(self, descriptors: np.ndarray) -> np.ndarray:
        """(n_photos,) float64 similarity of a query with (n, D) descriptors to every photo, 0 to 1 for alpha >= 1."""
        assert self._inverted_file is not None  # fill comes first
        n_photos = self._inverted_file.n_images
        if not len(descriptors):
            return np.zeros(n_photos)
        vectors, words = self.vectors(descriptors, n_assigned=min(self.settings.assigned, len(self.words)))
        photos, falling = self._inverted_file.search(vectors, words, similarity_func=self._similarity, topk=n_photos)
        scores = np.empty(n_photos)
        scores[photos] = falling
        return scores

    def _similarity(self, vector: np.ndarray, vectors: np.ndarray, photos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._kernel.similarity(
            vector, vectors, photos, alpha=self.settings.alpha, similarity_threshold=self.settings.threshold
        )
