// Which features of two photos are nearest to each other, by squared Euclidean distances of descriptors in bytes. Whole numbers: nothing is rounded.
#pragma once
#include <cstdint>

namespace ultron {

constexpr int64_t MOST_BYTES = 8192;  // of a descriptor: no squared distance reaches FARTHEST
constexpr int32_t FARTHEST = 1 << 30;

struct Nearest {
  const uint8_t* left;   // (n_left, dim)
  const uint8_t* right;  // (n_right, dim); dim is at most MOST_BYTES
  int64_t n_left, n_right, dim;
  int32_t* nearest;       // (n_left,) row of `right`, of equally near ones the first
  int32_t* squares;       // (n_left,) distance to it
  int32_t* next_squares;  // (n_left,) distance to the nearest of the others; at least FARTHEST where there are none
  int32_t* back;          // (n_right,) row of `left` that is nearest to each of `right`, of equally near ones the first
};

namespace avx2 { void find_nearest(const Nearest&); }
namespace avx512 { void find_nearest(const Nearest&); }

}  // namespace ultron
