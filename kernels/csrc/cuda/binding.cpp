// torch.ops.ultron.* on a CUDA device: tensors to plain structures, the current stream, workspace from torch's allocator.
#include <ATen/Context.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "common/binding.h"
#include "cuda/cdconv.h"
#include "cuda/scala_attention.h"

namespace ultron {
namespace {

void check_launched(const char* message) { TORCH_CHECK(message == nullptr, message == nullptr ? "" : message); }

void* current_stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

at::Tensor workspace(int64_t bytes, const at::Tensor& like) { return at::empty({bytes}, like.options().dtype(at::kByte)); }

std::tuple<at::Tensor, at::Tensor> scala_attention(
    const at::Tensor& query_, const at::Tensor& key_, const at::Tensor& value_, const std::optional<at::Tensor>& bias_,
    const std::optional<at::Tensor>& seed, int64_t kernel_size, double scale, double dropout_p) {
  const c10::cuda::CUDAGuard guard(query_.device());
  ScalaForward f{};
  f.shape = scala_shape(query_, bias_, seed, kernel_size, scale, dropout_p);
  check_like(key_, query_, "key");
  check_like(value_, query_, "value");
  const auto query = readable(query_, true), key = readable(key_, true), value = readable(value_, true);
  const auto bias = bias_ ? bias_->contiguous() : at::Tensor();
  auto out = at::empty(query.sizes(), query.options());
  auto lse = at::empty(query.sizes().slice(0, 4), query.options().dtype(sum_type(query)));
  if (out.numel() == 0) return {out, lse};
  f.query = map_of(query), f.key = map_of(key), f.value = map_of(value), f.out = map_of(out);
  f.bias = bias_ ? bias.data_ptr() : nullptr;
  f.lse = lse.data_ptr();
  check_launched(scala_attention_cuda(f, current_stream()));
  return {out, lse};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> scala_attention_backward(
    const at::Tensor& grad_out_, const at::Tensor& query_, const at::Tensor& key_, const at::Tensor& value_,
    const std::optional<at::Tensor>& bias_, const std::optional<at::Tensor>& seed, const at::Tensor& out_, const at::Tensor& lse_,
    int64_t kernel_size, double scale, double dropout_p, bool bias_grad) {
  const c10::cuda::CUDAGuard guard(query_.device());
  ScalaBackward a{};
  a.shape = scala_shape(query_, bias_, seed, kernel_size, scale, dropout_p);
  check_like(key_, query_, "key");
  check_like(value_, query_, "value");
  check_like(out_, query_, "out");
  check_like(grad_out_, query_, "grad_out");
  const auto query = readable(query_, true), key = readable(key_, true), value = readable(value_, true);
  const auto out = readable(out_, true), grad_out = readable(grad_out_, true), lse = lse_.contiguous();
  const auto bias = bias_ ? bias_->contiguous() : at::Tensor();
  auto grad_query = at::empty(query.sizes(), query.options());
  auto grad_key = at::empty(query.sizes(), query.options()), grad_value = at::empty(query.sizes(), query.options());
  const bool wants_bias = bias_ && bias_grad;
  auto grad_bias = wants_bias ? at::zeros(bias.sizes(), bias.options()) : at::empty({0}, query.options());
  if (query.numel() == 0) return {grad_query, grad_key, grad_value, grad_bias};
  a.query = map_of(query), a.key = map_of(key), a.value = map_of(value), a.out = map_of(out), a.grad_out = map_of(grad_out);
  a.grad_query = map_of(grad_query), a.grad_key = map_of(grad_key), a.grad_value = map_of(grad_value);
  a.bias = bias_ ? bias.data_ptr() : nullptr;
  a.lse = lse.data_ptr();
  a.grad_bias = wants_bias ? grad_bias.data_ptr() : nullptr;
  a.deterministic = at::globalContext().deterministicAlgorithms();
  const auto room = workspace(scala_backward_workspace_cuda(a.shape, wants_bias, a.deterministic), query);
  a.workspace = room.data_ptr();
  check_launched(scala_attention_backward_cuda(a, current_stream()));
  return {grad_query, grad_key, grad_value, grad_bias};
}

// A dilation under 1 is not refused here, since looking for one would wait for the device: ops.py does that. The kernels take it as 1.
CdconvShape prepared(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& dilation, at::MemoryFormat order) {
  CdconvShape s = cdconv_shape(input, weight, dilation);
  s.channels_last = order == at::MemoryFormat::ChannelsLast;
  s.dilation = dilation.const_data_ptr<int64_t>();
  return s;
}

at::Tensor cdconv(const at::Tensor& input_, const at::Tensor& weight_, const at::Tensor& dilation_) {
  const c10::cuda::CUDAGuard guard(input_.device());
  const auto order = order_of(input_);
  const auto input = input_.contiguous(order), weight = weight_.contiguous(), dilation = dilation_.contiguous();
  const CdconvShape s = prepared(input, weight, dilation, order);
  auto output = at::empty(input.sizes(), input.options(), order);
  if (output.numel() == 0) return output;
  check_launched(cdconv_cuda(s, input.const_data_ptr(), weight.const_data_ptr(), output.data_ptr(), current_stream()));
  return output;
}

std::tuple<at::Tensor, at::Tensor> cdconv_backward(
    const at::Tensor& grad_out, const at::Tensor& input_, const at::Tensor& weight_, const at::Tensor& dilation_, bool input_grad, bool weight_grad) {
  const c10::cuda::CUDAGuard guard(input_.device());
  const auto order = order_of(input_);
  const auto input = input_.contiguous(order), weight = weight_.contiguous(), dilation = dilation_.contiguous(), grad = grad_out.contiguous(order);
  const CdconvShape s = prepared(input, weight, dilation, order);
  auto grad_input = input_grad ? at::empty(input.sizes(), input.options(), order) : at::empty({0}, input.options());
  auto grad_weight = weight_grad ? at::zeros(weight.sizes(), weight.options()) : at::empty({0}, weight.options());
  if (input.numel() == 0) return {grad_input, grad_weight};
  const auto room = workspace(weight_grad ? cdconv_backward_workspace_cuda(s) : 0, input);
  check_launched(cdconv_backward_cuda(
      s, grad.const_data_ptr(), input.const_data_ptr(), weight.const_data_ptr(), input_grad ? grad_input.data_ptr() : nullptr,
      weight_grad ? grad_weight.data_ptr() : nullptr, room.data_ptr(), current_stream()));
  return {grad_input, grad_weight};
}

}  // namespace
}  // namespace ultron

TORCH_LIBRARY_IMPL(ultron, CUDA, m) {
  m.impl("scala_attention", &ultron::scala_attention);
  m.impl("scala_attention_backward", &ultron::scala_attention_backward);
  m.impl("cdconv", &ultron::cdconv);
  m.impl("cdconv_backward", &ultron::cdconv_backward);
}
