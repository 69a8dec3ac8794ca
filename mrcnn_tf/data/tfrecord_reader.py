"""One record of a TFRecord file, read in the graph at its byte offset, and its masks as crops."""

import tensorflow as tf

from mrcnn_tf.data.rasterize import cell_pixels, instance_grids, interpolate
from mrcnn_tf.data.tfrecord_scan import record_at


def read_record(file, offset):
    """The pixels of one record, without reading what lies before it; for use inside Dataset.map.

    Args:
        file: string scalar, the path of an uncompressed TFRecord file of tf.train.Examples.
        offset: int64 scalar, bytes from the file's beginning to the record's.

    Returns:
        image: string scalar, the bytes of an image file.
        pngs: [M] strings, the PNG masks of the record's objects in their order; [0] where it has none.

    Raises:
        tf.errors.OpError: when run, if the file is gone or the record's checksum is wrong.
    """
    features = tf.io.parse_single_example(
        record_at(file, offset),
        {
            "image/encoded": tf.io.FixedLenFeature([], tf.string),
            "image/object/mask": tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True),
        },
    )
    return features["image/encoded"], features["image/object/mask"]


def bitmap_crops(pngs, boxes, size):
    """Each object's mask inside its box, to the bit what `rasterize.crop_masks` makes of the same mask's run lengths.

    Args:
        pngs: [N] strings, grey PNGs of the image's size; a pixel that isn't 0 is inside.
        boxes: [N, 4] float32 pixels, inside the image.
        size: S.

    Returns:
        [N, S, S] uint8, 255 times the occupancy.
    """
    grids = instance_grids(boxes, size)
    columns = cell_pixels(grids.origin[:, 0], grids.step[:, 0], size + 2)
    rows = cell_pixels(grids.origin[:, 1], grids.step[:, 1], size + 2)

    def sample(parts):
        png, row, column = parts
        mask = tf.io.decode_png(png, channels=1)[:, :, 0]
        shape = tf.shape(mask)
        # Cells outside the image weigh nothing in the crop, so any pixel may stand in for them.
        row = tf.clip_by_value(tf.cast(row, tf.int32), 0, shape[0] - 1)
        column = tf.clip_by_value(tf.cast(column, tf.int32), 0, shape[1] - 1)
        return tf.gather(tf.gather(mask, row), column, axis=1) > 0, shape

    shapes = (tf.TensorSpec([size + 2, size + 2], tf.bool), tf.TensorSpec([2], tf.int32))
    drawn, sides = tf.map_fn(sample, (pngs, rows, columns), fn_output_signature=shapes)
    return interpolate(drawn, grids, boxes, sides[:, :1], sides[:, 1:], size)
