"""PNGs that hold a class or a segment for each pixel, decoded and checked in the graph.

What they mean, and their twin in numpy, stands in datasets/map_files.py.
"""

import zlib

import numpy as np
import tensorflow as tf

from mrcnn_tf.common.categories import IGNORED
from mrcnn_tf.datasets.map_files import UNLABELLED

VALUES_SHOWN = 5  # in an error
MAX_VALUES = 1 << 16  # of a label map

# A PNG begins with its signature and the chunk IHDR: length, name, 13 bytes of content and checksum.
_HEAD_BYTES, _IHDR_NAME = 33, 12
_DEPTH, _COLOUR_TYPE = 24, 25  # where it says how many bits a sample has, and what it means
_PALETTE = 3  # a colour type

# Of a whole file, whatever comes after its last chunk. Bytes aren't text, in which a dot would stand for a character.
_WHOLE_FILE = r"\CPNG\r\n\C*IEND\C*"
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
        pixels: [H, W] int32, the index of each pixel's segment in `ids`.
        ids: [U] int32, the ids that occur.

    Raises:
        tf.errors.InvalidArgumentError: when run on a file that is cut off, another size, an id that isn't in the table,
            or without a pixel of one that is.
    """
    # Four bytes to a pixel are an int32 whose lowest byte is the first, red; the highest is alpha, which none needs.
    rgba = tf.io.decode_png(_check_whole(data, path), channels=4)
    pixel_ids = tf.bitwise.bitwise_and(tf.bitcast(rgba, tf.int32), 0xFFFFFF)
    with tf.control_dependencies([_check_size(pixel_ids, size, path)]):
        ids, pixels = tf.unique(tf.reshape(pixel_ids, [-1]))
    is_listed = tf.gather(table, tf.minimum(tf.searchsorted(table, ids), tf.size(table) - 1)) == ids
    has_pixels = tf.reduce_any(table[1:, None] == ids, axis=1)
    checks = [
        _check_none(~is_listed, ids, path, "has pixels of segments that the json does not list, with the ids"),
        _check_none(~has_pixels, table[1:], path, "has no pixel of the segments with the ids"),
    ]
    with tf.control_dependencies(checks):
        return tf.reshape(pixels, size), tf.identity(ids)


def make_label_table(classes):
    """Makes the table of classes by a label map's value, int16 [65536], from `map_files.semantic_classes`."""
    table = np.full(MAX_VALUES, _UNKNOWN, np.int16)
    table[list(UNLABELLED)] = IGNORED
    for value, number in classes.items():
        if 0 <= value < MAX_VALUES:
            table[value] = number
    return table


def read_label_classes(data, table, size, path):
    """The semantic labels in a label map, uint8 [H, W].

    Args:
        data: the PNG's bytes, string scalar: grey or with a palette, 1 to 16 bits.
        table: see `make_label_table`.
        size, path: as for `read_segments`.

    Raises:
        tf.errors.InvalidArgumentError: when run on a file that is cut off, another size or a value that isn't in the
            table.
    """
    values = decode_png_values(_check_whole(data, path))
    with tf.control_dependencies([_check_size(values, size, path)]):
        classes = tf.gather(table, values)
    check = _check_none(classes == _UNKNOWN, values, path, "has pixels of values that no category has as its id,")
    with tf.control_dependencies([check]):
        return tf.cast(classes, tf.uint8)


def decode_png_values(data):
    """The samples of a PNG of one channel, as they are stored: [H, W] int32.

    TensorFlow would give a palette's colours, and grey of less than 8 bits stretched to 0..255.
    """
    head = tf.io.decode_raw(tf.strings.substr(data, 0, _HEAD_BYTES), tf.uint8)
    depth = tf.cast(head[_DEPTH], tf.int32)
    # Except for the byte that says so, indices into a palette are stored like grey.
    grey = tf.where(head[_COLOUR_TYPE] == _PALETTE, tf.bitwise.bitwise_xor(head, _palette_to_grey()), head)
    grey_head = tf.strings.reduce_join(tf.gather(_BYTES, tf.cast(grey, tf.int32)))
    data = tf.strings.join([grey_head, tf.strings.substr(data, _HEAD_BYTES, -1)])

    def deep_values():
        return tf.cast(tf.io.decode_png(data, channels=1, dtype=tf.uint16), tf.int32)

    def byte_values():
        stretch = 255 // (tf.bitwise.left_shift(1, depth) - 1)  # what the decoder multiplies grey of 1, 2 or 4 bits by
        return tf.cast(tf.io.decode_png(data, channels=1), tf.int32) // stretch

    return tf.cond(depth > 8, deep_values, byte_values)[:, :, 0]


def _palette_to_grey():
    """[_HEAD_BYTES] uint8, the bits in which the heads of a palette's PNG and of one that is grey differ.

    Those of the checksum follow from those of what it's taken of: CRC-32 is linear in that sense.
    """
    palette, grey = bytearray(b"IHDR" + bytes(13)), b"IHDR" + bytes(13)
    palette[_COLOUR_TYPE - _IHDR_NAME] = _PALETTE
    bits = np.zeros(_HEAD_BYTES, np.uint8)
    bits[_COLOUR_TYPE] = _PALETTE
    bits[-4:] = list((zlib.crc32(palette) ^ zlib.crc32(grey)).to_bytes(4, "big"))
    return bits


def _check_whole(data, path):
    """The bytes of a PNG, refused by the file's name where they are cut off: the decoder's error doesn't give it."""
    is_whole = tf.strings.regex_full_match(data, _WHOLE_FILE)
    check = tf.debugging.Assert(is_whole, ["The map", path, "is cut off or isn't a PNG: replace the file"])
    with tf.control_dependencies([check]):
        return tf.identity(data)


def _check_size(pixels, size, path):
    is_same = tf.reduce_all(tf.shape(pixels)[:2] == size)
    return tf.debugging.Assert(is_same, ["The map", path, "is not of the size (height, width) of its image,", size])


def _check_none(bad, values, path, what):
    """An operation that fails with a sentence if any of `bad` is true; it names some of the `values` there."""

    def bad_values():
        return tf.unique(tf.boolean_mask(values, bad))[0][:VALUES_SHOWN]

    is_good = ~tf.reduce_any(bad)
    shown = tf.cond(is_good, lambda: tf.zeros([0], values.dtype), bad_values)
    return tf.debugging.Assert(is_good, ["The map", path, what, shown])
