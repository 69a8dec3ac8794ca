"""One image of a `CocoIndex` and its objects, from the file's bytes on: a `Sample`, made in the graph.

Also which file an error from the midst of a run is about: TensorFlow's decoders don't name it.
"""

import concurrent.futures
import dataclasses
import itertools
import os

import numpy as np
import tensorflow as tf

from mrcnn_tf.common.categories import max_keypoints
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.problems import CONSOLE
from mrcnn_tf.data.affine import Sample, empty_labels
from mrcnn_tf.data.map_reader import make_label_table, read_label_classes, read_segments
from mrcnn_tf.data.rasterize import Segmentations, crop_masks, crop_png_masks, crop_segments
from mrcnn_tf.data.tfrecord_reader import read_record
from mrcnn_tf.datasets.image_files import WORKERS, read_pixels
from mrcnn_tf.datasets.map_files import find_label_fault, find_segment_fault, semantic_classes
from mrcnn_tf.ops.image_bytes import apply_orientation, decode_image

REMEDY = "put it back as it was"


class SampleLoader:
    """Loads images of an index by their number.

    Holds the index as eager tensors, which a mapped function captures by reference: as constants of its graph they
    would be copied into it and could pass protobuf's 2 GB.

    Args:
        index: CocoIndex.
        config: settings.DataConfig; `masks`, `mask_size`, `keypoint_offset`, `semantic` and `stuff` are read.
    """

    def __init__(self, index, config):
        self.mask_size = 0 if config.masks is False else config.mask_size
        self.max_keypoints = max_keypoints(index.categories)
        self._keypoint_shift = config.keypoint_offset or 0.0
        # Whether samples have a class for each pixel.
        self.has_labels = bool((index.map_files != b"").any()) and config.semantic is not False
        has_segments, has_outlines = index.segment_ids.size > 0, index.points.size + index.runs.size > 0
        self._masks_are_segments = has_segments and not has_outlines and self.mask_size > 0
        self._reads_segments = has_segments and (self.has_labels or self._masks_are_segments)
        self._label_classes = {}
        if self.has_labels and not has_segments:
            self._label_classes = semantic_classes(index.categories, config.stuff)
        is_record = index.record_offsets >= 0
        self._has_files, self._has_records = bool((~is_record).any()), bool(is_record.any())
        self._needs_pillow = bool(index.by_pillow.any())
        with tf.device("CPU"):
            self._label_table = tf.constant(make_label_table(self._label_classes))
            for field in dataclasses.fields(index):
                value = getattr(index, field.name)
                if isinstance(value, np.ndarray):
                    setattr(self, "_" + field.name, tf.constant(value))

    def load(self, number):
        """The `Sample` of image `number`, int64 scalar; its image is uint8."""
        instances = self._instances(number)
        boxes, field_values = self._boxes[instances], self._field_values[instances]
        side = 2 if field_values.shape[1] else 0
        segments = self._read_segments(number) if self._reads_segments else None
        data, masks = self._read_data_and_masks(number, boxes, segments)
        return Sample(
            image=apply_orientation(self._decode(number, data), self._orientations[number]),
            boxes=boxes,
            classes=self._classes[instances],
            crowd=self._crowd[instances],
            areas=self._areas[instances],
            masks=masks,
            keypoints=self._keypoints_of(number),
            field_values=field_values,
            transforms=tf.eye(side, batch_shape=[tf.shape(boxes)[0]]),
            semantic=self._read_labels(number, segments),
        )

    def image_id(self, number):
        """int64 scalar."""
        return self._image_ids[number]

    def find_fault(self, number):
        """What keeps an image or its map from being read, "what: remedy" with the file's name; None if nothing does."""
        offset, file = int(self._record_offsets[number]), self._image_files[number]
        if offset < 0:
            fault = _find_fault(f"The image file {_as_text(file)}", lambda: self._decode(number, tf.io.read_file(file)))
        else:
            fault = _find_fault(f"The record at byte {offset} of {_as_text(file)}", lambda: self.load(number))
        return fault or self._find_map_fault(number)

    def _find_map_fault(self, number):
        if not (self._reads_segments or self.has_labels):
            return None
        file = self._map_files[number]
        path, size = os.fsdecode(file.numpy()), self._size(number).numpy().tolist()
        fault = _find_fault(f"The map {_as_text(file)}", lambda: tf.io.decode_png(tf.io.read_file(file)))
        if fault or not self._reads_segments:
            return fault or find_label_fault(path, size, self._label_classes)
        return find_segment_fault(path, size, self._segment_ids[self._segments(number)].numpy())

    def _decode(self, number, data):
        """[H, W, 3] uint8 as stored. Pillow would hold Python's lock, so it is only asked where TensorFlow can't."""
        if not self._needs_pillow:
            return decode_image(data)
        return tf.cond(self._by_pillow[number], lambda: _decode_by_pillow(data), lambda: decode_image(data))

    def _read_data_and_masks(self, number, boxes, segments):
        """An image file's bytes, and [N, S, S] uint8 mask crops; without masks nothing is drawn, and S is 0."""
        if not self._has_records:
            return self._read_file(number, boxes, segments)
        if not self._has_files:
            return self._read_record(number, boxes)
        return tf.cond(
            self._record_offsets[number] >= 0,
            lambda: self._read_record(number, boxes),
            lambda: self._read_file(number, boxes, None),
        )

    def _read_file(self, number, boxes, segments):
        data = tf.io.read_file(self._image_files[number])
        if not self.mask_size:
            return data, self._no_masks(boxes)
        if self._masks_are_segments:
            pixels, ids = segments
            instance_ids = tf.cast(self._annotation_ids[self._instances(number)], tf.int32)
            values = tf.argmax(instance_ids[:, None] == ids, axis=1, output_type=tf.int32)
            return data, crop_segments(pixels, values, boxes, self.mask_size)
        height, width = self._heights[number], self._widths[number]
        return data, crop_masks(self._segmentations(number), boxes, height, width, self.mask_size)

    def _read_record(self, number, boxes):
        data, pngs = read_record(self._image_files[number], self._record_offsets[number])
        if not self.mask_size:
            return data, self._no_masks(boxes)
        pngs = tf.gather(pngs, self._annotation_ids[self._instances(number)])
        return data, crop_png_masks(pngs, boxes, self.mask_size)

    def _no_masks(self, boxes):
        return tf.zeros([tf.shape(boxes)[0], 0, 0], tf.uint8)

    def _read_segments(self, number):
        """See `map_reader.read_segments`."""
        file = self._map_files[number]
        table = self._segment_ids[self._segments(number)]
        return read_segments(tf.io.read_file(file), table, self._size(number), file)

    def _read_labels(self, number, segments):
        """[H, W] uint8 semantic labels; none for a dataset that is used without."""
        if not self.has_labels:
            return empty_labels()
        if self._reads_segments:
            pixels, ids = segments
            table = self._segments(number)
            classes = tf.gather(self._segment_classes[table], tf.searchsorted(self._segment_ids[table], ids))
            return tf.gather(classes, pixels)
        file = self._map_files[number]
        return read_label_classes(tf.io.read_file(file), self._label_table, self._size(number), file)

    def _keypoints_of(self, number):
        """[N, P, 3]; the config's offset is added to x and y of those that are labelled."""
        first, last = self._instance_range(number)
        bounds = self._keypoint_offsets[first : last + 1]
        values = self._keypoints[bounds[0] : bounds[-1]]
        values += tf.where(values[:, 2:] > 0, [[self._keypoint_shift, self._keypoint_shift, 0.0]], 0.0)
        ragged = tf.RaggedTensor.from_row_lengths(values, bounds[1:] - bounds[:-1])
        return ragged.to_tensor(shape=[None, self.max_keypoints, 3])

    def _instance_range(self, number):
        return self._instance_offsets[number], self._instance_offsets[number + 1]

    def _instances(self, number):
        return slice(*self._instance_range(number))

    def _segments(self, number):
        return slice(self._segment_offsets[number], self._segment_offsets[number + 1])

    def _size(self, number):
        return tf.stack([self._heights[number], self._widths[number]])

    def _segmentations(self, number):
        first, last = self._instance_range(number)
        ring_bounds = self._ring_offsets[first : last + 1]
        point_bounds = self._point_offsets[ring_bounds[0] : ring_bounds[-1] + 1]
        run_bounds = self._run_offsets[first : last + 1]
        instances = tf.range(tf.cast(last - first, tf.int32))
        return Segmentations(
            points=self._points[point_bounds[0] : point_bounds[-1]],
            ring_sizes=tf.cast(point_bounds[1:] - point_bounds[:-1], tf.int32),
            ring_instances=tf.repeat(instances, ring_bounds[1:] - ring_bounds[:-1]),
            runs=self._runs[run_bounds[0] : run_bounds[-1]],
            run_counts=tf.cast(run_bounds[1:] - run_bounds[:-1], tf.int32),
        )


