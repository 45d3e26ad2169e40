// Drawing the flat faces of rendered landmarks; the literal way is ultron_cli/datasets/toy/raster.py, _draw_facet.
#pragma once
#include <cstdint>

namespace ultron {

// A face as a camera sees it.
struct Facet {
  int64_t x0, y0, x1, y1;           // its pixel box in the frame
  int64_t offset, width, height;    // of its texture in the atlas, at the level that is drawn
  float plane[3][3];                // 1/depth, u/depth and v/depth as a x + b y + c of the pixel
  float left, right;                // how much its sides lean in, texels of u per texel of v
  int32_t number;                   // in the frame
  int32_t texture;
  bool two_sided, repeats;
};

// All faces of a mesh. The field order is that of Work in kernels/rendering.py.
struct Drawing {
  const Facet* facets;
  int64_t n_facets;
  float* inverse_depth;             // (H, W), as face and texel
  int32_t* face;
  int32_t* texel;
  int64_t frame_width;
  const uint32_t* texels;           // of the atlas
  const int64_t* level_offset;      // (textures, n_levels), as level_width
  const int64_t* level_width;
  int64_t n_levels;
  const float* level_depth;         // (n_levels - 1,): beyond it the ground is of a smaller level
};

}  // namespace ultron
