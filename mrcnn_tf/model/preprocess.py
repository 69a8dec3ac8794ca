"""From an image to the network's input: resize, normalise, pad."""

import math

import keras
import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.checks import valid_settings
from mrcnn_tf.config.settings import IMAGENET_MEAN, IMAGENET_STD, ResizeConfig
from mrcnn_tf.model.blocks import ConfiguredLayer
from mrcnn_tf.ops.padding import valid_mask
from mrcnn_tf.ops.resize import fitted_size, resize_image, resized_size


@keras.saving.register_keras_serializable("mrcnn_tf")
class Preprocess(ConfiguredLayer):
    """Resizes one image by the resize rule, pads it right and below to a multiple, and normalises batches.

    Args:
        mean, std: three numbers each, RGB, of pixels in 0..255.
        resize: as in a config's `model.resize`.
        divisor: the multiple, pixels. Under an FPN the backbone's largest stride must divide it.
    """

    default_name = "preprocess"

    def __init__(
        self,
        mean: list = IMAGENET_MEAN,
        std: list = IMAGENET_STD,
        resize: ResizeConfig | None = None,
        divisor=32,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.mean, self.std, self.divisor = list(mean), list(std), divisor
        self.resize = valid_settings(resize, ResizeConfig)

    def build(self, input_shape=None):
        """Nothing: it has no weights. Unbuilt, it would cost `fit` a trial run."""

    def sections(self):
        """The settings of a config's `model` that the layer was made of, by name."""
        return {"pixel_mean": list(self.mean), "pixel_std": list(self.std), "resize": self.resize}

    def call(self, image):
        """An image [H, W, 3] of pixels 0..255 as a batch of one, with its sizes, as `MaskRCNN.call` takes it."""
        original = tf.shape(image)[:2]
        limits = self.resize.min_size, self.resize.max_size
        size = tf.stack(resized_size(original[0], original[1], *limits, self.resize.rule))
        return self._resize_and_pad(image, size, -size % self.divisor)

    def letterbox(self, image, height, width):
        """The same in an input of fixed size, pixels: resized to fit, its aspect kept, at the top left."""
        original = tf.shape(image)[:2]
        size = tf.stack(fitted_size(original[0], original[1], height, width, self.resize.rule))
        inputs = self._resize_and_pad(image, size, [height, width] - size)
        return inputs | {"image": tf.ensure_shape(inputs["image"], [1, height, width, 3])}

    def _resize_and_pad(self, image, size, border):
        resized = resize_image(image, size, self.resize.rule)
        padded = tf.pad(resized, [[0, border[0]], [0, border[1]], [0, 0]])
        return {"image": padded[None], "image_size": size[None], "original_size": tf.shape(image)[None, :2]}

    def normalize(self, images, image_size):
        """(pixels - mean) / std with zeros outside each image: [B, H, W, 3] and image_size [B, 2] -> [B, H, W, 3]."""
        inside = valid_mask(image_size, tf.shape(images)[1], tf.shape(images)[2])
        normalized = (tf.cast(images, tf.float32) - tf.constant(self.mean)) / tf.constant(self.std)
        return tf.cast(tf.where(inside, normalized, 0.0), self.compute_dtype)


def make_preprocess(model, features, dtype=None):
    """The `Preprocess` of a `ModelConfig` whose neck is `features`."""
    # torchvision pads every image to a multiple of 32, detectron2 where a pyramid doubles back from stride 32.
    divisor = math.lcm(model.conventions.pad_multiple, getattr(features, "divisor", 1))
    return Preprocess(model.pixel_mean, model.pixel_std, model.resize, divisor, dtype=dtype)


def check_divisor(preprocess, features):
    """Raises UserError for a padding that leaves a pyramid's maps in sizes which don't double."""
    needed = getattr(features, "divisor", 1)  # of a neck that adds maps to finer ones
    if preprocess.divisor % needed:
        raise UserError(
            f"Images are padded to multiples of {preprocess.divisor} pixels, and the maps of {type(features).__name__} "
            f"double from stride {needed}: give Preprocess(divisor={needed})."
        )
