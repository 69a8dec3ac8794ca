"""How an image file wants to be turned: its EXIF orientation, read from the file's bytes in the graph.

A JPEG keeps it in an APP1 segment, a PNG in an eXIf chunk, both as a small TIFF file of either byte order (CIPA
DC-008, Exif 2.32, sections 4.5 and 4.7; PNG, third edition, 11.3.4.5). What an older ImageMagick or an editor writes
elsewhere (a text chunk, XMP) isn't read.
"""

import tensorflow as tf

ORIENTATION = 0x0112
SHORT, LONG = 3, 4  # TIFF's types of numbers, of two and four bytes
ENTRY = 12  # bytes of a TIFF directory's entry
PREAMBLE = b"Exif\x00\x00"
MOST_BLOCKS = 1 << 14  # segments or chunks looked through: a file of a million empty ones was made to keep us busy


def orientation(data):
    """The EXIF orientation of an image file's bytes (scalar string): int32 scalar, 1 to 8; 1 where it has none.

    Where something of it is damaged, it is 1 as well.
    """
    is_png = tf.equal(tf.strings.substr(data, 0, 4), b"\x89PNG")
    found, block = tf.cond(is_png, lambda: _png_exif(data), lambda: _jpeg_exif(data))
    return tf.cond(found, lambda: _tiff_orientation(block), lambda: tf.constant(1))


def _jpeg_exif(data):
    """Whether a JPEG has an EXIF segment, and its TIFF file."""

    def look(head):
        marker, length = head[1], 256 * head[2] + head[3]
        wanted = (marker == 0xE1) & tf.reduce_all(head[4:] == list(PREAMBLE))
        step = tf.where(marker == 0xFF, 1, tf.where(_stands_alone(marker), 2, 2 + length))
        # The scan (DA) ends what can be walked through; D9 ends the file.
        goes_on = (head[0] == 0xFF) & (marker != 0xDA) & (marker != 0xD9)
        return wanted & (head[0] == 0xFF), tf.where(goes_on, step, 0)

    found, position = _find(data, 2, 4 + len(PREAMBLE), look)
    return found, _slice(data, position + 4 + len(PREAMBLE), 1 << 16)


def _stands_alone(marker):
    """Whether a JPEG marker has no length behind it."""
    return (marker == 0x01) | ((marker >= 0xD0) & (marker <= 0xD8))


def _png_exif(data):
    """The same of a PNG; the chunk may follow the pixels."""

    def look(head):
        length = ((head[0] * 256 + head[1]) * 256 + head[2]) * 256 + head[3]  # beyond 2^31 negative
        kind = head[4:]
        goes_on = (length >= 0) & tf.reduce_any(kind != list(b"IEND"))
        return tf.reduce_all(kind == list(b"eXIf")), tf.where(goes_on, length + 12, 0)

    found, position = _find(data, 8, 8, look)
    block = _slice(data, position + 8, 1 << 16)
    has_preamble = tf.equal(_slice(block, 0, len(PREAMBLE)), PREAMBLE)  # some writers copy it from a JPEG
    return found, _slice(block, tf.where(has_preamble, len(PREAMBLE), 0), 1 << 16)


def _find(data, start, header, look):
    """Walks through a file's blocks until one is wanted.

    Args:
        data: the file's bytes.
        start: where the first block begins.
        header: the bytes at a block's begin that `look` needs.
        look: from these, int32 [header], to whether the block is wanted and the bytes to the next, 0 where none is.

    Returns:
        Whether one was found (bool scalar), and where it begins (int32 scalar).
    """
    size = tf.strings.length(data)

    def going(found, position):
        return ~found & (position + header <= size)

    def step(_, position):
        head = tf.io.decode_raw(tf.strings.substr(data, position, header), tf.uint8)
        wanted, length = look(tf.cast(tf.ensure_shape(head, [header]), tf.int32))
        ends = (length <= 0) | (length > size - position)
        return wanted, tf.where(wanted, position, tf.where(ends, size, position + length))

    start = (tf.constant(False), tf.constant(start))
    return tf.while_loop(going, step, start, maximum_iterations=MOST_BLOCKS, parallel_iterations=1)


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
