// float16 as float32, which holds every float16.
#pragma once
#include <cstdint>

namespace ultron {

namespace avx2 { void widen(const uint16_t* from, float* to, int64_t count); }
namespace avx512 { void widen(const uint16_t* from, float* to, int64_t count); }

}  // namespace ultron
