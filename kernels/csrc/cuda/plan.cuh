// Host side of tiles.cuh: the size of tiles and chunks, the layout of shared memory, the choice of a kernel by type and head dim.
#pragma once
#include <cmath>

#include "cuda/tiles.cuh"

namespace ultron {

// Three blocks fit on a multiprocessor of sm_90 (227 KB), two on sm_80 (163 KB), one wherever a block may have 99 KB.
constexpr int SHARED_BUDGET = 72 * 1024;

struct PlanRequest {
  int rows_per_warp;       // of stationary positions
  int max_warps;           // a power of two
  int moving_row_bytes;    // of one position in one chunk
  int stationary_bytes;    // per warp
  bool bias_gradient;
  int samples_per_block;
};

template <bool KEYS>
int widest_reach(const Axis& axis, int tile) {
  int widest = 0;
  for (int first = 0; first < axis.length; first += tile) {
    const Span span = reach<KEYS>(axis, first, first + tile - 1);
    widest = larger(widest, span.end - span.begin);
  }
  return widest;
}

template <bool KEYS>
Plan make_plan(const ScalaShape& shape, const PlanRequest& request) {
  const Axis rows = row_axis(shape), columns = column_axis(shape);
  const int side = 2 * static_cast<int>(shape.kernel_size);
  Plan plan{};
  plan.warps = 1;
  while (plan.warps < request.max_warps && plan.warps * request.rows_per_warp < rows.length) plan.warps *= 2;
  plan.tile_rows = plan.warps * request.rows_per_warp;
  plan.tiles_y = (rows.length + plan.tile_rows - 1) / plan.tile_rows;
  plan.tiles_x = (columns.length + TILE_COLUMNS - 1) / TILE_COLUMNS;
  plan.samples_per_block = request.samples_per_block;
  plan.sample_numbers = static_cast<int>(shape.height * shape.width * shape.heads);
  plan.blocks_per_head = static_cast<int64_t>(plan.tiles_y) * plan.tiles_x * ((shape.batch + plan.samples_per_block - 1) / plan.samples_per_block);
  plan.blocks = plan.blocks_per_head * shape.heads;

  if (plan.blocks > INT32_MAX) return plan;  // refused below
  plan.heads = Divider(static_cast<unsigned>(shape.heads));
  plan.tiles = Divider(static_cast<unsigned>(plan.tiles_y) * plan.tiles_x);
  plan.tiles_per_row = Divider(plan.tiles_x);

  const float magnitude = static_cast<float>(std::fabs(shape.scale));
  const bool vanishes = magnitude < 1e-30f;  // bias / scale would overflow
  plan.scale = vanishes ? 1.0f : magnitude;
  plan.inverse_scale = 1.0f / plan.scale;
  plan.keep = vanishes ? 0u : 0xffffffffu;
  plan.sign = shape.scale < 0.0 ? 0x80008000u : 0u;

  // 28 columns are the most: 8 stationary keys with k 13 on a map where both borders are near.
  plan.strips = widest_reach<KEYS>(columns, TILE_COLUMNS) > STRIP_COLUMNS ? 2 : 1;
  const int row_positions = plan.strips * STRIP_COLUMNS;
  plan.draws = shape.dropout_p > 0.0 ? static_cast<int>((shape.window_height * shape.window_width + 3) / 4) : 0;
  plan.threshold = static_cast<uint32_t>(shape.dropout_p * 4294967296.0);
  plan.keep_scale = static_cast<float>(1.0 / (1.0 - shape.dropout_p));

  const auto round_up = [](int bytes) { return (bytes + 15) / 16 * 16; };
  const int table_bytes = round_up((side + 1) * TABLE_STRIDE * 4);
  const int stationary_bytes = plan.warps * request.stationary_bytes;
  const int own_bits = KEYS ? 0 : round_up(plan.warps * 8 * request.rows_per_warp * plan.draws);
  const int gradient_bytes = request.bias_gradient ? plan.warps * round_up(((side - 1) * (side - 1) + 8 * 24) * 4) : 0;
  const int row_bytes = 2 * row_positions * request.moving_row_bytes + (KEYS ? row_positions * (8 + plan.draws) : 0);
  const int fixed_bytes = table_bytes + stationary_bytes + own_bits + gradient_bytes;

  const int halo_rows = widest_reach<KEYS>(rows, plan.tile_rows);
  const int most_rows = larger(1, smaller(halo_rows, (SHARED_BUDGET - fixed_bytes) / row_bytes));
  const int chunks = (halo_rows + most_rows - 1) / most_rows;
  plan.chunk_rows = (halo_rows + chunks - 1) / chunks;

  int at = 0;
  const auto take = [&at, &round_up](int bytes) {
    const int here = at;
    at += round_up(bytes);
    return here;
  };
  plan.moving[0] = take(plan.chunk_rows * row_positions * request.moving_row_bytes);
  plan.moving[1] = take(plan.chunk_rows * row_positions * request.moving_row_bytes);
  plan.stationary = take(stationary_bytes);
  plan.table = take(table_bytes);
  plan.dropout = take(KEYS ? plan.chunk_rows * row_positions * plan.draws : own_bits);
  plan.statistics = take(KEYS ? plan.chunk_rows * row_positions * 8 : 0);
  plan.bias_gradient = take(gradient_bytes);
  plan.shared_bytes = at;
  return plan;
}

// This many blocks keep any device busy. Where there are more, a block takes several samples, and what does not depend on the sample is done
// once for them.
constexpr int64_t ENOUGH_BLOCKS = 1024;

inline int samples_per_block(const ScalaShape& shape, int tile_rows) {
  const int64_t tiles = ((shape.height + tile_rows - 1) / tile_rows) * ((shape.width + TILE_COLUMNS - 1) / TILE_COLUMNS);
  return static_cast<int>(smaller(shape.batch, larger<int64_t>(1, shape.batch * tiles * shape.heads / ENOUGH_BLOCKS)));
}

// Null if the kernels can take the shape.
inline const char* refuse(const ScalaShape& shape) {
  if (shape.type == Type::float64 || shape.bias_type == Type::float64) return "scala_attention: float64 is for the CPU and reference backends, not for CUDA";
  if (shape.head_dim < 8 || shape.head_dim > 128 || shape.head_dim % 8 != 0) return "scala_attention: head_dim must be a multiple of 8 from 8 to 128";
  if (shape.kernel_size < 3 || shape.kernel_size > 13 || shape.kernel_size % 2 == 0) return "scala_attention: kernel_size must be odd, from 3 to 13";
  if (shape.height > INT32_MAX / 2 || shape.width > INT32_MAX / 2) return "scala_attention: height and width must be below 2^30";
  if (shape.batch > INT32_MAX) return "scala_attention: the batch must be below 2^31";
  if (static_cast<double>(shape.height) * shape.width * shape.heads > INT32_MAX) return "scala_attention: height x width x heads must be below 2^31";
  return nullptr;
}

// Kernels count within a sample in 32 bits.
inline const char* refuse(const ScalaShape& shape, const Map& map) {
  const double rows = static_cast<double>(shape.height - 1) * map.row_stride, columns = static_cast<double>(shape.width - 1) * map.column_stride;
  return rows + columns + shape.head_dim > UINT32_MAX ? "scala_attention: one sample must span fewer than 2^32 elements; copy it with contiguous()" : nullptr;
}

inline bool is_empty(const ScalaShape& shape) { return shape.batch * shape.height * shape.width * shape.heads == 0; }

// A grid has at most 2^31 - 1 blocks.
inline const char* refuse(const Plan& plan) {
  return plan.blocks > INT32_MAX ? "scala_attention: too many tiles for one launch; split the batch" : nullptr;
}

}  // namespace ultron
