// The TensorFlow operations MrcnnTf>Conv3x3 and MrcnnTf>Conv3x3FilterGrad, for the CPU: convolutions of stride 1 with
// "SAME" padding by winograd.h, bias and ReLU included.

#include <algorithm>
#include <string>
#include <vector>

#include "op_support.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/util/work_sharder.h"
#include "winograd.h"

namespace tensorflow {
namespace {

using shape_inference::DimensionHandle;
using shape_inference::InferenceContext;
using shape_inference::ShapeHandle;

absl::Status ForwardShape(InferenceContext* context) {
  ShapeHandle input, filters, output;
  DimensionHandle unused;
  TF_RETURN_IF_ERROR(context->WithRank(context->input(0), 4, &input));
  TF_RETURN_IF_ERROR(context->WithRank(context->input(1), 4, &filters));
  TF_RETURN_IF_ERROR(context->Merge(context->Dim(input, 3), context->Dim(filters, 2), &unused));
  TF_RETURN_IF_ERROR(context->ReplaceDim(input, 3, context->Dim(filters, 3), &output));
  context->set_output(0, output);
  return absl::OkStatus();
}

absl::Status FilterGradientShape(InferenceContext* context) {
  ShapeHandle input, gradient;
  TF_RETURN_IF_ERROR(context->WithRank(context->input(0), 4, &input));
  TF_RETURN_IF_ERROR(context->WithRank(context->input(1), 4, &gradient));
  context->set_output(0, context->MakeShape({3, 3, context->Dim(input, 3), context->Dim(gradient, 3)}));
  return absl::OkStatus();
}

REGISTER_OP("MrcnnTf>Conv3x3")
    .Attr("T: {float, bfloat16}")
    .Attr("relu: bool")
    .Input("input: T")
    .Input("filters: float")
    .Input("bias: float")  // one for each filter, or none at all
    .Output("output: T")
    .SetShapeFn(ForwardShape);

REGISTER_OP("MrcnnTf>Conv3x3FilterGrad")
    .Attr("T: {float, bfloat16}")
    .Input("input: T")
    .Input("output_gradient: T")
    .Output("filter_gradient: float")
    .SetShapeFn(FilterGradientShape);

template <typename T>
const Memory<T>* Values(const Tensor& tensor) {
  return reinterpret_cast<const Memory<T>*>(tensor.flat<T>().data());
}

// Of inputs [images, height, width, channels] and outputs with `filters` channels.
void SetShape(OpKernelContext* context, const TensorShape& input, int64_t filters, mrcnn_tf::Conv3x3* conv) {
  REQUIRE(context, input.dims() == 4, "Conv3x3 takes [images, height, width, channels], not ", input.DebugString(), ".");
  REQUIRE(context, input.dim_size(3) % mrcnn_tf::kLanes == 0 && filters % mrcnn_tf::kLanes == 0,
          "Conv3x3 takes multiples of ", mrcnn_tf::kLanes, " channels, not ", input.dim_size(3), " and ", filters, ".");
  for (int axis = 1; axis < 4; ++axis) {
    REQUIRE(context, input.dim_size(axis) < (1 << 30), "The input of Conv3x3 is too large: ", input.DebugString(), ".");
  }
  *conv = {input.dim_size(0), static_cast<int32_t>(input.dim_size(1)), static_cast<int32_t>(input.dim_size(2)),
           static_cast<int32_t>(input.dim_size(3)), static_cast<int32_t>(filters), false};
}

// About the nanoseconds of a tile: 36 products of all channels at some 50 operations a nanosecond, and the transforms.
int64_t TileCost(const mrcnn_tf::Conv3x3& conv) {
  const int64_t products = int64_t{conv.channels} * conv.filters;
  return products * mrcnn_tf::kProducts / 25 + 10 * (conv.channels + conv.filters);
}

template <typename T>
class Conv3x3Op : public OpKernel {
 public:
  explicit Conv3x3Op(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("relu", &relu_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor &input = context->input(0), &filters = context->input(1), &bias = context->input(2);
    REQUIRE(context, filters.dims() == 4 && filters.dim_size(0) == 3 && filters.dim_size(1) == 3,
            "The filters of Conv3x3 must be [3, 3, channels, filters], not ", filters.shape().DebugString(), ".");
    mrcnn_tf::Conv3x3 conv;
    SetShape(context, input.shape(), filters.dim_size(3), &conv);
    if (!context->status().ok()) return;
    REQUIRE(context, filters.dim_size(2) == conv.channels, "Conv3x3 got ", conv.channels, " channels and filters for ",
            filters.dim_size(2), ".");
    REQUIRE(context, bias.dims() == 1 && (bias.dim_size(0) == 0 || bias.dim_size(0) == conv.filters),
            "The bias of Conv3x3 must be [", conv.filters, "] or empty, not ", bias.shape().DebugString(), ".");
    conv.relu = relu_;
    TensorShape shape = input.shape();
    shape.set_dim(3, conv.filters);
    Tensor* output;
    OP_REQUIRES_OK(context, context->allocate_output(0, shape, &output));
    if (shape.num_elements() > 0) Convolve(context, conv, output);
  }

 private:
  void Convolve(OpKernelContext* context, const mrcnn_tf::Conv3x3& conv, Tensor* output) const {
    const auto& workers = *context->device()->tensorflow_cpu_worker_threads();
    Tensor transformed;
    OP_REQUIRES_OK(context, context->allocate_temp(DT_FLOAT, TensorShape({mrcnn_tf::TransformedFilterSize(conv)}),
                                                   &transformed));
    float* filters = transformed.flat<float>().data();
    const float* given = context->input(1).flat<float>().data();
    Shard(workers.num_threads, workers.workers, conv.Panels(), 100 * conv.channels,
          [&](int64_t first, int64_t last) { mrcnn_tf::TransformFilters(conv, given, first, last, filters); });
    const Tensor& bias = context->input(2);
    const float* shift = bias.NumElements() > 0 ? bias.flat<float>().data() : nullptr;
    const Memory<T>* input = Values<T>(context->input(0));
    auto* to = const_cast<Memory<T>*>(Values<T>(*output));
    const int64_t tiles = conv.Tiles(), step = mrcnn_tf::TilesAtATime(conv, workers.num_threads);
    Shard(workers.num_threads, workers.workers, (tiles + step - 1) / step, step * TileCost(conv),
          [&](int64_t first, int64_t last) {
            for (int64_t block = first; block < last; ++block) {
              mrcnn_tf::ConvolveTiles(conv, input, filters, shift, block * step, std::min((block + 1) * step, tiles), to);
            }
          });
  }

  bool relu_;
};

template <typename T>
class Conv3x3FilterGradOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    const Tensor &input = context->input(0), &gradient = context->input(1);
    REQUIRE(context, gradient.dims() == 4, "The gradient of Conv3x3's output must have four dimensions, not ",
            gradient.dims(), ".");
    mrcnn_tf::Conv3x3 conv;
    SetShape(context, input.shape(), gradient.dim_size(3), &conv);
    if (!context->status().ok()) return;
    for (int axis = 0; axis < 3; ++axis) {
      REQUIRE(context, gradient.dim_size(axis) == input.dim_size(axis), "The input of Conv3x3 is ",
              input.shape().DebugString(), ", but the gradient of its output ", gradient.shape().DebugString(), ".");
    }
    Tensor* result;
    OP_REQUIRES_OK(context, context->allocate_output(0, TensorShape({3, 3, conv.channels, conv.filters}), &result));
    if (result->NumElements() > 0) Sum(context, conv, result->flat<float>().data());
  }

