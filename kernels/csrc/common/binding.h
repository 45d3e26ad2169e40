// What the CPU and CUDA bindings share: checks with the rule and the values, and torch tensors as kernels see them.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>

#include "common/cdconv.h"
#include "common/scala_attention.h"

namespace ultron {

inline Type type_of(const at::Tensor& tensor, const char* name) {
  switch (tensor.scalar_type()) {
    case at::kFloat: return Type::float32;
    case at::kHalf: return Type::float16;
    case at::kBFloat16: return Type::bfloat16;
    case at::kDouble: return Type::float64;
    default: TORCH_CHECK(false, name, " must be float32, float16, bfloat16 or float64, got ", tensor.scalar_type());
  }
}

// The tensor with its strides as they are, or a copy where its head dims are not contiguous or, with `align`, where 16-byte loads could not
// be used.
inline at::Tensor readable(const at::Tensor& tensor, bool align) {
  bool fits = tensor.stride(4) == 1;
  if (align) {
    const int64_t step = 16 / static_cast<int64_t>(tensor.element_size());
    fits = fits && reinterpret_cast<uintptr_t>(tensor.data_ptr()) % 16 == 0;
    for (int64_t i = 0; i < 4; ++i) fits = fits && tensor.stride(i) % step == 0;
  }
  return fits ? tensor : tensor.contiguous();
}

inline Map map_of(const at::Tensor& t) { return {t.data_ptr(), t.stride(0), t.stride(1), t.stride(2), t.stride(3)}; }

inline void check_like(const at::Tensor& tensor, const at::Tensor& query, const char* name) {
  TORCH_CHECK(tensor.sizes() == query.sizes(), "scala_attention: ", name, " must have the query's shape ", query.sizes(), ", got ", tensor.sizes());
  TORCH_CHECK(tensor.scalar_type() == query.scalar_type(), "scala_attention: ", name, " must be ", query.scalar_type(), " as the query, got ", tensor.scalar_type());
  TORCH_CHECK(tensor.device() == query.device(), "scala_attention: ", name, " must be on ", query.device(), " as the query, got ", tensor.device());
}

inline ScalaShape scala_shape(
    const at::Tensor& query, const std::optional<at::Tensor>& bias, const std::optional<at::Tensor>& seed, int64_t kernel_size,
    double scale, double dropout_p) {
  TORCH_CHECK(query.dim() == 5, "scala_attention: query must be (B, H, W, heads, head dim), got ", query.sizes());
  TORCH_CHECK(kernel_size % 2 == 1 && kernel_size >= 3 && kernel_size <= 13, "scala_attention: kernel_size must be odd, 3 to 13, got ", kernel_size);
  const int64_t dim = query.size(4);
  TORCH_CHECK(dim % 8 == 0 && dim >= 8 && dim <= 128, "scala_attention: head dim must be a multiple of 8, 8 to 128, got ", dim);
  TORCH_CHECK(dropout_p >= 0 && dropout_p < 1, "scala_attention: dropout_p must be 0 or more and under 1, got ", dropout_p);
  ScalaShape s{};
  s.batch = query.size(0), s.height = query.size(1), s.width = query.size(2), s.heads = query.size(3), s.head_dim = dim;
  s.kernel_size = kernel_size;
  s.window_height = std::min(kernel_size, s.height), s.window_width = std::min(kernel_size, s.width);
  s.scale = scale, s.dropout_p = dropout_p;
  s.type = s.bias_type = type_of(query, "scala_attention: query");
  if (bias) {
    const int64_t side = 2 * kernel_size - 1;
    TORCH_CHECK(
        bias->dim() == 3 && bias->size(0) == s.heads && bias->size(1) == side && bias->size(2) == side,
        "scala_attention: bias must be (heads, 2k-1, 2k-1) = (", s.heads, ", ", side, ", ", side, "), got ", bias->sizes());
    TORCH_CHECK(bias->device() == query.device(), "scala_attention: bias must be on ", query.device(), " as the query, got ", bias->device());
    s.bias_type = type_of(*bias, "scala_attention: bias");
    TORCH_CHECK(
        s.bias_type == s.type || (s.bias_type == Type::float32 && s.type != Type::float64),
        "scala_attention: bias must be float32 or ", query.scalar_type(), " as the query, got ", bias->scalar_type());
  }
  if (dropout_p > 0) {
    TORCH_CHECK(
        seed && seed->scalar_type() == at::kLong && seed->numel() == 1 && seed->device() == query.device(),
        "scala_attention: dropout needs a seed, one int64 on ", query.device());
    s.seed = seed->const_data_ptr<int64_t>();
  }
  return s;
}

inline at::ScalarType sum_type(const at::Tensor& tensor) { return tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

inline CdconvShape cdconv_shape(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& dilation) {
  TORCH_CHECK(input.dim() == 4, "cdconv: input must be (B, C, H, W), got ", input.sizes());
  TORCH_CHECK(
      weight.dim() == 4 && weight.size(0) == input.size(1) && weight.size(1) == 1 && weight.size(2) == 3 && weight.size(3) == 3,
      "cdconv: weight must be (C, 1, 3, 3) with C = ", input.size(1), ", got ", weight.sizes());
  TORCH_CHECK(
      dilation.dim() == 2 && dilation.size(0) == input.size(0) && dilation.size(1) == input.size(1),
      "cdconv: dilation must be (B, C) = (", input.size(0), ", ", input.size(1), "), got ", dilation.sizes());
  TORCH_CHECK(dilation.scalar_type() == at::kLong, "cdconv: dilation must be int64, got ", dilation.scalar_type());
  TORCH_CHECK(weight.scalar_type() == input.scalar_type(), "cdconv: weight must be ", input.scalar_type(), " as the input, got ", weight.scalar_type());
  TORCH_CHECK(
      weight.device() == input.device() && dilation.device() == input.device(),
      "cdconv: weight and dilation must be on ", input.device(), " as the input, got ", weight.device(), " and ", dilation.device());
  CdconvShape s{};
  s.batch = input.size(0), s.channels = input.size(1), s.height = input.size(2), s.width = input.size(3);
  s.type = type_of(input, "cdconv: input");
  return s;
}

// The memory order in which the kernels read and write: the input's own where that is (B, H, W, C).
inline at::MemoryFormat order_of(const at::Tensor& input) {
  const bool last = input.is_contiguous(at::MemoryFormat::ChannelsLast) && !input.is_contiguous();
  return last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
}

}  // namespace ultron
