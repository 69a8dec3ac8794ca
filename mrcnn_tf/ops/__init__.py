"""Pure functions on tensors: no state, no config object."""

from mrcnn_tf.ops.native.library import static_shapes, stock_operations
from mrcnn_tf.ops.roi_align import roi_align

__all__ = ["roi_align", "static_shapes", "stock_operations"]
