// The gradient of the bias without atomics: each warp sums the score gradients of its queries by offset in a table of its own, each block
// adds up the tables of its warps into the workspace, and a second kernel adds up the blocks' tables, all in a fixed order.
#pragma once
#include "cuda/plan.cuh"
#include "cuda/strips.cuh"

namespace ultron {

constexpr int DIAGONALS = STRIP_COLUMNS + TILE_COLUMNS - 1;  // key column - query column within a strip, from -7 to 15
constexpr int DIAGONALS_PADDED = 24;

// Score gradients of a strip, summed over query columns with the same offset. The upper query row's offset of one key row is the lower query
// row's of the next: they are added before the sum along diagonals.
struct DiagonalSums {
  float *sums, *buffer;  // of the warp: (2k-1, 2k-1); 8 query columns x 24 diagonals
  int side, lane, shift;
  float carried[4];      // the upper row's, of the last key row

  __device__ __forceinline__ DiagonalSums(char* memory, const ScalaShape& shape, int warp, int lane_) : lane(lane_) {
    side = 2 * static_cast<int>(shape.kernel_size) - 1;
    sums = reinterpret_cast<float*>(memory) + warp * ((side * side + TILE_COLUMNS * DIAGONALS_PADDED + 3) / 4 * 4);
    buffer = sums + side * side;
  }

  __device__ __forceinline__ void clear() {
    // The buffer's corners, where a strip has no column, stay zero.
    for (int i = lane; i < side * side + TILE_COLUMNS * DIAGONALS_PADDED; i += 32) sums[i] = 0.0f;
    __syncwarp();
  }

  // Begins a strip, whose first column lies `first_column` columns right of the first query.
  __device__ __forceinline__ void open(int first_column) {
    shift = first_column - (TILE_COLUMNS - 1) + side / 2;
#pragma unroll
    for (int j = 0; j < 4; ++j) carried[j] = 0.0f;
  }

  // `row_offset`: the key row minus the lower query row.
  __device__ __forceinline__ void add(const float (&gradients)[2][4], int row_offset) {
    float sum[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      sum[j] = carried[j] + gradients[j / 2][2 + j % 2];
      carried[j] = gradients[j / 2][j % 2];
    }
    sum_diagonals(sum, row_offset);
  }

  // After the last key row of a strip; `row_offset` is that of the row after it.
  __device__ __forceinline__ void finish(int row_offset) { sum_diagonals(carried, row_offset); }

  // For the float32 kernels: all lanes of a quad hold the gradient of their query at one offset.
  __device__ __forceinline__ void add_over_groups(float gradient, int row_offset, int column_offset) {
#pragma unroll
    for (int distance = 4; distance < 32; distance *= 2) gradient += __shfl_xor_sync(ALL_LANES, gradient, distance);
    if (lane == 0) sums[(row_offset + side / 2) * side + column_offset + side / 2] += gradient;
  }

  __device__ __forceinline__ void sum_diagonals(const float (&values)[4], int row_offset) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int group = lane / 4, column = j / 2 * 8 + lane % 4 * 2 + j % 2;
      buffer[group * DIAGONALS_PADDED + column - group + TILE_COLUMNS - 1] = values[j];
    }
    __syncwarp();
    const int y = row_offset + side / 2, x = lane + shift;
    if (lane < DIAGONALS && y >= 0 && y < side && x >= 0 && x < side) {  // elsewhere no query sees a key
      float sum = 0.0f;
#pragma unroll
      for (int g = 0; g < TILE_COLUMNS; ++g) sum += buffer[g * DIAGONALS_PADDED + lane];
      sums[y * side + x] += sum;
    }
    __syncwarp();
  }
};

// The sum over the block's warps, to the block's place in the workspace: (h, blocks per head, (2k-1)^2).
__device__ __forceinline__ void write_partial_sums(float* partial_sums, const char* memory, const ScalaShape& shape, const Plan& plan, const Block& block) {
  const int side = 2 * static_cast<int>(shape.kernel_size) - 1, entries = side * side;
  const int stride = (entries + TILE_COLUMNS * DIAGONALS_PADDED + 3) / 4 * 4;
  const float* sums = reinterpret_cast<const float*>(memory);
  float* target = partial_sums + (block.head * plan.blocks_per_head + block.tile_and_group) * entries;
  for (int i = threadIdx.x; i < entries; i += blockDim.x) {
    float sum = 0.0f;
    for (int warp = 0; warp < plan.warps; ++warp) sum += sums[warp * stride + i];
    target[i] = sum;
  }
}

// One block for 32 entries of one head; its warps take every 8th table, and are summed in their order.
template <typename T>
__global__ void __launch_bounds__(256) scala_bias_gradient(const float* partial_sums, int64_t tables, int entries, void* grad_bias, bool is_float32) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, entry = blockIdx.y * 32 + lane;
  float* shared = reinterpret_cast<float*>(shared_memory());
  float sum = 0.0f;
  if (entry < entries) {
#pragma unroll 4
    for (int64_t table = warp; table < tables; table += 8) sum += partial_sums[(blockIdx.x * tables + table) * entries + entry];
  }
  shared[threadIdx.x] = sum;
  __syncthreads();
  if (warp != 0 || entry >= entries) return;
  for (int i = 1; i < 8; ++i) sum += shared[i * 32 + lane];
  const int64_t target = static_cast<int64_t>(blockIdx.x) * entries + entry;
  if (is_float32) {
    static_cast<float*>(grad_bias)[target] = sum;
  } else {
    static_cast<T*>(grad_bias)[target] = from_float<T>(sum);
  }
}

// Writes zeros if the plan is empty.
template <typename T>
const char* launch_bias_gradient(const ScalaBackward& backward, const Plan& plan, const float* partial_sums, void* stream) {
  const ScalaShape& shape = backward.shape;
  const int side = 2 * static_cast<int>(shape.kernel_size) - 1, entries = side * side;
  return launch(scala_bias_gradient<T>, dim3(static_cast<unsigned>(shape.heads), (entries + 31) / 32), 256, 256 * 4, stream, partial_sums,
                plan.blocks_per_head, entries, backward.grad_bias, shape.bias_type == Type::float32);
}

// delta: (B, H, W, h) float32; then the partial sums.
struct Workspace {
  float *delta, *partial_sums;

  // For the most tables that any kernel can write: their tiles have 4 rows or more, and samples_per_block bounds the blocks.
  static int64_t partial_sum_bytes(const ScalaShape& shape) {
    const int64_t tiles = ((shape.height + 3) / 4) * ((shape.width + TILE_COLUMNS - 1) / TILE_COLUMNS) * shape.heads, side = 2 * shape.kernel_size - 1;
    return smaller(shape.batch * tiles, 2 * ENOUGH_BLOCKS + tiles) * side * side * 4;
  }
  static int64_t delta_bytes(const ScalaShape& shape) { return (shape.batch * shape.height * shape.width * shape.heads * 4 + 255) / 256 * 256; }
  Workspace(const ScalaShape& shape, void* memory)
      : delta(static_cast<float*>(memory)), partial_sums(reinterpret_cast<float*>(static_cast<char*>(memory) + delta_bytes(shape))) {}
};

}  // namespace ultron
