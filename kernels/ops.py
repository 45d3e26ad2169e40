"""scala_attention and cdconv: checks, the choice of an implementation, and what every implementation shares.

Legend: B batch, C channels, H W map size, h heads, d head dim, k window side.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor
from ultron_kernels import backends, build, reference, registration, standard

log = logging.getLogger("ultron_kernels")
Backend = Literal["auto", "torch", "cpu", "cuda", "natten", "flex"]
CDCONV_BACKENDS = ("auto", "torch", "cpu", "cuda")
BACKENDS = (*CDCONV_BACKENDS, *backends.BACKENDS)  # of scala_attention, which other libraries have as well
REASONS: dict[str, str] = {}  # by device type, why its compiled operators are not there; a process warns of it once
takes_standard = False  # within standard_operators


@contextlib.contextmanager
def standard_operators() -> Iterator[None]:
    """Inside, both operators are made of what every other library has, so that a graph that is traced can leave
    PyTorch."""
    global takes_standard
    before, takes_standard = takes_standard, True
    try:
        yield
    finally:
        takes_standard = before


def implementation(device_type: str, backend: str) -> str:
    """Returns what runs for tensors of this device: "torch" (the reference), "cpu" or "cuda".

    Builds and loads it if need be. Raises RuntimeError with the reason where an implementation that was asked for by
    name is not there, ValueError where the backend is not for this device.
    """
    enabled = build.setting()
    if backend == "torch" or (backend == "auto" and (enabled == "off" or device_type not in ("cpu", "cuda"))):
        return "torch"
    if backend != "auto" and backend != device_type:
        raise ValueError(
            f"backend {backend!r} needs tensors on {backend}, got {device_type}; move them or use backend='auto'"
        )
    by_name = backend != "auto" or enabled == device_type
    if not by_name and (enabled not in ("auto", device_type) or device_type in REASONS):
        return "torch"
    try:
        build.load(device_type)
        return device_type
    except build.BuildError as error:
        if by_name:
            raise RuntimeError(
                f"the compiled {device_type} operators were asked for and are not there: {error}"
            ) from error
        REASONS[device_type] = str(error)
        log.warning("the reference operators run, many times slower: %s", error)
        return "torch"


# What torch.compiler.assume_constant_result does, without importing the compiler, which takes more than a second.
implementation._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


def scala_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None = None,
    *,
    kernel_size: int = 7,
    scale: float | None = None,
    dropout_p: float = 0.0,
    backend: Backend = "auto",
) -> Tensor:
    """Neighbourhood attention with relative position bias and attention dropout.

    It is Algorithm 2 of ULTRON (Kweon & Park, ACCV 2024), differentiable (once) in query, key, value and bias.

    query, key, value: (B, H, W, h, d), all of float32, float16 or bfloat16, on the CPU also float64. d is a multiple of
        8 from 8 to 128.
    bias: (h, 2k-1, 2k-1) of float32 or the query's dtype, indexed by key position minus query position plus k-1; or
        None.
    kernel_size: k, odd, 3 to 13. On each axis the window has min(k, length) positions; at borders it moves inward.
    scale: 1/sqrt(d) if None.
    dropout_p: 0 <= p < 1, of the attention weights. The mask comes from torch's generator: one seed gives one result.
    backend: auto takes the compiled operator, or the reference where none can be built; within `standard_operators` it
        takes what other libraries have too. torch is the reference, cpu and cuda insist on the
        compiled operator, natten and flex are other libraries to compare with.

    Inputs must be finite. On the CPU a key or value that is not spoils only the queries that see it, on CUDA those near
    them too.

    Returns (B, H, W, h, d). Raises ValueError for what does not fit, RuntimeError where a named backend is not there.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    query, key, value = autocast_float32(query, key, value)
    check_attention(query, key, value, bias, kernel_size, dropout_p)
    scale = float(query.shape[-1] ** -0.5) if scale is None else scale
    if backend in backends.BACKENDS:
        return backends.BACKENDS[backend](query, key, value, bias, kernel_size, scale, dropout_p)
    if backend == "auto" and takes_standard and not dropout_p:
        return standard.scala_attention_standard(query, key, value, bias, kernel_size, scale)
    seed = torch.randint(2**63 - 1, (1,), device=query.device) if dropout_p > 0 else None
    if implementation(query.device.type, backend) == "torch":
        return reference.scala_attention_reference(query, key, value, bias, kernel_size, scale, dropout_p, seed)
    return torch.ops.ultron.scala_attention(query, key, value, bias, seed, kernel_size, scale, dropout_p)[0]


def autocast_float32(*tensors: Tensor) -> list[Tensor]:
    """The tensors, those of float32 in torch.autocast's dtype where it is on for the first tensor's device."""
    device_type = tensors[0].device.type
    if not torch.is_autocast_enabled(device_type):
        return list(tensors)
    dtype = torch.get_autocast_dtype(device_type)
    return [tensor.to(dtype) if tensor.dtype == torch.float32 else tensor for tensor in tensors]


