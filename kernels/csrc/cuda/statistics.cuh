// Backward: lse and delta = sum(grad_out * out) of each query, stationary or moving; and the dropout bits of moving queries.
#pragma once
#include "cuda/philox.cuh"
#include "cuda/strips.cuh"

namespace ultron {

// lse (in base 2) and delta of the warp's 16 queries, to the lanes that hold their rows; delta also to the workspace, for the other pass.
template <typename T, int D>
__device__ __forceinline__ void query_statistics(float (&lse)[2], float (&delta)[2], const ScalaBackward& backward, const Plan& plan, float* delta_map,
                                                 const Block& block, const Patch<false>& patch, const char* grad_out, const T* out) {
  using P = Pieces<T, D>;
  const ScalaShape& shape = backward.shape;
  // Two lanes for a query.
  const int row = patch.lane / 2, y = patch.y + row / TILE_COLUMNS, x = block.x + row % TILE_COLUMNS;
  const bool inside = is_inside(shape, y, x);
  const uint64_t first = first_number(plan, block);
  float sum = 0.0f;
#pragma unroll
  for (int piece = patch.lane % 2; piece < P::COUNT; piece += 2) {
    if (!inside || piece * P::NUMBERS >= static_cast<int>(shape.head_dim)) continue;
    const uint4 a = *reinterpret_cast<const uint4*>(grad_out + row * P::ROW_BYTES + (piece ^ P::exchange(row)) * 16);
    const uint4 b = *reinterpret_cast<const uint4*>(out + (offset_in(backward.out, y, x) + piece * P::NUMBERS));
    sum += dot_pair<T>(a.x, b.x) + dot_pair<T>(a.y, b.y) + dot_pair<T>(a.z, b.z) + dot_pair<T>(a.w, b.w);
  }
  sum += __shfl_xor_sync(ALL_LANES, sum, 1);
  // All that lanes exchange comes before what only some of them do: else the compiler copies the exchange into both branches.
  delta[0] = __shfl_sync(ALL_LANES, sum, 2 * patch.group);
  delta[1] = __shfl_sync(ALL_LANES, sum, 2 * (patch.group + 8));
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    lse[r] = 0.0f;
    if (is_inside(shape, patch.y + r, patch.x)) {
      lse[r] = static_cast<const float*>(backward.lse)[first + number_in(shape, block, patch.y + r, patch.x)] * LOG2_E;
    }
  }
  if (inside && patch.lane % 2 == 0) delta_map[first + number_in(shape, block, y, x)] = sum;
}

// lse (in base 2) and delta of a chunk of moving queries; zeros in the padding, where scores are -inf.
__device__ __forceinline__ void load_statistics(float* lse, float* delta, const ScalaBackward& backward, const Plan& plan, const float* delta_map,
                                                const Block& block, int row, int n_rows, Span columns, int row_positions) {
  const ScalaShape& shape = backward.shape;
  const uint64_t first = first_number(plan, block);
  for (int i = threadIdx.x; i < n_rows * row_positions; i += blockDim.x) {
    const int y = row + i / row_positions, x = columns.begin + i % row_positions;
    const bool live = x < columns.end;
    const uint64_t query = first + (live ? number_in(shape, block, y, x) : 0u);
    lse[i] = live ? static_cast<const float*>(backward.lse)[query] * LOG2_E : 0.0f;
    delta[i] = live ? delta_map[query] : 0.0f;
  }
}

// Keep bits of a chunk of moving queries, plan.draws bytes each.
__device__ __forceinline__ void draw_chunk(uint8_t* bits, const Dropout& dropout, const ScalaShape& shape, const Plan& plan, const Block& block,
                                           int row, int n_rows, Span columns, int row_positions) {
  for (int i = threadIdx.x; i < n_rows * row_positions * plan.draws; i += blockDim.x) {
    const int position = i / plan.draws, y = row + position / row_positions, x = columns.begin + position % row_positions;
    bits[i] = x < columns.end ? dropout.keep_bits(first_number(plan, block) + number_in(shape, block, y, x), i % plan.draws) : 0;
  }
}

}  // namespace ultron
