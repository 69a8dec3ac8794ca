"""3x3 convolutions: by our own operation on a CPU, where it needs a third of the time of TensorFlow's."""

import tensorflow as tf

from mrcnn_tf.ops.native.library import custom_ops, load_custom_ops, register_gradient, runs_on_cpu
from mrcnn_tf.ops.winograd import winograd_conv2d

LANES = 16  # the operation takes multiples of so many channels
# Channels times filters: larger filters take longer to transform than small maps to convolve, in bfloat16 sooner.
MOST_PRODUCTS = {tf.float32: 512 * 512, tf.bfloat16: 256 * 512}
# From stock operations the transforms cost more: for fewer channels than the first, and for the small maps of more
# filters than the second, they eat the gain up.
STOCK_PRODUCTS = (64 * 64, 256 * 256)


def conv2d(inputs, kernel, bias=None, strides=1, padding="SAME", relu=False, dilation=1):
    """A convolution, its bias and ReLU.

    Args:
        inputs: [B, H, W, C] float32 or bfloat16.
        kernel: [k, k, C / groups, K] float32.
        bias: float32 [K] or None.
        strides, padding: as in `tf.nn.conv2d`.
        relu: whether negative outputs become 0.
        dilation: cells from one tap of the kernel to the next.

    Returns:
        [B, H', W', K] in the inputs' dtype. With 3x3 kernels of stride 1 and enough channels, a CPU computes it by
        Winograd's algorithm in float32 (custom_ops/winograd.h): within a few ulp of the plain sum.
    """
    if strides == dilation == 1 and padding == "SAME" and _suits_winograd(inputs, kernel):
        library = custom_ops()
        if library is not None:
            shift = tf.zeros([0]) if bias is None else bias
            return library.mrcnn_tf_conv3x3(inputs, tf.convert_to_tensor(kernel), shift, relu=relu)
    if strides == dilation == 1 and padding == "SAME" and runs_on_cpu() and _suits_stock_winograd(inputs, kernel):
        outputs = winograd_conv2d(inputs, kernel)
    else:
        outputs = tf.nn.conv2d(inputs, tf.cast(kernel, inputs.dtype), strides, padding, dilations=dilation)
    if bias is not None:
        outputs = tf.nn.bias_add(outputs, tf.cast(bias, outputs.dtype))
    return tf.nn.relu(outputs) if relu else outputs


def _suits_winograd(inputs, kernel):
    height, width, channels, filters = kernel.shape
    return (
        (height, width) == (3, 3)
        and inputs.shape[-1] == channels  # in one group
        and channels % LANES == 0
        and filters % LANES == 0
        and channels * filters <= MOST_PRODUCTS.get(inputs.dtype, 0)
        and not tf.config.list_physical_devices("GPU")
    )


def _suits_stock_winograd(inputs, kernel):
    channels, filters = kernel.shape[2:]
    return (
        kernel.shape[:2] == (3, 3)
        and inputs.shape[-1] == channels
        and inputs.dtype == tf.float32
        and STOCK_PRODUCTS[0] <= channels * filters <= STOCK_PRODUCTS[1]
    )


@register_gradient("MrcnnTf>Conv3x3")
def _gradient(op, upstream):
    """With respect to inputs, filters and bias."""
    inputs, filters, bias = op.inputs
    library = load_custom_ops()
    if op.get_attr("relu"):
        upstream = tf.where(op.outputs[0] > 0, upstream, tf.zeros([], upstream.dtype))
    mirrored = tf.transpose(tf.reverse(filters, [0, 1]), [0, 1, 3, 2])
    input_gradient = library.mrcnn_tf_conv3x3(upstream, mirrored, tf.zeros([0]), relu=False)
    filter_gradient = library.mrcnn_tf_conv3x3_filter_grad(inputs, upstream)
    bias_gradient = tf.reduce_sum(tf.cast(upstream, tf.float32), [0, 1, 2]) if bias.shape != [0] else tf.zeros([0])
    return input_gradient, filter_gradient, bias_gradient
