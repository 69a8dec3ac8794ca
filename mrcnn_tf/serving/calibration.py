"""The images on which an int8 export finds its scales."""

import itertools

import numpy as np
import tensorflow as tf

from mrcnn_tf.common.errors import UserError

IMAGES = 100  # more move the scales little, and each costs a run in float32


def calibration_inputs(model, images, size):
    """What the exported graph will be given, of the first hundred images.

    Args:
        model: a `MaskRCNN`.
        images: batches of `coco_dataset`, whose images are resized and padded already, or uint8 arrays [H, W, 3].
        size: (height, width) of the input, pixels.

    Returns:
        A list of {"image": uint8 [1, H, W, 3], "image_size": int32 [1, 2]}.

    Raises:
        UserError: there are none, or something else than images.
    """
    found = list(itertools.islice(_pixels(images), IMAGES))
    if not found:
        raise UserError("There is not one calibration image: give some of those that the model was trained on.")
    inputs = [model.preprocess.letterbox(tf.constant(image), *size) for image in found]
    return [
        {"image": np.round(one["image"]).astype(np.uint8), "image_size": np.asarray(one["image_size"])}
        for one in inputs
    ]


def _pixels(images):
    """Each image without its padding."""
    for item in images:
        if isinstance(item, dict):
            for image, (height, width) in zip(np.asarray(item["image"]), np.asarray(item["image_size"]), strict=True):
                yield np.round(image[:height, :width]).astype(np.uint8)
        elif getattr(item, "dtype", None) == np.uint8 and np.ndim(item) == 3:
            yield np.asarray(item)
        else:
            raise UserError("Calibration takes a dataset of coco_dataset or uint8 images [height, width, 3].")
