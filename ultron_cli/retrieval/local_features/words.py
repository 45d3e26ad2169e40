"""The visual words and vectors of a database (local/asmk.py), kept beside its local features (HDF5).

Attributes format, version, made_of, created, ultron_version; /words (W, D) float32, /vectors (A, V) uint32 or float32,
/word_of_vector and /photo_of_vector (A,) int64, photos numbered through the files of local features. `made_of` is a
SHA-256 of all that shaped them: what is of anything else is made anew.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ultron_cli import __version__
from ultron_cli.local.asmk import PhotoVectors
from ultron_cli.provenance import utc_now
from ultron_cli.retrieval.hdf5 import H5Layout, H5Part, new_h5, open_h5, write_h5_header

FORMAT = "ultron-asmk"
VERSION = 1
LAYOUT = H5Layout(
    format=FORMAT,
    version=VERSION,
    what="file of visual words",
    parts={
        "words": H5Part(axes="(W, D)", types=("float32",)),
        "vectors": H5Part(axes="(A, V)", types=("uint32", "float32")),
        "word_of_vector": H5Part(axes="(A,)", types=("int64",)),
        "photo_of_vector": H5Part(axes="(A,)", types=("int64",)),
    },
    attributes={"made_of": str, "created": str, "ultron_version": str},
    again="remove it, and it is made again",
)


@dataclass(frozen=True, eq=False)
class StoredWords:
    """What is kept of a database."""

    words: np.ndarray  # (W, D) float32
    content: PhotoVectors


def write_words(path: Path, stored: StoredWords, made_of: str) -> None:
    """Writes a file of visual words atomically."""
    with new_h5(path) as (handle, _):
        handle["words"] = stored.words
        handle["vectors"] = stored.content.vectors
        handle["word_of_vector"] = stored.content.words
        handle["photo_of_vector"] = stored.content.photos
        write_h5_header(handle, FORMAT, VERSION, created=utc_now(), ultron_version=__version__)
        handle.attrs["made_of"] = made_of


def read_words(path: Path, made_of: str, n_photos: int) -> StoredWords | None:
    """The words and vectors of a file, if they are made of this and of n_photos photos. Raises UltronError for a file
    that is damaged or of another kind."""
    with open_h5(path, LAYOUT) as file:
        if file.attributes["made_of"] != made_of:
            return None
        words, vectors, word_of_vector, photo_of_vector = (file.array(name) for name in LAYOUT.parts)
    is_whole = (
        np.isfinite(words).all()
        and len(vectors) == len(word_of_vector) == len(photo_of_vector)
        and (len(vectors) > 0)
        and vectors.shape[1] == (-(-words.shape[1] // 32) if vectors.dtype == np.uint32 else words.shape[1])
        and word_of_vector.min() >= 0
        and word_of_vector.max() < len(words)
        and photo_of_vector[0] >= 0
        and photo_of_vector[-1] < n_photos
        and (np.diff(photo_of_vector) >= 0).all()
    )
    return StoredWords(words, PhotoVectors(vectors, word_of_vector, photo_of_vector)) if is_whole else None
