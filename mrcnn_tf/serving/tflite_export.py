"""TFLite: a model as one file, or two, of builtin operations, with fixed shapes.

After the export itself: which operations of the network compute in bytes (`quantize_network`), and the images on which
an int8 export finds its scales (`make_calibration_inputs`).
"""

import dataclasses
import itertools
import pathlib
import re
import shutil
import tempfile

import numpy as np
import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.datasets.image_files import read_image
from mrcnn_tf.serving.export_check import TOLERANCES_BY_QUANTIZATION, Differences, check_detections
from mrcnn_tf.serving.export_labels import labels_document, labels_text
from mrcnn_tf.serving.export_setup import check_image_files, detection_limits, fixed_input_size, inference_copy
from mrcnn_tf.serving.interpreter import append_metadata
from mrcnn_tf.serving.tflite_graph import (
    backbone_graph,
    check_convertible,
    detector_graph,
    exported_outputs,
    heads_graph,
    save_graph,
)
from mrcnn_tf.serving.tflite_model import TFLiteModel

QUANTIZATIONS = ("float32", "float16", "dynamic", "int8")


@dataclasses.dataclass
class TFLiteReport:
    """What an export wrote."""

    files: list[pathlib.Path]  # one, or those of the backbone and the heads
    input_size: tuple[int, int]  # (height, width) pixels
    quantization: str  # one of QUANTIZATIONS
    differences: Differences  # from the Keras model in float32


def export_tflite(
    model,
    path,
    quantize="float32",
    calibration=None,
    input_size=None,
    max_detections=None,
    score_threshold=None,
    split=False,
    check_images=None,
):
    """Writes a model as TFLite, of builtin operations only: no Flex, nothing of our own, no shape that varies.

    The file's signature takes `image` uint8 [1, H, W, 3] RGB, the picture at the top left and the rest ignored, and
    `image_size` int32 [1, 2], the picture's (height, width) in it. It gives what `MaskRCNN.call` does, coordinates in
    the input's pixels; but of a semantic head `semantic` uint8 [1, H, W], the class of each pixel of the input: 0 of
    any thing, 1..S of stuff, 255 beyond the picture. What lies there has no influence. Instances and stuff are left for
    the client to fuse.

    Args:
        model: a `MaskRCNN`.
        path: ends in .tflite.
        quantize: "float32"; "float16", weights of half the size; "dynamic", weights of a quarter and convolutions of
            bytes whose scale is found on the way; "int8", convolutions of bytes whose scales come from `calibration`.
            Anchors, box decoding, suppression and RoI coordinates stay float32 in all of them.
        calibration: for "int8": images as in use, a dataset of `coco_dataset` or a list of uint8 [H, W, 3]; a hundred
            of them count.
        input_size: a side or (height, width), pixels; by default what the model's resize rule makes at most.
        max_detections, score_threshold: in place of the model's own.
        split: write NAME.backbone.tflite (image -> maps and the RPN's scores, convolutions only) and NAME.heads.tflite
            (all the rest), for delegates that refuse the rest.
        check_images: image files on which the export must detect what the model detects, or, with bytes, on which the
            differences are told; by default three of the demo's.

    Returns:
        A `TFLiteReport`.

    Raises:
        UserError: another ending or quantisation, a size that the model can't have, no calibration images, an RoI
            layer of run-time shapes, nothing to split, ai-edge-litert or ai-edge-quantizer missing, an unreadable check
            image, or an export that detects something else than the model.
    """
    path = pathlib.Path(path)
    if path.suffix != ".tflite":
        raise UserError(f"{path} doesn't end in .tflite: give such a path.")
    if quantize not in QUANTIZATIONS:
        raise UserError(f"There is no quantisation '{quantize}': choose {', '.join(QUANTIZATIONS)}.")
    size = fixed_input_size(model, input_size)
    check_convertible(model)
    if split and not model.rpn:
        raise UserError("Without an RPN the model has no second half: export without split.")
    if quantize == "int8" and calibration is None:
        raise UserError("int8 needs images to find its scales on: give calibration images, such as the training's.")
    model = inference_copy(model, "float32", max_detections, score_threshold)
    samples = make_calibration_inputs(model, calibration, size) if quantize == "int8" else None
    options = {"input_size": list(size), "quantization": quantize}
    labels = labels_document(model, options, exported_outputs(model, size))
    with tempfile.TemporaryDirectory() as folder, check_image_files(check_images) as paths:
        images, files = [read_image(image) for image in paths], []
        for part, graph, inputs in _graphs(model, size, samples, split):
            flatbuffer = _convert(graph, quantize, NetworkLayers.of(model), inputs)
            document = labels | ({"part": part} if part else {})
            files.append(pathlib.Path(folder, f"{path.stem}.{part}.tflite" if part else path.name))
            files[-1].write_bytes(append_metadata(flatbuffer, document, labels_text(model)))
        differences = _compare(model, files[0], images, quantize)
        placed = [path.parent / file.name for file in files]
        for file, target in zip(files, placed, strict=True):
            with atomic_write(target) as temporary:
                shutil.copyfile(file, temporary)
    return TFLiteReport(placed, size, quantize, differences)


