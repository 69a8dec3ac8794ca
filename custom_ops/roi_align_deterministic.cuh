// Backward without atomics: each cell belongs to one warp, which adds the RoIs in their order. So equal inputs give
// equal bits.

#ifndef MRCNN_TF_ROI_ALIGN_DETERMINISTIC_CUH_
#define MRCNN_TF_ROI_ALIGN_DETERMINISTIC_CUH_

#include "roi_align_cells.cuh"

namespace mrcnn_tf {

constexpr int kSide = 8;  // cells of a tile's side: a warp for each row, a sum for each column in each thread
constexpr int kTileThreads = kSide * kWarp;
constexpr int kBatch = kSide;     // RoIs whose weights are made together, by a warp each
constexpr int kBins = kWarp / 2;  // bins of an axis treated together: the other half of the warp makes the other axis
constexpr int kBinsAtOnce = 4;    // whose gradients a thread awaits together

// The tiles of all levels, numbered level by level.
struct CellTiles {
  int64_t first[kMaxLevels + 1];

  explicit CellTiles(const RoIAlign& op) {
    first[0] = 0;
    for (int level = 0; level < kMaxLevels; ++level) {
      const bool exists = level < op.levels;
      first[level + 1] = first[level] + (exists ? op.images * Count(op.height[level]) * Count(op.width[level]) : 0);
    }
  }
  static MRCNN_TF_INLINE int64_t Count(int32_t cells) { return (static_cast<int64_t>(cells) + kSide - 1) / kSide; }
};

struct CellTile {
  int32_t level, image, column, row;  // its first cell's

  __device__ CellTile(const RoIAlign& op, const CellTiles& tiles, int64_t number) : level(0) {
    while (number >= tiles.first[level + 1]) ++level;
    number -= tiles.first[level];
    const int64_t across = CellTiles::Count(op.width[level]), down = CellTiles::Count(op.height[level]);
    column = static_cast<int32_t>(number % across) * kSide;
    row = static_cast<int32_t>(number / across % down) * kSide;
    image = static_cast<int32_t>(number / across / down);
  }

  // False only for RoIs that touch no cell of the tile.
  __device__ bool MayTouch(const RoIAlign& op, int64_t roi) const {
    if (roi >= op.rois || !HasMap(op, roi) || op.level[roi] != level || op.image[roi] != image) return false;
    for (int i = 0; i < 2; ++i) {
      const Axis axis = MakeAxis(op, roi, i);
      const float first = static_cast<float>(i == 0 ? column : row);
      const float length = axis.bin * static_cast<float>(op.out * op.bin_step), end = axis.start + length;
      const float margin = 2.0f + 1e-6f * (fabsf(axis.start) + fabsf(length));  // clamping and rounding move samples
      if (axis.samples == 0 || !(fmaxf(axis.start, end) + margin >= first) ||
          !(fminf(axis.start, end) - margin <= first + kSide)) {
        return false;
      }
    }
    return true;
  }
};

// Lives in shared memory.
struct TileWork {
  int32_t hits[kTileThreads];  // RoIs of the round that may touch the tile, counted from its first, in order
  int32_t warp_hits[kSide];    // how many each warp found
  float weights[kBatch][2][kBins][kSide];  // of each RoI, axis and bin in the tile's columns or rows
  unsigned touching[kBatch];               // bins with a weight: axis 0 in the low half, axis 1 in the high one

  // Finds the hits among the kTileThreads RoIs from `first` on. Returns their number, in all threads.
  __device__ int32_t FindHits(const RoIAlign& op, const CellTile& tile, int64_t first) {
    const int32_t thread = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const bool hit = tile.MayTouch(op, first + threadIdx.x);
    const unsigned all = __ballot_sync(kWholeWarp, hit);
    if (thread == 0) warp_hits[warp] = __popc(all);
    __syncthreads();
    int32_t before = 0, total = 0;
    for (int i = 0; i < kSide; ++i) {
      before += i < warp ? warp_hits[i] : 0;
      total += warp_hits[i];
    }
    if (hit) hits[before + __popc(all & ((1u << thread) - 1))] = threadIdx.x;
    __syncthreads();
    return total;
  }

