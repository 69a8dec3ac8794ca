// Choice and launch of the CUDA kernels. No TensorFlow here, so that any CUDA program can call them.

#include <algorithm>
#include <cstddef>

#include "roi_align_backward.cuh"
#include "roi_align_cuda.h"
#include "roi_align_deterministic.cuh"
#include "roi_align_forward.cuh"

namespace mrcnn_tf {
namespace {

// Programs that are not compiled with roi_align.h lay the struct out by themselves.
static_assert(sizeof(RoIAlign) == 168 && offsetof(RoIAlign, height) == 12 && offsetof(RoIAlign, out) == 108 &&
                  offsetof(RoIAlign, bin_step) == 120 && offsetof(RoIAlign, rois) == 128 &&
                  offsetof(RoIAlign, canvas) == 160,
              "the layout of RoIAlign changed: change roi_align_library.py with it");

// Blocks that keep a large device busy to the end. With fewer, RoIs are cut into smaller pieces.
constexpr int64_t kEnoughBlocks = 2048;
// The most RoIs that one grid takes: others go to the next.
constexpr int64_t kMostRoIs = 2147483647;

template <typename... Parameters, typename... Arguments>
cudaError_t Launch(void (*kernel)(Parameters...), dim3 grid, int threads, cudaStream_t stream,
                   const Arguments&... arguments) {
  kernel<<<grid, threads, 0, stream>>>(arguments...);
  return cudaGetLastError();
}

int64_t MapValues(const RoIAlign& op, int level) {
  return static_cast<int64_t>(op.images) * op.height[level] * op.width[level] * op.channels;
}

template <typename T>
Maps<T> MapsOf(const RoIAlign& op, T* const* levels) {
  Maps<T> maps = {};
  std::copy(levels, levels + op.levels, maps.level);
  return maps;
}

bool Aligned(const void* pointer, size_t bytes) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }

template <typename T>
bool Aligned(const RoIAlign& op, const Maps<T>& maps, size_t bytes) {
  return std::all_of(maps.level, maps.level + op.levels, [=](const T* map) { return Aligned(map, bytes); });
}

// The RoIs from `first` on.
RoIAlign From(const RoIAlign& op, int64_t first) {
  RoIAlign rest = op;
  rest.rois = std::min(op.rois - first, kMostRoIs);
  rest.boxes += 4 * first;
  rest.image += first;
  rest.level += first;
  return rest;
}

int64_t PooledValues(const RoIAlign& op) { return static_cast<int64_t>(op.out) * op.out * op.channels; }

template <typename T, typename Lane>
cudaError_t LaunchForward(const RoIAlign& op, const Maps<const T>& maps, T* pooled, cudaStream_t stream) {
  const int64_t slices = (op.channels - 1) / Lane::kSlice + 1;
  Tiling tiling(op.out, kForwardRows, kForwardColumns);
  while (tiling.rows > 1 && op.rois * slices * tiling.Tiles() < kEnoughBlocks) {
    tiling = Tiling(op.out, (tiling.rows + 1) / 2, kForwardColumns);
  }
  for (int64_t first = 0; first < op.rois; first += kMostRoIs) {
    const RoIAlign some = From(op, first);
    const cudaError_t error = Launch(PoolForward<T, Lane>, dim3(some.rois, tiling.Tiles(), slices),
                                     tiling.columns * kWarp, stream, some, maps, pooled, tiling);
    if (error != cudaSuccess) return error;
    pooled += some.rois * PooledValues(op);
  }
  return cudaSuccess;
}

template <typename T>
cudaError_t Forward(const RoIAlign& op, const void* const* levels, void* pooled, cudaStream_t stream) {
  if (op.channels == 0 || op.out == 0) return cudaSuccess;
  constexpr int kVectorBytes = 16, kWidth = kVectorBytes / sizeof(T);
  const auto maps = MapsOf(op, reinterpret_cast<const T* const*>(levels));
  T* values = static_cast<T*>(pooled);
  if (op.channels % kWidth == 0 && Aligned(op, maps, kVectorBytes) && Aligned(values, kVectorBytes)) {
    return LaunchForward<T, Channels<T, kWidth, true>>(op, maps, values, stream);
  }
  return LaunchForward<T, Channels<T, 4, false>>(op, maps, values, stream);
}

template <typename T>
cudaError_t Clear(const RoIAlign& op, const Maps<T>& maps, cudaStream_t stream) {
  for (int level = 0; level < op.levels; ++level) {
    if (MapValues(op, level) == 0) continue;
    const cudaError_t error = cudaMemsetAsync(maps.level[level], 0, MapValues(op, level) * sizeof(T), stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

// Adds the gradient to `sums`.
template <typename T>
cudaError_t AddToMaps(const RoIAlign& op, const T* gradient, const Maps<float>& sums, cudaStream_t stream) {
  const bool vector = op.channels % kBackwardWidth == 0 && Aligned(op, sums, sizeof(float4)) &&
                      Aligned(gradient, kBackwardWidth * sizeof(T));
  const int64_t slices = (op.channels - 1) / (kBackwardWidth * kWarp) + 1;
  Tiling tiling(op.out, kBackwardBins, kBackwardBins);
  const int64_t blocks = op.rois * slices * tiling.Tiles();
  tiling.parts = static_cast<int32_t>(std::min<int64_t>((kEnoughBlocks - 1) / blocks + 1, kMostParts));
  for (int64_t first = 0; first < op.rois; first += kMostRoIs) {
    const RoIAlign some = From(op, first);
    const cudaError_t error = Launch(vector ? PoolBackward<T, true> : PoolBackward<T, false>,
                                     dim3(some.rois, tiling.Tiles() * tiling.parts, slices), kBackwardWarps * kWarp,
                                     stream, some, gradient, sums, tiling);
    if (error != cudaSuccess) return error;
    gradient += some.rois * PooledValues(op);
  }
  return cudaSuccess;
}

template <typename T>
cudaError_t RoundToMaps(const RoIAlign& op, const Maps<float>& sums, const Maps<T>& maps, cudaStream_t stream) {
  constexpr int kThreads = 256;
  int64_t most = 0;
  for (int level = 0; level < op.levels; ++level) most = std::max(most, MapValues(op, level));
  const bool vector = op.channels % 4 == 0 && Aligned(op, sums, sizeof(float4)) && Aligned(op, maps, sizeof(uint2));
  return Launch(RoundSums<T>, dim3(std::min<int64_t>(most / kThreads + 1, kEnoughBlocks), op.levels), kThreads, stream,
                op, sums, maps, vector);
}

template <typename T>
cudaError_t BackwardInOrder(const RoIAlign& op, const T* gradient, const Maps<T>& maps, cudaStream_t stream) {
  const CellTiles tiles(op);
  if (tiles.first[kMaxLevels] == 0) return cudaSuccess;
  const bool vector = op.channels % 4 == 0 && Aligned(op, maps, 4 * sizeof(T)) && Aligned(gradient, 4 * sizeof(T));
  const int64_t slices = (op.channels - 1) / (4 * kWarp) + 1;
  return Launch(vector ? PoolBackwardInOrder<T, true> : PoolBackwardInOrder<T, false>,
                dim3(tiles.first[kMaxLevels], slices), kTileThreads, stream, op, gradient, maps, tiles);
}

template <typename T>
cudaError_t Backward(const RoIAlign& op, const void* pooled_gradient, void* const* levels, float* workspace,
                     bool deterministic, cudaStream_t stream) {
  if (op.channels == 0) return cudaSuccess;
  const T* gradient = static_cast<const T*>(pooled_gradient);
  const auto maps = MapsOf(op, reinterpret_cast<T* const*>(levels));
  if (op.rois == 0 || op.out == 0) return Clear(op, maps, stream);
  if (deterministic) return BackwardInOrder(op, gradient, maps, stream);
  Maps<float> sums = {};
  if constexpr (std::is_same_v<T, float>) {
    sums = maps;
  } else {
    for (int level = 0; level < op.levels; ++level) {
      if (workspace == nullptr && MapValues(op, level) > 0) return cudaErrorInvalidValue;
      sums.level[level] = workspace;
      workspace += MapValues(op, level);
    }
  }
  cudaError_t error = Clear(op, sums, stream);
  if (error == cudaSuccess) error = AddToMaps(op, gradient, sums, stream);
  if constexpr (!std::is_same_v<T, float>) {
    if (error == cudaSuccess && op.levels > 0) error = RoundToMaps(op, sums, maps, stream);
  }
  return error;
}

bool Valid(const RoIAlign& op) {
  return op.levels >= 0 && op.levels <= kMaxLevels && op.images >= 0 && op.channels >= 0 && op.out >= 0 && op.rois >= 0 &&
         op.bin_step >= 1;
}

}  // namespace
}  // namespace mrcnn_tf

extern "C" int mrcnn_tf_roi_align_forward(const mrcnn_tf::RoIAlign* op, int dtype, const void* const* maps,
                                          void* pooled, void* stream) {
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  if (!mrcnn_tf::Valid(*op)) return cudaErrorInvalidValue;
  switch (dtype) {
    case kRoIAlignFloat32:
      return mrcnn_tf::Forward<float>(*op, maps, pooled, on);
    case kRoIAlignFloat16:
      return mrcnn_tf::Forward<__half>(*op, maps, pooled, on);
    case kRoIAlignBFloat16:
      return mrcnn_tf::Forward<__nv_bfloat16>(*op, maps, pooled, on);
    default:
      return cudaErrorInvalidValue;
  }
}

extern "C" int mrcnn_tf_roi_align_backward(const mrcnn_tf::RoIAlign* op, int dtype, const void* pooled_gradient,
                                           void* const* map_gradients, float* workspace, int deterministic,
                                           void* stream) {
  using mrcnn_tf::Backward;
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  const bool in_order = deterministic != 0;
  if (!mrcnn_tf::Valid(*op)) return cudaErrorInvalidValue;
  switch (dtype) {
    case kRoIAlignFloat32:
      return Backward<float>(*op, pooled_gradient, map_gradients, workspace, in_order, on);
    case kRoIAlignFloat16:
      return Backward<__half>(*op, pooled_gradient, map_gradients, workspace, in_order, on);
    case kRoIAlignBFloat16:
      return Backward<__nv_bfloat16>(*op, pooled_gradient, map_gradients, workspace, in_order, on);
    default:
      return cudaErrorInvalidValue;
  }
}
