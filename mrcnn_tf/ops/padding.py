"""Padding of a batch without influence on its images: sizes, masks, and what stands beyond an image.

Convolutions would carry the values of the padding (biases and normalisation shifts make them nonzero) back into the
image, so that a detection depended on the other images of the batch. An image's *padded size* is its size rounded up to
the coarsest stride, in pixels: what it would be padded to in a batch of its own. Its *valid cells* are the same in
cells of one feature map. Whatever lies beyond is set to zero before each operation that looks at neighbours. None in
place of either means that every image fills the batch.

While a backbone runs, `running_batch` tells its layers the padded sizes, so that they need no argument for them.
"""

import contextlib
import contextvars

import tensorflow as tf

from mrcnn_tf.ops.native.library import shapes_must_be_static

# (padded_size int32 [B, 2] in pixels, rows of the padded batch) of the batch that a backbone runs on, or None
_RUNNING = contextvars.ContextVar("running_batch", default=None)


@contextlib.contextmanager
def running_batch(images, padded_size):
    """Within it, layers run on `images` [B, H, W, 3] of `padded_size` int32 [B, 2] pixels, or None."""
    token = _RUNNING.set(None if padded_size is None else (padded_size, tf.shape(images)[1]))
    try:
        yield
    finally:
        _RUNNING.reset(token)


def running_padded_size():
    """int32 [B, 2] pixels: the padded sizes of the running batch, or None where all images fill it."""
    running = _RUNNING.get()
    return running and running[0]


def running_valid_cells(features):
    """Valid cells int32 [B, 2] of `features` [B, H, W, C], a map of the running batch at any stride, or None."""
    running = _RUNNING.get()
    if running is None:
        return None
    padded_size, rows = running
    return -(-padded_size * tf.shape(features)[1] // rows)  # exact: the batch's rows are a multiple of the stride


def round_up(image_size, multiple=32):
    """Padded sizes int32 [B, 2] = (height, width): `image_size` [B, 2] rounded up to a multiple, in pixels."""
    return -(-tf.cast(image_size, tf.int32) // multiple) * multiple


def count_cells(padded_size, stride):
    """Valid cells int32 [B, 2] of a map of `stride`, for padded sizes in pixels (or in cells of a finer map)."""
    return None if padded_size is None else -(-padded_size // stride)


def static_image_size(features, stride):
    """(height, width) pixels of the batch that has features [B, H, W, C] of `stride`, where all shapes must be static;
    None elsewhere."""
    return tuple(side * stride for side in features.shape[1:3]) if shapes_must_be_static() else None


def valid_mask(valid_cells, height, width):
    """Bool [B, height, width, 1]: the cells within `valid_cells` [B, 2]."""
    # Reshaped rather than sliced: this stands before every convolution, and slices are most of a graph's nodes.
    rows, columns = tf.unstack(tf.reshape(tf.cast(valid_cells, tf.int32), [-1, 2, 1, 1, 1]), axis=1)
    return (tf.reshape(tf.range(height), [-1, 1, 1]) < rows) & (tf.reshape(tf.range(width), [-1, 1]) < columns)


def clear_padding(features, valid_cells):
    """Features [B, H, W, C] with zeros beyond `valid_cells` [B, 2]; costs nothing where all images fill the map."""
    if valid_cells is None:
        return features
    _, height, width = tf.unstack(tf.shape(features)[:3])
    if shapes_must_be_static():  # a branch's gradient has shapes that its forward pass hands it as values
        # TFLite's fast kernels multiply and don't select.
        return features * tf.cast(valid_mask(valid_cells, height, width), features.dtype)
    zero = tf.zeros([], features.dtype)
    return tf.cond(
        _fill_map(valid_cells, height, width),
        lambda: features,
        lambda: tf.where(valid_mask(valid_cells, height, width), features, zero),
    )


def repeat_edges(features, valid_cells):
    """Features [B, H, W, C] whose last valid row and column repeat beyond `valid_cells` [B, 2], as interpolation at the
    edge of an image by itself has it; costs nothing where all images fill the map."""
    if valid_cells is None:
        return features
    _, height, width = tf.unstack(tf.shape(features)[:3])

    def repeat():
        rows = tf.minimum(tf.range(height)[None, :], valid_cells[:, :1] - 1)
        columns = tf.minimum(tf.range(width)[None, :], valid_cells[:, 1:] - 1)
        # In float32: gradients of several cells add up, and XLA doesn't scatter halves.
        repeated = tf.gather(tf.cast(features, tf.float32), rows, axis=1, batch_dims=1)
        repeated = tf.gather(repeated, columns, axis=2, batch_dims=1)
        return tf.cast(tf.ensure_shape(repeated, features.shape), features.dtype)

    if shapes_must_be_static():
        return repeat()
    return tf.cond(_fill_map(valid_cells, height, width), lambda: features, repeat)


def _fill_map(valid_cells, height, width):
    return tf.reduce_all(valid_cells >= tf.stack([height, width]))
