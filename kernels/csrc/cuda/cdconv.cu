// cdconv: every thread stays with one (sample, channel), so weights and dilation are read once and only that dilation is computed.
//   (B, C, H, W): a block takes a band of rows of one plane, neighbouring threads take neighbouring pixels; grid (planes, 1, bands);
//   (B, H, W, C): a block takes such a band for 32 channels, one per lane, its warps take pixels in turn; grid (samples, groups of channels, bands).
// The gradient of the input is the same sum with the weights turned round. That of the weights is summed per (sample, channel) into the
// workspace, then over the samples, in a fixed order.
#include "cuda/cdconv.h"
#include "cuda/element.cuh"

namespace ultron {

constexpr int TAPS = 9, MOST_BLOCKS_YZ = 65535;
constexpr int CONV_WARPS = 8;
constexpr int BAND_PIXELS = 1024;  // of a block, about: smaller bands would read more rows twice, larger ones leave a large map too few blocks

struct ConvPlan {
  int64_t outer, groups, bands;  // blocks: planes or samples; groups of 32 channels or 1; bands of rows
  int band_rows, threads;

  dim3 grid() const { return dim3(static_cast<unsigned>(outer), static_cast<unsigned>(groups), static_cast<unsigned>(bands)); }
};

template <bool CHANNELS_LAST>
ConvPlan plan_conv(const CdconvShape& shape, bool in_bands) {
  ConvPlan plan{};
  const int64_t rows = in_bands ? larger<int64_t>(1, BAND_PIXELS / shape.width) : shape.height;
  plan.band_rows = static_cast<int>(smaller(rows, shape.height));
  plan.bands = (shape.height + plan.band_rows - 1) / plan.band_rows;
  plan.outer = CHANNELS_LAST ? shape.batch : shape.batch * shape.channels;
  plan.groups = CHANNELS_LAST ? (shape.channels + 31) / 32 : 1;
  const int64_t pixels = CHANNELS_LAST ? INT32_MAX : plan.band_rows * shape.width;  // a small plane does not fill a block
  plan.threads = static_cast<int>(smaller<int64_t>(32 * CONV_WARPS, (pixels + 31) / 32 * 32));
  return plan;
}

// One thread's channel and its walk over the pixels of a band. Bytes within a plane or sample are counted in 32 bits: refuse turns larger ones
// away.
template <typename T, bool CHANNELS_LAST>
struct Walk {
  int64_t plane;         // sample * C + channel
  int64_t base;          // elements before the plane, or before the sample
  unsigned offset;       // bytes from there to this pixel and channel
  unsigned step, row_step, column_step;  // bytes: to the thread's next pixel; by one dilation down, and right
  int channel, y, x, width, height, end_row, step_y, step_x, dilation;
  bool live;

  __device__ __forceinline__ Walk(const CdconvShape& shape, const ConvPlan& plan) {
    const int64_t outer = blockIdx.x;
    width = static_cast<int>(shape.width);
    height = static_cast<int>(shape.height);
    channel = static_cast<int>(CHANNELS_LAST ? blockIdx.y * 32 + threadIdx.x % 32 : outer % shape.channels);
    live = channel < shape.channels;
    plane = CHANNELS_LAST ? outer * shape.channels + channel : outer;
    base = outer * height * width * (CHANNELS_LAST ? shape.channels : 1);
    const unsigned stride = static_cast<unsigned>((CHANNELS_LAST ? shape.channels : 1) * sizeof(T));
    const int first = CHANNELS_LAST ? threadIdx.x / 32 : threadIdx.x, pixels = CHANNELS_LAST ? blockDim.x / 32 : blockDim.x;
    const int begin_row = static_cast<int>(blockIdx.z) * plan.band_rows;
    end_row = smaller(begin_row + plan.band_rows, height);
    y = begin_row + first / width;
    x = first % width;
    step_y = pixels / width;
    step_x = pixels % width;
    // From the map's longer side on, all side taps are outside it, so a larger dilation need not be told apart. One below 1, which the
    // front refuses, would read outside the map.
    dilation = live ? static_cast<int>(larger<int64_t>(1, smaller<int64_t>(shape.dilation[plane], larger(height, width)))) : 1;
    offset = static_cast<unsigned>(begin_row * width + first) * stride + (CHANNELS_LAST ? static_cast<unsigned>(channel * sizeof(T)) : 0u);
    step = static_cast<unsigned>(pixels) * stride;
    column_step = static_cast<unsigned>(dilation) * stride;
    row_step = column_step * static_cast<unsigned>(width);
  }

  __device__ __forceinline__ bool has_pixel() const { return live && y < end_row; }
  __device__ __forceinline__ void advance() {
    offset += step;
    x += step_x;
    y += step_y;
    if (x >= width) {
      x -= width;
      ++y;
    }
  }