 private:
  // Each part of the tiles is summed by itself, so that threads needn't share: the parts follow from the shapes and the
  // number of threads alone, and so does the result.
  void Sum(OpKernelContext* context, const mrcnn_tf::Conv3x3& conv, float* result) const {
    constexpr int64_t kMostParts = 8;  // each has its own sums, four times as large as the filters
    const auto& workers = *context->device()->tensorflow_cpu_worker_threads();
    // Twice as many as forward, since each time all sums are read and written.
    const int64_t step = 2 * mrcnn_tf::TilesAtATime(conv, workers.num_threads);
    const int64_t blocks = step == 0 ? 0 : (conv.Tiles() + step - 1) / step;
    const int64_t parts = std::max<int64_t>(1, std::min<int64_t>({workers.num_threads, kMostParts, blocks}));
    const int64_t size = int64_t{mrcnn_tf::kProducts} * conv.channels * conv.filters;
    Tensor sums;
    OP_REQUIRES_OK(context, context->allocate_temp(DT_FLOAT, TensorShape({parts, size}), &sums));
    float* start = sums.flat<float>().data();
    std::vector<const float*> all;
    for (int64_t part = 0; part < parts; ++part) all.push_back(start + part * size);
    const Memory<T>*input = Values<T>(context->input(0)), *gradient = Values<T>(context->input(1));
    Shard(workers.num_threads, workers.workers, parts, (blocks + 1) * step * TileCost(conv),
          [&](int64_t first, int64_t last) {
            for (int64_t part = first; part < last; ++part) {
              float* to = start + part * size;
              std::fill(to, to + size, 0.0f);
              const int64_t from = blocks * part / parts * step, end = blocks * (part + 1) / parts * step;
              mrcnn_tf::AddFilterGradient(conv, input, gradient, from, std::min(end, conv.Tiles()), step, to);
            }
          });
    Shard(workers.num_threads, workers.workers, conv.channels, 10 * conv.filters, [&](int64_t first, int64_t last) {
      mrcnn_tf::TransformFilterGradient(conv, all, first, last, result);
    });
  }
};

#define REGISTER(T)                                                                                      \
  REGISTER_KERNEL_BUILDER(Name("MrcnnTf>Conv3x3").Device(DEVICE_CPU).TypeConstraint<T>("T"), Conv3x3Op<T>) \
  REGISTER_KERNEL_BUILDER(Name("MrcnnTf>Conv3x3FilterGrad").Device(DEVICE_CPU).TypeConstraint<T>("T"),     \
                          Conv3x3FilterGradOp<T>)

REGISTER(float);
REGISTER(bfloat16);

}  // namespace
}  // namespace tensorflow