def _graphs(model, size, samples, split):
    """(part, `Graph`, its calibration samples) of each file; the part of a whole model is None."""
    if not split:
        yield None, detector_graph(model, size), samples
        return
    backbone = backbone_graph(model, size)
    yield "backbone", backbone, samples
    if samples is not None:
        pairs = zip(backbone.run_on(samples), samples, strict=True)
        samples = [maps | {"image_size": sample["image_size"]} for maps, sample in pairs]
    yield "heads", heads_graph(model, backbone), samples


def _convert(graph, quantize, layers, samples):
    """The bytes of a .tflite of a `Graph`."""
    with tempfile.TemporaryDirectory() as folder:
        save_graph(graph, folder)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if quantize == "float16":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        flatbuffer = converter.convert()
    if quantize in ("dynamic", "int8"):
        return quantize_network(flatbuffer, quantize, layers, samples)
    return flatbuffer


def _compare(model, file, images, quantize):
    """`Differences` of a written model from the Keras model on the same pixels."""
    runtime = TFLiteModel(file)
    reference, exported = [], []
    for sample in make_calibration_inputs(model, images, runtime.input_size):
        batch = sample | {"image": np.float32(sample["image"]), "original_size": sample["image_size"]}
        reference += model.detect_batch(batch)
        exported += runtime.detect_batch(batch)
    return check_detections(reference, exported, TOLERANCES_BY_QUANTIZATION[quantize], detection_limits(model))


@dataclasses.dataclass
class NetworkLayers:
    """The layers of a network that computes in bytes, by their names, which begin the scopes of their operations.

    What turns the network's outputs into boxes and masks stays float32: one scale for coordinates and scores, or for
    small and large boxes, would leave few of either.
    """

    trunk: set[str]  # from the image to the maps
    heads: set[str]  # of the RPN and the heads, RoI features with weights of their own included
    floats: set[str]  # layers in them that stay float32

    @classmethod
    def of(cls, model):
        """Those of a `MaskRCNN`. Parts say their `float_layers`."""
        features, parts = model.features, [*filter(None, [model.rpn]), *model.heads]
        backbone = getattr(features, "backbone", features)
        floats = {name for part in (features, backbone, *parts) for name in getattr(part, "float_layers", ())}
        # A part's own layers too, which may be called outside of its scope, as the RPN's head is.
        layers = [layer for part in parts for layer in part._flatten_layers(recursive=False)]
        return cls({features.name}, {layer.name for layer in layers if layer.weights}, floats)


PRODUCTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "CONV_2D_TRANSPOSE")
# Between the products, so that bytes needn't become floats on the way from one to the next.
BETWEEN_PRODUCTS = ("ADD", "MUL", "PAD", "MAX_POOL_2D", "RELU", "RESIZE_NEAREST_NEIGHBOR", "RESHAPE")


