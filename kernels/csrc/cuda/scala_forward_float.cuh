// Forward in float32, on plain multiply-adds: four lanes share a query, each with a quarter of the head dim, and a warp walks with 8 queries
// of a row (or of two rows) over the offsets key - query that any of them sees, so that its lanes read consecutive keys.
#pragma once
#include "cuda/offsets.cuh"
#include "cuda/plan.cuh"

namespace ultron {

template <int D>
struct ForwardFloat {
  static constexpr int ROWS = D <= 64 ? 2 : 1;  // queries per lane
  static constexpr int MAX_WARPS = D <= 64 ? 8 : 4;
};

constexpr int STEP_KEYS = 4;  // scores held at once

template <int D>
__global__ void __launch_bounds__(32 * ForwardFloat<D>::MAX_WARPS)
    scala_forward_float(const __grid_constant__ ScalaForward forward, const __grid_constant__ Plan plan) {
  constexpr int ROWS = ForwardFloat<D>::ROWS;
  const ScalaShape& shape = forward.shape;
  const Block block = find_block(shape, plan);
  const Line<false, ROWS> line(shape, block);
  const int warp = threadIdx.x / 32, dim = static_cast<int>(shape.head_dim), window_width = static_cast<int>(shape.window_width);
  char* memory = shared_memory();
  float* table = reinterpret_cast<float*>(memory + plan.table);
  uint8_t* bits = reinterpret_cast<uint8_t*>(memory + plan.dropout) + warp * ROWS * TILE_COLUMNS * plan.draws;
  const auto element = [&](const Map& map) { return sample_of<float>(map, block); };

  const Moving<float> moving{{element(forward.key), element(forward.value)}, {&forward.key, &forward.value}};
  const Span halo_rows = reach<false>(row_axis(shape), block.y, block.y + plan.tile_rows - 1);
  const Span halo_columns = reach<false>(column_axis(shape), block.x, block.x + TILE_COLUMNS - 1);
  const bool drops = plan.draws > 0;
  const float factor = plan.scale * LOG2_E;

  Quarter<D> query[ROWS], result[ROWS];
  float highest[ROWS], total[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    query[r].read_global(element(forward.query), forward.query, shape, line, r);
    query[r].scale_by(plan.keep == 0 ? 0.0f : plan.sign != 0 ? -1.0f : 1.0f);
    result[r].clear();
    highest[r] = -INFINITY;
    total[r] = 0.0f;
  }

  for (int first_row = halo_rows.begin; first_row < halo_rows.end; first_row += plan.chunk_rows) {
    const int end_row = smaller(first_row + plan.chunk_rows, halo_rows.end);
    const bool is_first = first_row == halo_rows.begin;
    if (!is_first) __syncthreads();
    load_chunk<float, D>(memory, plan, moving, dim, first_row, end_row - first_row, halo_columns);
    if (is_first) {
      load_table<float>(table, forward.bias, shape, plan, block.head);
      if (drops) draw_line(bits, Dropout(shape, plan.threshold), shape, plan, block, line);
    }
    copy_async_wait();
    __syncthreads();

    const int begin = larger(first_row, line.all_rows.begin), end = smaller(end_row, line.all_rows.end);
    for (int row = begin; row < end; ++row) {
      const int first_position = (row - first_row) * plan.strips * STRIP_COLUMNS - halo_columns.begin;
      for (int step = line.offsets.begin; step < line.offsets.end; step += STEP_KEYS) {
        float scores[STEP_KEYS][ROWS];
        int columns[STEP_KEYS];
#pragma unroll
        for (int i = 0; i < STEP_KEYS; ++i) {
          const bool seen = step + i < line.offsets.end && contains(line.columns, line.x + step + i);
          columns[i] = seen ? line.x + step + i : halo_columns.begin;  // any that lies in the chunk
          Quarter<D> key;
          key.read_shared(memory + plan.moving[0], first_position + columns[i], columns[i] - halo_columns.begin, line.quad);
#pragma unroll
          for (int r = 0; r < ROWS; ++r) {
            const float start = line.table_entry(table, shape, r, row, step + i, seen);
            scores[i][r] = sum_over_quad(query[r].dot(key)) + start;
          }
        }
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
          float new_highest = highest[r];
#pragma unroll
          for (int i = 0; i < STEP_KEYS; ++i) new_highest = fmaxf(new_highest, scores[i][r]);
          const float shift = new_highest == -INFINITY ? 0.0f : new_highest * factor;
          const float shrink = exp2_fast(highest[r] * factor - shift);
          highest[r] = new_highest;
          total[r] *= shrink;
          result[r].scale_by(shrink);
#pragma unroll
          for (int i = 0; i < STEP_KEYS; ++i) {
            scores[i][r] = exp2_fast(scores[i][r] * factor - shift);
            total[r] += scores[i][r];
            if (drops && scores[i][r] > 0.0f) {  // only a key that is seen has a number
              const int number = (row - line.rows[r].begin) * window_width + columns[i] - line.columns.begin;
              if (!is_kept(bits + (r * TILE_COLUMNS + line.group) * plan.draws, number)) scores[i][r] = 0.0f;
            }
          }
        }
#pragma unroll
        for (int i = 0; i < STEP_KEYS; ++i) {
          Quarter<D> value;
          value.read_shared(memory + plan.moving[1], first_position + columns[i], columns[i] - halo_columns.begin, line.quad);
#pragma unroll
          for (int r = 0; r < ROWS; ++r) result[r].add(scores[i][r], value);
        }
      }
    }
  }

#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    result[r].scale_by(plan.keep_scale / total[r]);
    result[r].write_global(element(forward.out), forward.out, shape, line, r);
    if (line.quad == 0 && line.is_inside(shape, r)) {
      static_cast<float*>(forward.lse)[line.position(shape, plan, block, r)] = highest[r] * plan.scale + log2_fast(total[r]) * LN_2;
    }
  }
}

template <int D>
const char* launch_forward_float(const ScalaForward& forward, void* stream) {
  const Plan plan = make_plan<false>(forward.shape, {ForwardFloat<D>::ROWS, ForwardFloat<D>::MAX_WARPS, D * 4, 0, false, 1});
  if (const char* problem = refuse(plan)) return problem;
  return launch(scala_forward_float<D>, dim3(static_cast<unsigned>(plan.blocks)), 32 * plan.warps, plan.shared_bytes, stream, forward, plan);
}

}  // namespace ultron
