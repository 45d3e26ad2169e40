// What the float32 kernels share: a warp holds a row of 8 stationary positions (or ROWS such rows); lane = 4 group + quad has position
// `group` and every fourth piece of 4 numbers of its head dim.
#pragma once
#include "cuda/philox.cuh"
#include "cuda/tiles.cuh"

namespace ultron {

template <bool KEYS, int ROWS>
struct Line {
  int group, quad, lane;
  int y, x;           // of the lane's first position; the others are below it
  Span rows[ROWS], columns, all_rows;
  Span offsets;       // moving column - stationary column, over the warp

  __device__ __forceinline__ Line(const ScalaShape& shape, const Block& block) {
    const Axis row = row_axis(shape), column = column_axis(shape);
    lane = threadIdx.x % 32;
    group = lane / 4;
    quad = lane % 4;
    y = block.y + static_cast<int>(threadIdx.x / 32) * ROWS;
    x = block.x + group;
#pragma unroll
    for (int r = 0; r < ROWS; ++r) rows[r] = reach<KEYS>(row, y + r, y + r);
    all_rows = reach<KEYS>(row, y, y + ROWS - 1);
    columns = reach<KEYS>(column, x, x);
    const bool inside = x < column.length;
    int low = inside ? columns.begin - x : INT32_MAX, high = inside ? columns.end - x : INT32_MIN;
#pragma unroll
    for (int distance = 4; distance < 32; distance *= 2) {
      low = smaller(low, __shfl_xor_sync(ALL_LANES, low, distance));
      high = larger(high, __shfl_xor_sync(ALL_LANES, high, distance));
    }
    offsets = {low, high};
  }

  __device__ __forceinline__ bool is_inside(const ScalaShape& shape, int r) const { return ultron::is_inside(shape, y + r, x); }

  // Of a (B, H, W, h) tensor.
  __device__ __forceinline__ uint64_t position(const ScalaShape& shape, const Plan& plan, const Block& block, int r) const {
    return first_number(plan, block) + number_in(shape, block, y + r, x);
  }

  // bias / scale for a moving row and a column offset, -inf if not seen.
  __device__ __forceinline__ float table_entry(const float* table, const ScalaShape& shape, int r, int moving_row, int offset, bool seen) const {
    const int kernel_size = static_cast<int>(shape.kernel_size);
    const int row = KEYS ? y + r - moving_row : moving_row - y - r, column = KEYS ? -offset : offset;
    if (!seen || !contains(rows[r], moving_row)) return -INFINITY;
    return table[(row + kernel_size) * TABLE_STRIDE + column + kernel_size - 1];
  }
};

// A lane's quarter of D numbers: pieces quad, quad + 4, quad + 8, ...
template <int D>
struct Quarter {
  static constexpr int COUNT = D / 16;
  float4 pieces[COUNT];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) pieces[i] = {0.0f, 0.0f, 0.0f, 0.0f};
  }

  template <typename L>
  __device__ __forceinline__ void read_global(const float* sample, const Map& map, const ScalaShape& shape, const L& line, int r) {
    const float* row = sample + offset_in(map, line.y + r, line.x);
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      const int first = (line.quad + 4 * i) * 4;
      pieces[i] = {0.0f, 0.0f, 0.0f, 0.0f};
      if (line.is_inside(shape, r) && first < static_cast<int>(shape.head_dim)) pieces[i] = *reinterpret_cast<const float4*>(row + first);
    }
  }

  template <typename L>
  __device__ __forceinline__ void write_global(float* sample, const Map& map, const ScalaShape& shape, const L& line, int r) const {
    float* row = sample + offset_in(map, line.y + r, line.x);
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      const int first = (line.quad + 4 * i) * 4;
      if (line.is_inside(shape, r) && first < static_cast<int>(shape.head_dim)) *reinterpret_cast<float4*>(row + first) = pieces[i];
    }
  }

  // `position` in the chunk, `column` of it.
  __device__ __forceinline__ void read_shared(const char* chunk, int position, int column, int quad) {
    using P = Pieces<float, D>;
    const char* row = chunk + position * P::ROW_BYTES;
#pragma unroll
    for (int i = 0; i < COUNT; ++i) pieces[i] = *reinterpret_cast<const float4*>(row + ((quad + 4 * i) ^ P::exchange(column)) * 16);
  }

  __device__ __forceinline__ float dot(const Quarter& other) const {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      const float4 a = pieces[i], b = other.pieces[i];
      sum += a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
    }
    return sum;
  }

  __device__ __forceinline__ void add(float weight, const Quarter& other) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      pieces[i].x += weight * other.pieces[i].x;
      pieces[i].y += weight * other.pieces[i].y;
      pieces[i].z += weight * other.pieces[i].z;
      pieces[i].w += weight * other.pieces[i].w;
    }
  }

  __device__ __forceinline__ void scale_by(float factor) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) pieces[i] = {pieces[i].x * factor, pieces[i].y * factor, pieces[i].z * factor, pieces[i].w * factor};
  }
};

// Dropout of stationary queries: the warp draws the keep bits of its own.
template <int ROWS>
__device__ __forceinline__ void draw_line(uint8_t* bits, const Dropout& dropout, const ScalaShape& shape, const Plan& plan, const Block& block,
                                          const Line<false, ROWS>& line) {
  for (int i = line.lane; i < ROWS * TILE_COLUMNS * plan.draws; i += 32) {
    const int row = i / plan.draws, y = line.y + row / TILE_COLUMNS, x = block.x + row % TILE_COLUMNS;
    bits[i] = dropout.keep_bits(first_number(plan, block) + number_in(shape, block, y, x), i % plan.draws);
  }
}

}  // namespace ultron