def _recipe(layers, quantization):
    """(scope, operation) of all that computes in bytes, the scopes being regular expressions."""
    trunk, heads, floats = (_within(names) for names in (layers.trunk, layers.heads, layers.floats))
    recipe = [(f"^(?!.*{floats}).*({trunk}|{heads})", operation) for operation in PRODUCTS]
    if quantization == "int8":
        # Not group norm's, whose statistics are sums of thousands of squares.
        recipe += [(rf"^(?!.*/norm(_\d+)?/).*{trunk}", operation) for operation in BETWEEN_PRODUCTS]
        recipe.append((f"{trunk}strided_slice", "STRIDED_SLICE"))  # P6; elsewhere slices are of sizes
    return recipe


def _within(names):
    """A regular expression for what is in the scope of a layer of one of these names."""
    return rf"(^|/|;)({'|'.join(map(re.escape, sorted(names))) or '(?!)'})(_\d+)?/"


def quantize_network(flatbuffer, quantization, layers, samples=None):
    """The bytes of a float32 .tflite with its network quantised: "dynamic" (weights only, inputs as they come), "int8".

    `layers` are the `NetworkLayers`, `samples` inputs by name, for int8. Raises UserError where ai-edge-quantizer isn't
    installed.
    """
    try:
        from ai_edge_quantizer import calibrator, quantizer
        from ai_edge_quantizer.qtyping import TFLOperationName
    except ImportError as error:
        raise UserError("Quantising needs ai-edge-quantizer: pip install 'mrcnn-tf[edge]'.") from error
    work, calibration = quantizer.Quantizer(flatbuffer), None
    recipe = [(scope, TFLOperationName(operation)) for scope, operation in _recipe(layers, quantization)]
    if quantization == "dynamic":
        for scope, operation in recipe:
            work.add_dynamic_config(scope, operation, num_bits=8)
    else:
        for scope, operation in recipe:
            work.add_static_config(scope, operation, activation_num_bits=8, weight_num_bits=8)
        # The other mode reads all tensors after a run, those inside a loop too, which are gone by then.
        mode = calibrator.CalibrationMode.CALIBRATION_PROFILER_BASED
        calibration = work.calibrate({"serving_default": samples}, mode=mode)
    return bytes(work.quantize(calibration, enable_progress_bar=False, enable_progress_report=False).quantized_model)


MAX_CALIBRATION_IMAGES = 100  # more move the scales little, and each costs a run in float32


def make_calibration_inputs(model, images, size):
    """What the exported graph with an input of `size` = (height, width) will be given, of the first hundred images.

    Args:
        model: a `MaskRCNN`.
        images: batches of `coco_dataset`, whose images are resized and padded already, or uint8 arrays [H, W, 3].

    Returns:
        A list of {"image": uint8 [1, H, W, 3], "image_size": int32 [1, 2]}.

    Raises:
        UserError: there are none, or something else than images.
    """
    samples = []
    for image in itertools.islice(_unpadded_images(images), MAX_CALIBRATION_IMAGES):
        inputs = model.preprocess.letterbox(tf.constant(image), *size)
        pixels = np.round(inputs["image"]).astype(np.uint8)
        samples.append({"image": pixels, "image_size": np.asarray(inputs["image_size"])})
    if not samples:
        raise UserError("There is not one calibration image: give some of those that the model was trained on.")
    return samples


def _unpadded_images(images):
    """Each image, uint8 [H, W, 3], without its padding."""
    for item in images:
        if isinstance(item, dict):
            for image, (height, width) in zip(np.asarray(item["image"]), np.asarray(item["image_size"]), strict=True):
                yield np.round(image[:height, :width]).astype(np.uint8)
        elif getattr(item, "dtype", None) == np.uint8 and np.ndim(item) == 3:
            yield np.asarray(item)
        else:
            raise UserError("Calibration takes a dataset of coco_dataset or uint8 images [height, width, 3].")
