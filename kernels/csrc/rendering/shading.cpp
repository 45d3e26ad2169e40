// Every number is a float32 that is rounded in the order in which NumPy rounds it, as in raster.cpp.
#include "rendering/shading.h"

#include <algorithm>

namespace {

using ultron::Shading;
using ultron::Sunlight;

constexpr float kLeastNearness = 1e-4f;
constexpr float kBrightest = 1.3f;

// What is left of the contrast at a depth.
inline float clearness(float inverse_depth, float fog) {
  const float clear = 1.0f / (1.0f + fog / std::max(inverse_depth, kLeastNearness));
  return clear * clear;
}

}  // namespace

extern "C" void ultron_shade(const Shading* shading) {
  const Shading& s = *shading;
  const int64_t n_pixels = s.height * s.width, frame_width = s.width * s.samples;
  const float share = 1.0f / static_cast<float>(s.samples * s.samples);
  float albedo[256];
  for (int tone = 0; tone < 256; ++tone) {
    const float value = static_cast<float>(tone) / 255.0f;
    albedo[tone] = value * value;
  }
  for (int64_t pixel = 0; pixel < n_pixels; ++pixel) {
    const float lit = s.lit[pixel];
    float sums[3] = {0.0f, 0.0f, 0.0f};
    for (int64_t sample = 0; sample < s.samples * s.samples; ++sample) {
      const int64_t row = pixel / s.width * s.samples + sample / s.samples, column = pixel % s.width * s.samples + sample % s.samples;
      const int64_t place = row * frame_width + column;
      const int32_t face = s.face[place];
      const uint32_t texel = s.texels[s.texel[place]];
      const bool glows = s.panes_lit[texel >> 24];
      const float clear = s.fog > 0.0f ? clearness(s.inverse_depth[place], s.fog) : 1.0f;
      for (int channel = 0; channel < 3; ++channel) {
        float colour;
        if (face < 0) {
          colour = s.backdrop[channel * n_pixels + pixel];
        } else {
          const float light = s.ambient[face * 3 + channel] + s.direct[face * 3 + channel] * lit;
          colour = glows ? s.glow[channel] : albedo[texel >> (8 * channel) & 255] * light;
          if (s.fog > 0.0f) colour = (colour - s.horizon[channel]) * clear + s.horizon[channel];
        }
        sums[channel] += std::min(colour, kBrightest);
      }
    }
    for (int channel = 0; channel < 3; ++channel) s.total[channel * n_pixels + pixel] = sums[channel] * share;
  }
}

extern "C" void ultron_find_sunlit(const Sunlight* sunlight) {
  const Sunlight& s = *sunlight;
  const float last = static_cast<float>(s.n_side - 1);
  for (int64_t row = 0; row < s.height; ++row) {
    const float* nearness = s.inverse_depth + row * s.samples * s.width * s.samples;
    for (int64_t column = 0; column < s.width; ++column) {
      const float depth = 1.0f / std::max(nearness[column * s.samples], kLeastNearness);
      float point[3];
      for (int k = 0; k < 3; ++k)
        point[k] = s.position[k] + (s.turn[k] * s.ray_x[column] + s.turn[3 + k] * s.ray_y[row] + s.turn[6 + k]) * depth;
      const float scale = s.focal_px / point[2];
      const auto x = static_cast<int32_t>(std::clamp(point[0] * scale + s.centre_x, 0.0f, last));
      const auto y = static_cast<int32_t>(std::clamp(s.centre_y - point[1] * scale, 0.0f, last));
      s.lit[row * s.width + column] = s.first[y * s.n_side + x] * (point[2] - s.bias_m) < 1.0f ? 1.0f : 0.0f;
    }
  }
}
