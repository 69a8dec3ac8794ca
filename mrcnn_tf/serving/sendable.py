"""The bytes of an image as an exported model takes them."""

import io
import pathlib

from PIL import Image

from mrcnn_tf.datasets.images import UnreadableImage, read_image

DECODED = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM")  # how JPEG, PNG and BMP files begin


def sendable_file(path):
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
