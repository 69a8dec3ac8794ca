// What the TensorFlow operations of the CPU share.

#ifndef MRCNN_TF_OP_SUPPORT_H_
#define MRCNN_TF_OP_SUPPORT_H_

#include <type_traits>

#include "tensorflow/core/framework/op_kernel.h"
#include "vector.h"

// Ends the calling function with an InvalidArgument error of these pieces of text and numbers unless the condition holds.
#define REQUIRE(context, condition, ...) \
  OP_REQUIRES(context, condition, absl::InvalidArgumentError(absl::StrCat(__VA_ARGS__)))

namespace tensorflow {

// The kernels' own type for the memory of TensorFlow's T.
template <typename T>
using Memory = std::conditional_t<std::is_same_v<T, float>, float, mrcnn_tf::BFloat16>;

}  // namespace tensorflow

#endif  // MRCNN_TF_OP_SUPPORT_H_
