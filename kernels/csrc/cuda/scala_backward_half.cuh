// Backward in float16 and bfloat16, on tensor cores, in two passes of one kernel; both compute the probabilities anew from lse.
//   queries stationary: delta = sum(grad_out * out), grad_query, partial sums of grad_bias;
//   keys stationary:    grad_key and grad_value, gathered over the queries that see a key, so that nothing is added across warps.
// With P the probabilities, M the dropout factors (0 or 1 / (1 - p)), dO = grad_out:
//   dS = P (M (dO . value) - delta);  grad_query = scale dS key;  grad_key = scale dS^T query;  grad_value = (M P)^T dO.
#pragma once
#include "cuda/bias_gradient.cuh"
#include "cuda/plan.cuh"
#include "cuda/statistics.cuh"
#include "cuda/strips.cuh"

namespace ultron {

template <int D>
struct BackwardHalf {
  static constexpr int MAX_WARPS = D <= 32 ? 8 : 4;
  static constexpr bool KEPT = D <= 64;
};

template <typename T, int D, bool KEYS, bool DROPS>
__global__ void __launch_bounds__(32 * BackwardHalf<D>::MAX_WARPS, 2)
    scala_backward_half(const __grid_constant__ ScalaBackward backward, const __grid_constant__ Plan plan, float* delta_map, float* partial_sums) {
  using P = Pieces<T, D>;
  const ScalaShape& shape = backward.shape;
  Block block = find_block(shape, plan);
  const Patch<KEYS> patch(shape, block);
  const int warp = threadIdx.x / 32, dim = static_cast<int>(shape.head_dim);
  char* memory = shared_memory();
  char* stationary = memory + plan.stationary + warp * 2 * PATCH * P::ROW_BYTES;
  char* stationary_gradient = stationary + PATCH * P::ROW_BYTES;
  float* table = reinterpret_cast<float*>(memory + plan.table);
  uint8_t* bits = reinterpret_cast<uint8_t*>(memory + plan.dropout) + (KEYS ? 0 : warp * PATCH * plan.draws);
  float* moving_lse = reinterpret_cast<float*>(memory + plan.statistics);
  float* moving_delta = moving_lse + plan.chunk_rows * plan.strips * STRIP_COLUMNS;
  const auto element = [&](const Map& map) { return sample_of<T>(map, block); };
  // The operands of the scores and of dO . value: stationary, and moving.
  const Map& fixed_0 = KEYS ? backward.key : backward.query;
  const Map& fixed_1 = KEYS ? backward.value : backward.grad_out;
  const Map& moving_0 = KEYS ? backward.query : backward.key;
  const Map& moving_1 = KEYS ? backward.grad_out : backward.value;

  const MatrixLane<T, D> lane(patch.lane);
  const uint32_t chunks[2] = {shared_address(memory + plan.moving[0]), shared_address(memory + plan.moving[1])};
  const Span halo_rows = reach<KEYS>(row_axis(shape), block.y, block.y + plan.tile_rows - 1);
  const Span halo_columns = reach<KEYS>(column_axis(shape), block.x, block.x + TILE_COLUMNS - 1);
  const bool wants_grad_bias = !KEYS && backward.grad_bias != nullptr;
  const float factor = plan.scale * LOG2_E;

  DiagonalSums diagonals(memory + plan.bias_gradient, shape, warp, patch.lane);
  if (wants_grad_bias) diagonals.clear();
  StripColumns<KEYS> columns(table, patch, shape, halo_columns.begin, DROPS);
  bool is_fresh = true;  // nothing is in shared memory yet

  for (; block.sample < block.sample_end; ++block.sample) {
    __syncwarp();  // the last sample's results have left the warp's memory
    load_patch<T, D>(stationary, element(fixed_0), fixed_0, shape, patch, block.x);
    load_patch<T, D>(stationary_gradient, element(fixed_1), fixed_1, shape, patch, block.x);
    Stationary<T, D, BackwardHalf<D>::KEPT> left(stationary, plan.keep, plan.sign);
    Stationary<T, D, BackwardHalf<D>::KEPT> left_gradient(stationary_gradient, 0xffffffffu, 0u);
    float result[D / 8][4] = {}, value_result[KEYS ? D / 8 : 1][4] = {};
    float lse[2] = {0.0f, 0.0f}, delta[2] = {0.0f, 0.0f};  // of stationary queries; lse in base 2

    const Moving<T> moving{{element(moving_0), element(moving_1)}, {&moving_0, &moving_1}};
    for (int first_row = halo_rows.begin; first_row < halo_rows.end; first_row += plan.chunk_rows) {
      const int end_row = smaller(first_row + plan.chunk_rows, halo_rows.end);
      if (!is_fresh) __syncthreads();  // the last chunk has been read
      load_chunk<T, D>(memory, plan, moving, dim, first_row, end_row - first_row, halo_columns);
      if (is_fresh) load_table<T>(table, backward.bias, shape, plan, block.head);  // while the copies are under way
      is_fresh = false;
      if constexpr (KEYS) {
        const int row_positions = plan.strips * STRIP_COLUMNS;
        load_statistics(moving_lse, moving_delta, backward, plan, delta_map, block, first_row, end_row - first_row, halo_columns, row_positions);
        if (DROPS) draw_chunk(bits, Dropout(shape, plan.threshold), shape, plan, block, first_row, end_row - first_row, halo_columns, row_positions);
      } else if (DROPS && first_row == halo_rows.begin) {
        draw_patch(bits, Dropout(shape, plan.threshold), shape, plan, block, patch);
      }
      copy_async_wait();
      __syncthreads();
      if (first_row == halo_rows.begin) {
        left.open(lane);
        left_gradient.open(lane);
        if constexpr (!KEYS) query_statistics<T, D>(lse, delta, backward, plan, delta_map, block, patch, stationary_gradient, element(backward.out));
      }

      const int begin = larger(first_row, patch.all_rows.begin), end = smaller(end_row, patch.all_rows.end);
      for (int strip = 0; strip < plan.strips; ++strip) {
        const int first_column = halo_columns.begin + strip * STRIP_COLUMNS;
        // With a long head dim no register is left to keep them.
        if (plan.strips > 1 || D > 64) columns = StripColumns<KEYS>(table, patch, shape, first_column, DROPS);
        if (wants_grad_bias) diagonals.open(first_column - block.x);
        for (int row = begin; row < end; ++row) {
          const int position = ((row - first_row) * plan.strips + strip) * STRIP_COLUMNS;
          const uint32_t right = chunks[0] + position * P::ROW_BYTES, right_gradient = chunks[1] + position * P::ROW_BYTES;
          float weights[2][4], gradients[2][4] = {};
          start_scores(weights, patch, columns, table_row(patch, shape, row), row, 0);
          left.multiply(weights, right, lane);
          left_gradient.multiply(gradients, right_gradient, lane);
#pragma unroll
          for (int j = 0; j < 8; ++j) {
            const int r = j / 2 % 2, n = j / 4 * 2 + j % 2, column = j / 4 * 8 + patch.quad * 2 + j % 2;
            float& weight = weights[j / 4][j % 4];
            float& gradient = gradients[j / 4][j % 4];
            weight = exp2_fast(weight * factor - (KEYS ? moving_lse[position + column] : lse[r]));
            float dropped = weight;
            if (DROPS) {
              const int window_row = contains(patch.rows[r], row) ? (KEYS ? patch.y + r - window_begin(row_axis(shape), row) : row - patch.rows[r].begin) : 0;
              const int number = window_row * static_cast<int>(shape.window_width) + columns.in_window[n];
              const uint8_t* query_bits = bits + (KEYS ? position + column : patch.group + 8 * r) * plan.draws;
              const float kept = is_kept(query_bits, number) ? plan.keep_scale : 0.0f;
              gradient *= kept;
              dropped *= kept;
            }
            gradient = weight * (gradient - (KEYS ? moving_delta[position + column] : delta[r]));
            weight = dropped;
          }
          accumulate<T, D>(result, gradients, right, lane);
          if constexpr (KEYS) {
            accumulate<T, D>(value_result, weights, right_gradient, lane);
          } else if (wants_grad_bias) {
            diagonals.add(gradients, row - patch.y - 1);
          }
        }
        if (wants_grad_bias && begin < end) diagonals.finish(end - patch.y - 1);
      }
    }

    const float scale = static_cast<float>(shape.scale);
    const Map& gradient_map = KEYS ? backward.grad_key : backward.grad_query;
    store_patch<T, D>(stationary, element(gradient_map), gradient_map, shape, patch, block.x, result, scale, scale);
    if constexpr (KEYS) {
      store_patch<T, D>(stationary_gradient, element(backward.grad_value), backward.grad_value, shape, patch, block.x, value_result, 1.0f, 1.0f);
    }
  }

  if (wants_grad_bias) {
    __syncthreads();
    write_partial_sums(partial_sums, memory + plan.bias_gradient, shape, plan, block);
  }
}

template <typename T, int D, bool KEYS>
const char* launch_backward_half(const ScalaBackward& backward, void* stream) {
  const bool wants_grad_bias = !KEYS && backward.grad_bias != nullptr;
  const Workspace workspace(backward.shape, backward.workspace);
  constexpr int WARPS = BackwardHalf<D>::MAX_WARPS;
  const int samples = samples_per_block(backward.shape, WARPS * PATCH_ROWS);
  const Plan plan = make_plan<KEYS>(backward.shape, {PATCH_ROWS, WARPS, D * 2, 2 * PATCH * D * 2, wants_grad_bias, samples});
  if (const char* problem = refuse(plan)) return problem;
  const auto kernel = plan.draws > 0 ? scala_backward_half<T, D, KEYS, true> : scala_backward_half<T, D, KEYS, false>;
  const char* problem = launch(kernel, dim3(static_cast<unsigned>(plan.blocks)), 32 * plan.warps, plan.shared_bytes, stream,
                               backward, plan, workspace.delta, workspace.partial_sums);
  if (problem == nullptr && wants_grad_bias) problem = launch_bias_gradient<T>(backward, plan, workspace.partial_sums, stream);
  return problem;
}

}  // namespace ultron
