// Tensor-core and asynchronous-copy instructions of sm_80 and later, one wrapper each.
//
// Fragments (PTX ISA, "Matrix Fragments for mma.m16n8k16"), for lane = 4 g + t:
//   a[0] = A[g][2t, 2t+1]   a[1] = A[g+8][2t, 2t+1]   a[2] = A[g][2t+8, 2t+9]   a[3] = A[g+8][2t+8, 2t+9]
//   b[0] = B[2t, 2t+1][g]   b[1] = B[2t+8, 2t+9][g]
//   c[0], c[1] = C[g][2t, 2t+1]   c[2], c[3] = C[g+8][2t, 2t+1]
#pragma once
#include "cuda/element.cuh"

namespace ultron {

#ifndef ULTRON_EMULATE

// C += A B, with A 16x16 and B 16x8 of type T and C 16x8 in float32.
template <typename T>
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

template <>
__device__ __forceinline__ void mma<__half>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <>
__device__ __forceinline__ void mma<__nv_bfloat16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Shared memory has 32-bit addresses of its own: half the registers and instructions of pointers.
__device__ __forceinline__ uint32_t shared_address(const void* pointer) { return static_cast<uint32_t>(__cvta_generic_to_shared(pointer)); }

// Four 8x8 matrices by shared addresses; lanes 8i to 8i+7 give the addresses of the rows of matrix i; lane 4g + t gets elements [g][2t, 2t+1].
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}

// The same, each matrix transposed: lane 4g + t gets elements [2t, 2t+1][g].
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}

// 16 bytes from global to shared memory without passing through registers; zeros where not `live` (`from` is then not read).
__device__ __forceinline__ void copy_async(void* to, const void* from, bool live) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(live ? 16 : 0) : "memory");
}

// Waits for this thread's own copies; a barrier must follow before other threads read them.
__device__ __forceinline__ void copy_async_wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }

#else

template <typename T>
void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulator::MmaLane own;
  const auto spread = [](uint32_t bits, float* to) {
    Pair<T> pair;
    memcpy(&pair, &bits, sizeof(bits));
    to[0] = to_float(pair.low);
    to[1] = to_float(pair.high);
  };
  for (int i = 0; i < 4; ++i) spread(a[i], own.a + 2 * i);
  spread(b0, own.b);
  spread(b1, own.b + 2);
  emulator::mma(own, c);
}

using emulator::copy_async;
using emulator::copy_async_wait;
using emulator::load_matrices;
using emulator::load_matrices_transposed;
using emulator::shared_address;

#endif

}  // namespace ultron
