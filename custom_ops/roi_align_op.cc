// The TensorFlow operations MrcnnTf>RoiAlign and MrcnnTf>RoiAlignGrad: what they take, their shapes, and their kernels.

#include <algorithm>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "op_support.h"
#include "roi_align_cpu.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/util/determinism.h"
#include "tensorflow/core/util/work_sharder.h"

#ifdef MRCNN_TF_CUDA
#include <cuda_runtime.h>

#include "roi_align_cuda.h"
#include "tensorflow/core/platform/stream_executor.h"
#endif

namespace tensorflow {
namespace {

using shape_inference::DimensionHandle;
using shape_inference::InferenceContext;
using shape_inference::ShapeHandle;

// The inputs after the maps (or their shapes), in this order.
enum Input { kBoxes, kImage, kLevel, kCanvas };

absl::Status CheckRoIShapes(InferenceContext* context, int first) {
  ShapeHandle boxes, unused;
  DimensionHandle rois, four;
  TF_RETURN_IF_ERROR(context->WithRank(context->input(first + kBoxes), 2, &boxes));
  TF_RETURN_IF_ERROR(context->WithValue(context->Dim(boxes, 1), 4, &four));
  for (const Input index : {kImage, kLevel}) {
    TF_RETURN_IF_ERROR(context->WithRank(context->input(first + index), 1, &unused));
    TF_RETURN_IF_ERROR(context->Merge(context->Dim(boxes, 0), context->Dim(context->input(first + index), 0), &rois));
  }
  TF_RETURN_IF_ERROR(context->WithRank(context->input(first + kCanvas), 2, &unused));
  return absl::OkStatus();
}

absl::Status ForwardShape(InferenceContext* context) {
  int levels, out;
  TF_RETURN_IF_ERROR(context->GetAttr("levels", &levels));
  TF_RETURN_IF_ERROR(context->GetAttr("output_size", &out));
  DimensionHandle channels = context->UnknownDim();
  for (int level = 0; level < levels; ++level) {
    ShapeHandle map;
    TF_RETURN_IF_ERROR(context->WithRank(context->input(level), 4, &map));
    TF_RETURN_IF_ERROR(context->Merge(channels, context->Dim(map, 3), &channels));
  }
  TF_RETURN_IF_ERROR(CheckRoIShapes(context, levels));
  const DimensionHandle rois = context->Dim(context->input(levels + kBoxes), 0);
  context->set_output(0, context->MakeShape({rois, out, out, channels}));
  return absl::OkStatus();
}

absl::Status GradientShape(InferenceContext* context) {
  int levels;
  TF_RETURN_IF_ERROR(context->GetAttr("levels", &levels));
  ShapeHandle pooled;
  TF_RETURN_IF_ERROR(context->WithRank(context->input(0), 4, &pooled));
  TF_RETURN_IF_ERROR(CheckRoIShapes(context, levels + 1));
  for (int level = 0; level < levels; ++level) {
    ShapeHandle map;
    TF_RETURN_IF_ERROR(context->MakeShapeFromShapeTensor(level + 1, &map));
    TF_RETURN_IF_ERROR(context->WithRank(map, 4, &map));
    context->set_output(level, map);
  }
  return absl::OkStatus();
}

REGISTER_OP("MrcnnTf>RoiAlign")
    .Attr("T: {float, half, bfloat16}")
    .Attr("levels: int >= 1")
    .Input("features: levels * T")
    .Input("boxes: float")
    .Input("box_batch: int32")
    .Input("box_level: int32")
    .Input("canvas: int32")
    .Attr("spatial_scales: list(float)")
    .Attr("output_size: int >= 1")
    .Attr("sampling_ratio: int >= 0")
    .Attr("aligned: bool")
    .Attr("bin_step: int >= 1 = 1")
    .Output("pooled: T")
    .SetShapeFn(ForwardShape);

REGISTER_OP("MrcnnTf>RoiAlignGrad")
    .Attr("T: {float, half, bfloat16}")
    .Attr("levels: int >= 1")
    .Input("pooled_gradient: T")
    .Input("shapes: levels * int32")
    .Input("boxes: float")
    .Input("box_batch: int32")
    .Input("box_level: int32")
    .Input("canvas: int32")
    .Attr("spatial_scales: list(float)")
    .Attr("output_size: int >= 1")
    .Attr("sampling_ratio: int >= 0")
    .Attr("aligned: bool")
    .Attr("bin_step: int >= 1 = 1")
    .Output("gradients: levels * T")
    .SetShapeFn(GradientShape);

// Reads the attributes once, and of each call the shapes and the RoIs.
class RoIAlignKernel : public OpKernel {
 public:
  explicit RoIAlignKernel(OpKernelConstruction* context) : OpKernel(context) {
    std::vector<float> scales;
    bool aligned;
    OP_REQUIRES_OK(context, context->GetAttr("levels", &op_.levels));
    OP_REQUIRES_OK(context, context->GetAttr("spatial_scales", &scales));
    OP_REQUIRES_OK(context, context->GetAttr("output_size", &op_.out));
    OP_REQUIRES_OK(context, context->GetAttr("sampling_ratio", &op_.sampling_ratio));
    OP_REQUIRES_OK(context, context->GetAttr("aligned", &aligned));
    OP_REQUIRES_OK(context, context->GetAttr("bin_step", &op_.bin_step));
    REQUIRE(context, op_.levels <= mrcnn_tf::kMaxLevels, "RoiAlign pools from at most ", mrcnn_tf::kMaxLevels,
            " feature maps, not ", op_.levels, ".");
    REQUIRE(context, scales.size() == static_cast<size_t>(op_.levels), "RoiAlign got ", op_.levels,
            " feature maps and ", scales.size(), " scales.");
    op_.aligned = aligned;
    for (int level = 0; level < op_.levels; ++level) op_.scale[level] = scales[level];
  }

