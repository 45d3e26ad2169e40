// Backward in float32, on plain multiply-adds: the two passes of scala_backward_half.cuh, with the lanes of scala_forward_float.cuh.
#pragma once
#include "cuda/bias_gradient.cuh"
#include "cuda/offsets.cuh"
#include "cuda/plan.cuh"
#include "cuda/statistics.cuh"

namespace ultron {

template <int D>
struct BackwardFloat {
  static constexpr int MAX_WARPS = D <= 64 ? 8 : 4;
};

template <int D, bool KEYS>
__global__ void __launch_bounds__(32 * BackwardFloat<D>::MAX_WARPS)
    scala_backward_float(const __grid_constant__ ScalaBackward backward, const __grid_constant__ Plan plan, float* delta_map, float* partial_sums) {
  const ScalaShape& shape = backward.shape;
  Block block = find_block(shape, plan);
  const Line<KEYS, 1> line(shape, block);
  const int warp = threadIdx.x / 32, dim = static_cast<int>(shape.head_dim), row_positions = plan.strips * STRIP_COLUMNS;
  char* memory = shared_memory();
  float* table = reinterpret_cast<float*>(memory + plan.table);
  uint8_t* bits = reinterpret_cast<uint8_t*>(memory + plan.dropout) + (KEYS ? 0 : warp * TILE_COLUMNS * plan.draws);
  float* moving_lse = reinterpret_cast<float*>(memory + plan.statistics);
  float* moving_delta = moving_lse + plan.chunk_rows * row_positions;
  const auto element = [&](const Map& map) { return sample_of<float>(map, block); };
  const Map& fixed_0 = KEYS ? backward.key : backward.query;
  const Map& fixed_1 = KEYS ? backward.value : backward.grad_out;
  const Map& moving_0 = KEYS ? backward.query : backward.key;
  const Map& moving_1 = KEYS ? backward.grad_out : backward.value;

  const Span halo_rows = reach<KEYS>(row_axis(shape), block.y, block.y + plan.tile_rows - 1);
  const Span halo_columns = reach<KEYS>(column_axis(shape), block.x, block.x + TILE_COLUMNS - 1);
  const bool drops = plan.draws > 0, wants_grad_bias = !KEYS && backward.grad_bias != nullptr;
  const float factor = plan.scale * LOG2_E;

  DiagonalSums offset_sums(memory + plan.bias_gradient, shape, warp, line.lane);
  if (wants_grad_bias) offset_sums.clear();
  bool is_fresh = true;  // nothing is in shared memory yet

  for (; block.sample < block.sample_end; ++block.sample) {
    Quarter<D> left, left_gradient, result, value_result;
    left.read_global(element(fixed_0), fixed_0, shape, line, 0);
    left.scale_by(plan.keep == 0 ? 0.0f : plan.sign != 0 ? -1.0f : 1.0f);
    left_gradient.read_global(element(fixed_1), fixed_1, shape, line, 0);
    result.clear();
    value_result.clear();
    float lse = 0.0f, delta = 0.0f;
    if (!KEYS) {
      Quarter<D> out;
      out.read_global(element(backward.out), backward.out, shape, line, 0);
      delta = sum_over_quad(left_gradient.dot(out));
      if (line.is_inside(shape, 0)) {
        lse = static_cast<const float*>(backward.lse)[line.position(shape, plan, block, 0)] * LOG2_E;
        if (line.quad == 0) delta_map[line.position(shape, plan, block, 0)] = delta;
      }
    }

    const Moving<float> moving{{element(moving_0), element(moving_1)}, {&moving_0, &moving_1}};
    for (int first_row = halo_rows.begin; first_row < halo_rows.end; first_row += plan.chunk_rows) {
      const int end_row = smaller(first_row + plan.chunk_rows, halo_rows.end);
      if (!is_fresh) __syncthreads();  // the last chunk has been read
      load_chunk<float, D>(memory, plan, moving, dim, first_row, end_row - first_row, halo_columns);
      if (is_fresh) load_table<float>(table, backward.bias, shape, plan, block.head);  // while the copies are under way
      is_fresh = false;
      if constexpr (KEYS) {
        load_statistics(moving_lse, moving_delta, backward, plan, delta_map, block, first_row, end_row - first_row, halo_columns, row_positions);
        if (drops) draw_chunk(bits, Dropout(shape, plan.threshold), shape, plan, block, first_row, end_row - first_row, halo_columns, row_positions);
      } else if (drops && first_row == halo_rows.begin) {
        draw_line(bits, Dropout(shape, plan.threshold), shape, plan, block, line);
      }
      copy_async_wait();
      __syncthreads();

      const int begin = larger(first_row, line.all_rows.begin), end = smaller(end_row, line.all_rows.end);
      for (int row = begin; row < end; ++row) {
        for (int offset = line.offsets.begin; offset < line.offsets.end; ++offset) {
          const bool seen = contains(line.columns, line.x + offset);
          const int column = seen ? line.x + offset - halo_columns.begin : 0;  // 0: any that lies in the chunk
          const int position = (row - first_row) * row_positions + column;
          Quarter<D> right, right_gradient;
          right.read_shared(memory + plan.moving[0], position, column, line.quad);
          right_gradient.read_shared(memory + plan.moving[1], position, column, line.quad);
          const float score = sum_over_quad(left.dot(right)) + line.table_entry(table, shape, 0, row, offset, seen);
          float gradient = sum_over_quad(left_gradient.dot(right_gradient));
          const float weight = exp2_fast(score * factor - (KEYS ? moving_lse[position] : lse));
          float dropped = weight;
          if (drops && seen) {
            const int query_y = KEYS ? row : line.y, key_y = KEYS ? line.y : row, query_x = KEYS ? line.x + offset : line.x;
            const int key_x = KEYS ? line.x : line.x + offset;
            const int number = (key_y - window_begin(row_axis(shape), query_y)) * static_cast<int>(shape.window_width) + key_x -
                               window_begin(column_axis(shape), query_x);
            const float kept = is_kept(bits + (KEYS ? position : line.group) * plan.draws, number) ? plan.keep_scale : 0.0f;
            gradient *= kept;
            dropped *= kept;
          }
          gradient = weight * (gradient - (KEYS ? moving_delta[position] : delta));
          result.add(gradient, right);
          if constexpr (KEYS) {
            value_result.add(dropped, right_gradient);
          } else if (wants_grad_bias) {
            // All 8 queries have the same offset.
            offset_sums.add_over_groups(gradient, row - line.y, offset);
          }
        }
      }
    }

    result.scale_by(static_cast<float>(shape.scale));
    if constexpr (KEYS) {
      result.write_global(element(backward.grad_key), backward.grad_key, shape, line, 0);
      value_result.write_global(element(backward.grad_value), backward.grad_value, shape, line, 0);
    } else {
      result.write_global(element(backward.grad_query), backward.grad_query, shape, line, 0);
    }
  }

  if (wants_grad_bias) {
    __syncthreads();
    write_partial_sums(partial_sums, memory + plan.bias_gradient, shape, plan, block);
  }
}

template <int D, bool KEYS>
const char* launch_backward_float(const ScalaBackward& backward, void* stream) {
  const bool wants_grad_bias = !KEYS && backward.grad_bias != nullptr;
  const Workspace workspace(backward.shape, backward.workspace);
  const int samples = samples_per_block(backward.shape, BackwardFloat<D>::MAX_WARPS);
  const Plan plan = make_plan<KEYS>(backward.shape, {1, BackwardFloat<D>::MAX_WARPS, D * 4, 0, wants_grad_bias, samples});
  if (const char* problem = refuse(plan)) return problem;
  const char* problem = launch(scala_backward_float<D, KEYS>, dim3(static_cast<unsigned>(plan.blocks)), 32 * plan.warps, plan.shared_bytes, stream,
                               backward, plan, workspace.delta, workspace.partial_sums);
  if (problem == nullptr && wants_grad_bias) problem = launch_bias_gradient<float>(backward, plan, workspace.partial_sums, stream);
  return problem;
}

}  // namespace ultron
