// What nvcc gives and the emulator (tests/kernels/emulator) replaces: launching, dynamic shared memory, fast functions.
#pragma once
#include <cstdint>

#ifndef ULTRON_EMULATE
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#endif

namespace ultron {

constexpr float LOG2_E = 1.4426950408889634f;
constexpr float LN_2 = 0.6931471805599453f;
constexpr unsigned ALL_LANES = 0xffffffffu;

template <typename N>
__host__ __device__ constexpr N smaller(N a, N b) {
  return a < b ? a : b;
}
template <typename N>
__host__ __device__ constexpr N larger(N a, N b) {
  return a < b ? b : a;
}

#ifndef ULTRON_EMULATE

template <typename P>
struct Same {
  using type = P;
};

// More than 48 KB of shared memory has to be asked for, kernel by kernel.
template <typename... P>
const char* launch(void (*kernel)(P...), dim3 grid, int threads, int shared_bytes, void* stream, typename Same<P>::type... arguments) {
  cudaError_t error = cudaSuccess;
  if (shared_bytes > 48 * 1024) {
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  }
  if (error == cudaSuccess) {
    kernel<<<grid, threads, shared_bytes, static_cast<cudaStream_t>(stream)>>>(arguments...);
    error = cudaGetLastError();
  }
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

__device__ __forceinline__ char* shared_memory() {
  extern __shared__ uint4 ultron_shared_memory[];
  return reinterpret_cast<char*>(ultron_shared_memory);
}

// exp2f would add code for subnormal numbers, which a softmax does not need.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float log2_fast(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float divide_fast(float a, float b) { return __fdividef(a, b); }
__device__ __forceinline__ unsigned multiply_high(unsigned a, unsigned b) { return __umulhi(a, b); }

#endif

// n / divisor for 0 <= n < 2^31 by a multiplication: an integer division costs some twenty instructions.
struct Divider {
  unsigned divisor, factor, shift;

  __host__ __device__ Divider() {}
  explicit Divider(unsigned divisor_) : divisor(divisor_), shift(0) {
    while ((1ull << shift) < divisor) ++shift;
    factor = static_cast<unsigned>(((1ull << 32) * ((1ull << shift) - divisor)) / divisor + 1);
  }
  __device__ __forceinline__ unsigned divide(unsigned n) const { return (multiply_high(n, factor) + n) >> shift; }
};

__device__ __forceinline__ float sum_over_quad(float x) {
  x += __shfl_xor_sync(ALL_LANES, x, 1);
  return x + __shfl_xor_sync(ALL_LANES, x, 2);
}

__device__ __forceinline__ float max_over_quad(float x) {
  x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
  return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}

}  // namespace ultron