 protected:
  void SetShapes(OpKernelContext* context, const std::vector<TensorShape>& maps, mrcnn_tf::RoIAlign* op) const {
    *op = op_;
    for (int level = 0; level < op->levels; ++level) {
      const TensorShape& shape = maps[level];
      REQUIRE(context, shape.dims() == 4, "Feature map ", level, " of RoiAlign must be [images, height, width, channels], not ",
              shape.DebugString(), ".");
      REQUIRE(context, shape.dim_size(0) == maps[0].dim_size(0) && shape.dim_size(3) == maps[0].dim_size(3),
              "The feature maps of RoiAlign must have equally many images and channels, but map ", level, " is ",
              shape.DebugString(), " and map 0 ", maps[0].DebugString(), ".");
      for (int axis = 0; axis < 4; ++axis) {
        REQUIRE(context, shape.dim_size(axis) <= std::numeric_limits<int32_t>::max(), "Feature map ", level,
                " of RoiAlign is too large: ", shape.DebugString(), ".");
      }
      op->height[level] = static_cast<int32_t>(shape.dim_size(1));
      op->width[level] = static_cast<int32_t>(shape.dim_size(2));
    }
    op->images = static_cast<int32_t>(maps[0].dim_size(0));
    op->channels = static_cast<int32_t>(maps[0].dim_size(3));
  }

  // `first` is the number of the input `boxes`.
  void SetRoIs(OpKernelContext* context, int first, mrcnn_tf::RoIAlign* op) const {
    const Tensor& boxes = context->input(first + kBoxes);
    const Tensor& image = context->input(first + kImage);
    const Tensor& level = context->input(first + kLevel);
    const Tensor& canvas = context->input(first + kCanvas);
    REQUIRE(context, boxes.dims() == 2 && boxes.dim_size(1) == 4, "The boxes of RoiAlign must be [R, 4], not ",
            boxes.shape().DebugString(), ".");
    op->rois = boxes.dim_size(0);
    REQUIRE(context, image.dims() == 1 && image.dim_size(0) == op->rois && level.shape() == image.shape(),
            "RoiAlign got ", op->rois, " boxes, but box_batch is ", image.shape().DebugString(), " and box_level ",
            level.shape().DebugString(), ".");
    const bool whole = canvas.dims() == 2 && canvas.dim_size(0) == 0;
    REQUIRE(context, whole || (canvas.dims() == 2 && canvas.dim_size(0) == op->images && canvas.dim_size(1) == 2),
            "The canvas of RoiAlign must be [", op->images, ", 2] or empty, not ", canvas.shape().DebugString(), ".");
    op->boxes = boxes.flat<float>().data();
    op->image = image.flat<int32_t>().data();
    op->level = level.flat<int32_t>().data();
    op->canvas = whole ? nullptr : canvas.flat<int32_t>().data();
  }

  TensorShape PooledShape(OpKernelContext* context, const mrcnn_tf::RoIAlign& op) const {
    TensorShape shape;
    const absl::Status status = TensorShape::BuildTensorShape({op.rois, op.out, op.out, op.channels}, &shape);
    if (!status.ok()) context->SetStatus(status);
    return shape;
  }

  std::vector<TensorShape> InputShapes(OpKernelContext* context, const mrcnn_tf::RoIAlign& op) const {
    std::vector<TensorShape> maps;
    for (int level = 0; level < op.levels; ++level) maps.push_back(context->input(level).shape());
    return maps;
  }

