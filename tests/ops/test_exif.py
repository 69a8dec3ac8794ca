"""The EXIF orientation in the graph against Pillow's reading of the same bytes."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mrcnn_tf.ops.image_bytes import read_orientation

read = tf.function(read_orientation, input_signature=[tf.TensorSpec([], tf.string)])
PIXELS = Image.fromarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3))


def encoded(kind, **kwargs):
    file = io.BytesIO()
    PIXELS.save(file, kind, **kwargs)
    return file.getvalue()


def tiff(entries, order="<", first=8):
    """A TIFF file of one directory: entries are (tag, type, count, four bytes of value)."""
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, first)
    directory = struct.pack(order + "H", len(entries))
    directory += b"".join(struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries)
    return head + bytes(first - 8) + directory + bytes(4)


def short(value, order="<"):
    return (0x0112, 3, 1, struct.pack(order + "H", value) + b"\0\0")


def with_segments(*segments):
    """A JPEG with segments (marker, content) before its own."""
    jpeg = encoded("JPEG")
    return jpeg[:2] + b"".join(b"\xff" + bytes([m]) + struct.pack(">H", len(c) + 2) + c for m, c in segments) + jpeg[2:]


def with_chunk(content, before):
    """A PNG with an eXIf chunk before the first chunk of a kind."""
    png = encoded("PNG")
    chunk = struct.pack(">I", len(content)) + b"eXIf" + content + struct.pack(">I", zlib.crc32(b"eXIf" + content))
    place = png.index(before) - 4
    return png[:place] + chunk + png[place:]


def pillows(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image.getexif().get(0x0112, 1)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("value", range(1, 9))
def test_all_orientations_of_both_byte_orders(value, order):
    block = tiff([(0x010F, 2, 4, b"cam\0"), short(value, order), (0x0128, 3, 1, b"\0\2\0\0")], order, first=20)
    jpeg = with_segments((0xE0, b"JFIF\0" + bytes(9)), (0xE2, bytes(3000)), (0xE1, b"Exif\0\0" + block))
    for data in (
        jpeg,
        with_chunk(block, b"IDAT"),
        with_chunk(block, b"IEND"),
        with_chunk(b"Exif\0\0" + block, b"IDAT"),
    ):
        assert read(data).numpy() == pillows(data) == value


def test_a_long_and_what_isnt_one_number():
    whole = tiff([(0x0112, 4, 1, struct.pack("<I", 6))])
    assert read(with_segments((0xE1, b"Exif\0\0" + whole))).numpy() == 6
    for entry in ((0x0112, 3, 2, struct.pack("<HH", 6, 6)), (0x0112, 2, 1, b"6\0\0\0"), short(9), short(0)):
        assert read(with_segments((0xE1, b"Exif\0\0" + tiff([entry])))).numpy() == 1


def test_the_segment_is_found_behind_others():
    block = b"Exif\0\0" + tiff([short(8)])
    xmp = (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"Exif\0\0II*\0" + bytes(500))
    jpeg = with_segments(xmp, (0xEE, b"Adobe" + bytes(7)), *[(0xE2, bytes(65000))] * 20, (0xE1, block))
    assert read(jpeg).numpy() == pillows(jpeg) == 8
    filled = jpeg[:2] + b"\xff\xff\xff" + jpeg[2:]  # a marker may be preceded by any number of FF
    assert read(filled).numpy() == pillows(filled) == 8


def test_files_without_one():
    for data in (
        encoded("JPEG"),
        encoded("PNG"),
        encoded("BMP"),
        encoded("GIF"),
        b"",
        b"\xff\xd8",
        b"\x89PNG",
        b"text",
    ):
        assert read(data).numpy() == 1


def test_pixels_that_look_like_a_segment():
    jpeg = encoded("JPEG")
    block = b"\xff\xe1\x00\x30Exif\0\0" + tiff([short(6)])
    assert read(jpeg[:-2] + block + jpeg[-2:]).numpy() == 1


@pytest.mark.parametrize("order", "<>")
def test_damage_reads_as_upright(order):
    block = tiff([short(6, order)], order)
    for end in range(len(block) - 6):  # up to before the value
        for data in (with_segments((0xE1, b"Exif\0\0" + block[:end])), with_chunk(block[:end], b"IDAT")):
            assert read(data).numpy() == 1
    for position in (4, 5, 6, 7, 8, 9):  # an offset or a count out of all bounds
        changed = block[:position] + b"\xf0" + block[position + 1 :]
        assert read(with_segments((0xE1, b"Exif\0\0" + changed))).numpy() in (1, 6)
    jpeg = with_segments((0xE1, b"Exif\0\0" + block))
    for end in range(0, 40):
        assert read(jpeg[:end]).numpy() in (1, 6)


def test_a_walk_without_end_is_given_up():
    chunk = bytes(4) + b"junk" + bytes(4)
    assert read(b"\x89PNG\r\n\x1a\n" + chunk * 40_000 + with_chunk(tiff([short(6)]), b"IDAT")[8:]).numpy() == 1
    assert read(b"\xff\xd8" + b"\xff" * 100_000).numpy() == 1
