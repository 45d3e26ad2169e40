// How the maps are cut into tiles, in words that serve all SCALA kernels.
//
// A kernel is stationary in queries (forward, gradients of query and bias) or in keys (gradients of key and value). One block takes one
// (sample, head) and a tile of stationary positions, 8 columns wide; the positions of the other kind that any of them sees, its halo,
// move through shared memory in chunks of whole rows. A halo row is padded to one or two strips of 16 columns, so that the position of a
// score in a matrix fragment tells its column, and the row is the same for the whole warp.
#pragma once
#include "common/scala_attention.h"
#include "cuda/device.cuh"
#include "cuda/mma.cuh"

namespace ultron {

constexpr int TILE_COLUMNS = 8;
constexpr int STRIP_COLUMNS = 16, LOG_2_STRIP = 4;
constexpr int TABLE_STRIDE = 32;  // 2k = 26 is the most; a constant, so that the rows of a table are immediate offsets


struct Span {
  int begin, end;
};

// One direction of the map.
struct Axis {
  int length, window, kernel_size;
};

__host__ __device__ inline Axis row_axis(const ScalaShape& shape) {
  return {static_cast<int>(shape.height), static_cast<int>(shape.window_height), static_cast<int>(shape.kernel_size)};
}
__host__ __device__ inline Axis column_axis(const ScalaShape& shape) {
  return {static_cast<int>(shape.width), static_cast<int>(shape.window_width), static_cast<int>(shape.kernel_size)};
}

// The first key that a query sees.
__host__ __device__ inline int window_begin(const Axis& axis, int query) {
  return smaller(larger(query - axis.kernel_size / 2, 0), axis.length - axis.window);
}

// What stationary position i sees: the keys of query i; or the queries that see key i, more of them near the border, where windows were
// moved inward. Both ends never decrease with i.
template <bool KEYS>
__host__ __device__ inline Span reach(const Axis& axis, int i) {
  if (KEYS) {
    const int begin = i < axis.window ? 0 : i - axis.window + 1 + axis.kernel_size / 2;
    const int end = i >= axis.length - axis.window ? axis.length : i + axis.kernel_size / 2 + 1;
    return {begin, end};
  }
  const int begin = window_begin(axis, i);
  return {begin, begin + axis.window};
}

// What positions first to last see together; empty if first lies outside the map.
template <bool KEYS>
__host__ __device__ inline Span reach(const Axis& axis, int first, int last) {
  if (first >= axis.length) return {0, 0};
  return {reach<KEYS>(axis, first).begin, reach<KEYS>(axis, smaller(last, axis.length - 1)).end};
}

__device__ __forceinline__ bool contains(const Span& span, int i) { return i >= span.begin && i < span.end; }

// Chosen on the host; offsets and sizes of shared memory in bytes.
struct Plan {
  int warps, tile_rows, tiles_y, tiles_x;
  int strips;             // per halo row: 1 or 2
  int chunk_rows;         // halo rows in shared memory at a time
  int draws;              // dropout: Philox calls per query, ceil(wh * ww / 4); 0 without dropout
  uint32_t threshold;     // dropout: floor(p * 2^32)
  float keep_scale;       // 1 / (1 - p)
  int samples_per_block;  // a block walks over so many samples
  int sample_numbers;     // H W h
  int64_t blocks, blocks_per_head;
  Divider heads, tiles, tiles_per_row;
  float scale;            // |scale|, or 1 where scale is 0
  float inverse_scale;
  uint32_t sign;          // xor-ed into pairs of the stationary operand if scale < 0
  uint32_t keep;          // and-ed into them: 0 where scale is 0
  int moving[2];          // chunks of key and value, or of query and grad_out
  int stationary;         // each warp's 16 positions, also for coalesced writes
  int table;              // bias / scale: see load_table
  int dropout;            // keep bits, a byte per Philox call
  int statistics;         // lse and delta of moving queries
  int bias_gradient;      // per warp: sums by offset, then a buffer to sum along diagonals (half precision)
  int shared_bytes;
};

// Where the block is.
struct Block {
  int head, y, x;         // of the tile's first position
  unsigned tile_and_group, sample, sample_end;
};

__device__ __forceinline__ Block find_block(const ScalaShape& shape, const Plan& plan) {
  Block block;
  // Neighbouring blocks take neighbouring heads, whose rows share cache lines.
  const unsigned rest = plan.heads.divide(blockIdx.x), group = plan.tiles.divide(rest), tile = rest - group * plan.tiles.divisor;
  const unsigned tile_y = plan.tiles_per_row.divide(tile);
  block.head = static_cast<int>(blockIdx.x - rest * plan.heads.divisor);
  block.tile_and_group = rest;
  block.y = static_cast<int>(tile_y) * plan.tile_rows;
  block.x = static_cast<int>(tile - tile_y * plan.tiles_per_row.divisor) * TILE_COLUMNS;
  block.sample = group * static_cast<unsigned>(plan.samples_per_block);
  block.sample_end = smaller(block.sample + static_cast<unsigned>(plan.samples_per_block), static_cast<unsigned>(shape.batch));
  return block;
}

// Addresses. Within a sample 32 bits are enough, since refuse turns larger ones away, and take half the instructions of 64.

__device__ __forceinline__ bool is_inside(const ScalaShape& shape, int y, int x) { return y < row_axis(shape).length && x < column_axis(shape).length; }

// The first element of a sample and head. Strides are never negative.
template <typename T>
__device__ __forceinline__ T* sample_of(const Map& map, const Block& block) {
  return static_cast<T*>(map.data) + (static_cast<uint64_t>(block.sample) * static_cast<uint64_t>(map.batch_stride) +
                                      static_cast<uint64_t>(static_cast<unsigned>(block.head)) * static_cast<uint64_t>(map.head_stride));
}

// From there to position (y, x), in elements.
__device__ __forceinline__ unsigned offset_in(const Map& map, int y, int x) {
  return static_cast<unsigned>(y) * static_cast<unsigned>(map.row_stride) + static_cast<unsigned>(x) * static_cast<unsigned>(map.column_stride);
}

// A (B, H, W, h) tensor: the first number of a sample, and from there that of position (y, x) and the block's head.
__device__ __forceinline__ uint64_t first_number(const Plan& plan, const Block& block) {
  return static_cast<uint64_t>(block.sample) * static_cast<unsigned>(plan.sample_numbers);
}
__device__ __forceinline__ unsigned number_in(const ScalaShape& shape, const Block& block, int y, int x) {
  const unsigned position = static_cast<unsigned>(y) * static_cast<unsigned>(column_axis(shape).length) + static_cast<unsigned>(x);
  return position * static_cast<unsigned>(shape.heads) + static_cast<unsigned>(block.head);
}

// Shared memory holds rows of D numbers as pieces of 16 bytes. Pieces are exchanged within a row so that 8 consecutive rows, as ldmatrix
// reads them, lie in different banks.
template <typename T, int D>
struct Pieces {
  static constexpr int COUNT = D * static_cast<int>(sizeof(T)) / 16;
  static constexpr int LOG_2_COUNT = COUNT == 4 ? 2 : COUNT == 8 ? 3 : COUNT == 16 ? 4 : 5;
  static constexpr int NUMBERS = 16 / static_cast<int>(sizeof(T));
  static constexpr int ROW_BYTES = COUNT * 16;

