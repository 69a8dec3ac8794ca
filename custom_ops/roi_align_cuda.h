// The CUDA kernels' entry points: plain C, so that TensorFlow's op and a check program without TensorFlow can call them.

#ifndef MRCNN_TF_ROI_ALIGN_CUDA_H_
#define MRCNN_TF_ROI_ALIGN_CUDA_H_

#include "roi_align.h"

extern "C" {

enum { kRoIAlignFloat32 = 0, kRoIAlignFloat16 = 1, kRoIAlignBFloat16 = 2 };

// Both only launch on `stream` (a cudaStream_t), never wait, and return a cudaError_t. All pointers in `op`, `maps`
// (host array of op->levels device pointers) and the rest are to device memory; maps and pooled values are of `dtype`.
int mrcnn_tf_roi_align_forward(const mrcnn_tf::RoIAlign* op, int dtype, const void* const* maps, void* pooled,
                               void* stream);

// Overwrites every cell of `map_gradients`. `workspace` has a float for each value of all maps, in which half types are
// summed; it may be null for float32 and where `deterministic` is set (sums in a fixed order, without atomics).
int mrcnn_tf_roi_align_backward(const mrcnn_tf::RoIAlign* op, int dtype, const void* pooled_gradient,
                                void* const* map_gradients, float* workspace, int deterministic, void* stream);
}

#endif  // MRCNN_TF_ROI_ALIGN_CUDA_H_
