"""A .tflite file as a model: images in, `Detections` out, by the LiteRT interpreter."""

import dataclasses

import numpy as np

from mrcnn_tf.common.environment import available_cores
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.image_files import check_pixels
from mrcnn_tf.ops.panoptic_maps import resize_labels
from mrcnn_tf.ops.resize import fitted_size, resize_image
from mrcnn_tf.serving.export_labels import read_labels
from mrcnn_tf.serving.interpreter import load_detector, read_metadata
from mrcnn_tf.serving.outputs import make_detections, scale


class TFLiteModel:
    """What `mrcnn-tf export tflite` wrote, with the `detect` and `detect_batch` of a `MaskRCNN`.

    An image is resized to fit the file's fixed input, its aspect kept, and lies at the top left of it. The map of a
    semantic head comes at the input's size: each pixel of the image takes the nearest one's class, and is fused with
    the detections here. One interpreter runs one image at a time: threads that detect at the same time need a
    `TFLiteModel` each.

    Args:
        path: the file, or either half of a split export.
        threads: of the interpreter; None for as many as there are cores for this process.
        xnnpack: False leaves out the XNNPACK delegate, which computes what it can in place of TFLite's own kernels.

    Attributes:
        categories, stuff: lists of K and of S `Category`s, class 1 first; no stuff without a semantic head.
        input_size: (height, width) of the input, pixels.
        resize: the `ResizeConfig` with which `coco_dataset` gives images that fit, as large as they can be.
        document: the metadata in the file, a dictionary (`export_labels.labels_document`).
        gives: of names such as "masks", whether it gives all of them, as `MaskRCNN.gives`.

    Raises:
        UserError: ai-edge-litert is missing, the file isn't a whole TFLite file of this package, or `threads` < 1.
    """

    def __init__(self, path, threads=None, xnnpack=True):
        self.document = read_metadata(path)
        try:
            self._labels = read_labels(self.document)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        threads = available_cores() if threads is None else threads
        self._runner = load_detector(path, self.document.get("part"), threads, xnnpack)
        self.categories, self.stuff = self._labels.categories, self._labels.stuff
        self.input_size = tuple(self._runner.get_input_details()["image"]["shape"][1:3].tolist())
        # A tall image for a wide input, or the other way round, comes out too large: `detect_batch` makes it fit.
        sizes = {"min_size": min(self.input_size), "max_size": max(self.input_size)}
        self.resize = dataclasses.replace(self._labels.resize, **sizes)
        self.gives = self._labels.gives

    def detect(self, images):
        """Detections of one image, uint8 [H, W, 3] RGB -> `Detections`, or of a list of images of any sizes -> a list.

        Raises UserError for an array of another shape or type.
        """
        if not isinstance(images, (list, tuple)):
            return self.detect([images])[0]
        checked = (check_pixels(image, position) for position, image in enumerate(images))
        return [self._run(self._resize_to_fit(image), image.shape[:2]) for image in checked]

    def detect_batch(self, batch):
        """A list of `Detections`, one for each image of a batch of `coco_dataset`, whatever its `resize`."""
        detections = []
        originals = np.asarray(batch["original_size"]).tolist()
        for image, size, original_size in zip(batch["image"], batch["image_size"], originals, strict=True):
            height, width = np.asarray(size).tolist()
            image = np.asarray(image)[:height, :width]
            is_too_large = height > self.input_size[0] or width > self.input_size[1]
            detections.append(self._run(self._resize_to_fit(image) if is_too_large else image, original_size))
        return detections

    def _resize_to_fit(self, image):
        """An image [H, W, 3] as large as fits the input, float32 [h, w, 3]."""
        rule = self.resize.rule
        return resize_image(image, fitted_size(*image.shape[:2], *self.input_size, rule), rule).numpy()

    def _run(self, image, original_size):
        """`Detections` of an image [h, w, 3] that fits the input, in pixels of the original's size."""
        height, width = image.shape[:2]
        padded = np.zeros((1, *self.input_size, 3), np.uint8)
        padded[0, :height, :width] = np.rint(image)
        outputs = self._runner(image=padded, image_size=np.array([[height, width]], np.int32))
        outputs = {name: value[0] for name, value in outputs.items()}
        # Each axis has its own ratio (as ops/image_space.py): rounding the resized size breaks the aspect by a little.
        ratio = np.asarray(original_size, np.float32)[::-1] / np.array([width, height], np.float32)
        for spec in self._labels.outputs:
            if spec.coordinates and spec.name in outputs:
                outputs[spec.name] = scale(outputs[spec.name], spec.coordinates, ratio)
        if "semantic" in outputs:
            outputs["semantic"] = resize_labels(outputs["semantic"][:height, :width], original_size)
        return make_detections(outputs, self._labels, tuple(original_size))
