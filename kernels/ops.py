"""scala_attention and cdconv: checks, the choice of an implementation, and what every implementation shares.

Legend: B batch, C channels, H W map size, h heads, d head dim, k window side.
"""

import logging
import os
from typing import Literal

import torch
from torch import Tensor
from ultron_kernels import alternatives, build, reference, registration

log = logging.getLogger("ultron_kernels")
Backend = Literal["auto", "torch", "cpu", "cuda", "natten", "flex"]
BACKENDS = ("auto", "torch", "cpu", "cuda", "natten", "flex")
SETTINGS = ("auto", "off", "cpu", "cuda")
REASONS: dict[str, str] = {}  # why "cpu" or "cuda" is not there, said once


def setting() -> str:
    """ULTRON_KERNELS: auto (what can be built), off (the reference), cpu or cuda (that one, or an error)."""
    value = os.environ.get("ULTRON_KERNELS") or "auto"
    if value not in SETTINGS:
        raise ValueError(f"ULTRON_KERNELS must be one of {', '.join(SETTINGS)}, got {value!r}")
    return value


@torch.compiler.assume_constant_result
def implementation(device_type: str, backend: str) -> str:
    """"torch", "cpu" or "cuda": what runs for tensors of this device; builds and loads it if need be.

    Raises RuntimeError with the reason where an implementation that was asked for by name is not there.
    """
    wish = setting()
    if backend == "torch" or (backend == "auto" and (wish == "off" or device_type not in ("cpu", "cuda"))):
        return "torch"
    if backend != "auto" and backend != device_type:
        raise ValueError(f"backend {backend!r} needs tensors on {backend}, got {device_type}; move them or use backend='auto'")
    by_name = backend != "auto" or wish == device_type
    if not by_name and (wish not in ("auto", device_type) or device_type in REASONS):
        return "torch"
    try:
        build.load(device_type)
        return device_type
    except build.BuildError as error:
        if by_name:
            raise RuntimeError(f"the compiled {device_type} operators were asked for and are not there: {error}") from error
        REASONS[device_type] = str(error)
        log.warning("the reference operators run, many times slower: %s", error)
        return "torch"


