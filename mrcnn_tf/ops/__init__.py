"""Pure functions on tensors: no state, no config object.

`roi_align` and the contexts `stock_operations` and `static_shapes` are for users. Other rooms also use `boxes`
(arithmetic, IoU, NMS), `padding` (an image's own part of a batch), `matching` (which boxes learn what), `masks`,
`masks_in_graph`, `keypoints` and `panoptic_maps` (targets and results), `resize`, `image_bytes` (decoding), `conv` and
`replicas` (sums over devices, messages between processes).
"""

import keras  # noqa: F401 (before our modules that import TensorFlow: see common/keras_registration.py)

from mrcnn_tf.ops.native.library import static_shapes, stock_operations
from mrcnn_tf.ops.roi_align import roi_align

__all__ = ["roi_align", "static_shapes", "stock_operations"]
