// Backward with atomic additions, whose order and so whose last bits differ from run to run.
//
// Atomic additions bound it. So a warp takes a row of an RoI's cells, sums what all of the RoI's bins give to each of
// them, and adds once to a cell.

#ifndef MRCNN_TF_ROI_ALIGN_BACKWARD_CUH_
#define MRCNN_TF_ROI_ALIGN_BACKWARD_CUH_

#include "roi_align_cells.cuh"

namespace mrcnn_tf {

constexpr int kBackwardBins = 16;  // rows and columns of a tile at most
constexpr int kBackwardWarps = 8;
constexpr int kMostParts = 4;       // blocks for a tile, so that few RoIs keep all multiprocessors busy
constexpr int kBackwardBlocks = 4;  // on a multiprocessor at least: bounds the registers
constexpr int kBackwardWidth = 4;   // channels of a thread, as many as a vector of float32 sums has
constexpr int kColumnsAtOnce = 4;   // whose gradients a thread awaits together

using BackwardCells = TileCells<kBackwardBins, kBackwardBins>;

// Adds the cells of a row in the order of the bins. Two neighbours are held back, as later samples may add to them.
template <typename Lane>
class RowOfCells {
 public:
  using Total = typename Lane::Total;

  __device__ RowOfCells(const Lane& lane, float* row, int32_t channels)
      : lane_(lane), row_(row), channels_(channels), cell_(0), held_(0) {}

  __device__ void Add(const CellList::Entry& entry, const Total& gradient) {
    if (held_ == 2 && entry.cell == cell_ + 2) {
      Write(cell_, low_);
      low_ = high_;
      high_ = Total();
      ++cell_;
    } else if (held_ == 0 || entry.cell < cell_ || entry.cell > cell_ + 1) {
      Flush();
      low_ = high_ = Total();
      cell_ = entry.cell;
      held_ = 1;
    }
    if (entry.cell == cell_) {
      low_.Add(entry.weight, gradient);
    } else {
      high_.Add(entry.weight, gradient);
      held_ = 2;
    }
  }

  __device__ void Flush() const {
    if (held_ > 0) Write(cell_, low_);
    if (held_ > 1) Write(cell_ + 1, high_);
  }

 private:
  __device__ void Write(int32_t cell, const Total& total) const {
    lane_.AtomicAdd(row_ + static_cast<int64_t>(cell) * channels_, total);
  }

