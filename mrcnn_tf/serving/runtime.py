"""Runtimes of an exported SavedModel: images, files and batches in, `Detections` out.

`Runtime` is what all of them share, whoever runs the model; `SavedModelRuntime` loads it into this process, and
`server_client.ServedModel` asks a TensorFlow Serving.
"""

import io
import pathlib

import numpy as np
import tensorflow as tf
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.image_files import UnreadableImage, check_pixels, read_image
from mrcnn_tf.ops.native.library import load_custom_ops
from mrcnn_tf.ops.panoptic_maps import resize_labels
from mrcnn_tf.results.detections import Detections, EncodedMaskDetections
from mrcnn_tf.serving.export_labels import latest_version, read_labels
from mrcnn_tf.serving.outputs import make_detections, scale

DECODED_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM")  # how JPEG, PNG and BMP files begin
SIGNATURES = ("serving_default", "image")


def read_encoded_image(path):
    """The bytes of an image file, which stay as they are in a format that exported models decode, else as PNG.

    Raises UnreadableImage if it has none of Pillow's formats, or can't be read.
    """
    try:
        data = pathlib.Path(path).read_bytes()
        return data if data.startswith(DECODED_SIGNATURES) else encode_png(read_image(path))
    except OSError as error:
        raise UnreadableImage(f"{path} can't be read ({error}): check the path and its permissions.") from error


def encode_png(image):
    """uint8 [H, W, 3] RGB as the bytes of a PNG file, without loss."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return file.getvalue()


class Runtime:
    """An exported model with the `detect` and `detect_batch` of a `MaskRCNN`; subclasses define `_run_files`.

    Attributes:
        labels: the model's `ExportLabels`; `categories`, `stuff`, `resize` and `gives` are theirs.
    """

    def __init__(self, labels):
        self.labels = labels
        self.categories, self.stuff, self.resize = labels.categories, labels.stuff, labels.resize
        self.gives = labels.gives

    def _run_files(self, files):
        """The outputs for image files: list of bytes -> list of dictionaries of arrays, one for each file."""
        raise NotImplementedError

    def _run_pixels(self, image):
        """The outputs for one image, uint8 [H, W, 3]: a dictionary of arrays."""
        return self._run_files([encode_png(image)])[0]

    def detect(self, images):
        """Detections of one image, uint8 [H, W, 3] RGB -> `Detections`, or of a list of images of any sizes -> a list.

        Raises UserError for an array of another shape or type, and where the model can't be reached or fails.
        """
        if not isinstance(images, (list, tuple)):
            return self.detect([images])[0]
        images = [check_pixels(image, position) for position, image in enumerate(images)]
        return [_raise_unreadable(self._make_result(self._run_pixels(image), "the image")) for image in images]

    def detect_file(self, path):
        """The `Detections` of an image file, in pixels of the image turned upright by its EXIF orientation.

        Raises UnreadableImage for a file that isn't an image or that the model couldn't decode, and UserError if the
        model can't be reached or fails.
        """
        return _raise_unreadable(*self.detect_files([path]))

    def detect_files(self, paths, batch=1):
        """Yields the `Detections` of each image file or, for one that isn't an image, an `UnreadableImage`.

        A request holds `batch` files. Raises UserError if the model can't be reached or fails.
        """
        paths = list(paths)
        for first in range(0, len(paths), batch):
            yield from self._detect_request(paths[first : first + batch])

    def _detect_request(self, paths):
        """The results of some files, of which those that can be read are sent in one request."""
        results, encoded = {}, {}
        for index, path in enumerate(paths):
            try:
                encoded[index] = read_encoded_image(path)
            except UnreadableImage as unreadable:
                results[index] = unreadable
        outputs = self._run_files([*encoded.values()]) if encoded else []
        for index, image_outputs in zip(encoded, outputs, strict=True):
            results[index] = self._make_result(image_outputs, paths[index])
        return [results[index] for index in range(len(paths))]

    def _make_result(self, outputs, name):
        """`Detections` of one image's outputs, or an UnreadableImage."""
        if "ok" not in outputs or "image_size" not in outputs:
            raise UserError("The model's outputs lack ok and image_size: it must be of mrcnn-tf export saved-model.")
        if not outputs["ok"]:
            return UnreadableImage(
                f"{name} isn't an image that the model could decode: give a whole JPEG, PNG or BMP file."
            )
        return make_detections(outputs, self.labels, np.asarray(outputs["image_size"]))

    def detect_batch(self, batch):
        """A list of `Detections`, one for each image of a batch of `coco_dataset` that was made with this `resize`.

        The model takes bytes and resizes by itself, so it sees the batch's pixels rounded; boxes are scaled back, and
        so is the map of classes, whose pixels then take the nearest one's, and it is fused anew with the masks.

        Raises UserError for a model that was exported with masks="rle", whose masks can't be scaled.
        """
        scaled = []
        sizes, originals = np.asarray(batch["image_size"]).tolist(), np.asarray(batch["original_size"]).tolist()
        for image, (height, width), original_size in zip(batch["image"], sizes, originals, strict=True):
            pixels = np.clip(np.rint(np.asarray(image)[:height, :width]), 0, 255).astype(np.uint8)
            scaled.append(self._scale(self.detect(pixels), original_size))
        return scaled

    def _scale(self, detections, size):
        """`Detections` in an image of another (height, width)."""
        if isinstance(detections, EncodedMaskDetections):
            raise UserError("Masks in run lengths can't be evaluated at another size: export the model with masks=roi.")
        ratio = (np.array(size, np.float32) / detections.image_size)[::-1]
        keypoints, semantics = detections.keypoints, detections.semantics
        coordinates = {spec.name: spec.coordinates for spec in self.labels.outputs}
        if semantics:
            semantics = semantics._replace(labels=resize_labels(detections.semantic, size), fused=None)
        return Detections(
            boxes=scale(detections.boxes, "boxes", ratio),
            scores=detections.scores,
            classes=detections.classes,
            image_size=size,
            categories=self.categories,
            mask_probabilities=detections.mask_probabilities,
            mask_rule=detections.mask_rule,
            keypoints=None if keypoints is None else scale(keypoints, "points", ratio),
            keypoint_offset=detections.keypoint_offset,
            semantics=semantics,
            **{name: scale(values, coordinates[name], ratio) for name, values in detections.extras.items()},
        )


