// Every number is a float32 that is rounded in the order in which NumPy rounds it: this file is compiled without
// contraction, and both give the same bits.
#include "rendering/raster.h"

#include <algorithm>

namespace {

using ultron::Drawing;
using ultron::Facet;

constexpr float kEdge = 0.35f;  // texels by which faces overlap, or seams between them would show the sky
constexpr float kLeastNearness = 1e-4f;
constexpr uint32_t kHole = 255;

// As np.mod: of the sign of the divisor.
inline int32_t wrapped(int32_t value, int32_t size) {
  const int32_t rest = value % size;
  return rest < 0 ? rest + size : rest;
}

inline int32_t ground_texel(const Drawing& drawing, const Facet& facet, float u, float v, float depth) {
  int64_t level = 0;
  for (int64_t step = 0; step + 1 < drawing.n_levels; ++step) level += depth > drawing.level_depth[step];
  const int64_t place = facet.texture * drawing.n_levels + level;
  const int32_t row = wrapped(static_cast<int32_t>(v), static_cast<int32_t>(facet.height)) >> level;
  const int32_t column = wrapped(static_cast<int32_t>(u), static_cast<int32_t>(facet.width)) >> level;
  return static_cast<int32_t>(drawing.level_offset[place]) + row * static_cast<int32_t>(drawing.level_width[place]) + column;
}

template <bool repeats>
void draw_facet(const Drawing& drawing, const Facet& facet) {
  const float* p = facet.plane[0];
  const float* a = facet.plane[1];
  const float* b = facet.plane[2];
  const float wide = (static_cast<float>(facet.width) - 0.5f) + kEdge;
  const float high = (static_cast<float>(facet.height) - 0.5f) + kEdge;
  const int32_t last_row = static_cast<int32_t>(facet.height) - 1, last_column = static_cast<int32_t>(facet.width) - 1;
  for (int64_t y = facet.y0; y < facet.y1; ++y) {
    const float fy = static_cast<float>(y);
    const float p_row = p[1] * fy + p[2], u_row = a[1] * fy + a[2], v_row = b[1] * fy + b[2];
    float* nearest = drawing.inverse_depth + y * drawing.frame_width;
    int32_t* face = drawing.face + y * drawing.frame_width;
    int32_t* shown = drawing.texel + y * drawing.frame_width;
    for (int64_t x = facet.x0; x < facet.x1; ++x) {
      const float fx = static_cast<float>(x);
      const float nearness = p[0] * fx + p_row;
      if (!(nearness > nearest[x])) continue;
      const float depth = 1.0f / std::max(nearness, kLeastNearness);
      const float v = (b[0] * fx + v_row) * depth;
      const float u = (a[0] * fx + u_row) * depth;
      int32_t texel;
      if (repeats) {
        texel = ground_texel(drawing, facet, u, v, depth);
      } else {
        if (!(v > -kEdge) || !(v < high)) continue;
        if (!(u > (facet.left != 0.0f ? facet.left * v - kEdge : -kEdge))) continue;
        if (!(u < (facet.right != 0.0f ? wide - facet.right * v : wide))) continue;
        const int32_t row = std::min(static_cast<int32_t>(v), last_row);
        const int32_t column = std::min(static_cast<int32_t>(u), last_column);
        texel = static_cast<int32_t>(facet.offset) + row * static_cast<int32_t>(facet.width) + column;
      }
      if (facet.two_sided && drawing.texels[texel] >> 24 == kHole) continue;
      nearest[x] = nearness;
      face[x] = facet.number;
      shown[x] = texel;
    }
  }
}

}  // namespace

extern "C" void ultron_draw(const ultron::Drawing* drawing) {
  for (int64_t k = 0; k < drawing->n_facets; ++k) {
    const Facet& facet = drawing->facets[k];
    facet.repeats ? draw_facet<true>(*drawing, facet) : draw_facet<false>(*drawing, facet);
  }
}
