// What the tests call through ctypes.
#include "cuda/cdconv.h"
#include "cuda/scala_attention.h"

extern "C" {

const char* scala_forward(const ultron::ScalaForward* forward) { return ultron::scala_attention_cuda(*forward, nullptr); }

int64_t scala_workspace(const ultron::ScalaShape* shape, bool wants_grad_bias, bool deterministic) {
  return ultron::scala_backward_workspace_cuda(*shape, wants_grad_bias, deterministic);
}

const char* scala_backward(const ultron::ScalaBackward* backward) { return ultron::scala_attention_backward_cuda(*backward, nullptr); }

const char* cdconv_forward(const ultron::CdconvShape* shape, const void* input, const void* weight, void* output) {
  return ultron::cdconv_cuda(*shape, input, weight, output, nullptr);
}

int64_t cdconv_workspace(const ultron::CdconvShape* shape) { return ultron::cdconv_backward_workspace_cuda(*shape); }

const char* cdconv_backward(const ultron::CdconvShape* shape, const void* grad, const void* input, const void* weight, void* grad_input,
                            void* grad_weight, void* workspace) {
  return ultron::cdconv_backward_cuda(*shape, grad, input, weight, grad_input, grad_weight, workspace, nullptr);
}

size_t scala_backward_size() { return sizeof(ultron::ScalaBackward); }
}
