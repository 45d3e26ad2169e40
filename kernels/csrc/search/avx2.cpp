// The scan for x86-64 processors with AVX2; empty elsewhere.
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

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif

#define ULTRON_VECTOR_BYTES 32
namespace ultron {
namespace avx2 {
namespace {
#include "common/vectors.inc"
}  // namespace
#include "search/halves.inc"
#include "search/scan.inc"
#include "search/nearest.inc"
}  // namespace avx2
}  // namespace ultron

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
