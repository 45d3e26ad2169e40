// torch.ops.ultron.* on a CPU.
#include <ATen/Parallel.h>

#include <atomic>

#include "common/binding.h"
#include "common/isa.h"
#include "cpu/cdconv.h"
#include "cpu/scala_attention.h"

namespace ultron {
namespace {

struct Kernels {
  decltype(&baseline::scala_forward) scala_forward;
  decltype(&baseline::scala_backward) scala_backward;
  decltype(&baseline::cdconv) cdconv;
  decltype(&baseline::cdconv_weight) cdconv_weight;
};

Kernels kernels() {
#if defined(__x86_64__)
  const Isa isa = processor_isa();
  if (isa == Isa::avx512) return {avx512::scala_forward, avx512::scala_backward, avx512::cdconv, avx512::cdconv_weight};
  if (isa == Isa::avx2) return {avx2::scala_forward, avx2::scala_backward, avx2::cdconv, avx2::cdconv_weight};
#endif
  return {baseline::scala_forward, baseline::scala_backward, baseline::cdconv, baseline::cdconv_weight};
}

// Units go to whichever thread is free: cores that are shared with others are not equally fast, and a fixed share waits for the slowest.
template <typename Work>
void share_out(int64_t n_units, const Work& work) {
  std::atomic<int64_t> next{0};
  const int64_t n_threads = at::get_num_threads();
  at::parallel_for(0, n_threads < n_units ? n_threads : n_units, 1, [&](int64_t, int64_t) {
    for (int64_t unit; (unit = next.fetch_add(1, std::memory_order_relaxed)) < n_units;) work(unit);
  });
}

std::tuple<at::Tensor, at::Tensor> scala_attention(
    const at::Tensor& query_, const at::Tensor& key_, const at::Tensor& value_, const std::optional<at::Tensor>& bias_,
    const std::optional<at::Tensor>& seed, int64_t kernel_size, double scale, double dropout_p) {
  ScalaForward f{};
  f.shape = scala_shape(query_, bias_, seed, kernel_size, scale, dropout_p);
  check_like(key_, query_, "key");
  check_like(value_, query_, "value");
  const auto query = readable(query_, false), key = readable(key_, false), value = readable(value_, false);
  const auto bias = bias_ ? bias_->contiguous() : at::Tensor();
  auto out = at::empty(query.sizes(), query.options());
  auto lse = at::empty(query.sizes().slice(0, 4), query.options().dtype(sum_type(query)));
  if (out.numel() == 0) return {out, lse};
  f.query = map_of(query), f.key = map_of(key), f.value = map_of(value), f.out = map_of(out);
  f.bias = bias_ ? bias.data_ptr() : nullptr;
  f.lse = lse.data_ptr();
  const auto forward = kernels().scala_forward;
  const ScalaUnits units = scala_units(f.shape, forward_rows(f.shape, at::get_num_threads()));
  share_out(units.count, [&](int64_t unit) { forward(f, units.rows, unit, unit + 1); });
  return {out, lse};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> scala_attention_backward(
    const at::Tensor& grad_out_, const at::Tensor& query_, const at::Tensor& key_, const at::Tensor& value_,
    const std::optional<at::Tensor>& bias_, const std::optional<at::Tensor>& seed, const at::Tensor& out_, const at::Tensor& lse_,
    int64_t kernel_size, double scale, double dropout_p, bool bias_grad) {
  ScalaBackward a{};
  a.shape = scala_shape(query_, bias_, seed, kernel_size, scale, dropout_p);
  check_like(key_, query_, "key");
  check_like(value_, query_, "value");
  check_like(out_, query_, "out");
  check_like(grad_out_, query_, "grad_out");
  const auto query = readable(query_, false), key = readable(key_, false), value = readable(value_, false);
  const auto out = readable(out_, false), grad_out = readable(grad_out_, false), lse = lse_.contiguous();
  const auto bias = bias_ ? bias_->contiguous() : at::Tensor();
  auto grad_query = at::empty(query.sizes(), query.options());
  auto grad_key = at::empty(query.sizes(), query.options()), grad_value = at::empty(query.sizes(), query.options());
  const bool wants_bias = bias_ && bias_grad;
  auto grad_bias = wants_bias ? at::zeros(bias.sizes(), bias.options()) : at::empty({0}, query.options());
  if (query.numel() == 0) return {grad_query, grad_key, grad_value, grad_bias};

  const ScalaUnits units = scala_units(a.shape, backward_rows(a.shape));
  const int64_t side = 2 * kernel_size - 1;
  auto bias_sums = at::empty({wants_bias ? units.count : 0, side * side}, query.options().dtype(sum_type(query)));
  a.query = map_of(query), a.key = map_of(key), a.value = map_of(value), a.out = map_of(out), a.grad_out = map_of(grad_out);
  a.grad_query = map_of(grad_query), a.grad_key = map_of(grad_key), a.grad_value = map_of(grad_value);
  a.bias = bias_ ? bias.data_ptr() : nullptr;
  a.lse = lse.data_ptr();
  const auto backward = kernels().scala_backward;
  void* sums = wants_bias ? bias_sums.data_ptr() : nullptr;
  share_out(units.count, [&](int64_t unit) { backward(a, sums, units.rows, unit, unit + 1); });
  if (wants_bias)  // units are ordered by sample, head and block
    grad_bias.copy_(bias_sums.view({a.shape.batch, a.shape.heads, units.blocks, side, side}).sum(at::IntArrayRef{0, 2}, false, at::kDouble));
  return {grad_query, grad_key, grad_value, grad_bias};
}

at::Tensor run_cdconv(const at::Tensor& input_, const at::Tensor& weight_, const at::Tensor& dilation_, at::MemoryFormat order, bool flipped) {
  CdconvCpu a{};
  a.shape = cdconv_shape(input_, weight_, dilation_);
  a.shape.channels_last = order == at::MemoryFormat::ChannelsLast;
  const auto input = input_.contiguous(order), weight = weight_.contiguous(), dilation = dilation_.contiguous();
  auto output = at::empty(input.sizes(), input.options(), order);
  if (output.numel() == 0) return output;
  TORCH_CHECK(dilation.min().item<int64_t>() >= 1, "cdconv: dilation must be at least 1, got ", dilation.min().item<int64_t>());
  a.shape.dilation = dilation.const_data_ptr<int64_t>();
  a.input = input.const_data_ptr(), a.weight = weight.const_data_ptr(), a.output = output.data_ptr(), a.flipped = flipped;
  const auto convolve = kernels().cdconv;
  at::parallel_for(0, a.shape.batch * cdconv_groups(a.shape), 1, [&](int64_t begin, int64_t end) { convolve(a, begin, end); });
  return output;
}

at::Tensor cdconv(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& dilation) {
  return run_cdconv(input, weight, dilation, order_of(input), false);
}

std::tuple<at::Tensor, at::Tensor> cdconv_backward(
    const at::Tensor& grad_out, const at::Tensor& input_, const at::Tensor& weight, const at::Tensor& dilation_, bool input_grad, bool weight_grad) {
  const auto order = order_of(input_);
  auto grad_input = input_grad ? run_cdconv(grad_out, weight, dilation_, order, true) : at::empty({0}, input_.options());
  if (!weight_grad) return {grad_input, at::empty({0}, weight.options())};
  auto grad_weight = at::zeros(weight.sizes(), weight.options());
  CdconvWeightCpu a{};
  a.shape = cdconv_shape(input_, weight, dilation_);
  a.shape.channels_last = order == at::MemoryFormat::ChannelsLast;
  const auto input = input_.contiguous(order), grad = grad_out.contiguous(order), dilation = dilation_.contiguous();
  if (input.numel() == 0) return {grad_input, grad_weight};
  a.shape.dilation = dilation.const_data_ptr<int64_t>();
  a.grad = grad.const_data_ptr(), a.input = input.const_data_ptr(), a.grad_weight = grad_weight.data_ptr();
  const auto sum_up = kernels().cdconv_weight;
  at::parallel_for(0, cdconv_groups(a.shape), 1, [&](int64_t begin, int64_t end) { sum_up(a, begin, end); });
  return {grad_input, grad_weight};
}

}  // namespace
}  // namespace ultron

TORCH_LIBRARY_IMPL(ultron, CPU, m) {
  m.impl("scala_attention", &ultron::scala_attention);
  m.impl("scala_attention_backward", &ultron::scala_attention_backward);
  m.impl("cdconv", &ultron::cdconv);
  m.impl("cdconv_backward", &ultron::cdconv_backward);
}
