"""torch.ops.ultron.*: schemas, shapes for tracing and gradients. The built libraries bring the CPU and CUDA functions.

Legend: B batch, C channels, H W map size, h heads, d head dim, k window side.
"""

from typing import Protocol

import torch
from torch import Tensor
from ultron_kernels.reference import accumulation_dtype

LIBRARY = torch.library.Library("ultron", "DEF")
LIBRARY.define(
    "scala_attention(Tensor query, Tensor key, Tensor value, Tensor? bias, Tensor? seed, int kernel_size, float scale,"
    " float dropout_p) -> (Tensor, Tensor)"
)
LIBRARY.define(
    "scala_attention_backward(Tensor grad_out, Tensor query, Tensor key, Tensor value, Tensor? bias, Tensor? seed,"
    " Tensor out, Tensor lse, int kernel_size, float scale, float dropout_p, bool bias_grad)"
    " -> (Tensor, Tensor, Tensor, Tensor)"
)
LIBRARY.define("cdconv(Tensor input, Tensor weight, Tensor dilation) -> Tensor")
LIBRARY.define(
    "cdconv_backward(Tensor grad_out, Tensor input, Tensor weight, Tensor dilation, bool input_grad, bool weight_grad)"
    " -> (Tensor, Tensor)"
)


class GradientContext(Protocol):
    """What torch hands from a forward to its backward pass: the part of its FunctionCtx that is used here."""

    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[Tensor | None, ...]

    def save_for_backward(self, *tensors: Tensor | None) -> None: ...

    def mark_non_differentiable(self, *tensors: Tensor) -> None: ...


class AttentionContext(GradientContext, Protocol):
    """The context of scala_attention, with its numbers."""

    kernel_size: int
    scale: float
    dropout_p: float


@torch.library.register_fake("ultron::scala_attention", lib=LIBRARY)
def fake_scala_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    seed: Tensor | None,
    kernel_size: int,
    scale: float,
    dropout_p: float,
) -> tuple[Tensor, Tensor]:
    """Empty out (B, H, W, h, d) and lse (B, H, W, h)."""
    lse = query.new_empty(query.shape[:4], dtype=accumulation_dtype(query.dtype))
    return query.new_empty(query.shape), lse


@torch.library.register_fake("ultron::scala_attention_backward", lib=LIBRARY)
def fake_scala_attention_backward(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    seed: Tensor | None,
    out: Tensor,
    lse: Tensor,
    kernel_size: int,
    scale: float,
    dropout_p: float,
    bias_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Empty gradients of query, key, value and bias; that of the bias has no element where it is not asked for."""
    grad_bias = query.new_empty((0,)) if bias is None or not bias_grad else bias.new_empty(bias.shape)
    return query.new_empty(query.shape), query.new_empty(query.shape), query.new_empty(query.shape), grad_bias


def memory_order(tensor: Tensor) -> torch.memory_format:
    """The order in which cdconv writes: (B, H, W, C) where the input is laid out so, else (B, C, H, W)."""
    is_last = tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()
    return torch.channels_last if is_last else torch.contiguous_format


@torch.library.register_fake("ultron::cdconv", lib=LIBRARY)
def fake_cdconv(input: Tensor, weight: Tensor, dilation: Tensor) -> Tensor:
    """An empty output (B, C, H, W)."""
    return torch.empty_like(input, memory_format=memory_order(input))


@torch.library.register_fake("ultron::cdconv_backward", lib=LIBRARY)
def fake_cdconv_backward(
    grad_out: Tensor, input: Tensor, weight: Tensor, dilation: Tensor, input_grad: bool, weight_grad: bool
) -> tuple[Tensor, Tensor]:
    """Empty gradients of input and weight, without an element where not asked for."""
    grad_input = torch.empty_like(input, memory_format=memory_order(input)) if input_grad else input.new_empty((0,))
    return grad_input, weight.new_empty(weight.shape if weight_grad else (0,))


def save_attention(
    ctx: AttentionContext,
    inputs: tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, int, float, float],
    output: tuple[Tensor, Tensor],
) -> None:
    """Keeps what the gradients of scala_attention need."""
    query, key, value, bias, seed, ctx.kernel_size, ctx.scale, ctx.dropout_p = inputs
    out, lse = output
    ctx.save_for_backward(query, key, value, bias, seed, out, lse)
    ctx.mark_non_differentiable(lse)


def attention_gradients(ctx: AttentionContext, grad_out: Tensor, _grad_lse: Tensor | None) -> tuple[Tensor | None, ...]:
    """One gradient for each input of scala_attention; None for the seed and the numbers."""
    query, key, value, bias, seed, out, lse = ctx.saved_tensors
    wants_bias = bias is not None and ctx.needs_input_grad[3]
    grad_query, grad_key, grad_value, grad_bias = torch.ops.ultron.scala_attention_backward(
        grad_out, query, key, value, bias, seed, out, lse, ctx.kernel_size, ctx.scale, ctx.dropout_p, wants_bias
    )
    return grad_query, grad_key, grad_value, grad_bias if wants_bias else None, None, None, None, None


def save_cdconv(ctx: GradientContext, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    """Keeps what the gradients of cdconv need."""
    ctx.save_for_backward(*inputs)


def cdconv_gradients(ctx: GradientContext, grad_out: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    """The gradients of input and weight; None for the dilation."""
    input, weight, dilation = ctx.saved_tensors
    wants_input, wants_weight = ctx.needs_input_grad[:2]
    grad_input, grad_weight = torch.ops.ultron.cdconv_backward(
        grad_out, input, weight, dilation, wants_input, wants_weight
    )
    return grad_input if wants_input else None, grad_weight if wants_weight else None, None


torch.library.register_autograd(
    "ultron::scala_attention", attention_gradients, setup_context=save_attention, lib=LIBRARY
)
torch.library.register_autograd("ultron::cdconv", cdconv_gradients, setup_context=save_cdconv, lib=LIBRARY)
