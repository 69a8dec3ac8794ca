"""The bytes of image files to upright pixels, with TensorFlow's stock operations in the graph."""

import tensorflow as tf

from mrcnn_tf.ops.exif import orientation

# What Pillow refuses too (twice its MAX_IMAGE_PIXELS): such a file is small and was made to fill the memory.
MOST_PIXELS = 178_956_970

_SIGNATURES = {"jpeg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n", "bmp": b"BM"}


def decode_upright(data):
    """A JPEG, PNG or BMP file from anyone, as it should be seen.

    GIF isn't among them: TensorFlow unpacks all frames of an animation to take one, so that a file of 10 MB fills any
    memory.

    Args:
        data: the file's bytes, string scalar.

    Returns:
        uint8 [H, W, 3] RGB, turned as its EXIF orientation says; the pixels are Pillow's to the bit.

    Raises:
        tf.errors.InvalidArgumentError: when run on another format, more than `MOST_PIXELS` or a damaged file.
    """
    formats = {name: _starts(data, signature) for name, signature in _SIGNATURES.items()}
    known = tf.reduce_any(list(formats.values()))
    with tf.control_dependencies([tf.debugging.Assert(known, ["Not a JPEG, PNG or BMP file."])]):
        height, width = _stored_size(data, formats)
    pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    fits = (pixels > 0) & (pixels <= MOST_PIXELS)
    with tf.control_dependencies([tf.debugging.Assert(fits, ["An image of", height, "x", width, "pixels."])]):
        image = decode_image(tf.identity(data))
    return apply_orientation(image, orientation(data))


def decode_image(data):
    """The bytes of a JPEG, PNG, BMP or GIF file -> [H, W, 3] uint8 RGB.

    Grey becomes three equal channels, alpha is dropped, 16 bits become 8, of a GIF the first frame is taken. A JPEG is
    decoded as Pillow decodes it: TensorFlow's own choice, INTEGER_FAST, is off by up to 9 levels and no faster.
    """
    image = tf.case(
        [
            (
                _starts(data, _SIGNATURES["jpeg"]),
                lambda: tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"),
            ),
            (_starts(data, _SIGNATURES["bmp"]), lambda: _decode_bmp(data)),
        ],
        default=lambda: tf.io.decode_image(data, channels=3, expand_animations=False),
    )
    image.set_shape([None, None, 3])
    return image


def apply_orientation(image, orientation):
    """Turns [H, W, 3] as its EXIF orientation (1 to 8, int tensor) asks for.

    5 to 8 exchange rows and columns first; then 2, 3, 6, 7 mirror left and right, and 3, 4, 7, 8 up and down.
    """
    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    mirrored = tf.reduce_any(tf.equal(orientation, [2, 3, 6, 7]))
    image = tf.cond(mirrored, lambda: tf.reverse(image, [1]), lambda: image)
    upended = tf.reduce_any(tf.equal(orientation, [3, 4, 7, 8]))
    return tf.cond(upended, lambda: tf.reverse(image, [0]), lambda: image)


def _starts(data, signature):
    return tf.equal(tf.strings.substr(data, 0, len(signature)), signature)


def _stored_size(data, formats):
    """Height and width, int32, that the header of a file names; an error where it is too short for that."""

    def jpeg():
        shape = tf.io.extract_jpeg_shape(data)
        return shape[0], shape[1]

    def png():
        width, height = tf.unstack(_numbers(data, 16, 2, tf.int32, little_endian=False))
        return height, width

    def bmp():  # of negative height where the rows go down
        width, height = tf.unstack(_numbers(data, 18, 2, tf.int32))
        return tf.abs(height), width

    return tf.cond(formats["jpeg"], jpeg, lambda: tf.cond(formats["png"], png, bmp))


def _decode_bmp(data):
    """tf.io.decode_bmp would give a palette's indices for grey, and packed rows for pixels."""
    bits = _numbers(data, 28, 1, tf.uint16)[0]
    packing = _numbers(data, 30, 1, tf.int32)[0]
    unpacked = tf.equal(packing, 0) | tf.equal(packing, 3) & tf.equal(bits, 32)  # 3 names the place of each channel
    with tf.control_dependencies([tf.debugging.Assert(unpacked & (bits >= 8), ["A packed BMP."])]):
        image = tf.io.decode_bmp(data)

    def coloured():
        start = 14 + _numbers(data, 14, 1, tf.int32)[0]
        count = _numbers(data, 46, 1, tf.int32)[0]
        count = tf.where(tf.equal(count, 0), 256, count)
        palette = tf.reshape(_numbers(data, start, 4 * count, tf.uint8), [-1, 4])[:, 2::-1]
        return tf.gather(palette, tf.cast(image[..., 0], tf.int32))

    return tf.cond(tf.equal(bits, 8), coloured, lambda: image[..., :3])


def _numbers(data, position, count, dtype, little_endian=True):
    """[count] numbers from a position on; an error where the data end before."""
    raw = tf.io.decode_raw(tf.strings.substr(data, position, count * dtype.size), dtype, little_endian=little_endian)
    return tf.ensure_shape(raw, [count]) if isinstance(count, int) else raw
