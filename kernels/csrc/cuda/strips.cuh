// What the tensor-core kernels share: a warp holds 2 rows x 8 columns of stationary positions as the 16 rows of its matrix fragments
// (row g of a fragment is column g of the upper row, row g + 8 of the lower), and walks over strips of 16 moving positions.
#pragma once
#include "cuda/philox.cuh"
#include "cuda/tiles.cuh"

namespace ultron {

constexpr int PATCH_ROWS = 2;
constexpr int PATCH = PATCH_ROWS * TILE_COLUMNS;

template <bool KEYS>
struct Patch {
  int lane, group, quad;      // lane = 4 group + quad
  int y, x;                   // of the lane's upper position; the lower is at y + 1
  Span rows[2], columns, all_rows, seen_by_both;

  __device__ __forceinline__ Patch(const ScalaShape& shape, const Block& block) {
    const Axis row = row_axis(shape), column = column_axis(shape);
    lane = threadIdx.x % 32;
    group = lane / 4;
    quad = lane % 4;
    y = block.y + static_cast<int>(threadIdx.x / 32) * PATCH_ROWS;
    x = block.x + group;
    rows[0] = reach<KEYS>(row, y, y);
    rows[1] = reach<KEYS>(row, y + 1, y + 1);
    all_rows = reach<KEYS>(row, y, y + 1);
    seen_by_both = {larger(rows[0].begin, rows[1].begin), smaller(rows[0].end, rows[1].end)};
    columns = reach<KEYS>(column, x, x);  // empty outside the map: all scores are then -inf
  }
};

// The lane's four columns of a strip: number 2 n + i is column 8 n + 2 quad + i.
template <bool KEYS>
struct StripColumns {
  const float* entries[4];  // of the table: in the row of offset -(k - 1); in the column of -inf if not seen
  int in_window[4];         // dropout: the key's column minus the query's first; 0 if not seen

  __device__ __forceinline__ StripColumns(const float* table, const Patch<KEYS>& patch, const ScalaShape& shape, int first, bool drops) {
    const int kernel_size = static_cast<int>(shape.kernel_size);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int moving = first + (j / 2) * 8 + patch.quad * 2 + j % 2;
      const bool seen = contains(patch.columns, moving);
      const int key = KEYS ? patch.x : moving, query = KEYS ? moving : patch.x;
      entries[j] = table + TABLE_STRIDE + (seen ? key - query + kernel_size - 1 : 2 * kernel_size - 1);
      in_window[j] = seen && drops ? key - window_begin(column_axis(shape), query) : 0;
    }
  }
};

template <bool KEYS>
__device__ __forceinline__ void read_table(float (&scores)[2][4], const StripColumns<KEYS>& columns, int table_row, int i) {
  constexpr int NEXT_MOVING = KEYS ? -TABLE_STRIDE : TABLE_STRIDE;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const float* entry = columns.entries[j] + table_row;
    scores[j / 2][j % 2] = entry[i * NEXT_MOVING];
    scores[j / 2][2 + j % 2] = entry[(i - 1) * NEXT_MOVING];
  }
}

// The moving row is not seen by the upper (r = 0) or lower stationary row.
__device__ __forceinline__ void hide_row(float (&scores)[2][4], int r) {
#pragma unroll
  for (int j = 0; j < 4; ++j) scores[j / 2][2 * r + j % 2] = -INFINITY;
}

// Scores of moving row `row + i` start from bias / scale, or from -inf where the stationary position does not see the moving one.
// `table_row`: the upper stationary row's offset to moving row `row`, in floats from StripColumns::entries.
template <bool KEYS>
__device__ __forceinline__ void start_scores(float (&scores)[2][4], const Patch<KEYS>& patch, const StripColumns<KEYS>& columns, int table_row,
                                             int row, int i) {
  read_table(scores, columns, table_row, i);
  // Only in the first and last moving rows do the two stationary rows differ; the branch is the same for the whole warp.
  if (row + i < patch.seen_by_both.begin || row + i >= patch.seen_by_both.end) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (!contains(patch.rows[r], row + i)) hide_row(scores, r);
    }
  }
}

