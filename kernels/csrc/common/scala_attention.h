// The interface between the torch bindings and the SCALA kernels. No torch headers: the kernels compile in seconds.
//
// Neighbourhood attention with relative position bias and attention dropout (ULTRON, Algorithm 2; Hassani et al., CVPR 2023).
// Legend: B batch, H W map size, h heads, d head dim, k window side, wh = min(k, H), ww = min(k, W).
//
// Query (y, x) sees the keys of rows [y0, y0 + wh) and columns [x0, x0 + ww), y0 = clamp(y - k/2, 0, H - wh), x0 likewise:
//   score = scale * q . key + bias[head][key_y - y + k - 1][key_x - x + k - 1]
//   out   = sum over keys of dropout(softmax(score)) * value;   lse = log(sum(exp(score)))
// Dropout: key number j = (key_y - y0) * ww + (key_x - x0) of query number i = ((b * H + y) * W + x) * h + head is kept if
//   philox4x32_10(counter = {j / 4, low32(i), high32(i), 0}, key = {low32(seed), high32(seed)})[j % 4] >= floor(p * 2^32),
// and kept probabilities are divided by 1 - p. The normaliser (lse) is that of all keys, dropped or not.
#pragma once
#include <cstdint>

namespace ultron {

enum class Type : int { float32 = 0, float16 = 1, bfloat16 = 2, float64 = 3 };

// A (B, H, W, h, d) tensor: strides in elements, d contiguous.
struct Map {
  void* data;
  int64_t batch_stride, row_stride, column_stride, head_stride;
};

struct ScalaShape {
  int64_t batch, height, width, heads, head_dim;
  int64_t kernel_size, window_height, window_width;  // k odd; wh, ww as above
  double scale;
  double dropout_p;           // 0 <= p < 1; with 0, seed is not read
  const int64_t* seed;        // one number in the memory of the device that computes; null without dropout
  Type type;                  // of query, key, value, out and their gradients
  Type bias_type;             // float32 or `type`; float64 with float64
};

struct ScalaForward {
  ScalaShape shape;
  Map query, key, value, out;
  const void* bias;           // (h, 2k-1, 2k-1) contiguous, or null
  void* lse;                  // (B, H, W, h) contiguous, float32 (float64 with float64)
};

struct ScalaBackward {
  ScalaShape shape;
  Map query, key, value, out, grad_out;
  const void* bias;
  const void* lse;
  Map grad_query, grad_key, grad_value;  // every element is written
  void* grad_bias;            // (h, 2k-1, 2k-1) contiguous of bias_type, every element written; null if not wanted
  void* workspace;            // CUDA: scala_backward_workspace_cuda bytes, uninitialised, 256-byte aligned
  bool deterministic;         // the same bits every time
};

}  // namespace ultron
