// Forward in float16 and bfloat16: both products on tensor cores, over the dense block of a warp's 16 queries and strips of 16 keys, with
// -inf where a query does not see a key. A warp visits only the rows that its own queries see: with k 7, 49 of 128 scores are used.
#pragma once
#include <type_traits>

#include "cuda/plan.cuh"
#include "cuda/strips.cuh"

namespace ultron {

constexpr int STEP_STRIPS = 4;  // scores held at once: the running maximum is updated once for 64 keys

template <int D>
struct ForwardHalf {
  static constexpr int MAX_WARPS = D <= 32 ? 8 : 4;  // what registers allow, two blocks to a multiprocessor
  static constexpr bool KEPT = D <= 64;
};

template <typename T, int D, bool DROPS>
__global__ void __launch_bounds__(32 * ForwardHalf<D>::MAX_WARPS, 2)
    scala_forward_half(const __grid_constant__ ScalaForward forward, const __grid_constant__ Plan plan) {
  using P = Pieces<T, D>;
  const ScalaShape& shape = forward.shape;
  Block block = find_block(shape, plan);
  const Patch<false> patch(shape, block);
  const int warp = threadIdx.x / 32;
  char* memory = shared_memory();
  char* stationary = memory + plan.stationary + warp * PATCH * P::ROW_BYTES;
  float* table = reinterpret_cast<float*>(memory + plan.table);
  uint8_t* bits = reinterpret_cast<uint8_t*>(memory + plan.dropout) + warp * PATCH * plan.draws;
  const auto element = [&](const Map& map) { return sample_of<T>(map, block); };

  const MatrixLane<T, D> lane(patch.lane);
  const uint32_t keys = shared_address(memory + plan.moving[0]), values = shared_address(memory + plan.moving[1]);
  const Span halo_rows = reach<false>(row_axis(shape), block.y, block.y + plan.tile_rows - 1);
  const Span halo_columns = reach<false>(column_axis(shape), block.x, block.x + TILE_COLUMNS - 1);
  const int dim = static_cast<int>(shape.head_dim);
  const float factor = plan.scale * LOG2_E;

  StripColumns<false> columns(table, patch, shape, halo_columns.begin, DROPS);
  bool is_fresh = true;  // nothing is in shared memory yet
  for (; block.sample < block.sample_end; ++block.sample) {
    __syncwarp();  // the last sample's results have left the warp's memory
    load_patch<T, D>(stationary, element(forward.query), forward.query, shape, patch, block.x);
    Stationary<T, D, ForwardHalf<D>::KEPT> query(stationary, plan.keep, plan.sign);
    float result[D / 8][4] = {};
    const Moving<T> moving{{element(forward.key), element(forward.value)}, {&forward.key, &forward.value}};
    float highest[2] = {-INFINITY, -INFINITY}, total[2] = {0.0f, 0.0f};

    for (int first_row = halo_rows.begin; first_row < halo_rows.end; first_row += plan.chunk_rows) {
      const int end_row = smaller(first_row + plan.chunk_rows, halo_rows.end);
      const bool is_first = first_row == halo_rows.begin;
      if (!is_fresh) __syncthreads();  // the last chunk has been read
      load_chunk<T, D>(memory, plan, moving, dim, first_row, end_row - first_row, halo_columns);
      if (is_fresh) load_table<T>(table, forward.bias, shape, plan, block.head);  // while the copies are under way
      is_fresh = false;
      if (DROPS && is_first) draw_patch(bits, Dropout(shape, plan.threshold), shape, plan, block, patch);
      copy_async_wait();
      __syncthreads();
      if (is_first) query.open(lane);

      const int begin = larger(first_row, patch.all_rows.begin), end = smaller(end_row, patch.all_rows.end);
      for (int strip = 0; strip < plan.strips; ++strip) {
        if (plan.strips > 1) columns = StripColumns<false>(table, patch, shape, halo_columns.begin + strip * STRIP_COLUMNS, DROPS);
        // Without branches in it, the work on the strips of a whole step overlaps.
        const auto step = [&](auto is_whole, int row) {
          constexpr bool WHOLE = decltype(is_whole)::value;
          const int row_bytes = plan.strips * STRIP_COLUMNS * P::ROW_BYTES, offset = (row - first_row) * row_bytes + strip * STRIP_COLUMNS * P::ROW_BYTES;
          const int row_in_table = table_row(patch, shape, row);
          float scores[STEP_STRIPS][2][4];
          float new_highest[2] = {highest[0], highest[1]};
#pragma unroll
          for (int i = 0; i < STEP_STRIPS; ++i) {
            if (WHOLE || row + i < end) {  // the same for the whole warp
              if (WHOLE) {
                read_table(scores[i], columns, row_in_table, i);
                // The two query rows differ in the first and last key rows, which can only be the first and last of a step.
                if (i == 0 && row < patch.rows[1].begin) hide_row(scores[i], 1);
                if (i == STEP_STRIPS - 1 && row + i >= patch.rows[0].end) hide_row(scores[i], 0);
              } else {
                start_scores(scores[i], patch, columns, row_in_table, row, i);
              }
              query.multiply(scores[i], keys + offset + i * row_bytes, lane);
            } else {
#pragma unroll
              for (int j = 0; j < 8; ++j) scores[i][j / 4][j % 4] = -INFINITY;
            }
#pragma unroll
            for (int j = 0; j < 8; ++j) new_highest[j / 2 % 2] = fmaxf(new_highest[j / 2 % 2], scores[i][j / 4][j % 4]);
          }

          float shift[2];
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            new_highest[r] = max_over_quad(new_highest[r]);
            shift[r] = new_highest[r] == -INFINITY ? 0.0f : new_highest[r] * factor;  // nothing seen so far: no inf - inf
            const float shrink = exp2_fast(highest[r] * factor - shift[r]);
            highest[r] = new_highest[r];
            total[r] *= shrink;
#pragma unroll
            for (int n = 0; n < D / 8; ++n) {
              result[n][2 * r] *= shrink;
              result[n][2 * r + 1] *= shrink;
            }
          }
#pragma unroll
          for (int i = 0; i < STEP_STRIPS; ++i) {
            if (WHOLE || row + i < end) {
#pragma unroll
              for (int j = 0; j < 8; ++j) {
                float& score = scores[i][j / 4][j % 4];
                score = exp2_fast(score * factor - shift[j / 2 % 2]);
                total[j / 2 % 2] += score;
              }
              if (DROPS) {
#pragma unroll
                for (int j = 0; j < 8; ++j) {
                  const int r = j / 2 % 2, window_row = contains(patch.rows[r], row + i) ? row + i - patch.rows[r].begin : 0;
                  const int number = window_row * static_cast<int>(shape.window_width) + columns.in_window[j / 4 * 2 + j % 2];
                  if (!is_kept(bits + (patch.group + 8 * r) * plan.draws, number)) scores[i][j / 4][j % 4] = 0.0f;
                }
              }
              accumulate<T, D>(result, scores[i], values + offset + i * row_bytes, lane);
            }
          }
        };
        int row = begin;
        for (; row + STEP_STRIPS <= end; row += STEP_STRIPS) step(std::true_type(), row);
        if (row < end) step(std::false_type(), row);
      }
    }

    // All that lanes exchange comes before what only some of them write: else the compiler copies the exchange into both branches.
    total[0] = sum_over_quad(total[0]);
    total[1] = sum_over_quad(total[1]);
    const float upper = divide_fast(plan.keep_scale, total[0]), lower = divide_fast(plan.keep_scale, total[1]);
    store_patch<T, D>(stationary, element(forward.out), forward.out, shape, patch, block.x, result, upper, lower);
    // The first lane of a quad writes the upper row, the second the lower.
    const int r = patch.quad % 2;
    if (patch.quad < 2 && is_inside(shape, patch.y + r, patch.x)) {
      static_cast<float*>(forward.lse)[first_number(plan, block) + number_in(shape, block, patch.y + r, patch.x)] =
          (r == 0 ? highest[0] : highest[1]) * plan.scale + log2_fast(r == 0 ? total[0] : total[1]) * LN_2;
    }
  }
}

template <typename T, int D>
const char* launch_forward_half(const ScalaForward& forward, void* stream) {
  constexpr int WARPS = ForwardHalf<D>::MAX_WARPS;
  const Plan plan = make_plan<false>(forward.shape, {PATCH_ROWS, WARPS, D * 2, PATCH * D * 2, false, samples_per_block(forward.shape, WARPS * PATCH_ROWS)});
  if (const char* problem = refuse(plan)) return problem;
  const auto kernel = plan.draws > 0 ? scala_forward_half<T, D, true> : scala_forward_half<T, D, false>;
  return launch(kernel, dim3(static_cast<unsigned>(plan.blocks)), 32 * plan.warps, plan.shared_bytes, stream, forward, plan);
}

}  // namespace ultron
