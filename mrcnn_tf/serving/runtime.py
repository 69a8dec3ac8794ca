"""What all runtimes of a SavedModel share: images, files and batches in, `Detections` out."""

import io
import pathlib

import numpy as np
import tensorflow as tf
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.image_files import UnreadableImage
from mrcnn_tf.datasets.image_files import checked_pixels
from mrcnn_tf.datasets.image_files import read_image
from mrcnn_tf.ops.native.library import load_custom_ops
from mrcnn_tf.ops.panoptic_maps import resize_labels
from mrcnn_tf.results.detections import Detections
from mrcnn_tf.results.detections import EncodedMaskDetections
from mrcnn_tf.serving.outputs import latest_version
from mrcnn_tf.serving.outputs import make_detections
from mrcnn_tf.serving.outputs import read_labels

# The bytes of an image as an exported model takes them.
#

DECODED = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM")  # how JPEG, PNG and BMP files begin


def read_encoded_image(path):
    """The bytes of an image file, which stay as they are in a format that exported models decode, else as PNG.

    Raises:
        UnreadableImage: it has none of Pillow's formats, or can't be read.
    """
    try:
        data = pathlib.Path(path).read_bytes()
        return data if data.startswith(DECODED) else encode_png(read_image(path))
    except OSError as error:
        raise UnreadableImage(f"{path} can't be read ({error}): check the path and its permissions.") from error


def encode_png(image):
    """uint8 [H, W, 3] RGB as the bytes of a PNG file, without loss."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return file.getvalue()


class Runtime:
    """An exported model with the `detect` and `detect_batch` of a `MaskRCNN`; those that run it define `_answer`.

    Attributes:
        facts: the model's `Facts`.
        categories: list of K `Category`s, class 1 first.
        resize: the `ResizeConfig` that the model applies to an image by itself.
        stuff: list of S, likewise; [] without a semantic head.
        box_head, semantic_head: bool, whether it gives boxes, and a class for each pixel.
        mask_head, keypoint_head: bool, whether it gives masks and keypoints; true until it has answered.
    """

    def __init__(self, facts):
        self.facts = facts
        self.categories, self.stuff, self.resize = facts.categories, facts.stuff, facts.resize
        self.box_head, self.semantic_head = facts.box_head, bool(facts.stuff)
        self.mask_head = self.keypoint_head = True

    def _answer(self, files):
        """The outputs for image files: list of bytes -> list of dictionaries of arrays, one for each file."""
        raise NotImplementedError

    def detect(self, images):
        """Detections of one image, uint8 [H, W, 3] RGB -> `Detections`, or of a list of images of any sizes -> a list.

        Raises:
            UserError: for an array of another shape or type, and where the model can't be reached or fails.
        """
        if not isinstance(images, (list, tuple)):
            return self.detect([images])[0]
        return [self._detect_pixels(checked_pixels(image, position)) for position, image in enumerate(images)]

    def detect_file(self, path):
        """The `Detections` of an image file, in pixels of the image turned upright by its EXIF orientation.

        Raises:
            UnreadableImage: the file isn't an image, or the model couldn't decode it.
            UserError: the model can't be reached or fails.
        """
        return self._only(self.detect_files([path]))

    def detect_files(self, paths, batch=1):
        """Yields the `Detections` of each image file or, for one that isn't an image, an `UnreadableImage`.

        Args:
            paths: image files.
            batch: how many files one request holds.

        Raises:
            UserError: the model can't be reached or fails.
        """
        paths = list(paths)
        for first in range(0, len(paths), batch):
            yield from self._detect_some(paths[first : first + batch])

    def detect_batch(self, batch):
        """A list of `Detections`, one for each image of a batch of `coco_dataset` that was made with this `resize`.

        The model takes bytes and resizes by itself, so it sees the batch's pixels rounded; boxes are scaled back, and
        so is the map of classes, whose pixels then take the nearest one's, and it is fused anew with the masks.

        Raises:
            UserError: the model was exported with masks="rle", whose masks can't be scaled.
        """
        found = []
        sizes, originals = np.asarray(batch["image_size"]).tolist(), np.asarray(batch["original_size"]).tolist()
        for image, (height, width), original in zip(batch["image"], sizes, originals, strict=True):
            pixels = np.clip(np.rint(np.asarray(image)[:height, :width]), 0, 255).astype(np.uint8)
            found.append(self._scaled(self.detect(pixels), original))
        return found

    def _detect_pixels(self, image):
        result = self._convert(self._answer([encode_png(image)])[0], "the image")
        return self._only([result])

    def _detect_some(self, paths):
        results, files, places = [None] * len(paths), [], []
        for place, path in enumerate(paths):
            try:
                files.append(read_encoded_image(path))
                places.append(place)
            except UnreadableImage as unreadable:
                results[place] = unreadable
        for place, row in zip(places, self._answer(files) if files else [], strict=True):
            results[place] = self._convert(row, paths[place])
        return results

    def _convert(self, row, name):
        """`Detections` of one image's outputs, or an UnreadableImage."""
        if "ok" not in row or "image_size" not in row:
            raise UserError("The model's outputs lack ok and image_size: it must be of mrcnn-tf export saved-model.")
        self.mask_head, self.keypoint_head = bool({"masks", "masks_rle_bytes"} & set(row)), "keypoints" in row
        if not row["ok"]:
            return UnreadableImage(
                f"{name} isn't an image that the model could decode: give a whole JPEG, PNG or BMP file."
            )
        return make_detections(row, self.facts, np.asarray(row["image_size"]))

    def _scaled(self, found, size):
        if isinstance(found, EncodedMaskDetections):
            raise UserError("Masks in run lengths can't be evaluated at another size: export the model with masks=roi.")
        ratio = np.array(size, np.float32) / found.image_size
        keypoints = None if found.keypoints is None else found.keypoints * np.array([*ratio[::-1], 1], np.float32)
        return Detections(
            boxes=found.boxes * np.tile(ratio[::-1], 2),
            scores=found.scores,
            classes=found.classes,
            image_size=size,
            categories=self.categories,
            mask_probabilities=found.mask_probabilities,
            mask_rule=found.mask_rule,
            keypoints=keypoints,
            keypoint_offset=found.keypoint_offset,
            semantics=found.semantics
            and found.semantics._replace(labels=resize_labels(found.semantic, size), fused=None),
        )

    @staticmethod
    def _only(results):
        (result,) = results
        if isinstance(result, UnreadableImage):
            raise result
        return result


