// The CPU kernels of CDConv, one set per instruction set.
//
// A unit is a group of channels of one sample (all samples for the gradient of the weight): in (B, H, W, C) memory 16 neighbouring
// channels, which share cache lines, else one channel.
#pragma once
#include "common/cdconv.h"

namespace ultron {

struct CdconvCpu {
  CdconvShape shape;
  const void* input;
  const void* weight;  // (C, 3, 3)
  void* output;
  bool flipped;        // the weight is read backwards, which turns the gradient of the output into that of the input
};

struct CdconvWeightCpu {
  CdconvShape shape;
  const void* grad;
  const void* input;
  void* grad_weight;   // (C, 3, 3)
};

inline int64_t cdconv_group(const CdconvShape& s) { return s.channels_last ? 16 : 1; }
inline int64_t cdconv_groups(const CdconvShape& s) { return (s.channels + cdconv_group(s) - 1) / cdconv_group(s); }

#define ULTRON_DECLARE(isa)                                                   \
  namespace isa {                                                             \
  void cdconv(const CdconvCpu&, int64_t begin, int64_t end);                  \
  void cdconv_weight(const CdconvWeightCpu&, int64_t begin, int64_t end);     \
  }
ULTRON_DECLARE(baseline)
ULTRON_DECLARE(avx2)
ULTRON_DECLARE(avx512)
#undef ULTRON_DECLARE

}  // namespace ultron
