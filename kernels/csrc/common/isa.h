// The instruction set that kernels run with.
#pragma once
#include <cstdlib>
#include <string>

namespace ultron {

enum class Isa { baseline, avx2, avx512 };

// The best that this processor has; ULTRON_CPU_ISA=baseline|avx2 asks for a lesser one (for tests).
inline Isa processor_isa() {
#if defined(__x86_64__)
  const char* wish = std::getenv("ULTRON_CPU_ISA");
  const std::string isa = wish == nullptr ? "" : wish;
  if (isa == "baseline") return Isa::baseline;
  if (isa != "avx2" && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
    return Isa::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) return Isa::avx2;
#endif
  return Isa::baseline;
}

}  // namespace ultron
