// The CPU kernels for x86-64 processors with AVX512; empty elsewhere.
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

#if defined(ULTRON_WITHOUT_AVX512)  // for tests on processors that have none: the same code, its vectors made of two halves
#pragma GCC target("avx2,fma")
#elif defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")
#endif

#define ULTRON_VECTOR_BYTES 64
namespace ultron {
namespace avx512 {
namespace {
#include "common/vectors.inc"
}  // namespace
#include "cpu/scala_rows.inc"
#include "cpu/scala_columns.inc"
#include "cpu/scala_pairs.inc"
#include "cpu/scala_forward.inc"
#include "cpu/scala_backward.inc"
#include "cpu/cdconv.inc"
}  // namespace avx512
}  // namespace ultron

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
