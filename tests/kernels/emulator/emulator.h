// Lets g++ compile the project's .cu files and run them without a GPU: g++ -std=c++17 -x c++ -include emulator.h.
//
// The threads of a block are fibers of one operating-system thread; a fiber runs until it meets a barrier or an operation of its warp.
// Blocks run one after another. What it finds: wrong results, shared memory read before it is written (it starts as NaN) or overrun (guard
// zones; exactly, under -fsanitize=address), missing waits for asynchronous copies (they happen at the wait), barriers that some threads
// never reach, warps whose lanes take part in different operations, and, by running the threads in the opposite order, missing barriers.
// What it does not: memory models, timing, and anything that nvcc would reject.
#pragma once
#define ULTRON_EMULATE 1

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

struct __half {
  uint16_t bits;
};
struct __nv_bfloat16 {
  uint16_t bits;
};

namespace ultron::emulator {

extern dim3 block_index, block_size, grid_size, thread_index;

constexpr unsigned char POISON = 0xff;  // a NaN in float32, float16 and bfloat16

float half_to_float(uint16_t bits);
uint16_t float_to_half(float x);

char* dynamic_memory();
void block_barrier();
void warp_barrier();

// Every lane of the warp gives `bytes` (at most 64) and gets the address of what all 32 gave, 64 bytes apart; valid until its next but one
// operation. `kind` must be the same for all lanes.
const char* exchange(const void* own, int bytes, const char* kind);
int lane();

struct MmaLane {
  float a[8], b[4];  // of the lane's registers, lower halves first
};
void mma(const MmaLane& own, float (&c)[4]);
uint32_t shared_address(const void* pointer);
void load_matrices(uint32_t (&r)[4], uint32_t row);
void load_matrices_transposed(uint32_t (&r)[4], uint32_t row);
void copy_async(void* to, const void* from, bool live);
void copy_async_wait();

// Null, or what went wrong.
const char* run(dim3 grid, int threads, int shared_bytes, const std::function<void()>& kernel);

}  // namespace ultron::emulator

#define threadIdx ultron::emulator::thread_index
#define blockIdx ultron::emulator::block_index
#define blockDim ultron::emulator::block_size
#define gridDim ultron::emulator::grid_size

inline void __syncthreads() { ultron::emulator::block_barrier(); }
inline void __syncwarp() { ultron::emulator::warp_barrier(); }

template <typename N>
N __shfl_xor_sync(unsigned, N value, int distance) {
  const char* all = ultron::emulator::exchange(&value, sizeof(value), "shuffle");
  std::memcpy(&value, all + (ultron::emulator::lane() ^ distance) * 64, sizeof(value));
  return value;
}
template <typename N>
N __shfl_sync(unsigned, N value, int from) {
  const char* all = ultron::emulator::exchange(&value, sizeof(value), "shuffle");
  std::memcpy(&value, all + from * 64, sizeof(value));
  return value;
}

inline float __half2float(__half x) { return ultron::emulator::half_to_float(x.bits); }
inline __half __float2half_rn(float x) { return {ultron::emulator::float_to_half(x)}; }
inline float __bfloat162float(__nv_bfloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof(bits));
  return result;
}
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  if (std::isnan(x)) return {0x7fff};
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

namespace ultron {

template <typename P>
struct Same {
  using type = P;
};

template <typename... P>
const char* launch(void (*kernel)(P...), dim3 grid, int threads, int shared_bytes, void*, typename Same<P>::type... arguments) {
  return emulator::run(grid, threads, shared_bytes, [&] { kernel(arguments...); });
}
inline char* shared_memory() { return emulator::dynamic_memory(); }
inline float exp2_fast(float x) { return std::exp2(x); }
inline float log2_fast(float x) { return std::log2(x); }
inline float divide_fast(float a, float b) { return a / b; }
inline unsigned multiply_high(unsigned a, unsigned b) { return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32); }

}  // namespace ultron
