"""The CUDA kernels compiled as C++ with the emulator, and their plain C interface."""

import ctypes
from pathlib import Path

from tests.kernels.compiled import CSRC, EMULATOR, compiled

TYPES = {"float32": 0, "float16": 1, "bfloat16": 2, "float64": 3}


class Map(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p)] + [
        (f"{name}_stride", ctypes.c_int64) for name in ("batch", "row", "column", "head")
    ]


class ScalaShape(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("batch", "height", "width", "heads", "head_dim", "kernel_size", "window_height", "window_width")
    ] + [
        ("scale", ctypes.c_double),
        ("dropout_p", ctypes.c_double),
        ("seed", ctypes.c_void_p),
        ("type", ctypes.c_int),
        ("bias_type", ctypes.c_int),
    ]


class ScalaForward(ctypes.Structure):
    _fields_ = (
        [("shape", ScalaShape)]
        + [(name, Map) for name in ("query", "key", "value", "out")]
        + [("bias", ctypes.c_void_p), ("lse", ctypes.c_void_p)]
    )


class ScalaBackward(ctypes.Structure):
    _fields_ = [
        ("shape", ScalaShape),
        *((name, Map) for name in ("query", "key", "value", "out", "grad_out")),
        ("bias", ctypes.c_void_p),
        ("lse", ctypes.c_void_p),
        *((name, Map) for name in ("grad_query", "grad_key", "grad_value")),
        ("grad_bias", ctypes.c_void_p),
        ("workspace", ctypes.c_void_p),
        ("deterministic", ctypes.c_bool),
    ]


class CdconvShape(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("batch", "channels", "height", "width")] + [
        ("type", ctypes.c_int),
        ("channels_last", ctypes.c_bool),
        ("dilation", ctypes.c_void_p),
    ]


def build_emulator(*flags: str) -> Path:
    """The library of the kernels and the emulator, compiled with further flags."""
    sources = [*sorted(CSRC.glob("cuda/*.cu")), EMULATOR / "emulator.cpp", EMULATOR / "entries.cpp"]
    command = [
        "g++",
        "-std=c++17",
        "-O1",
        "-shared",
        "-fPIC",
        "-Wall",
        "-Wextra",
        "-Wno-unknown-pragmas",
        "-Wno-psabi",
        *flags,
    ]
    command += [
        "-include",
        str(EMULATOR / "emulator.h"),
        "-I",
        str(CSRC),
        "-x",
        "c++",
        *map(str, sources),
    ]
    return compiled("emulated.so", command)[0]


def load_emulator(library: Path) -> ctypes.CDLL:
    kernels = ctypes.CDLL(str(library))
    for name in ("scala_forward", "scala_backward", "cdconv_forward", "cdconv_backward"):
        getattr(kernels, name).restype = ctypes.c_char_p
    for name in ("scala_workspace", "cdconv_workspace", "scala_backward_size"):
        getattr(kernels, name).restype = ctypes.c_int64
    return kernels
