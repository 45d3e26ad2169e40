// What the library of the search offers to callers of any language.
#include "common/isa.h"
#include "search/halves.h"
#include "search/nearest.h"
#include "search/scan.h"

namespace {

// The best instruction set that the search is written for; baseline where this processor has none of them.
ultron::Isa search_isa() {
  const ultron::Isa isa = ultron::processor_isa();
#if defined(__x86_64__)
  if (isa == ultron::Isa::avx512 && !__builtin_cpu_supports("avx512vnni")) return ultron::Isa::avx2;
#endif
  return isa;
}

}  // namespace

// All return -1 where this processor has neither of the instruction sets.
extern "C" int64_t ultron_scan(const ultron::Scan* work) {
#if defined(__x86_64__)
  if (search_isa() == ultron::Isa::avx512) return ultron::avx512::scan(*work);
  if (search_isa() == ultron::Isa::avx2) return ultron::avx2::scan(*work);
#endif
  return -1;
}

extern "C" int64_t ultron_find_nearest(const ultron::Nearest* work) {
#if defined(__x86_64__)
  if (search_isa() == ultron::Isa::avx512) return ultron::avx512::find_nearest(*work), 0;
  if (search_isa() == ultron::Isa::avx2) return ultron::avx2::find_nearest(*work), 0;
#endif
  return -1;
}

// (n, dim) float32 of rows of float16, each row_bytes behind the one before.
extern "C" int64_t ultron_widen(const void* rows, int64_t n, int64_t dim, int64_t row_bytes, float* to) {
#if defined(__x86_64__)
  const auto widen = search_isa() == ultron::Isa::avx512 ? ultron::avx512::widen : ultron::avx2::widen;
  if (search_isa() == ultron::Isa::baseline) return -1;
  const char* row = static_cast<const char*>(rows);
  for (int64_t r = 0; r < n; ++r, row += row_bytes) widen(reinterpret_cast<const uint16_t*>(row), to + r * dim, dim);
  return 0;
#else
  return -1;
#endif
}
