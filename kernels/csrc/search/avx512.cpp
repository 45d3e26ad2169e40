// The scan for x86-64 processors with AVX512 and its VNNI; empty elsewhere.
#include <cstdint>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>

#include "common/types.h"
#include "search/halves.h"
#include "search/nearest.h"
#include "search/scan.h"

#if defined(__x86_64__)
#include <immintrin.h>

#if defined(ULTRON_WITHOUT_AVX512)  // for tests on processors that have none: the same code, its vectors made of two halves
#pragma GCC target("avx2,fma,f16c")
#elif defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx512vnni,avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx512vnni,avx2,fma,f16c")
#endif

#define ULTRON_VECTOR_BYTES 64
namespace ultron {
namespace avx512 {
namespace {
#include "common/vectors.inc"
}  // namespace
#include "search/halves.inc"
#include "search/scan.inc"
#include "search/nearest.inc"
}  // namespace avx512
}  // namespace ultron

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
