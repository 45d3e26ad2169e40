// Backward: lse and delta = sum(grad_out * out) of each query, stationary or moving; and the dropout bits of moving queries.
#pragma once
#include "philox.cuh"
#include "strips.cuh"

namespace ultron {

// lse (in base 2) and delta of the warp's 16 queries, to the lanes that hold their rows; delta also to the workspace, for the other pass.
template <typename T, int D>
__device__ __forceinline__ void query_statistics(float (&lse)[2], float (&delta)[2], const ScalaBackward& backward, float* delta_map, const Block& block,
                                                 const Patch<false>& patch, const char* grad_out, const T* out) {
  using P = Pieces<T, D>;
  const ScalaShape& shape = backward.shape;
  // Two lanes for a query.
  const int row = patch.lane / 2, y = patch.y + row / TILE_COLUMNS, x = block.x + row % TILE_COLUMNS;
  const bool inside = y < shape.height && x < shape.width;
  float sum = 0.0f;
#pragma unroll
  for (int piece = patch.lane % 2; piece < P::COUNT; piece += 2) {
    if (!inside || piece * P::NUMBERS >= shape.head_dim) continue;
    const uint4 a = *reinterpret_cast<const uint4*>(grad_out + row * P::ROW_BYTES + (piece ^ P::exchange(row)) * 16);
    const uint4 b = *reinterpret_cast<const uint4*>(position_in(out, backward.out, y, x) + piece * P::NUMBERS);
    sum += dot_pair<T>(a.x, b.x) + dot_pair<T>(a.y, b.y) + dot_pair<T>(a.z, b.z) + dot_pair<T>(a.w, b.w);
  }
  sum += __shfl_xor_sync(ALL_LANES, sum, 1);
  if (inside && patch.lane % 2 == 0) delta_map[((block.sample * shape.height + y) * shape.width + x) * shape.heads + block.head] = sum;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    delta[r] = __shfl_sync(ALL_LANES, sum, 2 * (patch.group + 8 * r));
    lse[r] = 0.0f;
    if (patch.y + r < shape.height && patch.x < shape.width) {
      const int64_t query = ((block.sample * shape.height + patch.y + r) * shape.width + patch.x) * shape.heads + block.head;
      lse[r] = static_cast<const float*>(backward.lse)[query] * LOG2_E;
    }
  }
}

// lse (in base 2) and delta of a chunk of moving queries; zeros in the padding, where scores are -inf.
__device__ __forceinline__ void load_statistics(float* lse, float* delta, const ScalaBackward& backward, const float* delta_map, const Block& block,
                                                int row, int n_rows, Span columns, int row_positions) {
  const ScalaShape& shape = backward.shape;
  for (int i = threadIdx.x; i < n_rows * row_positions; i += blockDim.x) {
    const int y = row + i / row_positions, x = columns.begin + i % row_positions;
    const bool live = x < columns.end;
    const int64_t query = ((block.sample * shape.height + y) * shape.width + x) * shape.heads + block.head;
    lse[i] = live ? static_cast<const float*>(backward.lse)[query] * LOG2_E : 0.0f;
    delta[i] = live ? delta_map[query] : 0.0f;
  }
}

// Keep bits of a chunk of moving queries, plan.draws bytes each.
__device__ __forceinline__ void draw_chunk(uint8_t* bits, const Dropout& dropout, const ScalaShape& shape, const Plan& plan, const Block& block,
                                           int row, int n_rows, Span columns, int row_positions) {
  for (int i = threadIdx.x; i < n_rows * row_positions * plan.draws; i += blockDim.x) {
    const int position = i / plan.draws, y = row + position / row_positions, x = columns.begin + position % row_positions;
    const int64_t query = ((block.sample * shape.height + y) * shape.width + x) * shape.heads + block.head;
    bits[i] = x < columns.end ? dropout.keep_bits(query, i % plan.draws) : 0;
  }
}

}  // namespace ultron
