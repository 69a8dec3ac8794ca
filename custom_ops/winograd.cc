#include "winograd.h"

#include <algorithm>
#include <cstring>

namespace mrcnn_tf {
namespace {

// The transforms follow from the points 0, +-kNear, +-kFar and infinity, at which the tile's polynomials are multiplied.
// With these two the result is off by 1.4 times what float32 costs a plain convolution; the usual 1 and 2 make that 3.
constexpr float kNear = 0.75f, kFar = 1.5f;
constexpr float kNear2 = kNear * kNear, kFar2 = kFar * kFar;

// Rows of a block of the product, whose sums fill the registers; the latter divide every channel count.
#ifdef __AVX512F__
constexpr int kRows = 12, kGradientRows = 8;
#else
constexpr int kRows = 3, kGradientRows = 2;
#endif

// B^T d along one axis: in[0], in[stride], ... -> out[0], out[stride], ...
inline void TransformInput(const Vector* in, Vector* out, int stride) {
  const Vector d0 = in[0], d1 = in[stride], d2 = in[2 * stride], d3 = in[3 * stride], d4 = in[4 * stride],
               d5 = in[5 * stride];
  const Vector near_even = d4 - kFar2 * d2, near_odd = kNear * (d3 - kFar2 * d1);
  const Vector far_even = d4 - kNear2 * d2, far_odd = kFar * (d3 - kNear2 * d1);
  out[0] = kNear2 * kFar2 * d0 - (kNear2 + kFar2) * d2 + d4;
  out[stride] = near_even + near_odd;
  out[2 * stride] = near_even - near_odd;
  out[3 * stride] = far_even + far_odd;
  out[4 * stride] = far_even - far_odd;
  out[5 * stride] = kNear2 * kFar2 * d1 - (kNear2 + kFar2) * d3 + d5;
}

// A^T m along one axis: six values to four.
inline void TransformOutput(const Vector* in, int in_stride, Vector* out, int out_stride) {
  const Vector near_sum = in[in_stride] + in[2 * in_stride], near_difference = in[in_stride] - in[2 * in_stride];
  const Vector far_sum = in[3 * in_stride] + in[4 * in_stride], far_difference = in[3 * in_stride] - in[4 * in_stride];
  out[0] = in[0] + near_sum + far_sum;
  out[out_stride] = kNear * near_difference + kFar * far_difference;
  out[2 * out_stride] = kNear2 * near_sum + kFar2 * far_sum;
  out[3 * out_stride] = kNear2 * kNear * near_difference + kFar2 * kFar * far_difference + in[5 * in_stride];
}

// A y along one axis, the transpose of `TransformOutput`: four values to six.
inline void TransformOutputGradient(const Vector* in, int in_stride, Vector* out, int out_stride) {
  const Vector y0 = in[0], y1 = in[in_stride], y2 = in[2 * in_stride], y3 = in[3 * in_stride];
  const Vector near_even = y0 + kNear2 * y2, near_odd = kNear * y1 + kNear2 * kNear * y3;
  const Vector far_even = y0 + kFar2 * y2, far_odd = kFar * y1 + kFar2 * kFar * y3;
  out[0] = y0;
  out[out_stride] = near_even + near_odd;
  out[2 * out_stride] = near_even - near_odd;
  out[3 * out_stride] = far_even + far_odd;
  out[4 * out_stride] = far_even - far_odd;
  out[5 * out_stride] = y3;
}

// 1 / the product of a point's distances to the other four.
constexpr float kZeroShare = 1.0f / (kNear2 * kFar2);
constexpr float kNearShare = 1.0f / (2.0f * kNear2 * (kNear2 - kFar2));
constexpr float kFarShare = 1.0f / (2.0f * kFar2 * (kFar2 - kNear2));

// G g along one axis: three values to six.
inline void TransformFilter(const Vector* in, int in_stride, Vector* out, int out_stride) {
  const Vector g0 = in[0], g1 = in[in_stride], g2 = in[2 * in_stride];
  const Vector near_even = kNearShare * (g0 + kNear2 * g2), near_odd = kNearShare * kNear * g1;
  const Vector far_even = kFarShare * (g0 + kFar2 * g2), far_odd = kFarShare * kFar * g1;
  out[0] = kZeroShare * g0;
  out[out_stride] = near_even + near_odd;
  out[2 * out_stride] = near_even - near_odd;
  out[3 * out_stride] = far_even + far_odd;
  out[4 * out_stride] = far_even - far_odd;
  out[5 * out_stride] = g2;
}

// G^T u along one axis, the transpose of `TransformFilter`: six values to three.
inline void TransformFilterBack(const Vector* in, int in_stride, Vector* out, int out_stride) {
  const Vector near_sum = in[in_stride] + in[2 * in_stride], near_difference = in[in_stride] - in[2 * in_stride];
  const Vector far_sum = in[3 * in_stride] + in[4 * in_stride], far_difference = in[3 * in_stride] - in[4 * in_stride];
  out[0] = kZeroShare * in[0] + kNearShare * near_sum + kFarShare * far_sum;
  out[out_stride] = kNearShare * kNear * near_difference + kFarShare * kFar * far_difference;
  out[2 * out_stride] = kNearShare * kNear2 * near_sum + kFarShare * kFar2 * far_sum + in[5 * in_stride];
}

// Where a tile lies: its image's first value and the row and column of its first output.
struct Place {
  int64_t image;
  int32_t row, column;
};

Place PlaceOf(const Conv3x3& conv, int64_t tile) {
  const int64_t columns = conv.TileColumns(), in_image = conv.TileRows() * columns;
  const int64_t rest = tile % in_image;
  return {tile / in_image, static_cast<int32_t>(rest / columns) * kTileOutputs,
          static_cast<int32_t>(rest % columns) * kTileOutputs};
}

// The `side` x `side` values from (row, column) on of one image's map, zeros outside of it.
template <int side, typename T>
inline void LoadTile(const T* map, const Conv3x3& conv, int32_t row, int32_t column, int32_t channels, Vector* values) {
  for (int y = 0; y < side; ++y) {
    for (int x = 0; x < side; ++x) {
      const bool inside = row + y >= 0 && row + y < conv.height && column + x >= 0 && column + x < conv.width;
      const int64_t cell = static_cast<int64_t>(row + y) * conv.width + column + x;
      values[side * y + x] = inside ? Load(map + cell * channels) : Vector{};
    }
  }
}

// Transformed inputs of the tiles: [36, tiles, channels].
template <typename T>
void TransformInputs(const Conv3x3& conv, const T* input, int64_t first, int64_t last, int64_t tiles, float* to) {
  const int64_t image_size = static_cast<int64_t>(conv.height) * conv.width * conv.channels;
  for (int64_t tile = first; tile < last; ++tile) {
    const Place place = PlaceOf(conv, tile);
    const T* map = input + place.image * image_size;
    for (int32_t c = 0; c < conv.channels; c += kLanes) {
      Vector values[kProducts], half[kProducts];
      LoadTile<kTileInputs>(map + c, conv, place.row - 1, place.column - 1, conv.channels, values);
      for (int x = 0; x < kTileInputs; ++x) TransformInput(values + x, half + x, kTileInputs);
      for (int y = 0; y < kTileInputs; ++y) TransformInput(half + kTileInputs * y, values + kTileInputs * y, 1);
      for (int p = 0; p < kProducts; ++p) Store(to + (p * tiles + tile - first) * conv.channels + c, values[p]);
    }
  }
}

// sums [kRows, kPanel] = rows [kRows, depth] (`pitch` apart) x panel [depth, kPanel].
inline void MultiplyBlock(const float* rows, int64_t pitch, const float* panel, int64_t depth, float* sums) {
  Vector left[kRows] = {}, right[kRows] = {};
  for (int64_t c = 0; c < depth; ++c) {
    const Vector first = Load(panel + c * kPanel), second = Load(panel + c * kPanel + kLanes);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const float value = rows[r * pitch + c];
      left[r] += value * first;
      right[r] += value * second;
    }
  }
  for (int r = 0; r < kRows; ++r) {
    Store(sums + r * kPanel, left[r]);
    Store(sums + r * kPanel + kLanes, right[r]);
  }
}

// sums [kGradientRows, Vectors x 16] += the transpose of rows [depth, kGradientRows] x columns [depth, Vectors x 16],
// with rows `row_pitch` apart, and the others `pitch`.
template <int Vectors>
inline void AddProduct(const float* rows, int64_t row_pitch, const float* columns, int64_t pitch, int64_t depth,
                       float* sums) {
  Vector total[kGradientRows][Vectors] = {};
  for (int64_t t = 0; t < depth; ++t) {
    Vector right[Vectors];
    for (int v = 0; v < Vectors; ++v) right[v] = Load(columns + t * pitch + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kGradientRows; ++r) {
      const float value = rows[t * row_pitch + r];
      for (int v = 0; v < Vectors; ++v) total[r][v] += value * right[v];
    }
  }
  for (int r = 0; r < kGradientRows; ++r) {
    for (int v = 0; v < Vectors; ++v) {
      float* to = sums + r * pitch + v * kLanes;
      Store(to, Load(to) + total[r][v]);
    }
  }
}

// Transformed gradients of the tiles' outputs: [36, tiles, filters].
template <typename T>
void TransformOutputGradients(const Conv3x3& conv, const T* gradient, int64_t first, int64_t last, float* to) {
  const int64_t image_size = static_cast<int64_t>(conv.height) * conv.width * conv.filters;
  for (int64_t tile = first; tile < last; ++tile) {
    const Place place = PlaceOf(conv, tile);
    const T* map = gradient + place.image * image_size;
    for (int32_t k = 0; k < conv.filters; k += kLanes) {
      Vector values[kTileOutputs * kTileOutputs], half[kTileInputs * kTileOutputs], all[kProducts];
      LoadTile<kTileOutputs>(map + k, conv, place.row, place.column, conv.filters, values);
      for (int x = 0; x < kTileOutputs; ++x) TransformOutputGradient(values + x, kTileOutputs, half + x, kTileOutputs);
      for (int y = 0; y < kTileInputs; ++y) TransformOutputGradient(half + kTileOutputs * y, 1, all + kTileInputs * y, 1);
      for (int p = 0; p < kProducts; ++p) Store(to + (p * (last - first) + tile - first) * conv.filters + k, all[p]);
    }
  }
}

// Outputs of one tile for 16 filters; `products` are `pitch` apart.
template <typename T>
void WriteTile(const Conv3x3& conv, const Place& place, const float* products, int64_t pitch, Vector bias, T* output) {
  Vector values[kProducts], half[kTileOutputs * kTileInputs], result[kTileOutputs];
  for (int p = 0; p < kProducts; ++p) values[p] = Load(products + p * pitch);
  for (int x = 0; x < kTileInputs; ++x) TransformOutput(values + x, kTileInputs, half + x, kTileInputs);
  const int rows = std::min(kTileOutputs, conv.height - place.row);
  const int columns = std::min(kTileOutputs, conv.width - place.column);
  for (int y = 0; y < rows; ++y) {
    TransformOutput(half + kTileInputs * y, 1, result, 1);
    T* to = output + (static_cast<int64_t>(place.row + y) * conv.width + place.column) * conv.filters;
    for (int x = 0; x < columns; ++x, to += conv.filters) {
      Vector value = result[x] + bias;
      if (conv.relu) value = value > 0.0f ? value : Vector{};
      Store(to, value);
    }
  }
}

int64_t RoundUp(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

int64_t TilesAtATime(const Conv3x3& conv, int threads) {
  constexpr int64_t kMost = 48;
  return std::min(kMost, RoundUp((conv.Tiles() + threads - 1) / threads, kRows));
}

int64_t TransformedFilterSize(const Conv3x3& conv) { return kProducts * conv.Panels() * conv.channels * kPanel; }

void TransformFilters(const Conv3x3& conv, const float* filters, int64_t first, int64_t last, float* transformed) {
  const int64_t plane = static_cast<int64_t>(conv.channels) * conv.filters;
  for (int64_t panel = first; panel < last; ++panel) {
    for (int32_t c = 0; c < conv.channels; ++c) {
      for (int half = 0; half < 2; ++half) {
        const int64_t k = panel * kPanel + half * kLanes;
        Vector values[9] = {}, wide[3 * kTileInputs], all[kProducts];
        if (k < conv.filters) {
          for (int i = 0; i < 9; ++i) values[i] = Load(filters + i * plane + int64_t{c} * conv.filters + k);
        }
        for (int x = 0; x < 3; ++x) TransformFilter(values + x, 3, wide + x, 3);
        for (int y = 0; y < kTileInputs; ++y) TransformFilter(wide + 3 * y, 1, all + kTileInputs * y, 1);
        float* to = transformed + (panel * conv.channels + c) * kPanel + half * kLanes;
        for (int p = 0; p < kProducts; ++p) Store(to + p * conv.Panels() * conv.channels * kPanel, all[p]);
      }
    }
  }
}

template <typename T>
void ConvolveTiles(const Conv3x3& conv, const T* input, const float* transformed, const float* bias, int64_t first,
                   int64_t last, T* output) {
  const int64_t tiles = RoundUp(last - first, kRows), channels = conv.channels;
  const int64_t image_size = static_cast<int64_t>(conv.height) * conv.width * conv.filters;
  thread_local std::vector<float> inputs, products;
  inputs.resize(kProducts * tiles * channels);
  products.resize(kProducts * tiles * kPanel);
  TransformInputs(conv, input, first, last, tiles, inputs.data());
  for (int64_t panel = 0; panel < conv.Panels(); ++panel) {
    for (int p = 0; p < kProducts; ++p) {
      const float* filters = transformed + (p * conv.Panels() + panel) * channels * kPanel;
      for (int64_t tile = 0; tile < tiles; tile += kRows) {
        MultiplyBlock(inputs.data() + (p * tiles + tile) * channels, channels, filters, channels,
                      products.data() + (p * tiles + tile) * kPanel);
      }
    }
    for (int half = 0; half < 2; ++half) {
      const int64_t k = panel * kPanel + half * kLanes;
      if (k >= conv.filters) break;
      const Vector shift = bias != nullptr ? Load(bias + k) : Vector{};
      for (int64_t tile = first; tile < last; ++tile) {
        const Place place = PlaceOf(conv, tile);
        const float* from = products.data() + (tile - first) * kPanel + half * kLanes;
        WriteTile(conv, place, from, tiles * kPanel, shift, output + place.image * image_size + k);
      }
    }
  }
}

template <typename T>
void AddFilterGradient(const Conv3x3& conv, const T* input, const T* output_gradient, int64_t first, int64_t last,
                       int64_t at_a_time, float* transformed_gradient) {
  const int64_t channels = conv.channels, filters = conv.filters;
  thread_local std::vector<float> inputs, gradients;
  inputs.resize(kProducts * at_a_time * channels);
  gradients.resize(kProducts * at_a_time * filters);
  for (int64_t from = first; from < last; from += at_a_time) {
    const int64_t tiles = std::min(at_a_time, last - from);
    TransformInputs(conv, input, from, from + tiles, tiles, inputs.data());
    TransformOutputGradients(conv, output_gradient, from, from + tiles, gradients.data());
    for (int p = 0; p < kProducts; ++p) {
      for (int64_t c = 0; c < channels; c += kGradientRows) {
        const float* rows = inputs.data() + p * tiles * channels + c;
        const float* columns = gradients.data() + p * tiles * filters;
        float* sums = transformed_gradient + (p * channels + c) * filters;
        int64_t k = 0;
        for (; k + kPanel <= filters; k += kPanel) {
          AddProduct<2>(rows, channels, columns + k, filters, tiles, sums + k);
        }
        if (k < filters) AddProduct<1>(rows, channels, columns + k, filters, tiles, sums + k);
      }
    }
  }
}

void TransformFilterGradient(const Conv3x3& conv, const std::vector<const float*>& parts, int64_t first, int64_t last,
                             float* gradient) {
  const int64_t plane = static_cast<int64_t>(conv.channels) * conv.filters;
  for (int64_t at = first * conv.filters; at < last * conv.filters; at += kLanes) {
    Vector all[kProducts] = {}, half[3 * kTileInputs], values[9];
    for (const float* part : parts) {
      for (int p = 0; p < kProducts; ++p) all[p] += Load(part + p * plane + at);
    }
    for (int x = 0; x < kTileInputs; ++x) TransformFilterBack(all + x, kTileInputs, half + x, kTileInputs);
    for (int y = 0; y < 3; ++y) TransformFilterBack(half + kTileInputs * y, 1, values + 3 * y, 1);
    for (int i = 0; i < 9; ++i) Store(gradient + i * plane + at, values[i]);
  }
}

template void AddFilterGradient<float>(const Conv3x3&, const float*, const float*, int64_t, int64_t, int64_t, float*);
template void AddFilterGradient<BFloat16>(const Conv3x3&, const BFloat16*, const BFloat16*, int64_t, int64_t, int64_t,
                                          float*);
template void ConvolveTiles<float>(const Conv3x3&, const float*, const float*, const float*, int64_t, int64_t, float*);
template void ConvolveTiles<BFloat16>(const Conv3x3&, const BFloat16*, const float*, const float*, int64_t, int64_t,
                                      BFloat16*);

}  // namespace mrcnn_tf
