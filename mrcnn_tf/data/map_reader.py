"""PNGs that hold a class or a segment for each pixel, read in the graph; see map_files.py for what they mean."""

import zlib

import numpy as np
import tensorflow as tf

from mrcnn_tf.common.categories import IGNORED
from mrcnn_tf.data.rasterize import cell_pixels, instance_grids, interpolate
from mrcnn_tf.datasets.label_maps import UNLABELLED

SHOWN = 5  # values that an error names
HEAD = 33  # bytes of a PNG before its first chunk of content: signature, and IHDR with its checksum
DEPTH, COLOUR, PALETTE = 24, 25, 3  # where the head says how many bits a sample has, and what it means
MOST_VALUES = 1 << 16  # of a label map

# Of a whole file, whatever comes after its last chunk. Bytes aren't text, in which a dot would stand for a character.
_WHOLE = r"\CPNG\r\n\C*IEND\C*"
_UNKNOWN = -1  # in the table of a label map's classes
_BYTES = [bytes([value]) for value in range(256)]


def read_segments(data, table, size, path):
    """The segments in a segment map.

    Args:
        data: the PNG's bytes, string scalar.
        table: [M] int32, the ids of all its segments, rising; the first is 0, of which there needn't be a pixel.
        size: (height, width) that it has to have, int32 [2].
        path: of the file, for errors.

    Returns:
        pixels: [H, W] int32, the place of each pixel's segment in
        ids: [U] int32, the ids that occur.

    Raises:
        tf.errors.InvalidArgumentError: when run on a file that is cut off, another size, an id that isn't in the table,
            or without a pixel of one that is.
    """
    # Four bytes to a pixel are an int32 whose lowest byte is the first, red; the highest is alpha, which none needs.
    colours = tf.io.decode_png(_whole(data, path), channels=4)
    colours = tf.bitwise.bitwise_and(tf.bitcast(colours, tf.int32), 0xFFFFFF)
    with tf.control_dependencies([_same_size(colours, size, path)]):
        ids, pixels = tf.unique(tf.reshape(colours, [-1]))
    known = tf.gather(table, tf.minimum(tf.searchsorted(table, ids), tf.size(table) - 1)) == ids
    present = tf.reduce_any(table[1:, None] == ids, axis=1)
    checks = [
        _refuse(~known, ids, path, "has pixels of segments that the json does not list, with the ids"),
        _refuse(~present, table[1:], path, "has no pixel of the segments with the ids"),
    ]
    with tf.control_dependencies(checks):
        return tf.reshape(pixels, size), tf.identity(ids)


def segment_crops(pixels, wanted, boxes, size):
    """The mask of each instance inside its box, to the bit what `rasterize.crop_masks` makes of its run lengths.

    Args:
        pixels: [H, W] int32, see `read_segments`.
        wanted: [N] int32, the value in `pixels` that is the instance's.
        boxes: [N, 4] float32 pixels, inside the image.
        size: S.

    Returns:
        [N, S, S] uint8, 255 times the occupancy.
    """
    height, width = tf.unstack(tf.shape(pixels))
    grids = instance_grids(boxes, size)
    # Cells outside the image weigh nothing in the crop, so any pixel may stand in for them.
    column = tf.cast(cell_pixels(grids.origin[:, 0], grids.step[:, 0], size + 2), tf.int32)
    row = tf.cast(cell_pixels(grids.origin[:, 1], grids.step[:, 1], size + 2), tf.int32)
    column, row = tf.clip_by_value(column, 0, width - 1), tf.clip_by_value(row, 0, height - 1)
    sampled = tf.gather(tf.reshape(pixels, [-1]), row[:, :, None] * width + column[:, None, :])
    return interpolate(sampled == wanted[:, None, None], grids, boxes, height, width, size)


