"""Drawing and shading rendered landmarks, compiled: bit for bit what NumPy gives, as each number is rounded in the same
order. Needs no PyTorch."""

import ctypes

import numpy as np
from ultron_kernels import build

# `Facet` of csrc/rendering/raster.h, an array of which is `Drawing.facets`.
FACET = np.dtype(
    [
        ("box", np.int64, 4),  # x0, y0, x1, y1
        ("offset", np.int64),
        ("width", np.int64),
        ("height", np.int64),
        ("plane", np.float32, (3, 3)),
        ("shrink", np.float32, 2),  # left, right
        ("number", np.int32),
        ("texture", np.int32),
        ("two_sided", bool),
        ("repeats", bool),
    ],
    align=True,
)


class Drawing(ctypes.Structure):
    """`Drawing` of csrc/rendering/raster.h."""

    _fields_ = (
        ("facets", ctypes.c_void_p),
        ("n_facets", ctypes.c_int64),
        ("inverse_depth", ctypes.c_void_p),
        ("face", ctypes.c_void_p),
        ("texel", ctypes.c_void_p),
        ("frame_width", ctypes.c_int64),
        ("texels", ctypes.c_void_p),
        ("level_offset", ctypes.c_void_p),
        ("level_width", ctypes.c_void_p),
        ("n_levels", ctypes.c_int64),
        ("level_depth", ctypes.c_void_p),
    )


class Shading(ctypes.Structure):
    """`Shading` of csrc/rendering/shading.h."""

    _fields_ = (
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("samples", ctypes.c_int64),
        ("inverse_depth", ctypes.c_void_p),
        ("face", ctypes.c_void_p),
        ("texel", ctypes.c_void_p),
        ("texels", ctypes.c_void_p),
        ("ambient", ctypes.c_void_p),
        ("direct", ctypes.c_void_p),
        ("lit", ctypes.c_void_p),
        ("backdrop", ctypes.c_void_p),
        ("panes_lit", ctypes.c_void_p),
        ("glow", ctypes.c_void_p),
        ("horizon", ctypes.c_void_p),
        ("fog", ctypes.c_float),
        ("total", ctypes.c_void_p),
    )


class Sunlight(ctypes.Structure):
    """`Sunlight` of csrc/rendering/shading.h."""

    _fields_ = (
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("samples", ctypes.c_int64),
        ("inverse_depth", ctypes.c_void_p),
        ("ray_x", ctypes.c_void_p),
        ("ray_y", ctypes.c_void_p),
        ("position", ctypes.c_void_p),
        ("turn", ctypes.c_void_p),
        ("focal_px", ctypes.c_float),
        ("centre_x", ctypes.c_float),
        ("centre_y", ctypes.c_float),
        ("first", ctypes.c_void_p),
        ("bias_m", ctypes.c_float),
        ("n_side", ctypes.c_int64),
        ("lit", ctypes.c_void_p),
    )


def is_ready(*, worth_building: bool) -> bool:
    """Whether `run` can be called; loads the library, and builds it first where that is worth its seconds."""
    return build.ready_library("rendering", worth_building=worth_building) is not None


def run(structure: type[ctypes.Structure], **values: np.ndarray | np.float32 | int) -> None:
    """Calls the function of a structure with all its fields: numbers, and contiguous arrays of csrc's types. is_ready
    comes first."""
    library = build.LOADED["rendering"]
    assert library is not None, "is_ready comes first"
    assert list(values) == [field[0] for field in structure._fields_]
    assert all(value.flags.c_contiguous for value in values.values() if isinstance(value, np.ndarray))
    plain = (value.ctypes.data if isinstance(value, np.ndarray) else value for value in values.values())
    getattr(library, FUNCTIONS[structure])(ctypes.byref(structure(*plain)))


FUNCTIONS = {Drawing: "ultron_draw", Sunlight: "ultron_find_sunlit", Shading: "ultron_shade"}
