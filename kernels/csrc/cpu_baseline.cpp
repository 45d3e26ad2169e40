// The CPU kernels for any processor: 16-byte vectors.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>

#include "cdconv_cpu.h"
#include "cpu_types.h"
#include "scala_cpu.h"

#define ULTRON_VECTOR_BYTES 16
namespace ultron {
namespace baseline {
namespace {
#include "cpu_vectors.inc"
}  // namespace
#include "scala_cpu_rows.inc"
#include "scala_cpu_columns.inc"
#include "scala_cpu_pairs.inc"
#include "scala_cpu_forward.inc"
#include "scala_cpu_backward.inc"
#include "cdconv_cpu.inc"
}  // namespace baseline
}  // namespace ultron
