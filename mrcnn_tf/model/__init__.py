"""Mask R-CNN as a Keras model, and the layers that it consists of.

For other rooms and for users: `mask_rcnn.MaskRCNN`, which trains, detects and saves, and `mask_rcnn.load_model`.
Importing this room imports the model with all its layers, so that Keras knows them by their registered names.
"""

from mrcnn_tf.model.mask_rcnn import MaskRCNN

__all__ = ["MaskRCNN"]
