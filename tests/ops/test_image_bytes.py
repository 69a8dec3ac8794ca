"""Files decoded in the graph against Pillow, and files that must be refused."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from mrcnn_tf.datasets.image_files import read_image
from mrcnn_tf.ops.image_bytes import decode_image, decode_upright

decode = tf.function(decode_upright, input_signature=[tf.TensorSpec([], tf.string)])


def picture(height=37, width=50):
    """Smooth colours with sharp edges."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 5, y * 6, (x + y) * 3 % 256], axis=-1).astype(np.uint8)
    pixels[height // 3 : height // 2, width // 4 : width // 2] = (250, 20, 90)
    return Image.fromarray(pixels)


def encoded(image, kind, **kwargs):
    file = io.BytesIO()
    image.save(file, kind, **kwargs)
    return file.getvalue()


def pillows(data):
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


JPEGS = {
    "plain": lambda: encoded(picture(), "JPEG", quality=95, subsampling=0),
    "subsampled": lambda: encoded(picture(), "JPEG", quality=60, subsampling=2),
    "progressive": lambda: encoded(picture(), "JPEG", progressive=True),
    "grey": lambda: encoded(picture().convert("L"), "JPEG"),
    "CMYK": lambda: encoded(picture().convert("CMYK"), "JPEG", quality=90),
}
OTHERS = {
    f"{kind} {mode}": lambda kind=kind, mode=mode: encoded(picture().convert(mode), kind)
    for kind, modes in {"PNG": ("RGB", "RGBA", "L", "LA", "P", "1"), "BMP": ("RGB", "RGBA", "L", "P")}.items()
    for mode in modes
}


@pytest.mark.parametrize("name", [*JPEGS, *OTHERS])
def test_pixels_are_pillows_to_the_bit(name):
    data = (JPEGS | OTHERS)[name]()
    np.testing.assert_array_equal(decode(data), pillows(data))
    np.testing.assert_array_equal(decode_image(tf.constant(data)), pillows(data))


def test_sixteen_bits_keep_the_high_byte(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray((np.arange(35 * 40, dtype=np.uint16) * 41).reshape(35, 40)).save(path)
    np.testing.assert_array_equal(decode(path.read_bytes()), read_image(path))
    assert len(np.unique(read_image(path))) > 200


@pytest.mark.parametrize("kind", ("JPEG", "PNG"))
@pytest.mark.parametrize("value", range(1, 9))
def test_every_orientation_is_applied(kind, value):
    exif = Image.Exif()
    exif[0x0112] = value
    data = encoded(picture(), kind, exif=exif)
    assert pillows(data).shape[:2] == ((50, 37) if value >= 5 else (37, 50))
    np.testing.assert_array_equal(decode(data), pillows(data))


def test_one_pixel():
    data = encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG")
    assert decode(data).numpy().tolist() == [[[1, 2, 3]]]


def damaged_png():
    data = bytearray(encoded(picture(), "PNG"))
    data[60] ^= 0xFF
    return bytes(data)


def png_of(height, width):
    """The header of a PNG of any size, with few pixels behind it."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


REFUSED = {
    "nothing": lambda: b"",
    "a letter": lambda: b"B",
    "text": lambda: b"This is no image." * 20,
    "GIF": lambda: encoded(picture(), "GIF"),
    "WebP": lambda: encoded(picture(), "WEBP"),
    "TIFF": lambda: encoded(picture(), "TIFF"),
    "half a JPEG": lambda: JPEGS["plain"]()[:1500],
    "a JPEG's first bytes": lambda: JPEGS["plain"]()[:5],
    "half a PNG": lambda: OTHERS["PNG RGB"]()[:100],
    "a PNG's first bytes": lambda: OTHERS["PNG RGB"]()[:20],
    "damaged PNG": damaged_png,
    "half a BMP": lambda: OTHERS["BMP RGB"]()[:2000],
    "a BMP's first bytes": lambda: OTHERS["BMP RGB"]()[:20],
    "BMP of one bit": lambda: encoded(picture().convert("1"), "BMP"),
    "huge PNG": lambda: png_of(20_000, 20_000),
    "PNG of negative size": lambda: png_of(0xFFFFFFFF, 0xFFFFFFFF),
    "PNG without pixels": lambda: png_of(0, 10),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    data = REFUSED[name]()
    with pytest.raises(tf.errors.OpError):
        decode(data)


def test_a_huge_image_is_refused_before_it_is_unpacked():
    with pytest.raises(tf.errors.InvalidArgumentError, match="An image of"):
        decode(png_of(20_000, 20_000))
