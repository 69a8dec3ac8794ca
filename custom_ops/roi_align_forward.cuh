// Forward: a warp walks down a column of an RoI's bins with the channels of one slice.

#ifndef MRCNN_TF_ROI_ALIGN_FORWARD_CUH_
#define MRCNN_TF_ROI_ALIGN_FORWARD_CUH_

#include "roi_align_cells.cuh"

namespace mrcnn_tf {

// Neighbouring columns run side by side, so that they meet in the first-level cache, and few enough rows that the lists
// take little of it.
constexpr int kForwardColumns = 8, kForwardRows = 16;
constexpr int kForwardBlocks = 4;  // on a multiprocessor at least: bounds the registers
constexpr int kLoads = 4;          // that a thread awaits together

// Pools bins of one column. The last row of cells that a bin reads is often the first of the next: its sum is kept.
template <typename T, typename Lane>
class BinColumn {
 public:
  using Total = typename Lane::Total;

  __device__ BinColumn(const Lane& lane, const T* image, int64_t pitch, int32_t channels)
      : lane_(lane), image_(image), pitch_(pitch), channels_(channels), kept_row_(-1) {}

  // `columns` stays the same from call to call, or ForgetRow comes between.
  __device__ void Add(const CellList& rows, const CellList& columns, Total* total) {
    for (int i = 0; i < rows.count; ++i) {
      const CellList::Entry row = rows.entries[i];
      if (row.cell != kept_row_) {
        kept_row_ = row.cell;
        kept_ = SumRow(image_ + row.cell * pitch_, columns);
      }
      total->Add(row.weight, kept_);
    }
  }

  __device__ void ForgetRow() { kept_row_ = -1; }

 private:
  __device__ Total SumRow(const T* row, const CellList& columns) const {
    Total sum;
    for (int first = 0; first < columns.count; first += kLoads) {
      typename Lane::Raw raw[kLoads];
      float weight[kLoads];
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        if (first + i >= columns.count) continue;
        const CellList::Entry cell = columns.entries[first + i];
        weight[i] = cell.weight;
        raw[i] = lane_.Load(row + static_cast<int64_t>(cell.cell) * channels_);
      }
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        if (first + i < columns.count) Lane::Add(weight[i], raw[i], &sum);
      }
    }
    return sum;
  }

  Lane lane_;
  const T* image_;
  int64_t pitch_;
  int32_t channels_, kept_row_;
  Total kept_;
};

template <typename T, typename Lane>
__device__ void PoolListed(const RoIAlign& op, const Bins& bins, const Lane& lane, BinColumn<T, Lane>* bin_column,
                           const CellList* rows, const CellList& columns, T* pooled) {
  for (int row = 0; row < bins.rows; ++row, pooled += bins.RowLength(op)) {
    typename Lane::Total total;
    bin_column->Add(rows[row], columns, &total);
    lane.Store(pooled, total);
  }
}

template <typename T, typename Lane>
__device__ void PoolUnlisted(const RoIAlign& op, const Bins& bins, const Lane& lane, BinColumn<T, Lane>* bin_column,
                             const Axis axes[2], int32_t column, CellList* lists, T* pooled) {
  for (int row = 0; row < bins.rows; ++row, pooled += bins.RowLength(op)) {
    typename Lane::Total total;
    ForEachPart(axes, bins.row + row, bins.column + column, lists, [&](const CellList& rows, const CellList& columns) {
      bin_column->ForgetRow();
      bin_column->Add(rows, columns, &total);
    });
    lane.Store(pooled, total);
  }
}

// The grid is RoIs x tiles x slices, a block has a warp for each column of a tile. Slices come last: the blocks that
// run together read the same slice of the maps, which the second-level cache holds better than all of them.
template <typename T, typename Lane>
__global__ void __launch_bounds__(kForwardColumns * kWarp, kForwardBlocks)
    PoolForward(const __grid_constant__ RoIAlign op, const __grid_constant__ Maps<const T> maps, T* pooled,
                const __grid_constant__ Tiling tiling) {
  __shared__ TileCells<kForwardRows, kForwardColumns> cells;
  __shared__ CellList own[kForwardColumns][2];
  const Bins bins(op, tiling, blockIdx.x, blockIdx.y);
  const Plane plane(op, bins.roi);
  const T* image = plane.exists ? maps.level[plane.level] + plane.offset : nullptr;
  const bool complete = cells.Fill(op, bins);
  const int32_t column = threadIdx.x / kWarp;
  if (column >= bins.columns) return;
  const Lane lane(op.channels, blockIdx.z);
  BinColumn<T, Lane> bin_column(lane, image, plane.pitch, op.channels);
  pooled += bins.Offset(op, 0, column);
  if (complete) {
    PoolListed(op, bins, lane, &bin_column, cells.rows, cells.columns[column], pooled);
  } else {
    PoolUnlisted(op, bins, lane, &bin_column, cells.axes, column, own[column], pooled);
  }
}

}  // namespace mrcnn_tf

#endif  // MRCNN_TF_ROI_ALIGN_FORWARD_CUH_