  // Of the gradient, whose maps are given by their shapes.
  std::vector<TensorShape> GivenShapes(OpKernelContext* context, const mrcnn_tf::RoIAlign& op) const {
    std::vector<TensorShape> maps(op.levels);
    for (int level = 0; level < op.levels; ++level) {
      const Tensor& shape = context->input(level + 1);
      if (shape.dims() != 1 || shape.dim_size(0) != 4) {
        context->SetStatus(absl::InvalidArgumentError("The shapes of RoiAlignGrad must have four numbers each."));
        break;
      }
      const auto sides = shape.flat<int32_t>();
      const absl::Status status = TensorShape::BuildTensorShape({sides(0), sides(1), sides(2), sides(3)}, &maps[level]);
      if (!status.ok()) context->SetStatus(status);
    }
    return maps;
  }

  // Reads a forward call and allocates what it pools. Where something doesn't fit, the context says so afterwards.
  void Prepare(OpKernelContext* context, mrcnn_tf::RoIAlign* op, Tensor** pooled) const {
    SetShapes(context, InputShapes(context, op_), op);
    if (!context->status().ok()) return;
    SetRoIs(context, op->levels, op);
    if (!context->status().ok()) return;
    const TensorShape shape = PooledShape(context, *op);
    if (!context->status().ok()) return;
    OP_REQUIRES_OK(context, context->allocate_output(0, shape, pooled));
  }

  // Reads a call of the gradient and allocates that of each map; else as `Prepare`.
  void PrepareGradient(OpKernelContext* context, mrcnn_tf::RoIAlign* op, std::vector<Tensor*>* gradients) const {
    const std::vector<TensorShape> shapes = GivenShapes(context, op_);
    if (!context->status().ok()) return;
    SetShapes(context, shapes, op);
    if (!context->status().ok()) return;
    SetRoIs(context, op->levels + 1, op);
    if (!context->status().ok()) return;
    CheckGradient(context, *op);
    if (!context->status().ok()) return;
    gradients->resize(op->levels);
    for (int level = 0; level < op->levels; ++level) {
      OP_REQUIRES_OK(context, context->allocate_output(level, shapes[level], &(*gradients)[level]));
    }
  }

 private:
  void CheckGradient(OpKernelContext* context, const mrcnn_tf::RoIAlign& op) const {
    const TensorShape pooled = PooledShape(context, op);
    REQUIRE(context, context->input(0).shape() == pooled, "The gradient of RoiAlign's output must be ",
            pooled.DebugString(), ", not ", context->input(0).shape().DebugString(), ".");
  }

  mrcnn_tf::RoIAlign op_ = {};
};

// On the CPU a wrong index is an error; a GPU can't say so without waiting, and there such an RoI pools to zeros.
void CheckIndices(OpKernelContext* context, const mrcnn_tf::RoIAlign& op) {
  for (int64_t roi = 0; roi < op.rois; ++roi) {
    REQUIRE(context, mrcnn_tf::HasMap(op, roi), "RoI ", roi, " of RoiAlign is on level ", op.level[roi], " of image ",
            op.image[roi], ", but there are ", op.levels, " levels and ", op.images, " images.");
  }
}

// About how many nanoseconds a piece of work takes: TensorFlow starts no thread for less than some microseconds.
int64_t PoolCost(const mrcnn_tf::RoIAlign& op) { return int64_t{op.out} * op.out * (16 + op.channels); }

template <typename T>
class CpuRoIAlign : public RoIAlignKernel {
 public:
  using RoIAlignKernel::RoIAlignKernel;

  void Compute(OpKernelContext* context) override {
    using Value = Memory<T>;
    mrcnn_tf::RoIAlign op;
    Tensor* pooled = nullptr;
    Prepare(context, &op, &pooled);
    if (context->status().ok()) CheckIndices(context, op);
    if (!context->status().ok()) return;
    const Value* maps[mrcnn_tf::kMaxLevels];
    for (int level = 0; level < op.levels; ++level) {
      maps[level] = reinterpret_cast<const Value*>(context->input(level).flat<T>().data());
    }
    auto* bins = reinterpret_cast<Value*>(pooled->flat<T>().data());
    const std::vector<int64_t> order = mrcnn_tf::OrderByPlace(op);
    const auto& workers = *context->device()->tensorflow_cpu_worker_threads();
    Shard(workers.num_threads, workers.workers, op.rois, PoolCost(op),
          [&](int64_t first, int64_t last) { mrcnn_tf::PoolRoIs(op, maps, order, first, last, bins); });
  }
};

template <typename T>
class CpuRoIAlignGrad : public RoIAlignKernel {
 public:
  using RoIAlignKernel::RoIAlignKernel;

