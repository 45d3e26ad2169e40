"""Photos at another size for a network, compiled: bit for bit what PyTorch gives on one thread of a processor that
multiplies and adds at once, in a third of the time. Needs no PyTorch, and a processor with AVX2."""

import ctypes

import numpy as np
from ultron_kernels import build


class Scaling(ctypes.Structure):
    """`Scaling` of csrc/scaling/scaling.h."""

    _fields_ = (
        ("pixels", ctypes.c_void_p),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("mean", ctypes.c_void_p),
        ("sd", ctypes.c_void_p),
        ("scaled_height", ctypes.c_int64),
        ("scaled_width", ctypes.c_int64),
        ("down", ctypes.c_float),
        ("across", ctypes.c_float),
        ("scaled", ctypes.c_void_p),
    )


def is_ready(*, worth_building: bool) -> bool:
    """Whether `scale_photo` can be called; loads the library, and builds it first where that is worth its seconds."""
    library = build.ready_library("scaling", worth_building=worth_building)
    return library is not None and library.ultron_runs_here() == 1


def scale_photo(
    pixels: np.ndarray,
    mean: np.ndarray,
    sd: np.ndarray,
    sides: tuple[int, int],
    steps: tuple[float, float],
    scaled: np.ndarray,
) -> None:
    """Fills `scaled`, (3, *sides) float32, with (pixels - mean) / sd, linear between the nearest places.

    pixels: (H, W, 3) uint8. mean, sd: (3,) float32. sides: in pixels; those of the photo itself leave it at its size.
    steps: pixels of the photo between two scaled ones, down and across; the first of them lies half a step from the
    edge. All arrays are contiguous, and is_ready comes first.
    """
    library = build.LOADED["scaling"]
    assert library is not None, "is_ready comes first"
    assert scaled.shape == (3, *sides) and scaled.dtype == mean.dtype == sd.dtype == np.float32
    assert pixels.dtype == np.uint8 and pixels.shape[2:] == mean.shape == sd.shape == (3,)
    assert min(*pixels.shape, *sides) > 0 and max(*pixels.shape, *sides) < 2**24  # places are whole in float32
    assert all(array.flags.c_contiguous for array in (pixels, mean, sd, scaled))
    arrays = (mean.ctypes.data, sd.ctypes.data)
    work = Scaling(pixels.ctypes.data, *pixels.shape[:2], *arrays, *sides, *steps, scaled.ctypes.data)
    library.ultron_scale_photo(ctypes.byref(work))
