// 3x3 convolutions of stride 1 with a quarter of the multiplications (Lavin and Gray 2016, "Fast Algorithms for
// Convolutional Neural Networks"): 4x4 outputs from 6x6 inputs by 36 products instead of 144. Needs no TensorFlow.
//
// With B, G and A the transforms of inputs, filters and outputs, a tile of outputs is A^T [(G g G^T) * (B^T d B)] A. The
// products over all channels are 36 matrix products. Everything is computed in float32.

#ifndef MRCNN_TF_WINOGRAD_H_
#define MRCNN_TF_WINOGRAD_H_

#include <cstdint>
#include <vector>

#include "vector.h"

namespace mrcnn_tf {

constexpr int kTileOutputs = 4, kTileInputs = 6, kProducts = kTileInputs * kTileInputs;
constexpr int kPanel = 2 * kLanes;  // output channels that are computed at a time

// [images, height, width, channels] -> [images, height, width, filters], zeros around each image. Both channel counts
// are multiples of kLanes.
struct Conv3x3 {
  int64_t images;
  int32_t height, width, channels, filters;
  bool relu;

  int64_t TileRows() const { return (height + kTileOutputs - 1) / kTileOutputs; }
  int64_t TileColumns() const { return (width + kTileOutputs - 1) / kTileOutputs; }
  int64_t Tiles() const { return images * TileRows() * TileColumns(); }
  int64_t Panels() const { return (filters + kPanel - 1) / kPanel; }
};

// How many tiles are worked on at a time: their transformed inputs should stay in the cache.
int64_t TilesAtATime(const Conv3x3& conv, int threads);

// Transformed filters: for each of the 36 products and each panel, [channels, kPanel].
int64_t TransformedFilterSize(const Conv3x3& conv);

// The panels first <= panel < last of filters [3, 3, channels, filters].
void TransformFilters(const Conv3x3& conv, const float* filters, int64_t first, int64_t last, float* transformed);

// The tiles first <= tile < last, at most `TilesAtATime`. `bias` may be null. T is float or BFloat16.
template <typename T>
void ConvolveTiles(const Conv3x3& conv, const T* input, const float* transformed, const float* bias, int64_t first,
                   int64_t last, T* output);

// What the tiles first <= tile < last, `at_a_time` of them after each other, add to the gradient of the transformed
// filters [36, channels, filters], from the inputs and the gradient of the outputs.
template <typename T>
void AddFilterGradient(const Conv3x3& conv, const T* input, const T* output_gradient, int64_t first, int64_t last,
                       int64_t at_a_time, float* transformed_gradient);

// The gradient of filters [3, 3, channels, filters] for the input channels first <= c < last, from the sum over `parts`
// of transformed gradients.
void TransformFilterGradient(const Conv3x3& conv, const std::vector<const float*>& parts, int64_t first, int64_t last,
                             float* gradient);

}  // namespace mrcnn_tf

#endif  // MRCNN_TF_WINOGRAD_H_