template <bool KEYS>
__device__ __forceinline__ int table_row(const Patch<KEYS>& patch, const ScalaShape& shape, int row) {
  return ((KEYS ? patch.y - row : row - patch.y) + static_cast<int>(shape.kernel_size) - 1) * TABLE_STRIDE;
}

// The address that a lane gives to ldmatrix for four 8x8 blocks of 16 rows x 16 numbers, from the start of the rows. By rows: the blocks are
// (rows 0-7, numbers 0-7), (8-15, 0-7), (0-7, 8-15), (8-15, 8-15); by numbers: the two middle ones change places.
template <typename T, int D>
struct MatrixLane {
  uint32_t rows_first, numbers_first;

  __device__ __forceinline__ explicit MatrixLane(int lane) {
    using P = Pieces<T, D>;
    const int block = lane / 8;
    int row = block % 2 * 8 + lane % 8;
    rows_first = row * P::ROW_BYTES + ((block / 2) ^ P::exchange(row)) * 16;
    row = block / 2 * 8 + lane % 8;
    numbers_first = row * P::ROW_BYTES + ((block % 2) ^ P::exchange(row)) * 16;
  }
  // Numbers 16 step to 16 step + 15: two pieces on, which is exclusive-or as well, for a row starts at a multiple of its size.
  static __device__ __forceinline__ uint32_t at(uint32_t offset, int step) { return offset ^ static_cast<uint32_t>(step * 32); }
};

// The warp's 16 stationary positions as left operand: kept in registers, or read again for every strip where they would not fit.
template <typename T, int D, bool KEPT>
struct Stationary {
  static constexpr int STEPS = D / 16;
  uint32_t rows;        // shared address
  uint32_t keep, sign;  // masks of Plan: the sign of the scale goes into this operand
  uint32_t kept[KEPT ? STEPS : 1][4];

  __device__ __forceinline__ Stationary(const char* rows_, uint32_t keep_, uint32_t sign_) : rows(shared_address(rows_)), keep(keep_), sign(sign_) {}

  __device__ __forceinline__ void read(const MatrixLane<T, D>& lane, int step, uint32_t (&fragment)[4]) const {
    load_matrices(fragment, rows + lane.at(lane.rows_first, step));
    if ((~keep | sign) == 0u) return;  // a scale above zero
#pragma unroll
    for (int i = 0; i < 4; ++i) fragment[i] = (fragment[i] & keep) ^ sign;
  }
  // Once the rows have arrived.
  __device__ __forceinline__ void open(const MatrixLane<T, D>& lane) {
    if constexpr (KEPT) {
#pragma unroll
      for (int step = 0; step < STEPS; ++step) read(lane, step, kept[step]);
    }
  }

  // scores += stationary rows x 16 moving rows (at a shared address), over the head dim.
  __device__ __forceinline__ void multiply(float (&scores)[2][4], uint32_t moving, const MatrixLane<T, D>& lane) const {
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
      uint32_t left[4], right[4];
      if constexpr (KEPT) {
#pragma unroll
        for (int i = 0; i < 4; ++i) left[i] = kept[step][i];
      } else {
        read(lane, step, left);
      }
      load_matrices(right, moving + lane.at(lane.numbers_first, step));
      mma<T>(scores[0], left, right[0], right[1]);
      mma<T>(scores[1], left, right[2], right[3]);
    }
  }
};

// result (16 x D) += weights (16 stationary x 16 moving) x 16 moving rows (at a shared address).
template <typename T, int D>
__device__ __forceinline__ void accumulate(float (&result)[D / 8][4], const float (&weights)[2][4], uint32_t moving, const MatrixLane<T, D>& lane) {
  const uint32_t left[4] = {pack<T>(weights[0][0], weights[0][1]), pack<T>(weights[0][2], weights[0][3]),
                            pack<T>(weights[1][0], weights[1][1]), pack<T>(weights[1][2], weights[1][3])};
#pragma unroll
  for (int step = 0; step < D / 16; ++step) {
    uint32_t right[4];
    load_matrices_transposed(right, moving + lane.at(lane.rows_first, step));
    mma<T>(result[2 * step], left, right[0], right[1]);
    mma<T>(result[2 * step + 1], left, right[2], right[3]);
  }
}