# A SavedModel that was exported, loaded into this process.
#

SIGNATURES = ("serving_default", "image")


class SavedModelRuntime(Runtime):
    """What `mrcnn-tf export saved-model` wrote, with the `detect` and `detect_batch` of a `MaskRCNN`.

    Args:
        folder: of the SavedModel, or of its numbered versions, of which the latest is taken.
        labels: labels.json, if it isn't in the folder's assets.

    Raises:
        UserError: there is no SavedModel of this package, or this TensorFlow doesn't load it.
    """

    def __init__(self, folder, labels=None):
        folder = latest_version(folder)
        super().__init__(read_labels(labels or folder))
        if self.facts.document.get("custom_ops"):
            load_custom_ops()
        try:
            self._model = tf.saved_model.load(str(folder))  # the signatures alone wouldn't keep its variables
            self._functions = {name: self._model.signatures[name] for name in SIGNATURES}
        except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
            raise UserError(
                f"{folder} isn't a SavedModel that this TensorFlow {tf.__version__} loads ({error!r}): "
                "export it again with mrcnn-tf export saved-model."
            ) from error

    def _answer(self, files):
        return _rows(self._functions["serving_default"](image_bytes=tf.constant(files, tf.string)))

    def _detect_pixels(self, image):
        return self._only([self._convert(_rows(self._functions["image"](image=tf.constant(image[None])))[0], "")])


def _rows(outputs):
    arrays = {name: value.numpy() for name, value in outputs.items()}
    return [{name: array[row] for name, array in arrays.items()} for row in range(len(arrays["ok"]))]