def check_attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, kernel_size: int, dropout_p: float
) -> None:
    """Raises ValueError with the rule and the value that breaks it."""
    if query.ndim != 5 or key.shape != query.shape or value.shape != query.shape:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (query, key, value))
        raise ValueError(f"query, key and value must share one shape (B, H, W, heads, head dim), got {shapes}")
    if not (query.dtype == key.dtype == value.dtype) or not query.is_floating_point():
        dtypes = f"{query.dtype}, {key.dtype}, {value.dtype}"
        raise ValueError(f"query, key and value must share one floating-point dtype, got {dtypes}")
    if kernel_size % 2 == 0 or not 3 <= kernel_size <= 13:
        raise ValueError(f"kernel_size must be odd and 3 to 13, got {kernel_size}")
    if query.shape[-1] % 8 or not 8 <= query.shape[-1] <= 128:
        raise ValueError(f"the head dim must be a multiple of 8 from 8 to 128, got {query.shape[-1]}")
    if not 0 <= dropout_p < 1:
        raise ValueError(f"dropout_p must be at least 0 and under 1, got {dropout_p}")
    side = 2 * kernel_size - 1
    if bias is not None and tuple(bias.shape) != (query.shape[3], side, side):
        raise ValueError(f"bias must be (heads, 2k-1, 2k-1) = {(query.shape[3], side, side)}, got {tuple(bias.shape)}")
    if bias is not None and bias.dtype not in (query.dtype, torch.float32):
        raise ValueError(f"bias must be float32 or {query.dtype} as the query, got {bias.dtype}")


def cdconv(
    input: Tensor,
    weight: Tensor,
    dilation: Tensor,
    *,
    backend: Backend = "auto",
    checked: bool = False,
    choices: Sequence[int] = (),
) -> Tensor:
    """Depthwise 3x3 convolution with a dilation per sample and channel (ULTRON, Algorithm 1).

    Only the chosen dilation is computed. Differentiable (once) in input and weight.

    input: (B, C, H, W), contiguous or channels_last; the output is laid out alike. weight: (C, 1, 3, 3) of its dtype.
    dilation: (B, C) integer, at least 1; padding = dilation.
    backend: auto, torch, cpu or cuda, as in `scala_attention`.
    checked: the caller knows that no dilation is below 1. Looking for one waits for the device, so layers that make
        their own dilations say so; in a graph under torch.compile it is not looked for.

    Returns (B, C, H, W). Raises ValueError for what does not fit, RuntimeError where a named backend is not there.
    """
    if backend not in CDCONV_BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(CDCONV_BACKENDS)}, got {backend!r}")
    input, weight = autocast_float32(input, weight)
    input_shape, dilation_shape = tuple(input.shape), tuple(dilation.shape)
    if input.ndim != 4 or tuple(weight.shape) != (input.shape[1], 1, 3, 3):
        raise ValueError(
            f"input must be (B, C, H, W) and weight (C, 1, 3, 3), got {input_shape} and {tuple(weight.shape)}"
        )
    if dilation_shape != input_shape[:2] or dilation.is_floating_point():
        raise ValueError(f"dilation must be (B, C) = {input_shape[:2]} integers, got {dilation_shape} {dilation.dtype}")
    if weight.dtype != input.dtype or not input.is_floating_point():
        raise ValueError(f"input and weight must share one floating-point dtype, got {input.dtype} and {weight.dtype}")
    dilation = dilation.to(torch.int64)
    if not checked and not torch.compiler.is_compiling() and dilation.device.type != "meta" and dilation.numel():
        least = int(dilation.min())
        if least < 1:
            raise ValueError(f"dilation must be at least 1, got {least}")
    if backend == "auto" and takes_standard and choices:
        return standard.cdconv_standard(input, weight, dilation, choices)
    if implementation(input.device.type, backend) == "torch":
        return reference.cdconv_reference(input, weight, dilation)
    return torch.ops.ultron.cdconv(input, weight, dilation)


def status() -> dict[str, str]:
    """For each compiled library, whether it loads, or why not. Builds nothing; for `ultron doctor`."""
    return {name: status_of(name) for name in build.NAMES}


def is_used(name: str) -> bool:
    """Whether ULTRON_KERNELS lets a library be used."""
    return build.setting() in ("auto", "cpu" if name in build.ALONE else name)


def status_of(name: str) -> str:
    """Whether a compiled library loads, or why not; loads it where it is built."""
    if not is_used(name):
        return f"not used: ULTRON_KERNELS={build.setting()}"
    if name in build.LOADED:
        return "loaded"
    try:
        library = build.library_path(name)
        failure = library.with_suffix(".failed")
        if not library.exists() and failure.exists():
            return failure.read_text(encoding="utf-8")
        state = "built" if library.exists() else "not built yet"
        if name == "cuda" and not torch.cuda.is_available():
            return f"{state}; no CUDA device here"
        if library.exists():
            build.load(name)
            return "built, loads"
        return f"{state}: built at first use, or now by `ultron doctor --build`"
    except build.BuildError as error:
        return f"not there: {error}"


def build_all() -> dict[str, str]:
    """Builds what this machine can build, also what failed before, and returns `status`.

    The CUDA library is built without a device too.
    """
    statuses = {}
    for name in build.NAMES:
        try:
            library = build.build(name, retry=True)
            statuses[name] = status_of(name) if is_used(name) else f"built ({library})"
        except build.BuildError as error:
            statuses[name] = f"not there: {error}"
    return statuses


# registration is imported for what it registers; naming it keeps linters from dropping the import.
REGISTERED = registration.LIBRARY.ns