  // `map` begins at the plane or sample.
  static __device__ __forceinline__ float read(const T* map, unsigned bytes) {
    return to_float(*reinterpret_cast<const T*>(reinterpret_cast<const char*>(map) + bytes));
  }
  __device__ __forceinline__ void write(T* map, float value) const {
    *reinterpret_cast<T*>(reinterpret_cast<char*>(map) + offset) = from_float<T>(value);
  }

  // The input under tap 3 i + j of this pixel; 0 outside the map.
  __device__ __forceinline__ void read_taps(const T* map, float (&taps)[TAPS]) const {
    const bool inside_row[3] = {y >= dilation, true, y < height - dilation}, inside_column[3] = {x >= dilation, true, x < width - dilation};
#pragma unroll
    for (int i = 0; i < 3; ++i) {
      const unsigned row = offset + static_cast<unsigned>(i - 1) * row_step;
#pragma unroll
      for (int j = 0; j < 3; ++j) {
        taps[3 * i + j] = 0.0f;
        if (inside_row[i] && inside_column[j]) taps[3 * i + j] = read(map, row + static_cast<unsigned>(j - 1) * column_step);
      }
    }
  }
};

template <typename T, bool CHANNELS_LAST>
__global__ void __launch_bounds__(32 * CONV_WARPS)
    cdconv_map(const __grid_constant__ CdconvShape shape, const __grid_constant__ ConvPlan plan, const T* input, const T* weight, T* output, bool turned) {
  Walk<T, CHANNELS_LAST> walk(shape, plan);
  if (!walk.live) return;
  input += walk.base;
  output += walk.base;
  float weights[TAPS], taps[TAPS];
#pragma unroll
  for (int i = 0; i < TAPS; ++i) weights[i] = to_float(weight[walk.channel * static_cast<int64_t>(TAPS) + (turned ? TAPS - 1 - i : i)]);
  for (; walk.has_pixel(); walk.advance()) {
    walk.read_taps(input, taps);
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < TAPS; ++i) sum += weights[i] * taps[i];
    walk.write(output, sum);
  }
}

// partial_sums: (B, C, 9). A block walks over all pixels of its planes.
template <typename T, bool CHANNELS_LAST>
__global__ void __launch_bounds__(32 * CONV_WARPS)
    cdconv_partial_weight(const __grid_constant__ CdconvShape shape, const __grid_constant__ ConvPlan plan, const T* grad, const T* input,
                          float* partial_sums) {
  Walk<T, CHANNELS_LAST> walk(shape, plan);
  grad += walk.base;
  input += walk.base;
  float sums[TAPS] = {}, taps[TAPS];
  for (; walk.has_pixel(); walk.advance()) {
    walk.read_taps(input, taps);
    const float here = walk.read(grad, walk.offset);
#pragma unroll
    for (int i = 0; i < TAPS; ++i) sums[i] += here * taps[i];
  }
  // (warps, lanes, 9): 9 is odd, so a warp's lanes write to different banks.
  float* shared = reinterpret_cast<float*>(shared_memory());
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
#pragma unroll
  for (int i = 0; i < TAPS; ++i) {
    if (!CHANNELS_LAST) {
#pragma unroll
      for (int distance = 16; distance > 0; distance /= 2) sums[i] += __shfl_xor_sync(ALL_LANES, sums[i], distance);
    }
    if (CHANNELS_LAST || lane == 0) shared[(warp * 32 + lane) * TAPS + i] = sums[i];
  }
  __syncthreads();
  if (warp != 0 || !walk.live || (!CHANNELS_LAST && lane != 0)) return;
  for (int i = 0; i < TAPS; ++i) {
    float sum = 0.0f;
    for (int w = 0; w < warps; ++w) sum += shared[(w * 32 + lane) * TAPS + i];
    partial_sums[walk.plane * TAPS + i] = sum;
  }
}

// One thread for one number of (C, 9): the sum over the samples.
template <typename T>
__global__ void __launch_bounds__(128) cdconv_weight(const float* partial_sums, int64_t batch, int64_t numbers, T* grad_weight) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= numbers) return;
  float sum = 0.0f;
  for (int64_t sample = 0; sample < batch; ++sample) sum += partial_sums[sample * numbers + i];
  grad_weight[i] = from_float<T>(sum);
}

