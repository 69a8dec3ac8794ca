"""The records of one TFRecord file with their byte offsets; damaged ones are told apart from sound ones.

A record is its length (8 bytes), the length's checksum (4), the data and the data's checksum (4). TensorFlow reads and
checks them; what it doesn't say is where a record began, and how to go on behind a damaged one.
"""

import os
import struct

import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.data.rasterize import cell_pixels, instance_grids, interpolate

HEADER, FOOTER = 12, 4  # bytes before and after the data
READ_BYTES = 1 << 18  # read at once; most records lie within
_GZIP = b"\x1f\x8b"
_CASTAGNOLI = 0x82F63B78  # CRC-32C's polynomial, its bits reversed


def scan(file):
    """Yields the records of a file in their order.

    Args:
        file: path.

    Yields:
        number: int, the record's place in the file, from 0.
        offset: int, where it begins, bytes.
        data: bytes, or None for a damaged record.
        damage: None, or what is wrong with it, words for a sentence.

    Raises:
        UserError: the file can't be read or is compressed.
    """
    number = offset = 0
    try:
        size = os.path.getsize(file)
        while offset < size:
            for data in _sound_records(file, offset):
                yield number, offset, data, None
                number, offset = number + 1, offset + HEADER + len(data) + FOOTER
            if offset == size:
                return
            damage, following = _diagnose(file, offset, size)
            yield number, offset, None, damage
            number, offset = number + 1, following
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "message", error)
        raise UserError(f"{file} can't be read ({reason}): restore it or leave it out of data.*.records.") from error


def _sound_records(file, offset):
    """The data of the records from `offset` up to the first damaged one."""
    # A dataset can't be iterated from an offset, only its first record be taken: slower, but seldom needed.
    records = iter(tf.data.TFRecordDataset(file)) if offset == 0 else None
    while True:
        try:
            data = (next(records) if records else record_at(file, offset)).numpy()
        except (StopIteration, tf.errors.DataLossError, tf.errors.InvalidArgumentError):
            return
        yield data
        offset += HEADER + len(data) + FOOTER


@tf.function(input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64)])
def record_at(file, offset):
    """The data of one record, string scalar, without reading what lies before it; also for use inside Dataset.map.

    Args:
        file: string scalar, the path of an uncompressed TFRecord file.
        offset: int64 scalar, bytes from the file's beginning to the record's.

    Raises:
        tf.errors.DataLossError: when run, if a checksum is wrong.
        tf.errors.OpError: when run, if there is no record or the file is gone.
    """
    records = tf.raw_ops.TFRecordDatasetV2(
        filenames=[file], compression_type="", buffer_size=READ_BYTES, byte_offsets=[offset]
    )
    records = tf.data.experimental.from_variant(records, tf.TensorSpec([], tf.string))
    return records.take(1).get_single_element()


def _diagnose(file, offset, size):
    """(what is wrong with the record at `offset`, where the next one begins)."""
    with open(file, "rb") as opened:
        opened.seek(offset)
        header = opened.read(HEADER)
    if offset == 0 and header.startswith(_GZIP):
        raise UserError(f"{file} is compressed, and records are read at their place: decompress it (gunzip).")
    if len(header) < HEADER:
        return "is cut off by the end of the file", size
    length, checksum = struct.unpack("<QI", header)
    if checksum != _masked_crc(header[:8]):
        return "has a damaged length, so the rest of the file can't be found either,", size
    following = offset + HEADER + length + FOOTER
    if following > size:
        return "is cut off by the end of the file", size
    return "doesn't match its checksum", following


def _masked_crc(data):
    """The checksum that a TFRecord file holds of `data`."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CASTAGNOLI if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


# One record of a TFRecord file, read in the graph at its byte offset, and its masks as crops.
#

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