def _raise_unreadable(result):
    if isinstance(result, UnreadableImage):
        raise result
    return result


class SavedModelRuntime(Runtime):
    """What `mrcnn-tf export saved-model` wrote, loaded into this process, with the `detect` of a `MaskRCNN`.

    Args:
        folder: of the SavedModel, or of its numbered versions, of which the latest is taken.
        labels: labels.json, if it isn't in the folder's assets.

    Raises:
        UserError: there is no SavedModel of this package, or this TensorFlow doesn't load it.
    """

    def __init__(self, folder, labels=None):
        folder = latest_version(folder)
        super().__init__(read_labels(labels or folder))
        if self.labels.document.get("custom_ops"):
            load_custom_ops()
        try:
            self._model = tf.saved_model.load(str(folder))  # the signatures alone wouldn't keep its variables
            self._functions = {name: self._model.signatures[name] for name in SIGNATURES}
        except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
            raise UserError(
                f"{folder} isn't a SavedModel that this TensorFlow {tf.__version__} loads ({error!r}): "
                "export it again with mrcnn-tf export saved-model."
            ) from error

    def _run_files(self, files):
        return _split_batch(self._functions["serving_default"](image_bytes=tf.constant(files, tf.string)))

    def _run_pixels(self, image):
        return _split_batch(self._functions["image"](image=tf.constant(image[None])))[0]


def _split_batch(outputs):
    """Tensors [B, ...] by name -> list of B dictionaries of arrays."""
    arrays = {name: value.numpy() for name, value in outputs.items()}
    return [{name: array[index] for name, array in arrays.items()} for index in range(len(arrays["ok"]))]
