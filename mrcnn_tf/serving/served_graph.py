"""The graph that a server runs: image files or pixels in, named outputs for each image out.

`ServedGraph` puts it together: images are prepared one by one (`prepare_images`), the network runs on the batch, and
each image's maps of classes and segments become PNGs (`encode_pixel_maps`).
"""

import contextlib
import dataclasses

import tensorflow as tf

from mrcnn_tf.ops.image_bytes import decode_upright
from mrcnn_tf.ops.masks_in_graph import rle_counts
from mrcnn_tf.ops.native.library import static_shapes, stock_operations
from mrcnn_tf.ops.panoptic_maps import fuse, semantic_map
from mrcnn_tf.results.output_spec import OutputSpec
from mrcnn_tf.serving.export_labels import detect_nothing
from mrcnn_tf.serving.export_setup import detection_limits

NETWORK_INPUTS = {
    "image": ([None, None, None, 3], tf.float32),
    "image_size": ([None, 2], tf.int32),
    "original_size": ([None, 2], tf.int32),
}
SEMANTIC_OUTPUTS = ("semantic_logits", "semantic_size")


def _of_image(name, meaning, dtype="int32", shape=()):
    return OutputSpec(name, shape, meaning, dtype, per_detection=False)


IMAGE_SPECS = [
    _of_image("image_size", "(height, width) of the upright image, pixels; zeros where ok is false", shape=(2,)),
    _of_image("ok", "whether the file could be decoded", "bool"),
]
SEMANTIC_SPECS = [
    _of_image("semantic_png_bytes", "a grey PNG: the class of each pixel, 0 of any thing, 1 to S of stuff", "string")
]
SEGMENT_SPECS = [
    _of_image("segments_png_bytes", "an RGB PNG: the segment of each pixel, R + 256 G + 65536 B; 0 is void", "string"),
    _of_image("num_segments", "how many rows are segments"),
    _of_image("segment_classes", "of each segment: 1 to K of a thing, 1 to S of stuff", shape=(None,)),
    _of_image("segment_instances", "the row of its detection, -1 of stuff", shape=(None,)),
    _of_image("segment_areas", "pixels", shape=(None,)),
]