  void Compute(OpKernelContext* context) override {
    using Value = Memory<T>;
    mrcnn_tf::RoIAlign op;
    std::vector<Tensor*> outputs;
    PrepareGradient(context, &op, &outputs);
    if (context->status().ok()) CheckIndices(context, op);
    if (!context->status().ok()) return;
    Value* gradients[mrcnn_tf::kMaxLevels];
    for (int level = 0; level < op.levels; ++level) {
      gradients[level] = reinterpret_cast<Value*>(outputs[level]->flat<T>().data());
    }
    const auto* upstream = reinterpret_cast<const Value*>(context->input(0).flat<T>().data());
    const std::vector<mrcnn_tf::RowRange> touched = mrcnn_tf::TouchedRows(op);
    const int64_t rows = mrcnn_tf::CountRows(op), cost = 4 * op.rois * PoolCost(op) / std::max<int64_t>(rows, 1) + 1000;
    const auto& workers = *context->device()->tensorflow_cpu_worker_threads();
    Shard(workers.num_threads, workers.workers, rows, cost, [&](int64_t first, int64_t last) {
      mrcnn_tf::AddGradientToRows(op, touched, upstream, first, last, gradients);
    });
  }
};

#define REGISTER_CPU(T)                                                                                      \
  REGISTER_KERNEL_BUILDER(Name("MrcnnTf>RoiAlign").Device(DEVICE_CPU).TypeConstraint<T>("T"), CpuRoIAlign<T>) \
  REGISTER_KERNEL_BUILDER(Name("MrcnnTf>RoiAlignGrad").Device(DEVICE_CPU).TypeConstraint<T>("T"), CpuRoIAlignGrad<T>)

REGISTER_CPU(float);
REGISTER_CPU(bfloat16);

#ifdef MRCNN_TF_CUDA

template <typename T>
constexpr int kCudaType = std::is_same_v<T, float> ? kRoIAlignFloat32
                          : std::is_same_v<T, bfloat16> ? kRoIAlignBFloat16 : kRoIAlignFloat16;

void* CudaStream(OpKernelContext* context) {
  return context->op_device_context()->stream()->platform_specific_handle().stream;
}

void CheckLaunch(OpKernelContext* context, int error) {
  OP_REQUIRES(context, error == cudaSuccess,
              absl::InternalError(absl::StrCat("RoiAlign could not be launched on the GPU: ",
                                               cudaGetErrorString(static_cast<cudaError_t>(error)), ".")));
}

template <typename T>
class CudaRoIAlign : public RoIAlignKernel {
 public:
  using RoIAlignKernel::RoIAlignKernel;

  void Compute(OpKernelContext* context) override {
    mrcnn_tf::RoIAlign op;
    Tensor* pooled = nullptr;
    Prepare(context, &op, &pooled);
    if (!context->status().ok() || pooled->NumElements() == 0) return;
    const void* maps[mrcnn_tf::kMaxLevels];
    for (int level = 0; level < op.levels; ++level) maps[level] = context->input(level).flat<T>().data();
    CheckLaunch(context, mrcnn_tf_roi_align_forward(&op, kCudaType<T>, maps, pooled->flat<T>().data(),
                                                    CudaStream(context)));
  }
};

template <typename T>
class CudaRoIAlignGrad : public RoIAlignKernel {
 public:
  using RoIAlignKernel::RoIAlignKernel;

  void Compute(OpKernelContext* context) override {
    mrcnn_tf::RoIAlign op;
    std::vector<Tensor*> outputs;
    PrepareGradient(context, &op, &outputs);
    if (!context->status().ok()) return;
    void* gradients[mrcnn_tf::kMaxLevels];
    int64_t values = 0;
    for (int level = 0; level < op.levels; ++level) {
      gradients[level] = outputs[level]->flat<T>().data();
      values += outputs[level]->NumElements();
    }
    if (values == 0) return;
    const bool deterministic = OpDeterminismRequired();
    const bool sums_apart = !std::is_same_v<T, float> && !deterministic;
    Tensor workspace;
    OP_REQUIRES_OK(context, context->allocate_temp(DT_FLOAT, TensorShape({sums_apart ? values : 0}), &workspace));
    CheckLaunch(context, mrcnn_tf_roi_align_backward(&op, kCudaType<T>, context->input(0).flat<T>().data(), gradients,
                                                     sums_apart ? workspace.flat<float>().data() : nullptr,
                                                     deterministic, CudaStream(context)));
  }
};

#define REGISTER_CUDA(T)                                                                                       \
  REGISTER_KERNEL_BUILDER(Name("MrcnnTf>RoiAlign").Device(DEVICE_GPU).TypeConstraint<T>("T"), CudaRoIAlign<T>) \
  REGISTER_KERNEL_BUILDER(                                                                                     \
      Name("MrcnnTf>RoiAlignGrad").Device(DEVICE_GPU).TypeConstraint<T>("T").HostMemory("shapes"),             \
      CudaRoIAlignGrad<T>)

REGISTER_CUDA(float);
REGISTER_CUDA(Eigen::half);
REGISTER_CUDA(bfloat16);

#endif  // MRCNN_TF_CUDA

}  // namespace
}  // namespace tensorflow