  // To be xor-ed into the number of a piece.
  static __device__ __forceinline__ int exchange(int row) {
    if (sizeof(T) == 4) return (row & 1) << 2;  // here 2 rows of 4 pieces are read at once
    return COUNT == 4 ? row >> 1 & 3 : row & 7;
  }
};

// Two maps that move together: key and value, or query and grad_out.
template <typename T>
struct Moving {
  const T* sample[2];  // elements (0, 0) of the sample and head
  const Map* map[2];
};

// Copies halo rows [row, row + n_rows), columns [columns.begin, columns.end), of both to shared memory; zeros in the padding.
template <typename T, int D>
__device__ __forceinline__ void load_chunk(char* memory, const Plan& plan, const Moving<T>& moving, int head_dim, int row, int n_rows, Span columns) {
  using P = Pieces<T, D>;
  // The pieces of a row and the threads are powers of two: a thread stays in its column.
  const int row_shift = P::LOG_2_COUNT + LOG_2_STRIP + plan.strips - 1, row_pieces = 1 << row_shift;
  const int threads = static_cast<int>(blockDim.x), step = larger(1, threads >> row_shift), to_step = step << (row_shift + 4);
  const int first = static_cast<int>(threadIdx.x) >> row_shift;
  const uint64_t step_0 = sizeof(T) * static_cast<uint64_t>(offset_in(*moving.map[0], step, 0));
  const uint64_t step_1 = sizeof(T) * static_cast<uint64_t>(offset_in(*moving.map[1], step, 0));
  for (int i = static_cast<int>(threadIdx.x) & (row_pieces - 1); i < row_pieces; i += threads) {
    const int piece = i % P::COUNT, column = i / P::COUNT, x = columns.begin + column;
    const bool live = x < columns.end && piece * P::NUMBERS < head_dim;
    const int offset = (first * row_pieces + column * P::COUNT + (piece ^ P::exchange(column))) * 16;
    char *to_0 = memory + plan.moving[0] + offset, *to_1 = memory + plan.moving[1] + offset;
    // The padding too has an address that may be read, but not what lies there.
    const int source_x = live ? x : columns.begin, source_number = live ? piece * P::NUMBERS : 0;
    auto from_0 = reinterpret_cast<const char*>(moving.sample[0] + (offset_in(*moving.map[0], row + first, source_x) + source_number));
    auto from_1 = reinterpret_cast<const char*>(moving.sample[1] + (offset_in(*moving.map[1], row + first, source_x) + source_number));
    int r = first;
    // Two rows at a time by hand: to unroll the loop, the compiler would divide.
#pragma unroll 1
    for (; r + step < n_rows; r += 2 * step) {
      copy_async(to_0, from_0, live);
      copy_async(to_1, from_1, live);
      copy_async(to_0 + to_step, from_0 + step_0, live);
      copy_async(to_1 + to_step, from_1 + step_1, live);
      from_0 += 2 * step_0;
      from_1 += 2 * step_1;
      to_0 += 2 * to_step;
      to_1 += 2 * to_step;
    }
    if (r < n_rows) {
      copy_async(to_0, from_0, live);
      copy_async(to_1, from_1, live);
    }
  }
}

// The table of the head: row i, column j hold bias / scale for the offsets i - 1 - (k - 1) and j - (k - 1), so that it can be the initial value
// of the sum over the head dim. The first and last rows, which are read and then masked, and column 2k - 1, for positions that are not seen,
// hold -inf.
template <typename T>
__device__ __forceinline__ void load_table(float* table, const void* bias, const ScalaShape& shape, const Plan& plan, int head) {
  const int offsets = 2 * static_cast<int>(shape.kernel_size) - 1;
  const bool is_float32 = shape.bias_type == Type::float32;
  for (int i = threadIdx.x; i < (offsets + 2) * TABLE_STRIDE; i += blockDim.x) {
    const int y = i / TABLE_STRIDE - 1, x = i % TABLE_STRIDE;
    float value = 0.0f;
    if (y < 0 || y >= offsets || x >= offsets) {
      value = -INFINITY;
    } else if (bias != nullptr) {
      value = load_as<T>(bias, (static_cast<int64_t>(head) * offsets + y) * offsets + x, is_float32) * plan.inverse_scale;
    }
    table[i] = value;
  }
}

}  // namespace ultron
