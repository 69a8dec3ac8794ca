"""The semantic head of Panoptic FPN (Kirillov et al. 2019, section 3): a class for each pixel, from the pyramid."""

import math

import keras
import tensorflow as tf

from mrcnn_tf.common.categories import MAX_STUFF_CLASSES
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.checks import valid_settings
from mrcnn_tf.config.settings import Conventions, SemanticHeadConfig
from mrcnn_tf.model import losses
from mrcnn_tf.model.blocks import ConvNorm, build_in_turn
from mrcnn_tf.model.heads.head import Head
from mrcnn_tf.ops import padding
from mrcnn_tf.ops.conv import conv2d
from mrcnn_tf.ops.panoptic_maps import STRIDE, double_size
from mrcnn_tf.results.detections import SemanticLogits
from mrcnn_tf.results.output_spec import OutputSpec
from mrcnn_tf.weights.fit_classes import STUFF, ClassVariable

# Small, as a box head's: all classes start out equal. He's by fan-out, detectron2's, grows as the classes get fewer:
# with five of them a training starts at eight times the loss.
INITIAL_STDDEV = 0.01


@keras.saving.register_keras_serializable("mrcnn_tf")
class SemanticHead(Head):
    """Each level by 3x3 convolutions, normalisation, ReLU and bilinear doubling to stride 4; their sum classified.

    The coarsest level of stride 32 takes three convolutions, the finest one. What follows the last ReLU is linear:
    doubling, sum and the 1x1 classifier. So the coarser levels are added up and classified at stride 8, and only their
    logits are doubled, which is the same and moves a fraction of the numbers.

    Args:
        num_classes: S + 1, all things as one and the stuff classes.
        strides: pixels per cell of the maps it reads, by name, from 4 on, each twice the one before.
        settings, conventions: as in a config's `model.semantic_head` and `model.conventions`.
    """

    section = default_name = "semantic_head"
    loss_names = ("loss_semantic",)
    float_layers = ("predictor",)

    def __init__(
        self,
        num_classes,
        strides: dict,
        settings: SemanticHeadConfig | None = None,
        conventions: Conventions | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)  # logits are float32 whatever the maps are
        self.num_classes, self.strides = num_classes, dict(strides)
        self.settings = valid_settings(settings, SemanticHeadConfig)
        self.conventions = valid_settings(conventions, Conventions)
        self.levels = [self._level(stride) for stride in self.strides.values()]
        # In float32, as the layers that give scores: the likeliest class is a matter of small differences.
        self.predictor = ConvNorm(
            num_classes, 1, kernel_initializer=_predictor_initializer(), dtype="float32", name="predictor"
        )

    @classmethod
    def from_settings(cls, model, spec, heads, **arguments):
        if not model.stuff:
            raise UserError("The model has a semantic head and no stuff: set data.train.panoptic or model.stuff.")
        if len(model.stuff) > MAX_STUFF_CLASSES:
            raise UserError(
                f"The model has {len(model.stuff)} classes of stuff, and a label map's byte has room for "
                f"{MAX_STUFF_CLASSES}: merge some."
            )
        strides = {name: spec.strides[name] for name in spec.roi_maps}
        return cls(1 + len(model.stuff), strides, model.semantic_head, model.conventions, **arguments)

    def _level(self, stride):
        """The convolutions of one level, without the doublings between them."""
        count, level = max(round(math.log2(stride / STRIDE)), 1), round(math.log2(stride))
        settings = {"norm": self.settings.norm, "activation": "relu", "epsilon": self.conventions.batch_norm_epsilon}
        settings |= {"filters": self.settings.channels, "kernel_size": 3, "dtype": self.dtype_policy}
        return [ConvNorm(**settings, name=f"p{level}_conv{number}") for number in range(1, count + 1)]

    def check(self, model):
        if self.num_classes != 1 + len(model.stuff):
            raise UserError(
                f"The semantic head has {self.num_classes} classes, one of all things, and the model "
                f"{len(model.stuff)} categories of stuff: give MaskRCNN(stuff=[...]) one less, class 1 first."
            )

    @property
    def outputs(self):
        classes = "logits of each class at stride 4 of the input: all things, then the stuff"
        size = "(height, width) of the image in the input, pixels"
        return [
            OutputSpec("semantic_logits", (None, None, self.num_classes), classes, per_detection=False),
            OutputSpec("semantic_size", (2,), size, "int32", per_detection=False),
        ]

    def build(self, input_shape):
        for name, convs in zip(self.strides, self.levels, strict=True):
            build_in_turn(convs, input_shape[name][-1])
        self.predictor.build((None, None, None, self.settings.channels))

    def class_variables(self):
        # A new initializer: the layer's own would draw the same numbers again.
        weights = (self.predictor.kernel, _predictor_initializer()), (self.predictor.bias, keras.initializers.Zeros())
        return [ClassVariable(*weight, STUFF, first=1, background=0) for weight in weights]

    def call(self, maps, padded_size=None):
        """Maps [B, H_l, W_l, C] of the strides -> logits float32 [B, H, W, S + 1] at stride 4.

        Beyond an image's valid cells its last row and column repeat, so that enlarging it needs no care.
        """
        finest, *coarser = [
            tf.cast(self._convolve_level(features, convs, stride, padded_size), tf.float32)
            for features, convs, stride in zip(maps, self.levels, self.strides.values(), strict=True)
        ]
        kernel, bias = self.predictor.kernel_and_shift()
        with tf.name_scope(self.predictor.name):
            logits = conv2d(finest, kernel, bias, 1, "SAME")
        if coarser:
            with tf.name_scope(self.predictor.name):
                at_stride_8 = conv2d(tf.add_n(coarser), kernel, None, 1, "SAME")
            logits += double_size(padding.repeat_edges(at_stride_8, padding.count_cells(padded_size, 2 * STRIDE)))
        return padding.repeat_edges(logits, padding.count_cells(padded_size, STRIDE))

    def _logits(self, features):
        return self([features[name] for name in self.strides], features.padded_size)

    def compute_losses(self, features, rois, truth):
        loss = losses.semantic_loss(self._logits(features), truth["semantic"])
        return {"loss_semantic": self.settings.loss_weight * loss}

    def detect(self, features, regions):
        return {"semantic_logits": self._logits(features), "semantic_size": features.image_size}

    def sections(self):
        return super().sections() | {"conventions": self.conventions}

    def results(self, outputs, model):
        logits, size = (outputs[spec.name] for spec in self.outputs)
        return {"semantics": SemanticLogits(logits, size, list(model.stuff), model.fusion)}

    def activations(self, pixels, rois, positives):
        # A level's convolutions run on ever finer maps, from its own down to that of stride 8, or 4 for the finest.
        cells = sum(
            pixels / (stride / 2**index) ** 2
            for stride, convs in zip(self.strides.values(), self.levels, strict=True)
            for index in range(len(convs))
        )
        classifier = self.num_classes * (pixels / STRIDE**2 + pixels / (2 * STRIDE) ** 2)
        return cells * self.settings.channels + classifier

    def _convolve_level(self, features, convs, stride, padded_size):
        """One level up to its last ReLU, which is at stride 8, or 4 for the finest."""
        for index, conv in enumerate(convs):
            valid_cells = padding.count_cells(padded_size, stride)
            if index:
                features = double_size(features)
            features = conv(features, valid_cells=valid_cells)
            if index + 1 < len(convs):
                features, stride = padding.repeat_edges(features, valid_cells), stride // 2
        return features


def _predictor_initializer():
    return keras.initializers.RandomNormal(stddev=INITIAL_STDDEV)