class ServedGraph:
    """A model's signatures for a server.

    `serving_default` takes `image_bytes`, string [B]: JPEG, PNG or BMP files of any sizes. `image` takes `image`, uint8
    [B, H, W, 3] RGB. Both give, D being the most detections of an image:

    - `boxes` float32 [B, D, 4], x1 y1 x2 y2 in pixels of the image, turned upright by its EXIF orientation; `scores`
      float32 [B, D], falling; `classes` int32 [B, D] in 1..K; zeros beyond `num_detections`, int32 [B];
    - `image_size` int32 [B, 2], (height, width) of the upright image; `ok` bool [B], false where the file couldn't be
      decoded: then nothing is detected and the size is zero;
    - with a mask head `masks` float32 [B, D, M, M], probabilities inside each box, or `masks_rle_bytes` string [B, D],
      COCO's compressed run lengths of the mask in the whole image, empty beyond `num_detections`;
    - with a keypoint head `keypoints` float32 [B, D, P, 3] = (x, y, score);
    - what heads of a user's own give, by their `OutputSpec`s: [B, D, ...] of detections, zeros beyond
      `num_detections`, or [B, ...] of images, zeros where `ok` is false;
    - with a semantic head `semantic_png_bytes` string [B]: a grey PNG of the upright image's size, each pixel's class,
      0 of any thing and 1..S of stuff; empty where `ok` is false;
    - with a semantic head, and masks or no box head, also `segments_png_bytes` string [B]: the fused segments as COCO's
      RGB PNG, id = R + 256 G + 65536 B, 0 = void; `num_segments` int32 [B]; and of segment s in row s - 1 of int32
      [B, D + S], zeros beyond the last: `segment_classes` (1..K of a thing, 1..S of stuff), `segment_instances` (the
      row of its detection, -1 of stuff) and `segment_areas` in pixels.

    Without a box head there are `image_size`, `ok` and what the other heads give, and D is 0.

    Attributes:
        signatures: the two concrete functions by their names.
        outputs: an `OutputSpec` of each output.

    Args:
        model: a `MaskRCNN` of the default strategy.
        masks: "roi" for `masks`, "rle" for `masks_rle_bytes`.
        input_size: (height, width) to which every image is letterboxed; None for the model's own resizing.
        xla: compile the network, which needs an input_size; a model with a keypoint head can't be compiled.
        custom_ops: use this package's operations where they are built.
        gpu: leave convolutions to TensorFlow, whose library for GPUs has faster ones than it has for processors.
    """

    def __init__(self, model, masks="roi", input_size=None, xla=False, custom_ops=False, gpu=False):
        self._model, self._masks, self._input_size = model, masks, input_size
        self.outputs = exported_outputs(model, masks)
        operations = contextlib.nullcontext() if custom_ops else stock_operations(not gpu)
        if xla:
            operations = static_shapes()
        specs = {name: tf.TensorSpec(shape, dtype, name=name) for name, (shape, dtype) in NETWORK_INPUTS.items()}
        with operations:
            # Traced once for both signatures. AutoGraph has nothing to convert.
            network = tf.function(
                lambda inputs: declared_outputs(model, model(inputs, training=False)),
                input_signature=[specs],
                autograph=False,
                jit_compile=True if xla else None,
            )
            self._network = network.get_concrete_function()
            self.signatures = {
                "serving_default": _trace(self.detect_files, tf.TensorSpec([None], tf.string, "image_bytes")),
                "image": _trace(self.detect_pixels, tf.TensorSpec([None, None, None, 3], tf.uint8, "image")),
            }

    def save(self, folder):
        """Writes the SavedModel."""
        module = tf.Module()
        module.weights = [variable.value for variable in self._model.variables]
        tf.saved_model.save(module, str(folder), self.signatures)

    def detect_files(self, image_bytes):
        """The outputs for image files, string [B]."""
        return self._detect(image_bytes, lambda data: self._prepare(decode_upright(data)))

    def detect_pixels(self, image):
        """The outputs for images uint8 [B, H, W, 3]."""
        return self._detect(image, self._prepare)

    def _prepare(self, image):
        """What the network takes of one image, uint8 [H, W, 3], without the batch's dimension."""
        with tf.control_dependencies([tf.debugging.assert_positive(tf.shape(image))]):
            image = tf.identity(image)
        preprocess = self._model.preprocess
        inputs = preprocess.letterbox(image, *self._input_size) if self._input_size else preprocess(image)
        return {name: value[0] for name, value in inputs.items()}

    def _detect(self, images, prepare):
        height, width = self._input_size or [self._model.preprocess.divisor] * 2
        empty = {
            "image": tf.zeros([height, width, 3]),
            "image_size": tf.ones([2], tf.int32),  # boxes are scaled by original_size / image_size
            "original_size": tf.zeros([2], tf.int32),
        }
        inputs = prepare_images(images, prepare, empty)
        ok, sizes = inputs.pop("ok"), inputs["original_size"]
        outputs = self._network(inputs)
        semantic = [outputs.pop(name) for name in SEMANTIC_OUTPUTS if name in outputs]
        counts = outputs.get("num_detections", tf.zeros_like(sizes[:, 0]))
        for spec in self._model.output_specs:
            if spec.name in outputs:
                outputs[spec.name] = _clear_invalid(outputs[spec.name], ok, counts if spec.per_detection else None)
        rule, maps = detect_nothing(self._model).mask_rule, {}
        if semantic:
            maps = encode_pixel_maps(*semantic, outputs, sizes, ok, self._model.fusion, rule)
        if "masks" in outputs and self._masks == "rle":
            masks, counts = outputs.pop("masks"), outputs["num_detections"]
            outputs["masks_rle_bytes"] = rle_counts(masks, outputs["boxes"], counts, sizes, rule)
        outputs |= {"image_size": sizes, "ok": ok, **maps}
        count = tf.shape(images)[0]  # less than `inputs` hold in an empty batch
        return {name: values[:count] for name, values in outputs.items()}


def _trace(function, spec):
    return tf.function(function, input_signature=[spec], autograph=False).get_concrete_function()


def _clear_invalid(values, ok, counts=None):
    """Outputs with zeros where `ok` [B] is false and, of detections, in the rows beyond `counts` [B]."""
    valid = ok
    if counts is not None:
        valid = ok[:, None] & (tf.range(tf.shape(values)[1]) < counts[:, None])
    shape = tf.concat([tf.shape(valid), tf.ones([values.shape.rank - valid.shape.rank], tf.int32)], axis=0)
    return tf.where(tf.reshape(valid, shape), values, tf.zeros([], values.dtype))


def declared_outputs(model, outputs):
    """Of what `MaskRCNN.call` gives that which its heads declare, of the declared types."""
    return {spec.name: tf.cast(outputs[spec.name], spec.dtype) for spec in model.output_specs}


def exported_outputs(model, masks="roi"):
    """An `OutputSpec` of each output of a model's `ServedGraph`."""
    specs = [spec for spec in model.output_specs if spec.name not in SEMANTIC_OUTPUTS]
    if masks == "rle":
        meaning = "COCO's compressed run lengths of the mask in the whole image"
        rle = OutputSpec("masks_rle_bytes", (), meaning, "string")
        specs = [rle if spec.name == "masks" else spec for spec in specs]
    if model.gives("semantic_logits"):
        specs += SEMANTIC_SPECS
        if model.fusion:
            rows = len(model.stuff) + (detection_limits(model).max_per_image if model.gives("boxes") else 0)
            specs += [dataclasses.replace(spec, shape=(rows,)[: len(spec.shape)]) for spec in SEGMENT_SPECS]
    return specs + IMAGE_SPECS


PREPARED_AT_ONCE = 2  # images: a decoded photograph takes 150 MB and more, whatever the batch's size


