// RoIAlign (section 3 of the paper): what the CPU and the CUDA kernel compute. Needs neither TensorFlow nor CUDA.

#ifndef MRCNN_TF_ROI_ALIGN_H_
#define MRCNN_TF_ROI_ALIGN_H_

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define MRCNN_TF_INLINE __host__ __device__ __forceinline__
#else
#define MRCNN_TF_INLINE inline
#endif

namespace mrcnn_tf {

constexpr int kMaxLevels = 8;

// One call: R RoIs pooled from L feature maps [images, height, width, channels] into [R, out, out, channels].
struct RoIAlign {
  int32_t levels, images, channels;
  int32_t height[kMaxLevels], width[kMaxLevels];
  float scale[kMaxLevels];  // feature cells per image pixel
  int32_t out;              // bins per side
  int32_t sampling_ratio;   // samples per bin side; 0: ceil(bin size), as detectron2
  int32_t aligned;          // shift by half a cell; unaligned RoIs are at least one cell wide and high
  int32_t bin_step;         // 1, or n: of a grid of n * out bins a side only every n-th is pooled
  int64_t rois;
  const float* boxes;     // [R, 4] x1, y1, x2, y2 in image pixels
  const int32_t* image;   // [R]
  const int32_t* level;   // [R]
  const int32_t* canvas;  // [images, 2] height and width in pixels, where each image's maps end; null: at their sides
};

// The samples of one RoI along one axis, in cells. Axis 0 is x, 1 is y.
struct Axis {
  float start;  // of the first bin
  float bin;    // its length
  int32_t step;     // bins from one that is pooled to the next
  int32_t samples;  // in each bin; 0: this RoI pools nothing
  int32_t cells;    // of the map
};

// A sample reads two cells: (1 - fraction) of `low` and `fraction` of `high`, which may be the same cell.
struct Sample {
  int32_t low, high;
  float fraction;
};

// False for RoIs that name no map. They, and boxes with a coordinate that isn't finite, pool to zeros.
MRCNN_TF_INLINE bool HasMap(const RoIAlign& op, int64_t roi) {
  return op.level[roi] >= 0 && op.level[roi] < op.levels && op.image[roi] >= 0 && op.image[roi] < op.images;
}

MRCNN_TF_INLINE bool IsFinite(float value) { return value - value == 0.0f; }

MRCNN_TF_INLINE Axis MakeAxis(const RoIAlign& op, int64_t roi, int axis) {
  constexpr float kMostSamples = 1 << 24;  // beyond it float32 can't tell neighbouring cells apart
  const int32_t level = op.level[roi];
  const float* box = op.boxes + 4 * roi;
  const float scale = op.scale[level];
  Axis result;
  result.cells = axis ? op.height[level] : op.width[level];
  if (op.canvas != nullptr) {
    const float own = ceilf(static_cast<float>(op.canvas[2 * op.image[roi] + (axis ? 0 : 1)]) * scale);
    if (own < static_cast<float>(result.cells)) result.cells = static_cast<int32_t>(own);
  }
  result.start = box[axis] * scale - (op.aligned ? 0.5f : 0.0f);
  float length = (box[axis + 2] - box[axis]) * scale;
  if (!op.aligned && length < 1.0f) length = 1.0f;
  result.step = op.bin_step;
  result.bin = length / static_cast<float>(op.out * op.bin_step);
  float samples = op.sampling_ratio > 0 ? static_cast<float>(op.sampling_ratio) : ceilf(result.bin);
  if (!(IsFinite(box[0]) && IsFinite(box[1]) && IsFinite(box[2]) && IsFinite(box[3]) && IsFinite(result.bin)) ||
      !(samples > 0.0f) || result.cells <= 0) {
    samples = 0.0f;
  }
  result.samples = static_cast<int32_t>(samples < kMostSamples ? samples : kMostSamples);
  return result;
}

// The samples first <= s < last of a bin that can lie on the map. Others pool nothing, so that huge boxes cost no more
// than the map has cells.
MRCNN_TF_INLINE void SamplesOnMap(const Axis& axis, int bin, int32_t* first, int32_t* last) {
  *first = 0;
  *last = axis.samples;
  if (axis.samples <= 8 || !(axis.bin > 0.0f)) return;
  const double step = static_cast<double>(axis.bin) / axis.samples;
  const double start = static_cast<double>(axis.start) + bin * axis.step * static_cast<double>(axis.bin);
  const double low = (-1.0 - start) / step - 3.0, high = (axis.cells - start) / step + 3.0;  // rounding moves a sample
  if (low > 0.0) *first = low < axis.samples ? static_cast<int32_t>(low) : axis.samples;
  if (high < axis.samples) *last = high > 0.0 ? static_cast<int32_t>(high) : 0;
}

// False for a sample more than one cell outside the map, which counts as 0; others are clamped to the map.
MRCNN_TF_INLINE bool MakeSample(const Axis& axis, int bin, int32_t sample, Sample* result) {
  float position = axis.start + static_cast<float>(bin * axis.step) * axis.bin +
                   (static_cast<float>(sample) + 0.5f) * axis.bin / static_cast<float>(axis.samples);
  if (!(position >= -1.0f && position <= static_cast<float>(axis.cells))) return false;
  const float end = static_cast<float>(axis.cells - 1);
  position = position < 0.0f ? 0.0f : (position > end ? end : position);
  result->low = static_cast<int32_t>(position);
  result->high = result->low + 1 < axis.cells ? result->low + 1 : result->low;
  result->fraction = position - static_cast<float>(result->low);
  return true;
}

}  // namespace mrcnn_tf

#endif  // MRCNN_TF_ROI_ALIGN_H_