def _decode_by_pillow(data):
    def read(content):  # as an array of one object outside a graph
        return read_pixels(content if isinstance(content, bytes) else content.item())

    image = tf.numpy_function(read, [data], tf.uint8, stateful=False)
    image.set_shape([None, None, 3])
    return image


def _as_text(file):
    """A path, string scalar, for people."""
    return file.numpy().decode("utf-8", "backslashreplace")


def _find_fault(name, read):
    """What keeps `read` from working, about a file or record called `name`; None if nothing does."""
    try:
        with tf.device("CPU"):
            read()
    except tf.errors.NotFoundError:
        return f"{name} isn't there any more: {REMEDY}"
    except (tf.errors.OpError, OSError):  # of TensorFlow, and of Pillow
        return f"{name} can't be read any more, as it is cut off, damaged or out of reach: {REMEDY}"
    return None


def is_input_error(error):
    """Whether a tf.errors.OpError comes from reading or decoding the data, and not from the model's step."""
    unrelated = (tf.errors.ResourceExhaustedError, tf.errors.CancelledError)
    return "GetNext" in str(error) and not isinstance(error, unrelated)


def explain_input_error(error, loader, likely, others):
    """The UserError to raise for an error that `is_input_error`; it names the file or the record.

    Args:
        error: tf.errors.OpError.
        loader: SampleLoader.
        likely: the numbers of the images that were being loaded, looked at first.
        others: numbers of the images to look at if nothing is wrong with those.
    """
    fault = next(filter(None, map(loader.find_fault, likely)), None)
    if fault is None:
        CONSOLE.print(f"Looking for the file that can't be read among {len(others)} images")
        fault = _find_first_fault(loader, iter(others))
    if fault is None:
        reason = str(error).strip().splitlines()[0]
        return UserError(f"The data couldn't be read ({reason}), though now it can: go on with --resume.")
    return UserError(f"{fault} and go on with --resume.")


def _find_first_fault(loader, numbers):
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        while block := list(itertools.islice(numbers, 64 * WORKERS)):
            fault = next(filter(None, pool.map(loader.find_fault, block)), None)
            if fault:
                return fault
    return None
