"""A model of this package as the weights of another, with the same or other classes."""

import dataclasses

from mrcnn_tf.weights.converted import Converted

SECTIONS = (
    "features", "backbone", "fpn", "rpn", "roi_layer", "box_head", "mask_head", "keypoint_head", "semantic_head",
    "conventions", "pixel_mean", "pixel_std", "resize",
)  # fmt: skip


def weight_path(variable):
    """The path of a model's weight without the model's name; a norm's weights stand under their convolution."""
    return variable.path.split("/", 1)[1].replace("/norm/", "/")


def convert(model):
    """`Converted` weights of a `MaskRCNN`."""
    tree = dataclasses.asdict(model.config)
    arrays = {weight_path(variable): variable.numpy() for variable in model.weights}
    settings = {key: tree[key] for key in SECTIONS}
    return Converted(arrays, {}, {}, [], settings, None, model.config.categories, model.config.stuff or None)
