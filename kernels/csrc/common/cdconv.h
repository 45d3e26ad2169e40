// The interface between the torch bindings and the CDConv kernels. No torch headers.
//
// Depthwise 3x3 convolution in which every (sample, channel) has a dilation of its own (ULTRON, Algorithm 1):
//   out[b][c][y][x] = sum over i, j in 0..2 of weight[c][i][j] * input[b][c][y + (i - 1) dilation[b][c]][x + (j - 1) dilation[b][c]]
// with zeros outside the map: padding = dilation, the output has the input's size.
#pragma once
#include <cstdint>

#include "common/scala_attention.h"  // Type

namespace ultron {

struct CdconvShape {
  int64_t batch, channels, height, width;
  Type type;                 // of input, weight, output and their gradients; sums in float32 (float64 with float64)
  bool channels_last;        // memory order of input and output: (B, H, W, C), else (B, C, H, W); both dense
  const int64_t* dilation;   // (B, C) contiguous, each >= 1, in the memory of the device that computes
};

}  // namespace ultron
