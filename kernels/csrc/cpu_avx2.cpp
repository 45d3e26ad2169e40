// The CPU kernels for x86-64 processors with AVX2; empty elsewhere.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>

#include "cdconv_cpu.h"
#include "cpu_types.h"
#include "scala_cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define ULTRON_VECTOR_BYTES 32
namespace ultron {
namespace avx2 {
namespace {
#include "cpu_vectors.inc"
}  // namespace
#include "scala_cpu_rows.inc"
#include "scala_cpu_columns.inc"
#include "scala_cpu_pairs.inc"
#include "scala_cpu_forward.inc"
#include "scala_cpu_backward.inc"
#include "cdconv_cpu.inc"
}  // namespace avx2
}  // namespace ultron

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
