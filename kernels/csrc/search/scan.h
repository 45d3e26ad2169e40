// The first pass of exact search: float32 products of database rows with queries, of which only those that reach their query's hurdle are kept.
//
// Most pairs are ruled out by whole numbers of 16 bits. A row x becomes X, the whole numbers nearest to x * SCALE / |x|, and a query q likewise Q.
// Rounding moves each value by at most STEP, so with r = STEP * sqrt(dim) / SCALE
//     | x.q - X.Q |x| |q| / SCALE^2 | <= (2 r + r^2) |x| |q|,
// by Cauchy-Schwarz, which also keeps every partial sum of X.Q below 2^31. What may still reach the hurdle gets its float32 product.
#pragma once
#include <cstdint>

namespace ultron {

constexpr float SCALE = 32000;
constexpr double STEP = 0.51;        // half of one, and what float32 rounds of the value before
constexpr int64_t MOST_DIMS = 65536;  // X and Q are then no longer than 32,500

struct Scan {
  const void* rows;  // n rows of dim values, float32 or float16; dim is at most MOST_DIMS
  int64_t n, dim, row_bytes;
  bool is_half;
  const float* queries;  // (n_queries, dim), finite
  const float* hurdles;  // (n_queries,)
  int64_t n_queries;
  int64_t* positions;  // room for `most`: row * n_queries + query
  float* products;     // and theirs
  int64_t most;
  float* largest_square;  // of a row's norm; infinite where a row or query is too long or short for float32, and nothing was found out
};

// The number of products that reach their hurdle. Beyond `most` of them nothing is written, and the scan ends.
namespace avx2 { int64_t scan(const Scan&); }
namespace avx512 { int64_t scan(const Scan&); }

}  // namespace ultron
