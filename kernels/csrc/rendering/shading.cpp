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

// The colour of one sample of the frame.
inline void shade_sample(const Shading& s, const float* albedo, int64_t place, float lit, const float* backdrop, float* colour) {
  const int32_t face = s.face[place];
  if (face < 0) {
    std::copy(backdrop, backdrop + 3, colour);
    return;
  }
  const uint32_t texel = s.texels[s.texel[place]];
  const float* ambient = s.ambient + face * 3;
  const float* direct = s.direct + face * 3;
  if (s.panes_lit[texel >> 24]) {
    std::copy(s.glow, s.glow + 3, colour);
  } else {
    for (int channel = 0; channel < 3; ++channel)
      colour[channel] = albedo[texel >> (8 * channel) & 255] * (ambient[channel] + direct[channel] * lit);
  }
  if (s.fog > 0.0f) {
    const float clear = clearness(s.inverse_depth[place], s.fog);
    for (int channel = 0; channel < 3; ++channel)
      colour[channel] = (colour[channel] - s.horizon[channel]) * clear + s.horizon[channel];
  }
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
  for (int64_t row = 0; row < s.height; ++row) {
    for (int64_t column = 0; column < s.width; ++column) {
      const int64_t pixel = row * s.width + column, first = (row * frame_width + column) * s.samples;
      const float backdrop[3] = {s.backdrop[pixel], s.backdrop[n_pixels + pixel], s.backdrop[2 * n_pixels + pixel]};
      float sums[3] = {0.0f, 0.0f, 0.0f};
      for (int64_t y = 0; y < s.samples; ++y) {
        for (int64_t x = 0; x < s.samples; ++x) {
          float colour[3];
          shade_sample(s, albedo, first + y * frame_width + x, s.lit[pixel], backdrop, colour);
          for (int channel = 0; channel < 3; ++channel) sums[channel] += std::min(colour[channel], kBrightest);
        }
      }
      for (int channel = 0; channel < 3; ++channel) s.total[channel * n_pixels + pixel] = sums[channel] * share;
    }
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
