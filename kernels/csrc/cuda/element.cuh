// float32, float16 and bfloat16 in registers: conversions, pairs in one 32-bit register.
#pragma once
#include "common/scala_attention.h"
#include "cuda/device.cuh"

namespace ultron {

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ __half from_float<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

template <typename T>
struct Pair {
  T low, high;
};

// `low` in the lower half of the register: the lower index of a matrix fragment.
template <typename T>
__device__ __forceinline__ uint32_t pack(float low, float high) {
  const Pair<T> pair{from_float<T>(low), from_float<T>(high)};
  uint32_t bits;
  static_assert(sizeof(pair) == sizeof(bits), "two 16-bit numbers");
  memcpy(&bits, &pair, sizeof(bits));
  return bits;
}
#ifndef ULTRON_EMULATE
// One instruction for both numbers.
template <>
__device__ __forceinline__ uint32_t pack<__half>(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
template <>
__device__ __forceinline__ uint32_t pack<__nv_bfloat16>(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
#endif

// The dot product of two registers of two numbers each.
template <typename T>
__device__ __forceinline__ float dot_pair(uint32_t a, uint32_t b) {
  Pair<T> left, right;
  memcpy(&left, &a, sizeof(a));
  memcpy(&right, &b, sizeof(b));
  return to_float(left.low) * to_float(right.low) + to_float(left.high) * to_float(right.high);
}

// The bias table may be kept in float32 while the maps are in half precision.
template <typename T>
__device__ __forceinline__ float load_as(const void* data, int64_t index, bool is_float32) {
  return is_float32 ? static_cast<const float*>(data)[index] : to_float(static_cast<const T*>(data)[index]);
}

}  // namespace ultron
