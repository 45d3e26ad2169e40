// The CUDA side of cdconv. Plain C++, as in cuda/scala_attention.h.
#pragma once
#include <cstdint>

#include "common/cdconv.h"

namespace ultron {

// Each returns null if all was launched, else what went wrong (static text).
const char* cdconv_cuda(const CdconvShape& shape, const void* input, const void* weight, void* output, void* stream);

// Bytes of the workspace that grad_weight needs. Sums run in a fixed order: the same bits every time.
int64_t cdconv_backward_workspace_cuda(const CdconvShape& shape);

// grad_input and grad_weight may each be null where not wanted.
const char* cdconv_backward_cuda(const CdconvShape& shape, const void* grad, const void* input, const void* weight, void* grad_input,
                                 void* grad_weight, void* workspace, void* stream);

}  // namespace ultron
