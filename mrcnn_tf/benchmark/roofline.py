"""How fast TensorFlow multiplies here at best: matrix products, and the 3x3 convolution that a pyramid is made of."""

import tensorflow as tf

from mrcnn_tf.benchmark import worker
from mrcnn_tf.model.assembly import dtype_policy


def prepare(side=2048, height=200, width=272, channels=256):
    """Times a product of side x side matrices and a convolution of a map, both in float32 and bfloat16.

    The facts hold `operations` (multiplications and additions) of each time and whether bfloat16 is native here.
    """
    native = dtype_policy("auto").name == "mixed_bfloat16"
    functions, operations = {}, {}
    for dtype in (tf.float32, tf.bfloat16) if native else (tf.float32,):
        matrix = tf.cast(tf.random.stateless_normal([side, side], [0, 0]), dtype)
        cells = tf.cast(tf.random.stateless_normal([1, height, width, channels], [0, 1]), dtype)
        kernel = tf.cast(tf.random.stateless_normal([3, 3, channels, channels], [0, 2]), dtype)
        functions[f"product_{dtype.name}"] = _call(tf.matmul, matrix, matrix)
        functions[f"convolution_{dtype.name}"] = _call(_convolve, cells, kernel)
        operations[f"product_{dtype.name}"] = 2 * side**3
        operations[f"convolution_{dtype.name}"] = 2 * 9 * channels**2 * height * width
    return worker.Task(worker.timed(**functions), {"operations": operations, "native_bfloat16": native})


def _convolve(cells, kernel):
    return tf.nn.conv2d(cells, kernel, 1, "SAME")


def _call(function, *arguments):
    compiled = tf.function(function)
    return lambda: compiled(*arguments)


if __name__ == "__main__":
    worker.serve(prepare)
