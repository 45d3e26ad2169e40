// Colours of what a frame shows; the literal way is ultron_cli/datasets/toy/shading.py, shade_literally and reached_literally.
#pragma once
#include <cstdint>

namespace ultron {

// Texture times light, fog by depth, the sky behind. The field order is that of Shading in kernels/rendering.py.
struct Shading {
  int64_t height, width, samples;  // of the photo, and how many pixels of the frame make one of the photo's, per axis
  const float* inverse_depth;      // (height * samples, width * samples), as face and texel
  const int32_t* face;
  const int32_t* texel;
  const uint32_t* texels;          // of the atlas
  const float* ambient;            // (faces, 3), as direct
  const float* direct;
  const float* lit;                // (height, width)
  const float* backdrop;           // (3, height, width)
  const bool* panes_lit;           // (256,) by tag
  const float* glow;               // (3,), the colour of a lit pane
  const float* horizon;            // (3,), the colour of fog
  float fog;                       // 1/m, 0 for none
  float* total;                    // (3, height, width), the result
};

// Which pixels the sun reaches. The field order is that of Sunlight in kernels/rendering.py.
struct Sunlight {
  int64_t height, width, samples;
  const float* inverse_depth;      // of the frame
  const float* ray_x;              // (width,)
  const float* ray_y;              // (height,)
  const float* position;           // (3,), of the camera in the sun's axes
  const float* turn;               // (3, 3), the camera's axes in the sun's
  float focal_px, centre_x, centre_y;
  const float* first;              // (n_side, n_side), inverse depths of what the sun sees first
  float bias_m;
  int64_t n_side;
  float* lit;                      // (height, width), the result
};

}  // namespace ultron