def prepare_images(images, prepare, default):
    """What a function makes of each image, and a default where it fails.

    It is a small input pipeline inside the graph, of stock operations: only there can an operation fail for one image.
    `prepare` makes a dictionary of tensors of an image, `default` is such a dictionary.

    Returns:
        For images [B, ...], file contents or pixels, the dictionaries as one of tensors [max(B, 1), ...], each padded
        with zeros to the largest shape, with `ok` bool [max(B, 1)]. An empty batch gives one default, because a graph
        can't run on nothing.
    """
    count = tf.shape(images, tf.int64)[0]
    missing = tf.maximum(1 - count, 0)
    spare = tf.zeros(tf.concat([[missing], tf.shape(images, tf.int64)[1:]], axis=0), images.dtype)

    def prepare_or_default(image):
        prepared = tf.data.Dataset.from_tensors(image).map(lambda image: prepare(image) | {"ok": True})
        prepared = prepared.ignore_errors(log_warning=False)
        failed = tf.data.Dataset.from_tensors(default | {"ok": False})
        return prepared.concatenate(failed).take(1).get_single_element()

    dataset = tf.data.Dataset.from_tensor_slices(tf.concat([images, spare], axis=0))
    dataset = dataset.map(prepare_or_default, num_parallel_calls=PREPARED_AT_ONCE, deterministic=True)
    return dataset.padded_batch(count + missing).get_single_element()


ENCODED_AT_ONCE = 2  # images whose maps are in the making: each holds a few bytes for a pixel
PNG_COMPRESSION = 1  # maps of few colours get hardly smaller by more, which takes twice as long and longer
SEGMENT_TABLE = {"segment_classes": "classes", "segment_instances": "instances", "segment_areas": "areas"}


def encode_pixel_maps(logits, logit_size, detections, image_size, ok, fusion, mask_rule):
    """What `ServedGraph` gives of the classes of pixels, by its names.

    Args:
        logits, logit_size: `semantic_logits` and `semantic_size` of `MaskRCNN.call`.
        detections: the other outputs of `MaskRCNN.call`, zeros beyond the detections of each image; {} of a model
            without instances.
        image_size: int32 [B, 2], (height, width) of the images, pixels.
        ok: bool [B]; all else stays empty.
        fusion: the `PanopticConfig` of the fusion; None: there is none.
        mask_rule: as in `Detections`.

    Returns:
        A dictionary of tensors [B, ...].
    """
    inputs = {"logits": logits, "logit_size": logit_size, "image_size": image_size, "ok": ok}
    specs = {"semantic_png_bytes": tf.TensorSpec([], tf.string)}
    if fusion:
        inputs |= _instances(detections, tf.shape(ok)[0])
        max_segments = inputs["scores"].shape[1] + logits.shape[-1] - 1
        specs |= {"segments_png_bytes": tf.TensorSpec([], tf.string), "num_segments": tf.TensorSpec([], tf.int32)}
        specs |= {name: tf.TensorSpec([max_segments], tf.int32) for name in SEGMENT_TABLE}

    def encode(image):
        labels = semantic_map(image["logits"], image["logit_size"], image["image_size"])
        outputs = {"semantic_png_bytes": tf.io.encode_png(labels[..., None], PNG_COMPRESSION)}
        return outputs | _encode_segments(image, labels, fusion, mask_rule) if fusion else outputs

    empty = {name: tf.zeros(spec.shape, spec.dtype) for name, spec in specs.items()}
    # Where a GPU has made the logits, their classes are found there; what makes PNGs and tables runs on the processor.
    return tf.map_fn(
        lambda image: tf.cond(image["ok"], lambda: encode(image), lambda: empty),
        inputs,
        fn_output_signature=specs,
        parallel_iterations=ENCODED_AT_ONCE,
    )


def _instances(detections, batch):
    """What is fused with the semantic maps: all detections, or none in each of `batch` images."""
    none = {"masks": tf.zeros([batch, 0, 1, 1]), "boxes": tf.zeros([batch, 0, 4]), "scores": tf.zeros([batch, 0])}
    none["classes"] = tf.zeros([batch, 0], tf.int32)
    return {name: detections.get(name, values) for name, values in none.items()}


def _encode_segments(image, labels, fusion, mask_rule):
    """The segments of one image, whose semantic map is `labels`."""
    instances = (image[name] for name in ("masks", "boxes", "scores", "classes"))
    rules = fusion.score_threshold, fusion.overlap, fusion.stuff_area, mask_rule
    fused = fuse(*instances, labels, image["logits"].shape[-1] - 1, *rules)
    # COCO's colours, id = R + 256 G + 65536 B, are an integer's lower three bytes.
    colours = tf.bitcast(fused.segment_map, tf.uint8)[..., :3]
    is_segment = tf.range(tf.size(fused.classes)) < fused.count
    outputs = {name: tf.where(is_segment, getattr(fused, field), 0) for name, field in SEGMENT_TABLE.items()}
    return outputs | {"segments_png_bytes": tf.io.encode_png(colours, PNG_COMPRESSION), "num_segments": fused.count}
