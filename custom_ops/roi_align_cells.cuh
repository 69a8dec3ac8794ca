// The cells that a tile of an RoI's bins reads, computed once in a block and shared by its threads.

#ifndef MRCNN_TF_ROI_ALIGN_CELLS_CUH_
#define MRCNN_TF_ROI_ALIGN_CELLS_CUH_

#include "roi_align.h"
#include "roi_align_channels.cuh"

namespace mrcnn_tf {

constexpr int kListCells = 16;  // enough for 8 samples a bin anywhere, and for adaptive bins of 14 cells

template <typename T>
struct Maps {
  T* level[kMaxLevels];
};

// Each bin is the sum over its rows and columns of row weight * column weight * cell: samples are a regular grid.
struct CellList {
  int32_t count;
  struct Entry {
    int32_t cell;
    float weight;
  } entries[kListCells];

  // Samples come in order, so a cell met before is among the last two. (Those of a box that ends before it starts go
  // the other way and may list a cell twice.)
  __device__ void Add(int32_t cell, float weight) {
    for (int back = 1; back <= 2 && back <= count; ++back) {
      if (entries[count - back].cell == cell) {
        entries[count - back].weight += weight;
        return;
      }
    }
    entries[count].cell = cell;
    entries[count].weight = weight;
    ++count;
  }
};

__device__ inline Axis AxisOf(const RoIAlign& op, int64_t roi, int axis) {
  if (HasMap(op, roi)) return MakeAxis(op, roi, axis);
  Axis nothing;
  nothing.start = nothing.bin = 0.0f;
  nothing.step = nothing.samples = nothing.cells = 0;
  return nothing;
}

// Lists the cells of the samples from `sample` on, below `last`. Returns the first sample whose cells did not fit. Not
// inlined, as it would take registers from the loops around it.
__device__ __noinline__ inline int32_t FillList(const Axis& axis, int bin, int32_t sample, int32_t last,
                                                CellList* list) {
  list->count = 0;
  const float share = 1.0f / static_cast<float>(axis.samples);
  for (; sample < last && list->count + 2 <= kListCells; ++sample) {
    Sample cells;
    if (!MakeSample(axis, bin, sample, &cells)) continue;
    list->Add(cells.low, (1.0f - cells.fraction) * share);
    if (cells.fraction > 0.0f) list->Add(cells.high, cells.fraction * share);
  }
  return sample;
}

// How the bins of each RoI are cut into tiles.
struct Tiling {
  int32_t rows, columns;  // bins of a tile; the last tiles may have fewer
  int32_t down, across;   // tiles of an RoI
  int32_t parts;          // blocks that share the work on a tile

  Tiling(int32_t out, int32_t most_rows, int32_t most_columns) : parts(1) {
    rows = Parts(out, Parts(out, most_rows));
    columns = Parts(out, Parts(out, most_columns));
    down = Parts(out, rows);
    across = Parts(out, columns);
  }
  int32_t Tiles() const { return down * across; }
  static int32_t Parts(int32_t whole, int32_t part) { return (whole - 1) / part + 1; }
};

// One tile's bins.
struct Bins {
  int64_t roi;
  int32_t row, rows, column, columns;  // first and count

  __device__ Bins(const RoIAlign& op, const Tiling& tiling, int64_t roi, int32_t tile)
      : roi(roi), row(tile / tiling.across * tiling.rows), column(tile % tiling.across * tiling.columns) {
    rows = min(tiling.rows, op.out - row);
    columns = min(tiling.columns, op.out - column);
  }

  // Where a bin of the tile lies in the pooled values.
  __device__ int64_t Offset(const RoIAlign& op, int32_t row_in_tile, int32_t column_in_tile) const {
    return ((roi * op.out + row + row_in_tile) * op.out + column + column_in_tile) * op.channels;
  }
  __device__ int64_t RowLength(const RoIAlign& op) const { return static_cast<int64_t>(op.out) * op.channels; }
};

// Where an RoI's image lies in the map of its level.
struct Plane {
  bool exists;
  int32_t level;
  int64_t offset, pitch;  // of the image and from row to row, in values

  __device__ Plane(const RoIAlign& op, int64_t roi) : exists(HasMap(op, roi)), level(0), offset(0), pitch(0) {
    if (!exists) return;
    level = op.level[roi];
    pitch = static_cast<int64_t>(op.width[level]) * op.channels;
    offset = static_cast<int64_t>(op.image[roi]) * op.height[level] * pitch;
  }
};

// The cells of a tile's bins. Lives in shared memory.
template <int kMostRows, int kMostColumns>
struct TileCells {
  Axis axes[2];
  CellList rows[kMostRows], columns[kMostColumns];

  // Called by all threads of a block that has at least one for each row and column. False, for all of them, where some
  // bin has more cells than a list holds; then the lists are of no use and ForEachPart takes their place.
  __device__ bool Fill(const RoIAlign& op, const Bins& bins) {
    const int32_t thread = threadIdx.x;
    bool complete = true;
    if (thread < bins.rows + bins.columns) {
      const bool is_row = thread < bins.rows;
      const int32_t place = is_row ? thread : thread - bins.rows;
      const int32_t bin = is_row ? bins.row + place : bins.column + place;
      const Axis axis = AxisOf(op, bins.roi, is_row ? 1 : 0);
      int32_t first, last;
      SamplesOnMap(axis, bin, &first, &last);
      complete = FillList(axis, bin, first, last, is_row ? &rows[place] : &columns[place]) >= last;
      if (place == 0) axes[is_row ? 1 : 0] = axis;
    }
    return __syncthreads_and(complete);
  }
};

__device__ inline int32_t FillListByWarp(const Axis& axis, int bin, int32_t sample, int32_t last, CellList* list) {
  __syncwarp();  // the list may still be in use
  if (threadIdx.x % kWarp == 0) sample = FillList(axis, bin, sample, last, list);
  sample = __shfl_sync(kWholeWarp, sample, 0);
  __syncwarp();
  return sample;
}

// Goes through the cells of a bin that has any number of them, part by part, as `visit(rows, columns)`. Called by whole
// warps, each with two lists of its own in shared memory.
template <typename Visit>
__device__ void ForEachPart(const Axis axes[2], int32_t row, int32_t column, CellList* lists, Visit visit) {
  int32_t y, y_last, x_first, x_last;
  SamplesOnMap(axes[1], row, &y, &y_last);
  SamplesOnMap(axes[0], column, &x_first, &x_last);
  while (y < y_last) {
    y = FillListByWarp(axes[1], row, y, y_last, &lists[0]);
    for (int32_t x = x_first; x < x_last;) {
      x = FillListByWarp(axes[0], column, x, x_last, &lists[1]);
      visit(lists[0], lists[1]);
    }
  }
}

}  // namespace mrcnn_tf

#endif  // MRCNN_TF_ROI_ALIGN_CELLS_CUH_
