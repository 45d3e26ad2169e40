// Half-precision numbers in memory, converted to float and back with rounding to nearest even. No hardware support needed.
#pragma once
#include <cstdint>
#include <cstring>

namespace ultron {

struct Half { uint16_t bits; };
struct Bfloat16 { uint16_t bits; };

static inline float from_bits(uint32_t bits) { float value; std::memcpy(&value, &bits, 4); return value; }
static inline uint32_t to_bits(float value) { uint32_t bits; std::memcpy(&bits, &value, 4); return bits; }

static inline float read_number(float value) { return value; }
static inline double read_number(double value) { return value; }
static inline float read_number(Bfloat16 value) { return from_bits(static_cast<uint32_t>(value.bits) << 16); }
static inline float read_number(Half value) {
  const uint32_t magnitude = (value.bits & 0x7fffu) << 13;
  float result = from_bits(magnitude) * from_bits(0x77800000u);  // * 2^112 moves the exponent's bias, subnormals included
  if (magnitude >= 0x0f800000u) result = from_bits(magnitude | 0x7f800000u);  // infinity and NaN
  return from_bits(to_bits(result) | (static_cast<uint32_t>(value.bits & 0x8000u) << 16));
}

static inline void write_number(float* to, float value) { *to = value; }
static inline void write_number(double* to, double value) { *to = value; }
static inline void write_number(Bfloat16* to, float value) {
  const uint32_t bits = to_bits(value);
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  to->bits = is_nan ? 0x7fc0 : static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
static inline void write_number(Half* to, float value) {
  const uint32_t bits = to_bits(value), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00;
  } else if (magnitude >= 0x477ff000u) {  // rounds to 65536 or more
    half = 0x7c00;
  } else if (magnitude < 0x38800000u) {  // subnormal: adding 0.5 leaves the rounded bits at the bottom
    half = to_bits(from_bits(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  to->bits = static_cast<uint16_t>(half | sign);
}

}  // namespace ultron
