"""One image of a `CocoIndex` and its objects, from the file's bytes on: a `Sample`, made in the graph."""

import dataclasses

import numpy as np
import tensorflow as tf

from mrcnn_tf.categories import most_keypoints
from mrcnn_tf.data.rasterize import Shapes, crop_masks
from mrcnn_tf.data.sample import Sample
from mrcnn_tf.data.tfrecord_reader import bitmap_crops, read_record
from mrcnn_tf.ops.image_bytes import apply_orientation, decode_image


class SampleLoader:
    """Loads images of an index by their number.

    Holds the index as eager tensors, which a mapped function captures by reference: as constants of its graph they
    would be copied into it and could pass protobuf's 2 GB.

    Args:
        index: CocoIndex.
        config: settings.DataConfig; `masks`, `mask_size` and `keypoint_offset` are read.
    """

    def __init__(self, index, config):
        self.mask_size = 0 if config.masks is False else config.mask_size
        self.most_keypoints = most_keypoints(index.categories)
        self._offset = config.keypoint_offset or 0.0
        from_record = index.record_offsets >= 0
        self._kinds = (bool((~from_record).any()), bool(from_record.any()))
        with tf.device("CPU"):
            for field in dataclasses.fields(index):
                value = getattr(index, field.name)
                if isinstance(value, np.ndarray):
                    setattr(self, "_" + field.name, tf.constant(value))

    def load(self, number):
        """The `Sample` of image `number`, int64 scalar; its image is uint8."""
        rows = self._instances(number)
        boxes = self._boxes[rows]
        data, masks = self._data_and_masks(number, boxes)
        return Sample(
            image=apply_orientation(decode_image(data), self._orientations[number]),
            boxes=boxes,
            classes=self._classes[rows],
            crowd=self._crowd[rows],
            areas=self._areas[rows],
            masks=masks,
            keypoints=self._keypoints_of(number),
        )

    def image_id(self, number):
        """int64 scalar."""
        return self._image_ids[number]

    def fault(self, number):
        """What keeps an image from being read: a sentence's beginning that names the file; None if nothing does."""
        offset = int(self._record_offsets[number])
        path = self._image_files[number].numpy().decode("utf-8", "backslashreplace")
        name = f"The image file {path}" if offset < 0 else f"The record at byte {offset} of {path}"
        try:
            with tf.device("CPU"):
                if offset < 0:
                    decode_image(tf.io.read_file(self._image_files[number]))
                else:
                    self.load(number)
        except tf.errors.NotFoundError:
            return f"{name} isn't there any more"
        except tf.errors.OpError:
            return f"{name} can't be read any more, as it is cut off, damaged or out of reach"
        return None

    def _data_and_masks(self, number, boxes):
        """An image file's bytes, and [N, S, S] uint8 mask crops; without masks nothing is drawn, and S is 0."""
        files, records = self._kinds
        if not records:
            return self._from_file(number, boxes)
        if not files:
            return self._from_record(number, boxes)
        return tf.cond(
            self._record_offsets[number] >= 0,
            lambda: self._from_record(number, boxes),
            lambda: self._from_file(number, boxes),
        )

    def _from_file(self, number, boxes):
        data = tf.io.read_file(self._image_files[number])
        if not self.mask_size:
            return data, self._no_masks(boxes)
        height, width = self._heights[number], self._widths[number]
        return data, crop_masks(self._shapes(number), boxes, height, width, self.mask_size)

    def _from_record(self, number, boxes):
        data, pngs = read_record(self._image_files[number], self._record_offsets[number])
        if not self.mask_size:
            return data, self._no_masks(boxes)
        pngs = tf.gather(pngs, self._annotation_ids[self._instances(number)])
        return data, bitmap_crops(pngs, boxes, self.mask_size)

    def _no_masks(self, boxes):
        return tf.zeros([tf.shape(boxes)[0], 0, 0], tf.uint8)

    def _keypoints_of(self, number):
        """[N, P, 3]; the config's offset is added to x and y of those that are labelled."""
        first, last = self._range(number)
        bounds = self._keypoint_offsets[first : last + 1]
        values = self._keypoints[bounds[0] : bounds[-1]]
        values += tf.where(values[:, 2:] > 0, [[self._offset, self._offset, 0.0]], 0.0)
        ragged = tf.RaggedTensor.from_row_lengths(values, bounds[1:] - bounds[:-1])
        return ragged.to_tensor(shape=[None, self.most_keypoints, 3])

    def _range(self, number):
        return self._instance_offsets[number], self._instance_offsets[number + 1]

    def _instances(self, number):
        return slice(*self._range(number))

    def _shapes(self, number):
        first, last = self._range(number)
        ring_bounds = self._ring_offsets[first : last + 1]
        ring_first, ring_last = ring_bounds[0], ring_bounds[-1]
        point_bounds = self._point_offsets[ring_first : ring_last + 1]
        run_bounds = self._run_offsets[first : last + 1]
        ring_counts = ring_bounds[1:] - ring_bounds[:-1]
        instances = tf.range(tf.cast(last - first, tf.int32))
        return Shapes(
            points=self._points[point_bounds[0] : point_bounds[-1]],
            ring_sizes=tf.cast(point_bounds[1:] - point_bounds[:-1], tf.int32),
            ring_instances=tf.repeat(instances, ring_counts),
            runs=self._runs[run_bounds[0] : run_bounds[-1]],
            run_counts=tf.cast(run_bounds[1:] - run_bounds[:-1], tf.int32),
        )
