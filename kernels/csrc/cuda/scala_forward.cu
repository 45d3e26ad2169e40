// scala_attention, forward: the kernel for a type and a head dim, padded with zeros to 32, 64 or 128.
#include "cuda/scala_attention.h"
#include "cuda/scala_forward_float.cuh"
#include "cuda/scala_forward_half.cuh"

namespace ultron {

template <int D>
const char* forward_of_dim(const ScalaForward& forward, void* stream) {
  switch (forward.shape.type) {
    case Type::float16: return launch_forward_half<__half, D>(forward, stream);
    case Type::bfloat16: return launch_forward_half<__nv_bfloat16, D>(forward, stream);
    default: return launch_forward_float<D>(forward, stream);
  }
}

const char* scala_attention_cuda(const ScalaForward& forward, void* stream) {
  const ScalaShape& shape = forward.shape;
  if (const char* problem = refuse(shape)) return problem;
  if (is_empty(shape)) return nullptr;
  for (const Map& map : {forward.query, forward.key, forward.value, forward.out}) {
    if (const char* problem = refuse(shape, map)) return problem;
  }
  if (shape.head_dim <= 32) return forward_of_dim<32>(forward, stream);
  if (shape.head_dim <= 64) return forward_of_dim<64>(forward, stream);
  return forward_of_dim<128>(forward, stream);
}

}  // namespace ultron
