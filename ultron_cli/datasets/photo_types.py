"""Which files are photos: one list of types for all commands, by the endings of their names.

Nothing is imported for it: to know what a folder holds needs no decoder.
"""

import functools
from collections import Counter
from importlib.util import find_spec

MOST_TYPES_SHOWN = 6
HEIF_INSTALL = 'pip install "ultron[heif]"'
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
# Pillow's name of each type that is read -> endings of names, in small letters; the first is the usual one. Pillow
# knows others, which nobody photographs in, and one of them (EPS) is a program that it would run.
SUFFIXES_OF_FORMAT = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".mpo", ".jpg", ".jpeg"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".jpx", ".jpf", ".jpc", ".j2c"),
    "BMP": (".bmp", ".dib"),
    "DIB": (".dib", ".bmp"),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}


@functools.cache
def has_heif() -> bool:
    """Whether photos of phones (HEIF) can be read here."""
    return find_spec("pillow_heif") is not None


@functools.cache
def photo_suffixes() -> tuple[str, ...]:
    """Endings of the names of photos that can be read here, in small letters."""
    known = dict.fromkeys(suffix for suffixes in SUFFIXES_OF_FORMAT.values() for suffix in suffixes)
    if find_spec("PIL._avif") is None:  # a Pillow older than 11.3, or built without
        for suffix in SUFFIXES_OF_FORMAT["AVIF"]:
            del known[suffix]
    return (*known, *(HEIF_SUFFIXES if has_heif() else ()))


def is_photo(name: str) -> bool:
    """Whether a file's name ends as that of a photo that can be read here."""
    return name.lower().endswith(photo_suffixes())


def unread_text(counts: Counter[str]) -> str | None:
    """`2 files of types not read: 1 .heic, 1 .txt`, most first, from counts by ending; None where there are none.

    Photos of phones are told with what reads them.
    """
    if not counts:
        return None
    n = counts.total()
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{n_files:,} {suffix or 'without an ending'}" for suffix, n_files in ordered[:MOST_TYPES_SHOWN]]
    if len(ordered) > MOST_TYPES_SHOWN:
        parts.append(f"{sum(n_files for _, n_files in ordered[MOST_TYPES_SHOWN:]):,} others")
    heif = f" ({HEIF_INSTALL} has them read)" if not has_heif() and any(map(counts.get, HEIF_SUFFIXES)) else ""
    return f"{n:,} {'file' if n == 1 else 'files'} of types not read: {', '.join(parts)}{heif}"
