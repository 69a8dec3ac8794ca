"""The bytes of image files to upright pixels, with TensorFlow's stock operations in the graph.

How an image wants to be turned, its EXIF orientation, stands in an APP1 segment of a JPEG or an eXIf chunk of a PNG,
both as a small TIFF file of either byte order (CIPA DC-008, Exif 2.32, sections 4.5 and 4.7; PNG, third edition,
11.3.4.5). What an older ImageMagick or an editor writes elsewhere (a text chunk, XMP) isn't read.
"""

import tensorflow as tf

# What Pillow refuses too (twice its MAX_IMAGE_PIXELS): such a file is small and was made to fill the memory.
MOST_PIXELS = 178_956_970

_SIGNATURES = {"jpeg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n", "bmp": b"BM"}

ORIENTATION = 0x0112
SHORT, LONG = 3, 4  # TIFF's types of numbers, of two and four bytes
ENTRY = 12  # bytes of a TIFF directory's entry
PREAMBLE = b"Exif\x00\x00"
MOST_BLOCKS = 1 << 14  # segments or chunks looked through: a file of a million empty ones was made to keep us busy


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
    is_supported = tf.reduce_any(list(formats.values()))
    with tf.control_dependencies([tf.debugging.Assert(is_supported, ["Not a JPEG, PNG or BMP file."])]):
        height, width = _stored_size(data, formats)
    pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    fits = (pixels > 0) & (pixels <= MOST_PIXELS)
    with tf.control_dependencies([tf.debugging.Assert(fits, ["An image of", height, "x", width, "pixels."])]):
        image = decode_image(tf.identity(data))
    return apply_orientation(image, read_orientation(data))


def decode_image(data):
    """The bytes of a JPEG, PNG or BMP file -> [H, W, 3] uint8 RGB.

    Grey becomes three equal channels, alpha is dropped, 16 bits become 8. A JPEG is decoded as Pillow decodes it:
    TensorFlow's own choice, INTEGER_FAST, is off by up to 9 levels and no faster.
    """
    is_jpeg, is_bmp = (_starts(data, _SIGNATURES[name]) for name in ("jpeg", "bmp"))
    image = tf.case(
        [
            (is_jpeg, lambda: tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")),
            (is_bmp, lambda: _decode_bmp(data)),
        ],
        default=lambda: tf.io.decode_png(data, channels=3),
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


def read_orientation(data):
    """The EXIF orientation of an image file's bytes (scalar string): int32 scalar, 1 to 8; 1 where it has none.

    Where something of it is damaged, it is 1 as well.
    """
    is_png = tf.equal(tf.strings.substr(data, 0, 4), b"\x89PNG")
    has_exif, block = tf.cond(is_png, lambda: _png_exif(data), lambda: _jpeg_exif(data))
    return tf.cond(has_exif, lambda: _tiff_orientation(block), lambda: tf.constant(1))


def _jpeg_exif(data):
    """Whether a JPEG has an EXIF segment, and its TIFF file."""

    def look(head):
        marker, length = head[1], 256 * head[2] + head[3]
        wanted = (marker == 0xE1) & tf.reduce_all(head[4:] == list(PREAMBLE))
        stands_alone = (marker == 0x01) | ((marker >= 0xD0) & (marker <= 0xD8))  # no length behind it
        step = tf.where(marker == 0xFF, 1, tf.where(stands_alone, 2, 2 + length))
        # The scan (DA) ends what can be walked through; D9 ends the file.
        goes_on = (head[0] == 0xFF) & (marker != 0xDA) & (marker != 0xD9)
        return wanted & (head[0] == 0xFF), tf.where(goes_on, step, 0)

    has_exif, position = _find_block(data, 2, 4 + len(PREAMBLE), look)
    return has_exif, _slice(data, position + 4 + len(PREAMBLE), 1 << 16)


def _png_exif(data):
    """Whether a PNG has an EXIF chunk, and its TIFF file; the chunk may follow the pixels."""

    def look(head):
        length = ((head[0] * 256 + head[1]) * 256 + head[2]) * 256 + head[3]  # beyond 2^31 negative
        kind = head[4:]
        goes_on = (length >= 0) & tf.reduce_any(kind != list(b"IEND"))
        return tf.reduce_all(kind == list(b"eXIf")), tf.where(goes_on, length + 12, 0)

    has_exif, position = _find_block(data, 8, 8, look)
    block = _slice(data, position + 8, 1 << 16)
    has_preamble = tf.equal(_slice(block, 0, len(PREAMBLE)), PREAMBLE)  # some writers copy it from a JPEG
    return has_exif, _slice(block, tf.where(has_preamble, len(PREAMBLE), 0), 1 << 16)


def _find_block(data, start, header, look):
    """Walks through a file's blocks until one is wanted: whether there is one, and where it begins (int32), scalars.

    Args:
        data, start: the file's bytes, and where the first block begins.
        header: the bytes at a block's begin that `look` needs.
        look: from these, int32 [header], to whether the block is wanted and the bytes to the next, 0 where none is.
    """
    size = tf.strings.length(data)

    def goes_on(is_wanted, position):
        return ~is_wanted & (position + header <= size)

    def step(_, position):
        head = tf.io.decode_raw(tf.strings.substr(data, position, header), tf.uint8)
        wanted, length = look(tf.cast(tf.ensure_shape(head, [header]), tf.int32))
        ends = (length <= 0) | (length > size - position)
        return wanted, tf.where(wanted, position, tf.where(ends, size, position + length))

    start = (tf.constant(False), tf.constant(start))
    return tf.while_loop(goes_on, step, start, maximum_iterations=MOST_BLOCKS, parallel_iterations=1)


def _slice(data, position, length):
    """As tf.strings.substr, which fails where a string is shorter than `position`."""
    return tf.strings.substr(data, tf.minimum(position, tf.strings.length(data)), length)


def _tiff_orientation(block):
    """The orientation in the first directory of a TIFF file's bytes."""
    size = tf.strings.length(block)
    padded = tf.strings.join([block, tf.constant(bytes(8))])  # reads the fixed parts of a file cut off anywhere
    big = tf.equal(tf.strings.substr(padded, 0, 2), b"MM")

    def numbers(position, count, dtype):
        data = tf.strings.substr(padded, position, count * dtype.size)
        orders = [tf.io.decode_raw(data, dtype, little_endian=little) for little in (False, True)]
        return tf.cast(tf.where(big, *orders), tf.int32)

    directory = tf.clip_by_value(numbers(4, 1, tf.int32)[0], 0, size)
    entries = tf.minimum(numbers(directory, 1, tf.uint16)[0], tf.maximum(size - directory - 2, 0) // ENTRY)
    shorts = tf.reshape(numbers(directory + 2, entries * (ENTRY // 2), tf.uint16), [-1, ENTRY // 2])
    longs = tf.reshape(numbers(directory + 2, entries * (ENTRY // 4), tf.int32), [-1, ENTRY // 4])
    tag, kind, count = shorts[:, 0], shorts[:, 1], longs[:, 1]
    value = tf.where(kind == SHORT, shorts[:, 4], tf.where(kind == LONG, longs[:, 2], 0))
    usable = (tag == ORIENTATION) & (count == 1) & (value >= 1) & (value <= 8)
    return tf.reduce_max(tf.concat([[1], tf.where(usable, value, 1)], axis=0))
