// scala_attention, backward: the kernels for a type and a head dim, padded with zeros to 32, 64 or 128.
#include "cuda/scala_attention.h"
#include "cuda/scala_backward_float.cuh"
#include "cuda/scala_backward_half.cuh"

namespace ultron {

template <int D, bool KEYS>
const char* pass_of_dim(const ScalaBackward& backward, void* stream) {
  switch (backward.shape.type) {
    case Type::float16: return launch_backward_half<__half, D, KEYS>(backward, stream);
    case Type::bfloat16: return launch_backward_half<__nv_bfloat16, D, KEYS>(backward, stream);
    default: return launch_backward_float<D, KEYS>(backward, stream);
  }
}

template <bool KEYS>
const char* pass(const ScalaBackward& backward, void* stream) {
  const int64_t dim = backward.shape.head_dim;
  if (dim <= 32) return pass_of_dim<32, KEYS>(backward, stream);
  if (dim <= 64) return pass_of_dim<64, KEYS>(backward, stream);
  return pass_of_dim<128, KEYS>(backward, stream);
}

const char* zero_grad_bias(const ScalaBackward& backward, void* stream) {
  if (backward.grad_bias == nullptr || backward.shape.heads == 0) return nullptr;
  const Plan nothing{};
  switch (backward.shape.bias_type) {
    case Type::float16: return launch_bias_gradient<__half>(backward, nothing, nullptr, stream);
    case Type::bfloat16: return launch_bias_gradient<__nv_bfloat16>(backward, nothing, nullptr, stream);
    default: return launch_bias_gradient<float>(backward, nothing, nullptr, stream);
  }
}

int64_t scala_backward_workspace_cuda(const ScalaShape& shape, bool wants_grad_bias, bool) {
  if (refuse(shape) != nullptr || is_empty(shape)) return 0;
  return Workspace::delta_bytes(shape) + (wants_grad_bias ? Workspace::partial_sum_bytes(shape) : 0);
}

const char* scala_attention_backward_cuda(const ScalaBackward& backward, void* stream) {
  const ScalaShape& shape = backward.shape;
  if (const char* problem = refuse(shape)) return problem;
  if (is_empty(shape)) return zero_grad_bias(backward, stream);
  for (const Map& map : {backward.query, backward.key, backward.value, backward.out, backward.grad_out, backward.grad_query, backward.grad_key,
                         backward.grad_value}) {
    if (const char* problem = refuse(shape, map)) return problem;
  }
  if (const char* problem = pass<false>(backward, stream)) return problem;
  return pass<true>(backward, stream);  // reads the delta that the first wrote
}

}  // namespace ultron