  Lane lane_;
  float* row_;
  int32_t channels_, cell_, held_;
  Total low_, high_;
};

// The first and the last row of cells that a tile's bins touch, the same in all threads of a warp.
__device__ inline void TouchedRows(const BackwardCells& cells, const Bins& bins, int32_t* first, int32_t* last) {
  const int32_t thread = threadIdx.x % kWarp;
  *first = INT32_MAX;
  *last = -1;
  if (thread < bins.rows) {
    for (int i = 0; i < cells.rows[thread].count; ++i) {
      *first = min(*first, cells.rows[thread].entries[i].cell);
      *last = max(*last, cells.rows[thread].entries[i].cell);
    }
  }
  for (int other = kWarp / 2; other > 0; other /= 2) {
    *first = min(*first, __shfl_xor_sync(kWholeWarp, *first, other));
    *last = max(*last, __shfl_xor_sync(kWholeWarp, *last, other));
  }
  if (*last < 0) *first = 0;  // nothing touched: no row from 0 to -1
}

// A box that ends before it starts may list a cell twice.
__device__ inline float WeightOf(const CellList& list, int32_t cell) {
  float weight = 0.0f;
  for (int i = 0; i < list.count; ++i) weight += list.entries[i].cell == cell ? list.entries[i].weight : 0.0f;
  return weight;
}

// The gradients of kColumnsAtOnce columns of bins, each summed over the bins `rows` (bits) with its row's weight, which
// the thread of that number holds.
template <typename T, typename Lane>
__device__ void SumBins(const RoIAlign& op, const Bins& bins, const Lane& lane, const T* gradient, int32_t column,
                        unsigned rows, float weight, typename Lane::Total* sums) {
  for (; rows != 0; rows &= rows - 1) {
    const int row = __ffs(rows) - 1;
    const float row_weight = __shfl_sync(kWholeWarp, weight, row);
    const T* bin = gradient + bins.Offset(op, row, column);
    typename Lane::Raw raw[kColumnsAtOnce];
#pragma unroll
    for (int i = 0; i < kColumnsAtOnce; ++i) {
      if (column + i < bins.columns) raw[i] = lane.Load(bin + static_cast<int64_t>(i) * op.channels);
    }
#pragma unroll
    for (int i = 0; i < kColumnsAtOnce; ++i) {
      if (column + i < bins.columns) Lane::Add(row_weight, raw[i], &sums[i]);
    }
  }
}

template <typename T, typename Lane>
__device__ void ScatterRows(const RoIAlign& op, const Bins& bins, const BackwardCells& cells, const Lane& lane,
                            const T* gradient, float* image, int64_t pitch, int32_t worker, int32_t workers) {
  int32_t first, last;
  TouchedRows(cells, bins, &first, &last);
  const int32_t thread = threadIdx.x % kWarp;
  for (int32_t row = first + worker; row <= last; row += workers) {
    const float weight = thread < bins.rows ? WeightOf(cells.rows[thread], row) : 0.0f;
    const unsigned touching = __ballot_sync(kWholeWarp, weight != 0.0f);
    if (touching == 0) continue;
    RowOfCells<Lane> line(lane, image + row * pitch, op.channels);
    for (int32_t column = 0; column < bins.columns; column += kColumnsAtOnce) {
      typename Lane::Total sums[kColumnsAtOnce];
      SumBins(op, bins, lane, gradient, column, touching, weight, sums);
#pragma unroll
      for (int i = 0; i < kColumnsAtOnce; ++i) {
        if (column + i >= bins.columns) continue;
        const CellList& touched = cells.columns[column + i];
        for (int j = 0; j < touched.count; ++j) line.Add(touched.entries[j], sums[i]);
      }
    }
    line.Flush();
  }
}

// For bins with more cells than lists hold: what they share with their neighbours is little beside what they have
// alone.
template <typename T, typename Lane>
__device__ void ScatterBins(const RoIAlign& op, const Bins& bins, const BackwardCells& cells, const Lane& lane,
                            const T* gradient, float* image, int64_t pitch, CellList* lists, int32_t worker,
                            int32_t workers) {
  for (int32_t bin = worker; bin < bins.rows * bins.columns; bin += workers) {
    const int32_t row = bin / bins.columns, column = bin % bins.columns;
    const typename Lane::Raw raw = lane.Load(gradient + bins.Offset(op, row, column));
    ForEachPart(cells.axes, bins.row + row, bins.column + column, lists,
                [&](const CellList& rows, const CellList& columns) {
                  for (int i = 0; i < rows.count; ++i) {
                    float* line = image + rows.entries[i].cell * pitch;
                    for (int j = 0; j < columns.count; ++j) {
                      typename Lane::Total share;
                      Lane::Add(rows.entries[i].weight * columns.entries[j].weight, raw, &share);
                      lane.AtomicAdd(line + static_cast<int64_t>(columns.entries[j].cell) * op.channels, share);
                    }
                  }
                });
  }
}

// Adds to `sums`, which are 0 at first. The grid is RoIs x (tiles x parts) x slices.
template <typename T, bool kVector>
__global__ void __launch_bounds__(kBackwardWarps * kWarp, kBackwardBlocks)
    PoolBackward(const __grid_constant__ RoIAlign op, const T* gradient, const __grid_constant__ Maps<float> sums,
                 const __grid_constant__ Tiling tiling) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  using Lane = Channels<T, kBackwardWidth, kVector>;
#else  // no vector atomics: single ones of neighbouring threads are to meet in one line
  using Lane = Channels<T, kBackwardWidth, false>;
#endif
  __shared__ BackwardCells cells;
  __shared__ CellList own[kBackwardWarps][2];
  const Bins bins(op, tiling, blockIdx.x, blockIdx.y / tiling.parts);
  const Plane plane(op, bins.roi);
  float* image = plane.exists ? sums.level[plane.level] + plane.offset : nullptr;
  const bool complete = cells.Fill(op, bins);
  const int32_t warp = threadIdx.x / kWarp;
  const int32_t worker = blockIdx.y % tiling.parts * kBackwardWarps + warp, workers = tiling.parts * kBackwardWarps;
  const Lane lane(op.channels, blockIdx.z);
  if (complete) {
    ScatterRows(op, bins, cells, lane, gradient, image, plane.pitch, worker, workers);
  } else {
    ScatterBins(op, bins, cells, lane, gradient, image, plane.pitch, own[warp], worker, workers);
  }
}

// Rounds the sums to the maps' type. A grid row for each level.
template <typename T>
__global__ void RoundSums(const __grid_constant__ RoIAlign op, const __grid_constant__ Maps<float> sums,
                          const __grid_constant__ Maps<T> maps, bool vector) {
  const int32_t level = blockIdx.y;
  const int64_t count = static_cast<int64_t>(op.images) * op.height[level] * op.width[level] * op.channels;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  const float* from = sums.level[level];
  T* to = maps.level[level];
  if (!vector) {
    for (int64_t i = first; i < count; i += stride) to[i] = Number<T>::Narrow(from[i]);
    return;
  }
  for (int64_t i = first; i < count / 4; i += stride) {
    const float4 four = __ldcs(reinterpret_cast<const float4*>(from) + i);
    const float low[2] = {four.x, four.y}, high[2] = {four.z, four.w};
    reinterpret_cast<uint2*>(to)[i] = make_uint2(Number<T>::Pack(low), Number<T>::Pack(high));
  }
}

}  // namespace mrcnn_tf

#endif  // MRCNN_TF_ROI_ALIGN_BACKWARD_CUH_
