// The CUDA side of scala_attention. Plain C++: the .cu files behind it see no torch header, so nvcc takes seconds.
#pragma once
#include <cstdint>

#include "common/scala_attention.h"

namespace ultron {

// Launches on `stream` (a cudaStream_t) of the current device. Null if all went well, else what went wrong; the text is static.
// Pointers and all strides (in bytes) must be multiples of 16.
const char* scala_attention_cuda(const ScalaForward& forward, void* stream);

// Bytes of ScalaBackward::workspace. The order of every sum is fixed, so `deterministic` changes nothing.
int64_t scala_backward_workspace_cuda(const ScalaShape& shape, bool wants_grad_bias, bool deterministic);
const char* scala_attention_backward_cuda(const ScalaBackward& backward, void* stream);

}  // namespace ultron