def scala_attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None, *, kernel_size: int = 7, scale: float | None = None,
    dropout_p: float = 0.0, backend: Backend = "auto",
) -> Tensor:  # fmt: skip
    """Neighbourhood attention with relative position bias and attention dropout (ULTRON, Kweon & Park, ACCV 2024, Algorithm 2).

    query, key, value: (B, H, W, h, d), one dtype of float32, float16, bfloat16 (float64 on the CPU); d a multiple of 8 from 8 to 128.
    bias: (h, 2k-1, 2k-1) of float32 or that dtype, indexed by key position minus query position plus k-1; or None.
    kernel_size: k, odd, 3..13; per axis the window is min(k, length), moved inward at the borders. scale: 1/sqrt(d) if None.
    dropout_p: 0 <= p < 1, of the attention weights; the mask comes from torch's generator, so one seed gives one result.
    backend: auto takes the compiled operator, or the reference where none can be built; torch is the reference; cpu and cuda insist
    on the compiled one; natten and flex compare with other libraries. Differentiable in query, key, value and bias (once).
    Inputs must be finite: on the CPU a key or value that is not reaches only the queries that see it, on CUDA its neighbours too.
    Returns (B, H, W, h, d). Raises ValueError for what does not fit, RuntimeError where a named backend is not there.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if torch.is_autocast_enabled(query.device.type):
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = (tensor.to(dtype) if tensor.dtype == torch.float32 else tensor for tensor in (query, key, value))
    check_attention(query, key, value, bias, kernel_size, dropout_p)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if backend in alternatives.BACKENDS:
        return alternatives.BACKENDS[backend](query, key, value, bias, kernel_size, scale, dropout_p)
    seed = torch.randint(2**63 - 1, (1,), device=query.device) if dropout_p > 0 else None
    if implementation(query.device.type, backend) == "torch":
        return reference.scala_attention_reference(query, key, value, bias, kernel_size, scale, dropout_p, seed)
    return torch.ops.ultron.scala_attention(query, key, value, bias, seed, kernel_size, scale, dropout_p)[0]


def check_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, kernel_size: int, dropout_p: float) -> None:
    """Raises ValueError naming the rule and the value found."""
    if query.ndim != 5 or key.shape != query.shape or value.shape != query.shape:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (query, key, value))
        raise ValueError(f"query, key and value must share one shape (B, H, W, heads, head dim), got {shapes}")
    if not (query.dtype == key.dtype == value.dtype) or not query.is_floating_point():
        raise ValueError(f"query, key and value must share one floating-point dtype, got {query.dtype}, {key.dtype}, {value.dtype}")
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


def cdconv(input: Tensor, weight: Tensor, dilation: Tensor, *, backend: Backend = "auto") -> Tensor:
    """Depthwise 3x3 convolution with a dilation per sample and channel (ULTRON, Algorithm 1); only the chosen dilation is computed.

    input: (B, C, H, W), contiguous or channels_last (the output is laid out alike). weight: (C, 1, 3, 3) of the input's dtype.
    dilation: (B, C) integer, at least 1; padding = dilation. Differentiable in input and weight (once). backend: auto, torch, cpu or
    cuda, as in `scala_attention`. Returns (B, C, H, W). Raises ValueError for what does not fit.
    """
    if backend not in BACKENDS[:4]:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS[:4])}, got {backend!r}")
    if torch.is_autocast_enabled(input.device.type):
        dtype = torch.get_autocast_dtype(input.device.type)
        input, weight = (tensor.to(dtype) if tensor.dtype == torch.float32 else tensor for tensor in (input, weight))
    if input.ndim != 4 or tuple(weight.shape) != (input.shape[1], 1, 3, 3):
        raise ValueError(f"input must be (B, C, H, W) and weight (C, 1, 3, 3), got {tuple(input.shape)} and {tuple(weight.shape)}")
    if tuple(dilation.shape) != tuple(input.shape[:2]) or dilation.is_floating_point():
        raise ValueError(f"dilation must be (B, C) = {tuple(input.shape[:2])} integers, got {tuple(dilation.shape)} {dilation.dtype}")
    if weight.dtype != input.dtype or not input.is_floating_point():
        raise ValueError(f"input and weight must share one floating-point dtype, got {input.dtype} and {weight.dtype}")
    dilation = dilation.to(torch.int64)
    if implementation(input.device.type, backend) == "torch":
        return reference.cdconv_reference(input, weight, dilation)
    return torch.ops.ultron.cdconv(input, weight, dilation)


def status() -> dict[str, str]:
    """"cpu" and "cuda": whether the compiled operators load, or why not; nothing is built. For `ultron doctor`."""
    return {which: status_of(which) for which in ("cpu", "cuda")}


def status_of(which: str) -> str:
    if setting() not in ("auto", which):
        return f"not used: ULTRON_KERNELS={setting()}"
    if which in build.LOADED:
        return "loaded"
    try:
        library = build.library_path(which)
        failure = library.with_suffix(".failed")
        if not library.exists() and failure.exists():
            return failure.read_text(encoding="utf-8")
        has_device = which == "cpu" or torch.cuda.is_available()
        if library.exists() and has_device:
            build.load(which)
            return "built, loads"
        made = "built" if library.exists() else "not built yet"
        return f"{made}; no CUDA device here" if not has_device else f"{made}: built at first use, or now by `ultron doctor --build`"
    except build.BuildError as error:
        return f"not there: {error}"


def build_all() -> dict[str, str]:
    """Builds what this machine can build, also what failed before, and returns `status`. CUDA is built without a device too."""
    found = {}
    for which in ("cpu", "cuda"):
        try:
            library = build.build(which, retry=True)
            found[which] = status_of(which) if setting() in ("auto", which) else f"built ({library})"
        except build.BuildError as error:
            found[which] = f"not there: {error}"
    return found


# Schemas are registered on import, once; naming it keeps the import.
REGISTERED = registration.LIBRARY.ns
