#include "scaling/scaling.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/isa.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace {

using ultron::Scaling;

constexpr int64_t COLOURS = 3;
constexpr int64_t LANES = 16;
constexpr int64_t PADDING = 2 * LANES;  // behind a row, so that so many floats can be loaded from any column

// Of scaled places along an axis: the two places of the photo that each lies between, and how much it has of both.
struct Neighbours {
  std::vector<int32_t> first, second;
  std::vector<float> of_first, of_second;
  bool are_close = true;  // any LANES of them lie within 2 * LANES places

  Neighbours(int64_t n_in, int64_t n_out, float step) : first(n_out), second(n_out), of_first(n_out), of_second(n_out) {
    for (int64_t i = 0; i < n_out; ++i) {
      const float place = n_in == n_out ? static_cast<float>(i) : std::max(0.0f, std::fma(step, static_cast<float>(i) + 0.5f, -0.5f));
      first[i] = static_cast<int32_t>(std::min(static_cast<int64_t>(place), n_in - 1));
      second[i] = std::min(first[i] + 1, static_cast<int32_t>(n_in - 1));
      of_second[i] = std::clamp(place - static_cast<float>(first[i]), 0.0f, 1.0f);
      of_first[i] = 1.0f - of_second[i];
    }
    for (int64_t i = 0; i + LANES <= n_out; ++i) are_close &= second[i + LANES - 1] - first[i] < 2 * LANES;
  }
};

// A row of the photo, its colours apart.
[[gnu::always_inline]] inline void normalise(const Scaling& work, int64_t y, float* const (&colours)[COLOURS]) {
  const uint8_t* pixels = work.pixels + y * work.width * COLOURS;
  for (int64_t c = 0; c < COLOURS; ++c) {
    const float mean = work.mean[c], sd = work.sd[c];
    float* to = colours[c];
    for (int64_t x = 0; x < work.width; ++x) to[x] = (static_cast<float>(pixels[COLOURS * x + c]) - mean) / sd;
  }
}

struct RowPair {
  const float *upper, *lower;
  float of_upper, of_lower;
};

[[gnu::always_inline]] inline void mix(const RowPair& rows, const Neighbours& columns, int64_t from, int64_t to, float* mixed) {
  for (int64_t x = from; x < to; ++x) {
    const int32_t first = columns.first[x], second = columns.second[x];
    const float left = columns.of_first[x], right = columns.of_second[x];
    float sum = (rows.of_upper * right) * rows.upper[second];
    sum = std::fma(rows.of_upper * left, rows.upper[first], sum);
    sum = std::fma(rows.of_lower * left, rows.lower[first], sum);
    mixed[x] = std::fma(rows.of_lower * right, rows.lower[second], sum);
  }
}

#define ULTRON_AVX2 gnu::target("avx2,fma")
#define ULTRON_AVX512 gnu::target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")

[[ULTRON_AVX2]] void normalise_avx2(const Scaling& work, int64_t y, float* const (&colours)[COLOURS]) { normalise(work, y, colours); }

[[ULTRON_AVX2]] void mix_avx2(const RowPair& rows, const Neighbours& columns, int64_t n, float* mixed) { mix(rows, columns, 0, n, mixed); }

[[ULTRON_AVX512]] void normalise_avx512(const Scaling& work, int64_t y, float* const (&colours)[COLOURS]) { normalise(work, y, colours); }

// As mix, but places are picked out of two registers, which is three times as fast as gathering them from memory.
[[ULTRON_AVX512]] void mix_avx512(const RowPair& rows, const Neighbours& columns, int64_t n, float* mixed) {
  int64_t x = 0;
  const __m512 of_upper = _mm512_set1_ps(rows.of_upper), of_lower = _mm512_set1_ps(rows.of_lower);
  for (; columns.are_close && x + LANES <= n; x += LANES) {
    const int32_t start = columns.first[x];
    const __m512i offset = _mm512_set1_epi32(start);
    const __m512i first = _mm512_sub_epi32(_mm512_loadu_si512(&columns.first[x]), offset);
    const __m512i second = _mm512_sub_epi32(_mm512_loadu_si512(&columns.second[x]), offset);
    const __m512 left = _mm512_loadu_ps(&columns.of_first[x]), right = _mm512_loadu_ps(&columns.of_second[x]);
    const __m512 upper = _mm512_loadu_ps(rows.upper + start), next_upper = _mm512_loadu_ps(rows.upper + start + LANES);
    const __m512 lower = _mm512_loadu_ps(rows.lower + start), next_lower = _mm512_loadu_ps(rows.lower + start + LANES);
    __m512 sum = _mm512_mul_ps(_mm512_mul_ps(of_upper, right), _mm512_permutex2var_ps(upper, second, next_upper));
    sum = _mm512_fmadd_ps(_mm512_mul_ps(of_upper, left), _mm512_permutex2var_ps(upper, first, next_upper), sum);
    sum = _mm512_fmadd_ps(_mm512_mul_ps(of_lower, left), _mm512_permutex2var_ps(lower, first, next_lower), sum);
    sum = _mm512_fmadd_ps(_mm512_mul_ps(of_lower, right), _mm512_permutex2var_ps(lower, second, next_lower), sum);
    _mm512_storeu_ps(mixed + x, sum);
  }
  mix(rows, columns, x, n, mixed);
}

void scale(const Scaling& work, decltype(&normalise_avx2) normalise_row, decltype(&mix_avx2) mix_rows) {
  const int64_t n = work.scaled_height * work.scaled_width;
  if (work.scaled_height == work.height && work.scaled_width == work.width) {
    for (int64_t y = 0; y < work.height; ++y) {
      float* row = work.scaled + y * work.width;
      normalise_row(work, y, {row, row + n, row + 2 * n});
    }
    return;
  }
  const Neighbours rows(work.height, work.scaled_height, work.down), columns(work.width, work.scaled_width, work.across);
  // The two rows of the photo that are in use, a row in the place of its parity.
  const int64_t length = work.width + PADDING;
  std::vector<float> held(2 * COLOURS * length);
  int64_t held_rows[2] = {-1, -1};
  const auto colours_of = [&](int64_t y) -> float* {
    float* row = held.data() + (y % 2) * COLOURS * length;
    if (held_rows[y % 2] != y) normalise_row(work, y, {row, row + length, row + 2 * length});
    held_rows[y % 2] = y;
    return row;
  };
  for (int64_t y = 0; y < work.scaled_height; ++y) {
    const float* upper = colours_of(rows.first[y]);
    const float* lower = colours_of(rows.second[y]);
    for (int64_t c = 0; c < COLOURS; ++c) {
      const RowPair pair{upper + c * length, lower + c * length, rows.of_first[y], rows.of_second[y]};
      mix_rows(pair, columns, work.scaled_width, work.scaled + c * n + y * work.scaled_width);
    }
  }
}

}  // namespace
#endif

extern "C" int ultron_runs_here() { return ultron::processor_isa() != ultron::Isa::baseline; }

extern "C" void ultron_scale_photo(const ultron::Scaling* work) {
#if defined(__x86_64__)
  if (ultron::processor_isa() == ultron::Isa::avx512) return scale(*work, normalise_avx512, mix_avx512);
  scale(*work, normalise_avx2, mix_avx2);
#endif
}
