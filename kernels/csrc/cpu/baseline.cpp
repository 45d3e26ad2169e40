// The CPU kernels for any processor: 16-byte vectors.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#include "cpu/cdconv.h"
#include "cpu/scala_attention.h"
#include "common/types.h"

#define ULTRON_VECTOR_BYTES 16
namespace ultron {
namespace baseline {
namespace {
#include "common/vectors.inc"
}  // namespace
#include "cpu/scala_rows.inc"
#include "cpu/scala_columns.inc"
#include "cpu/scala_pairs.inc"
#include "cpu/scala_forward.inc"
#include "cpu/scala_backward.inc"
#include "cpu/cdconv.inc"
}  // namespace baseline
}  // namespace ultron
