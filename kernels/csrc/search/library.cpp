// What the library of the search offers to callers of any language.
#include "common/isa.h"
#include "search/scan.h"

// Returns -1 where this processor has neither of the instruction sets.
extern "C" int64_t ultron_scan(const ultron::Scan* work) {
#if defined(__x86_64__)
  const ultron::Isa isa = ultron::processor_isa();
  if (isa == ultron::Isa::avx512 && __builtin_cpu_supports("avx512vnni")) return ultron::avx512::scan(*work);
  if (isa != ultron::Isa::baseline) return ultron::avx2::scan(*work);
#endif
  return -1;
}
