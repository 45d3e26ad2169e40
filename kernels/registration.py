"""torch.ops.ultron.*: schemas, shapes for tracing and gradients. The CPU and CUDA implementations come with the built libraries."""

import torch
from torch import Tensor

LIBRARY = torch.library.Library("ultron", "DEF")
LIBRARY.define(
    "scala_attention(Tensor query, Tensor key, Tensor value, Tensor? bias, Tensor? seed, int kernel_size, float scale, float dropout_p)"
    " -> (Tensor, Tensor)"
)
LIBRARY.define(
    "scala_attention_backward(Tensor grad_out, Tensor query, Tensor key, Tensor value, Tensor? bias, Tensor? seed, Tensor out, Tensor lse,"
    " int kernel_size, float scale, float dropout_p, bool bias_grad) -> (Tensor, Tensor, Tensor, Tensor)"
)
LIBRARY.define("cdconv(Tensor input, Tensor weight, Tensor dilation) -> Tensor")
LIBRARY.define(
    "cdconv_backward(Tensor grad_out, Tensor input, Tensor weight, Tensor dilation, bool input_grad, bool weight_grad) -> (Tensor, Tensor)"
)


def sums_dtype(tensor: Tensor) -> torch.dtype:
    """float64 for float64, else float32."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


@torch.library.register_fake("ultron::scala_attention", lib=LIBRARY)
def _(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, seed: Tensor | None, kernel_size: int, scale: float, dropout_p: float):
    return query.new_empty(query.shape), query.new_empty(query.shape[:4], dtype=sums_dtype(query))


@torch.library.register_fake("ultron::scala_attention_backward", lib=LIBRARY)
def _(grad_out, query, key, value, bias, seed, out, lse, kernel_size, scale, dropout_p, bias_grad):
    grad_bias = query.new_empty((0,)) if bias is None or not bias_grad else bias.new_empty(bias.shape)
    return query.new_empty(query.shape), query.new_empty(query.shape), query.new_empty(query.shape), grad_bias


def memory_order(tensor: Tensor) -> torch.memory_format:
    """The order in which cdconv writes: the input's own where that is (B, H, W, C)."""
    last = tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


@torch.library.register_fake("ultron::cdconv", lib=LIBRARY)
def _(input: Tensor, weight: Tensor, dilation: Tensor):
    return torch.empty_like(input, memory_format=memory_order(input))


@torch.library.register_fake("ultron::cdconv_backward", lib=LIBRARY)
def _(grad_out: Tensor, input: Tensor, weight: Tensor, dilation: Tensor, input_grad: bool, weight_grad: bool):
    grad_input = torch.empty_like(input, memory_format=memory_order(input)) if input_grad else input.new_empty((0,))
    return grad_input, weight.new_empty(weight.shape if weight_grad else (0,))


def save_attention(ctx, inputs, output) -> None:
    query, key, value, bias, seed, ctx.kernel_size, ctx.scale, ctx.dropout_p = inputs
    out, lse = output
    ctx.save_for_backward(query, key, value, bias, seed, out, lse)
    ctx.mark_non_differentiable(lse)


def attention_gradients(ctx, grad_out: Tensor, _grad_lse: Tensor | None):
    query, key, value, bias, seed, out, lse = ctx.saved_tensors
    wants_bias = bias is not None and ctx.needs_input_grad[3]
    grad_query, grad_key, grad_value, grad_bias = torch.ops.ultron.scala_attention_backward(
        grad_out, query, key, value, bias, seed, out, lse, ctx.kernel_size, ctx.scale, ctx.dropout_p, wants_bias
    )
    return grad_query, grad_key, grad_value, grad_bias if wants_bias else None, None, None, None, None


def save_cdconv(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def cdconv_gradients(ctx, grad_out: Tensor):
    input, weight, dilation = ctx.saved_tensors
    wants_input, wants_weight = ctx.needs_input_grad[:2]
    grad_input, grad_weight = torch.ops.ultron.cdconv_backward(grad_out, input, weight, dilation, wants_input, wants_weight)
    return grad_input if wants_input else None, grad_weight if wants_weight else None, None


torch.library.register_autograd("ultron::scala_attention", attention_gradients, setup_context=save_attention, lib=LIBRARY)
torch.library.register_autograd("ultron::cdconv", cdconv_gradients, setup_context=save_cdconv, lib=LIBRARY)
