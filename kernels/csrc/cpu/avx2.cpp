// The CPU kernels for x86-64 processors with AVX2; empty elsewhere.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#include "cpu/cdconv.h"
#include "cpu/scala_attention.h"
#include "common/types.h"

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
#include "common/vectors.inc"
}  // namespace
#include "cpu/scala_rows.inc"
#include "cpu/scala_columns.inc"
#include "cpu/scala_pairs.inc"
#include "cpu/scala_forward.inc"
#include "cpu/scala_backward.inc"
#include "cpu/cdconv.inc"
}  // namespace avx2
}  // namespace ultron

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