// Copies the warp's 16 positions to its shared memory; zeros outside the map and beyond the head dim.
template <typename T, int D, bool KEYS>
__device__ __forceinline__ void load_patch(char* to, const T* sample, const Map& map, const ScalaShape& shape, const Patch<KEYS>& patch, int x) {
  using P = Pieces<T, D>;
#pragma unroll
  for (int j = 0; j < PATCH * P::COUNT / 32; ++j) {
    const int i = j * 32 + patch.lane, row = i / P::COUNT, piece = i % P::COUNT, map_y = patch.y + row / TILE_COLUMNS, map_x = x + row % TILE_COLUMNS;
    const bool live = is_inside(shape, map_y, map_x) && piece * P::NUMBERS < static_cast<int>(shape.head_dim);
    const unsigned from = live ? offset_in(map, map_y, map_x) + piece * P::NUMBERS : 0u;
    copy_async(to + row * P::ROW_BYTES + (piece ^ P::exchange(row)) * 16, sample + from, live);
  }
}

// Writes 16 x D results, upper rows times factor[0], lower rows times factor[1], through the warp's shared memory so that whole pieces of
// 16 bytes go out.
template <typename T, int D, bool KEYS>
__device__ __forceinline__ void store_patch(char* through, T* sample, const Map& map, const ScalaShape& shape, const Patch<KEYS>& patch, int x,
                                            const float (&result)[D / 8][4], float upper, float lower) {
  using P = Pieces<T, D>;
  __syncwarp();  // the lanes may still read what lies there
#pragma unroll
  for (int piece = 0; piece < P::COUNT; ++piece) {
    char* row = through + patch.group * P::ROW_BYTES + (piece ^ P::exchange(patch.group)) * 16 + patch.quad * 4;
    *reinterpret_cast<uint32_t*>(row) = pack<T>(result[piece][0] * upper, result[piece][1] * upper);
    row = through + (patch.group + 8) * P::ROW_BYTES + (piece ^ P::exchange(patch.group + 8)) * 16 + patch.quad * 4;
    *reinterpret_cast<uint32_t*>(row) = pack<T>(result[piece][2] * lower, result[piece][3] * lower);
  }
  __syncwarp();
#pragma unroll
  for (int j = 0; j < PATCH * P::COUNT / 32; ++j) {
    const int i = j * 32 + patch.lane, row = i / P::COUNT, piece = i % P::COUNT, map_y = patch.y + row / TILE_COLUMNS, map_x = x + row % TILE_COLUMNS;
    if (is_inside(shape, map_y, map_x) && piece * P::NUMBERS < static_cast<int>(shape.head_dim)) {
      *reinterpret_cast<uint4*>(sample + (offset_in(map, map_y, map_x) + piece * P::NUMBERS)) =
          *reinterpret_cast<const uint4*>(through + row * P::ROW_BYTES + (piece ^ P::exchange(row)) * 16);
    }
  }
}

// Dropout of stationary queries: the warp draws the keep bits of its own 16.
__device__ __forceinline__ void draw_patch(uint8_t* bits, const Dropout& dropout, const ScalaShape& shape, const Plan& plan, const Block& block,
                                           const Patch<false>& patch) {
  for (int i = patch.lane; i < PATCH * plan.draws; i += 32) {
    const int row = i / plan.draws, y = patch.y + row / TILE_COLUMNS, x = block.x + row % TILE_COLUMNS;
    bits[i] = dropout.keep_bits(first_number(plan, block) + number_in(shape, block, y, x), i % plan.draws);
  }
}

}  // namespace ultron
