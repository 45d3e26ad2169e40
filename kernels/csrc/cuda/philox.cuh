// Attention dropout: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), as scala_attention.h defines it.
#pragma once
#include "common/scala_attention.h"
#include "cuda/device.cuh"

namespace ultron {

struct Dropout {
  uint32_t key0, key1, threshold;

  __device__ __forceinline__ Dropout(const ScalaShape& shape, uint32_t threshold_) : threshold(threshold_) {
    const uint64_t seed = static_cast<uint64_t>(*shape.seed);
    key0 = static_cast<uint32_t>(seed);
    key1 = static_cast<uint32_t>(seed >> 32);
  }

  // Bit i of the result: key 4 * draw + i of this query is kept.
  __device__ __forceinline__ uint8_t keep_bits(uint64_t query, uint32_t draw) const {
    uint32_t c0 = draw, c1 = static_cast<uint32_t>(query), c2 = static_cast<uint32_t>(query >> 32), c3 = 0;
    uint32_t k0 = key0, k1 = key1;
#pragma unroll
    for (int round = 0; round < 10; ++round) {
      const uint32_t high0 = multiply_high(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
      const uint32_t high1 = multiply_high(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
      c0 = high1 ^ c1 ^ k0;
      c1 = low1;
      c2 = high0 ^ c3 ^ k1;
      c3 = low0;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    return static_cast<uint8_t>((c0 >= threshold) | (c1 >= threshold) << 1 | (c2 >= threshold) << 2 | (c3 >= threshold) << 3);
  }
};

__device__ __forceinline__ bool is_kept(const uint8_t* bits, int key) { return (bits[key >> 2] >> (key & 3)) & 1; }

}  // namespace ultron
