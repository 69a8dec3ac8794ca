// RoIAlign on the CPU. Every function works on a part of the output, so that callers can share it out among threads.

#ifndef MRCNN_TF_ROI_ALIGN_CPU_H_
#define MRCNN_TF_ROI_ALIGN_CPU_H_

#include <cstdint>
#include <vector>

#include "roi_align.h"

namespace mrcnn_tf {

// The RoIs from the top of each map to its bottom: neighbours read the same cells, which then are in the cache. Large RoIs
// on a large map take a third less time.
std::vector<int64_t> OrderByPlace(const RoIAlign& op);

// Pools the RoIs order[first] to order[last - 1]. T is float or BFloat16; sums are float.
template <typename T>
void PoolRoIs(const RoIAlign& op, const T* const* maps, const std::vector<int64_t>& order, int64_t first, int64_t last,
              T* pooled);

// The rows of all maps are numbered through: level by level, image by image, top to bottom. Of each RoI, the first and
// one past the last row that its samples touch; equal where there is none.
struct RowRange {
  int64_t first, last;
};

int64_t CountRows(const RoIAlign& op);
std::vector<RowRange> TouchedRows(const RoIAlign& op);

// The gradient of the rows first <= row < last: RoIs are added in their order, whoever calls this for which rows, so
// the result doesn't depend on the number of threads.
template <typename T>
void AddGradientToRows(const RoIAlign& op, const std::vector<RowRange>& touched, const T* pooled_gradient,
                       int64_t first, int64_t last, T* const* map_gradients);

}  // namespace mrcnn_tf

#endif  // MRCNN_TF_ROI_ALIGN_CPU_H_