const char* refuse(const CdconvShape& shape, const ConvPlan& plan) {
  if (shape.height > INT32_MAX / 2 || shape.width > INT32_MAX / 2) return "cdconv: height and width must be below 2^30";
  const double numbers = static_cast<double>(shape.height) * shape.width * (shape.channels_last ? shape.channels : 1);
  if (numbers * 4 > UINT32_MAX) return shape.channels_last ? "cdconv: height x width x channels must be below 2^30" : "cdconv: height x width must be below 2^30";
  if (plan.outer > INT32_MAX) return "cdconv: too many planes for one launch; split the batch";
  return plan.groups > MOST_BLOCKS_YZ || plan.bands > MOST_BLOCKS_YZ ? "cdconv: too many channels or rows for one launch" : nullptr;
}

bool is_empty(const CdconvShape& shape) { return shape.batch * shape.channels * shape.height * shape.width == 0; }

template <typename T, bool CHANNELS_LAST>
const char* launch_map(const CdconvShape& shape, const void* input, const void* weight, void* output, bool turned, void* stream) {
  const ConvPlan plan = plan_conv<CHANNELS_LAST>(shape, true);
  if (const char* problem = refuse(shape, plan)) return problem;
  return launch(cdconv_map<T, CHANNELS_LAST>, plan.grid(), plan.threads, 0, stream, shape, plan,
                static_cast<const T*>(input), static_cast<const T*>(weight), static_cast<T*>(output), turned);
}

template <typename T, bool CHANNELS_LAST>
const char* launch_weight(const CdconvShape& shape, const void* grad, const void* input, void* grad_weight, float* partial_sums, void* stream) {
  const char* problem = nullptr;
  if (!is_empty(shape)) {
    const ConvPlan plan = plan_conv<CHANNELS_LAST>(shape, false);
    problem = refuse(shape, plan);
    if (problem == nullptr) {
      problem = launch(cdconv_partial_weight<T, CHANNELS_LAST>, plan.grid(), plan.threads, plan.threads * TAPS * 4, stream,
                       shape, plan, static_cast<const T*>(grad), static_cast<const T*>(input), partial_sums);
    }
  }
  if (problem != nullptr || shape.channels == 0) return problem;
  const int64_t numbers = shape.channels * TAPS;
  // Nothing was summed for an empty map: zeros.
  return launch(cdconv_weight<T>, dim3(static_cast<unsigned>((numbers + 127) / 128)), 128, 0, stream, partial_sums, is_empty(shape) ? 0 : shape.batch,
                numbers, static_cast<T*>(grad_weight));
}

template <typename T>
const char* map_of_type(const CdconvShape& shape, const void* input, const void* weight, void* output, bool turned, void* stream) {
  return shape.channels_last ? launch_map<T, true>(shape, input, weight, output, turned, stream)
                             : launch_map<T, false>(shape, input, weight, output, turned, stream);
}

const char* map_of(const CdconvShape& shape, const void* input, const void* weight, void* output, bool turned, void* stream) {
  if (is_empty(shape)) return nullptr;
  switch (shape.type) {
    case Type::float32: return map_of_type<float>(shape, input, weight, output, turned, stream);
    case Type::float16: return map_of_type<__half>(shape, input, weight, output, turned, stream);
    case Type::bfloat16: return map_of_type<__nv_bfloat16>(shape, input, weight, output, turned, stream);
    default: return "cdconv: float64 is for the CPU and reference backends, not for CUDA";
  }
}

template <typename T>
const char* weight_of_type(const CdconvShape& shape, const void* grad, const void* input, void* grad_weight, float* partial_sums, void* stream) {
  return shape.channels_last ? launch_weight<T, true>(shape, grad, input, grad_weight, partial_sums, stream)
                             : launch_weight<T, false>(shape, grad, input, grad_weight, partial_sums, stream);
}

const char* cdconv_cuda(const CdconvShape& shape, const void* input, const void* weight, void* output, void* stream) {
  return map_of(shape, input, weight, output, false, stream);
}

int64_t cdconv_backward_workspace_cuda(const CdconvShape& shape) { return shape.batch * shape.channels * TAPS * 4; }

const char* cdconv_backward_cuda(const CdconvShape& shape, const void* grad, const void* input, const void* weight, void* grad_input,
                                 void* grad_weight, void* workspace, void* stream) {
  if (grad_input != nullptr) {
    if (const char* problem = map_of(shape, grad, weight, grad_input, true, stream)) return problem;
  }
  if (grad_weight == nullptr) return nullptr;
  float* partial_sums = static_cast<float*>(workspace);
  switch (shape.type) {
    case Type::float32: return weight_of_type<float>(shape, grad, input, grad_weight, partial_sums, stream);
    case Type::float16: return weight_of_type<__half>(shape, grad, input, grad_weight, partial_sums, stream);
    case Type::bfloat16: return weight_of_type<__nv_bfloat16>(shape, grad, input, grad_weight, partial_sums, stream);
    default: return "cdconv: float64 is for the CPU and reference backends, not for CUDA";
  }
}

}  // namespace ultron