def label_table(classes):
    """The class of each value of a label map, for `label_classes`.

    Args:
        classes: {category id: class}, `image_maps.semantic_classes`.

    Returns:
        int16 [65536].
    """
    table = np.full(MOST_VALUES, _UNKNOWN, np.int16)
    table[list(UNLABELLED)] = IGNORED
    for value, number in classes.items():
        if 0 <= value < MOST_VALUES:
            table[value] = number
    return table


def label_classes(data, table, size, path):
    """The semantic labels in a label map.

    Args:
        data: the PNG's bytes, string scalar: grey or with a palette, 1 to 16 bits.
        table: see `label_table`.
        size: (height, width) that it has to have, int32 [2].
        path: of the file, for errors.

    Returns:
        [H, W] uint8.

    Raises:
        tf.errors.InvalidArgumentError: when run on a file that is cut off, another size or a value that isn't in the
            table.
    """
    values = decode_values(_whole(data, path))
    with tf.control_dependencies([_same_size(values, size, path)]):
        found = tf.gather(table, values)
    check = _refuse(found == _UNKNOWN, values, path, "has pixels of values that no category has as its id,")
    with tf.control_dependencies([check]):
        return tf.cast(found, tf.uint8)


def decode_values(data):
    """The samples of a PNG of one channel, as they are stored: [H, W] int32.

    TensorFlow would give a palette's colours, and grey of less than 8 bits stretched to 0..255.
    """
    head = tf.io.decode_raw(tf.strings.substr(data, 0, HEAD), tf.uint8)
    depth = tf.cast(head[DEPTH], tf.int32)
    # Except for the byte that says so, indices into a palette are stored like grey.
    grey = tf.where(head[COLOUR] == PALETTE, tf.bitwise.bitwise_xor(head, _palette_to_grey()), head)
    written = tf.strings.reduce_join(tf.gather(_BYTES, tf.cast(grey, tf.int32)))
    data = tf.strings.join([written, tf.strings.substr(data, HEAD, -1)])
    values = tf.cond(
        depth > 8,
        lambda: tf.cast(tf.io.decode_png(data, channels=1, dtype=tf.uint16), tf.int32),
        lambda: tf.cast(tf.io.decode_png(data, channels=1), tf.int32) // _stretch(depth),
    )
    return values[:, :, 0]


def _stretch(depth):
    """What grey of 1, 2, 4 or 8 bits was multiplied by."""
    return 255 // (tf.bitwise.left_shift(1, depth) - 1)


def _palette_to_grey():
    """[HEAD] uint8, the bits in which the heads of a palette's PNG and of one that is grey differ.

    Those of the checksum follow from those of what it's taken of: CRC-32 is linear in that sense.
    """
    palette, grey = bytearray(b"IHDR" + bytes(13)), b"IHDR" + bytes(13)
    palette[COLOUR - 12] = PALETTE
    bits = np.zeros(HEAD, np.uint8)
    bits[COLOUR] = PALETTE
    bits[-4:] = list((zlib.crc32(palette) ^ zlib.crc32(grey)).to_bytes(4, "big"))
    return bits


def _whole(data, path):
    """The bytes of a PNG, refused by the file's name where they are cut off: the decoder's error doesn't give it."""
    check = tf.debugging.Assert(
        tf.strings.regex_full_match(data, _WHOLE), ["The map", path, "is cut off or isn't a PNG: replace the file"]
    )
    with tf.control_dependencies([check]):
        return tf.identity(data)


def _same_size(pixels, size, path):
    same = tf.reduce_all(tf.shape(pixels)[:2] == size)
    return tf.debugging.Assert(same, ["The map", path, "is not of the size (height, width) of its image,", size])


def _refuse(bad, values, path, what):
    """An operation that fails with a sentence if any of `bad` is true; it names some of the `values` there."""

    def some():
        return tf.unique(tf.boolean_mask(values, bad))[0][:SHOWN]

    fine = ~tf.reduce_any(bad)
    shown = tf.cond(fine, lambda: tf.zeros([0], values.dtype), some)
    return tf.debugging.Assert(fine, ["The map", path, what, shown])
