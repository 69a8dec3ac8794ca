"""The graphs that become TFLite files: weights as constants, no shape that depends on values."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from mrcnn_tf.common.categories import IGNORED
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.model.rpn import RPNScores
from mrcnn_tf.ops import padding
from mrcnn_tf.ops.native.library import static_shapes
from mrcnn_tf.ops.panoptic_maps import STRIDE
from mrcnn_tf.results.output_spec import OutputSpec
from mrcnn_tf.serving.served_graph import SEMANTIC_OUTPUTS, declared_outputs

STRIP_HEIGHT = 16  # rows of logits enlarged at a time: the classes of all pixels at once would take hundreds of MB


@dataclasses.dataclass
class Graph:
    """A function of tensors by name, float32 or integer, to tensors by name, and the specs of its inputs."""

    function: Callable
    inputs: dict[str, tf.TensorSpec]

    @functools.cached_property
    def traced(self):
        """The concrete function, of static shapes."""
        function = tf.function(lambda **inputs: self.function(**inputs), autograph=False)
        with static_shapes():
            return function.get_concrete_function(**self.specs)

    @property
    def specs(self):
        """The inputs' specs with their names in them."""
        return {name: tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in self.inputs.items()}

    def run_on(self, samples):
        """The outputs for each of the samples; both are dictionaries of numpy arrays."""
        outputs_of_samples = [
            self.traced(**{name: tf.constant(sample[name]) for name in self.inputs}) for sample in samples
        ]
        return [{name: np.asarray(value) for name, value in outputs.items()} for outputs in outputs_of_samples]


def detector_graph(model, size):
    """`Graph` of a whole model on images of `size` = (height, width)."""

    def detect(image, image_size):
        inputs = {"image": tf.cast(image, tf.float32), "image_size": image_size, "original_size": image_size}
        return _exported(model, model(inputs, training=False))

    return Graph(detect, _image_specs(size))


def backbone_graph(model, size):
    """`Graph` from an image to maps `map0`, `map1`, ... [1, H_l, W_l * C] and the RPN's `logits0`, `deltas0`, ..."""

    def extract(image, image_size):
        stages = model.stages({"image": tf.cast(image, tf.float32), "image_size": image_size})
        # Each row of cells in a row: a map that the RPN reads as bytes would itself be given out as bytes.
        maps = [tf.reshape(features, [1, features.shape[1], -1]) for features in stages.features.maps.values()]
        values = {"map": maps, "logits": stages.rpn_scores.logits, "deltas": stages.rpn_scores.deltas}
        return {f"{kind}{level}": value for kind in values for level, value in enumerate(values[kind])}

    return Graph(extract, _image_specs(size))


def heads_graph(model, backbone):
    """`Graph` from the outputs of a `backbone_graph` and `image_size` to detections."""
    outputs = backbone.traced.structured_outputs
    shapes = {name: tf.TensorSpec(value.shape, value.dtype) for name, value in outputs.items()}
    channels = model.spec.channels

    def detect(image_size, **values):
        inputs = {"image_size": image_size, "original_size": image_size}
        maps, *scores = ([values[f"{kind}{n}"] for n in range(len(channels))] for kind in ("map", "logits", "deltas"))
        maps = {
            name: tf.reshape(rows, [1, rows.shape[1], -1, channels[name]])
            for name, rows in zip(channels, maps, strict=True)
        }
        features = model.stages(inputs).feature_maps(maps)
        return _exported(model, model.stages(inputs, features=features, rpn_scores=RPNScores(*scores)).outputs)

    return Graph(detect, shapes | {"image_size": backbone.inputs["image_size"]})


def check_convertible(model):
    """Raises UserError for a model whose shapes depend on values: one with RoIPool, or RoIAlign with the maximum."""
    if not all(getattr(head.pooling, "has_static_shapes", True) for head in model.heads):
        raise UserError(
            "TFLite has no RoIPool, whose bins differ in size: train with model.roi_layer.kind=align and "
            "model.roi_layer.aggregate=average."
        )


def _exported(model, outputs):
    """What `MaskRCNN.call` gives, with a map of classes in place of a semantic head's logits."""
    outputs = declared_outputs(model, outputs)
    if "semantic_logits" in outputs:
        outputs["semantic"] = letterboxed_map(outputs.pop("semantic_logits"), outputs.pop("semantic_size"))
    return outputs


def exported_outputs(model, size):
    """An `OutputSpec` of each output of a model's `detector_graph` on images of `size` = (height, width)."""
    specs = [spec for spec in model.output_specs if spec.name not in SEMANTIC_OUTPUTS]
    if model.gives("semantic_logits"):
        meaning = "the class of each pixel of the input: 0 of any thing, 1 to S of stuff, 255 beyond the picture"
        specs.append(OutputSpec("semantic", tuple(size), meaning, "uint8", per_detection=False))
    return specs


def letterboxed_map(logits, image_size):
    """The class of each pixel of a letterboxed input: uint8 [1, H, W], 255 beyond the picture.

    As `ops.panoptic_maps.semantic_map` with the picture's own size, of shapes and steps that are fixed.

    Args:
        logits: float32 [1, h, w, S + 1] at stride 4 of the input.
        image_size: int32 [1, 2], (height, width) of the picture in it, pixels.
    """
    height, width = logits.shape[1:3]
    strips = []
    for top in range(0, height, STRIP_HEIGHT):
        # A cell more on either side, where there is one: bilinear interpolation looks at neighbours.
        first, last = max(top - 1, 0), min(top + STRIP_HEIGHT + 1, height)
        enlarged = tf.image.resize(logits[:, first:last], [STRIDE * (last - first), STRIDE * width])
        rows = min(STRIP_HEIGHT, height - top) * STRIDE
        begin = STRIDE * (top - first)
        strips.append(tf.argmax(enlarged[:, begin : begin + rows], axis=-1, output_type=tf.int32))
    picture = padding.valid_mask(image_size, STRIDE * height, STRIDE * width)[..., 0]
    return tf.cast(tf.where(picture, tf.concat(strips, axis=1), IGNORED), tf.uint8)


def save_graph(graph, folder):
    """Writes a `Graph` as a SavedModel with one signature, its variables frozen.

    The converter keeps variables otherwise, and the interpreter then reads them before they are set.
    """
    frozen, names = convert_variables_to_constants_v2(graph.traced), sorted(graph.traced.structured_outputs)
    served = tf.function(lambda **inputs: dict(zip(names, frozen(**inputs), strict=True)), autograph=False)
    # Nobody differentiates it, and the gradient of RoIAlign can't be traced without knowing the shapes.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(tf.Module(), folder, served.get_concrete_function(**graph.specs), options)


def _image_specs(size):
    return {"image": tf.TensorSpec([1, *size, 3], tf.uint8), "image_size": tf.TensorSpec([1, 2], tf.int32)}
