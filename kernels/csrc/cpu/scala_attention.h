// The CPU kernels of SCALA, one set per instruction set.
//
// A unit of work is a block of rows of one (sample, head): queries in the forward pass; in the backward pass queries and, for the
// gradients of keys and values, the same rows of keys. Units share no output, so threads need no order among them, and the sums of a
// block depend on the shapes alone, never on the number of threads.
#pragma once
#include "common/scala_attention.h"

namespace ultron {

struct ScalaUnits {
  int64_t rows;    // of a block
  int64_t blocks;  // of a map
  int64_t count;   // units in all: B * h * blocks
};

inline ScalaUnits scala_units(const ScalaShape& s, int64_t rows) {
  const int64_t blocks = (s.height + rows - 1) / rows;
  return {rows, blocks, s.batch * s.heads * blocks};
}

// Rows of a block in the forward pass: whole maps where there are enough of them to keep the threads busy.
inline int64_t forward_rows(const ScalaShape& s, int64_t n_threads) {
  const int64_t blocks = (4 * n_threads + s.batch * s.heads - 1) / (s.batch * s.heads), rows = (s.height + blocks - 1) / blocks;
  return rows < 4 ? (s.height < 4 ? s.height : 4) : rows;
}

// In the backward pass a block computes the scores of its neighbours' rows again, so it is not made small.
inline int64_t backward_rows(const ScalaShape& s) {
  const int64_t rows = s.batch * s.heads < 8 ? 16 : 32;
  return rows < s.height ? rows : s.height;
}

#define ULTRON_DECLARE(isa)                                                              \
  namespace isa {                                                                        \
  void scala_forward(const ScalaForward&, int64_t rows, int64_t begin, int64_t end);     \
  /* bias_sums: (units, (2k-1)^2) float (double with float64), every element written, or null */ \
  void scala_backward(const ScalaBackward&, void* bias_sums, int64_t rows, int64_t begin, int64_t end); \
  }
ULTRON_DECLARE(baseline)
ULTRON_DECLARE(avx2)
ULTRON_DECLARE(avx512)
#undef ULTRON_DECLARE

}  // namespace ultron