  // Called by one warp for the RoI in place `place` of the batch, and its bins from `row` and `column` on.
  __device__ void MakeWeights(const RoIAlign& op, const CellTile& tile, int64_t roi, int32_t place, int32_t row,
                              int32_t column) {
    const int32_t thread = threadIdx.x % kWarp, i = thread / kBins;
    const int32_t bin = (i == 0 ? column : row) + thread % kBins;
    float* own = weights[place][i][thread % kBins];
    const int32_t first = i == 0 ? tile.column : tile.row;
    bool touched = false;
    for (int cell = 0; cell < kSide; ++cell) own[cell] = 0.0f;
    if (bin < op.out) {
      const Axis axis = MakeAxis(op, roi, i);
      const float share = 1.0f / static_cast<float>(axis.samples);
      int32_t sample, last;
      for (SamplesOnMap(axis, bin, &sample, &last); sample < last; ++sample) {
        Sample cells;
        if (!MakeSample(axis, bin, sample, &cells)) continue;
        const int32_t low = cells.low - first, high = cells.high - first;
        if (low >= 0 && low < kSide) own[low] += (1.0f - cells.fraction) * share;
        if (high >= 0 && high < kSide) own[high] += cells.fraction * share;
        touched |= high >= 0 && low < kSide;
      }
    }
    const unsigned all = __ballot_sync(kWholeWarp, touched);
    if (thread == 0) touching[place] = all;
  }
};

// Adds what the batch's RoI in `place` gives to the tile's row of the calling warp. `bins`: its bin in the chunk's
// first row and column.
template <typename T, typename Lane>
__device__ void AddRoI(const RoIAlign& op, const TileWork& work, const Lane& lane, int32_t place, const T* bins,
                       typename Lane::Total* sums) {
  const int32_t thread = threadIdx.x % kWarp, row_in_tile = threadIdx.x / kWarp;
  const float own = thread < kBins ? work.weights[place][1][thread][row_in_tile] : 0.0f;
  const unsigned columns = work.touching[place] & ((1u << kBins) - 1);
  for (unsigned rows = __ballot_sync(kWholeWarp, own != 0.0f); rows != 0; rows &= rows - 1) {
    const int row = __ffs(rows) - 1;
    const float row_weight = __shfl_sync(kWholeWarp, own, row);
    for (unsigned left = columns; left != 0;) {
      typename Lane::Raw raw[kBinsAtOnce];
      int column[kBinsAtOnce];
#pragma unroll
      for (int i = 0; i < kBinsAtOnce; ++i) {
        column[i] = __ffs(left) - 1;
        left &= left - 1;
        if (column[i] < 0) continue;
        raw[i] = lane.Load(bins + (static_cast<int64_t>(row) * op.out + column[i]) * op.channels);
      }
#pragma unroll
      for (int i = 0; i < kBinsAtOnce; ++i) {
        if (column[i] < 0) continue;
        typename Lane::Total gradient;
        Lane::Add(row_weight, raw[i], &gradient);
#pragma unroll
        for (int cell = 0; cell < kSide; ++cell) sums[cell].Add(work.weights[place][0][column[i]][cell], gradient);
      }
    }
  }
}

// Adds all RoIs to the sums of the calling thread's row of the tile. Called by the whole block.
template <typename T, typename Lane>
__device__ void AddRoIs(const RoIAlign& op, const CellTile& tile, const Lane& lane, const T* gradient, TileWork* work,
                        typename Lane::Total* sums) {
  const int32_t warp = threadIdx.x / kWarp;
  for (int64_t first = 0; first < op.rois; first += kTileThreads) {
    const int32_t hits = work->FindHits(op, tile, first);
    for (int32_t hit = 0; hit < hits; hit += kBatch) {
      for (int32_t row = 0; row < op.out; row += kBins) {
        for (int32_t column = 0; column < op.out; column += kBins) {
          if (hit + warp < hits) work->MakeWeights(op, tile, first + work->hits[hit + warp], warp, row, column);
          __syncthreads();
          for (int32_t place = 0; place < kBatch && hit + place < hits; ++place) {
            const int64_t roi = first + work->hits[hit + place];
            AddRoI(op, *work, lane, place, gradient + ((roi * op.out + row) * op.out + column) * op.channels, sums);
          }
          __syncthreads();
        }
      }
    }
  }
}

// The grid is tiles x slices.
template <typename T, bool kVector>
__global__ void __launch_bounds__(kTileThreads)
    PoolBackwardInOrder(const __grid_constant__ RoIAlign op, const T* gradient, const __grid_constant__ Maps<T> maps,
                        const __grid_constant__ CellTiles tiles) {
  using Lane = Channels<T, 4, kVector>;
  __shared__ TileWork work;
  const CellTile tile(op, tiles, blockIdx.x);
  const Lane lane(op.channels, blockIdx.y);
  typename Lane::Total sums[kSide];
  AddRoIs(op, tile, lane, gradient, &work, sums);
  const int32_t height = op.height[tile.level], width = op.width[tile.level];
  const int32_t row = tile.row + static_cast<int32_t>(threadIdx.x / kWarp);
  if (row >= height) return;
  T* cells =
      maps.level[tile.level] + ((static_cast<int64_t>(tile.image) * height + row) * width + tile.column) * op.channels;
#pragma unroll
  for (int i = 0; i < kSide; ++i) {
    if (tile.column + i < width) lane.Store(cells + static_cast<int64_t>(i) * op.channels, sums[i]);
  }
}

}  // namespace mrcnn_tf

#endif  // MRCNN_TF_ROI_ALIGN_DETERMINISTIC_CUH_
