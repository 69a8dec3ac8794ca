"""Pure functions on tensors: no state, no config object."""

import keras  # noqa: F401 (before our modules that import TensorFlow: see common/keras_registration.py)

from mrcnn_tf.ops.native.library import static_shapes, stock_operations
from mrcnn_tf.ops.roi_align import roi_align

__all__ = ["roi_align", "static_shapes", "stock_operations"]
