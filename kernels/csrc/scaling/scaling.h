// Photos at another size, for a network: normalised, and linear between the nearest places. Every number is rounded as PyTorch rounds it on one
// thread of a processor that multiplies and adds at once.
#pragma once
#include <cstdint>

namespace ultron {

struct Scaling {
  const uint8_t* pixels;  // (height, width, 3)
  int64_t height, width;
  const float* mean;  // (3,), subtracted from the colours
  const float* sd;    // (3,), by which they are divided then
  int64_t scaled_height, scaled_width;
  float down, across;  // pixels of the photo between two scaled ones
  float* scaled;       // (3, scaled_height, scaled_width)
};

}  // namespace ultron
