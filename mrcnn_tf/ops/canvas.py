"""An image's own area inside a padded batch.

Convolutions would carry the values of the padding (biases and normalisation shifts make them nonzero) back into the
image, so that a detection depended on the other images of the batch. An image's *canvas* is its size rounded up to the
coarsest stride, what the image would be padded to by itself; whatever lies beyond is set to zero before each operation
that looks at neighbours. Extents are canvases in cells of one feature map; an extent of None means the canvas fills it.
"""

import tensorflow as tf

from mrcnn_tf.ops.native.library import shapes_must_be_static


def canvas(image_size, multiple=32):
    """int32 [B, 2] = (height, width): `image_size` [B, 2] rounded up to a multiple, in pixels."""
    return -(-tf.cast(image_size, tf.int32) // multiple) * multiple


def extent(canvas_size, stride):
    """int32 [B, 2] cells that a canvas covers on a map of `stride`; None stays None."""
    return None if canvas_size is None else -(-canvas_size // stride)


def static_canvas(features, stride):
    """(height, width) pixels of the canvas under features [B, H, W, C] of `stride`, where all shapes must be static;
    None elsewhere."""
    return tuple(side * stride for side in features.shape[1:3]) if shapes_must_be_static() else None


def inside(cells, height, width):
    """Bool [B, height, width, 1]: the cells within extents `cells` [B, 2]."""
    rows = tf.range(height)[None, :, None, None] < cells[:, 0, None, None, None]
    columns = tf.range(width)[None, None, :, None] < cells[:, 1, None, None, None]
    return rows & columns


def clear(features, cells):
    """Features [B, H, W, C] with zeros beyond extents `cells` [B, 2]; costs nothing when all extents fill the map."""
    if cells is None:
        return features
    height, width = tf.shape(features)[1], tf.shape(features)[2]
    if shapes_must_be_static():  # a branch's gradient has shapes that its forward pass hands it as values
        # TFLite's fast kernels multiply and don't select.
        return features * tf.cast(inside(cells, height, width), features.dtype)
    full = tf.reduce_all(cells >= tf.stack([height, width]))
    zero = tf.zeros([], features.dtype)
    return tf.cond(full, lambda: features, lambda: tf.where(inside(cells, height, width), features, zero))


def extend(features, cells):
    """Features [B, H, W, C] whose canvas' last row and column repeat beyond extents `cells` [B, 2], as interpolation at
    the edge of an image by itself has it; costs nothing when all extents fill the map."""
    if cells is None:
        return features
    height, width = tf.shape(features)[1], tf.shape(features)[2]

    def repeated():
        rows = tf.minimum(tf.range(height)[None, :], cells[:, :1] - 1)
        columns = tf.minimum(tf.range(width)[None, :], cells[:, 1:] - 1)
        # In float32: gradients of several cells add up, and XLA doesn't scatter halves.
        taken = tf.gather(tf.cast(features, tf.float32), rows, axis=1, batch_dims=1)
        taken = tf.gather(taken, columns, axis=2, batch_dims=1)
        return tf.cast(tf.ensure_shape(taken, features.shape), features.dtype)

    if shapes_must_be_static():
        return repeated()
    full = tf.reduce_all(cells >= tf.stack([height, width]))
    return tf.cond(full, lambda: features, repeated)
