"""The masks of an image's instances, each as an S x S crop of its box, in vectorised TensorFlow ops.

They come as polygons and run lengths, as the pixels of a segment map, or as PNGs of the image's size. Of the first two
everything is reduced to *toggles*: the rows at which a pixel column changes between outside and inside. Toggles are
scattered on a small grid per instance and summed down the columns; odd sums are inside. The rules are pycocotools':

- A polygon is rounded to fifths of a pixel, and column c is cut between the fifths 5c+2 and 5c+3, where the outline
  passes the middle of the pixel. The lower of the two heights there decides: row r is inside from 5r+2 on.
- Run lengths go down the columns of the image one after another, beginning outside.

The grid over which an instance is drawn is chosen per axis (`make_instance_grids`): where its box is shorter than S
pixels, the image's own pixels, which the crop then interpolates, so that it sees the same stairs as a full-resolution
mask; where it is longer, S cells. Neither ever needs a whole image.
"""

import dataclasses

import tensorflow as tf

SUBPIXELS = 5  # pycocotools places vertices on a lattice of fifths of a pixel


@dataclasses.dataclass
class Segmentations:
    """COCO's segmentations of an image's N instances, flat. One has rings (their union counts) or runs, or nothing."""

    points: tf.Tensor  # [P, 2] float32, the vertices (x, y) of all rings in pixels
    ring_sizes: tf.Tensor  # [Q] int, vertices of each ring
    ring_instances: tf.Tensor  # [Q] int, which of the N instances a ring belongs to, ascending
    runs: tf.Tensor  # [U] int, lengths in pixels of runs outside, inside, outside, ... down the columns of the image.
    run_counts: tf.Tensor  # [N] int, runs of each instance; 0 for one made of rings


@dataclasses.dataclass
class Grids:
    """Where the cells of each instance's grid lie: cell k of an axis has its centre at origin + (k + 0.5) * step."""

    origin: tf.Tensor  # [N, 2] float32 (x, y) pixels; whole where the step is 1
    step: tf.Tensor  # [N, 2] float32 pixels per cell; 1 is the image's own pixel, and it's never less


def crop_masks(segmentations, boxes, height, width, size):
    """Each instance's mask inside its box.

    Args:
        segmentations: Segmentations of N instances.
        boxes: [N, 4] float32 pixels, inside the image.
        height, width: of the image in pixels.
        size: S.

    Returns:
        [N, S, S] uint8, 255 times the occupancy: cell (i, j) covers one S-th of the box's height and width. Between 0
        and 255 only near an outline of an instance that is smaller than S pixels.
    """
    grids = make_instance_grids(boxes, size)
    drawn = rasterize(segmentations, grids, height, width, size + 2, size + 2)
    return resample_masks(drawn, grids, boxes, height, width, size)


def crop_segments(pixels, values, boxes, size):
    """Each segment's mask inside its box, to the bit what `crop_masks` makes of its run lengths.

    `pixels` are [H, W] int32, see `map_reader.read_segments`, and `values` [N] int32 those of the instances in it.
    """
    height, width = tf.unstack(tf.shape(pixels))
    grids = make_instance_grids(boxes, size)
    columns, rows = _grid_pixels(grids, size)
    # Cells outside the image weigh nothing in the crop, so any pixel may stand in for them.
    columns, rows = tf.clip_by_value(columns, 0, width - 1), tf.clip_by_value(rows, 0, height - 1)
    sampled = tf.gather(tf.reshape(pixels, [-1]), rows[:, :, None] * width + columns[:, None, :])
    return resample_masks(sampled == values[:, None, None], grids, boxes, height, width, size)


def crop_png_masks(pngs, boxes, size):
    """Each object's mask inside its box, to the bit what `crop_masks` makes of the same mask's run lengths.

    `pngs` are [N] strings, grey PNGs of the image's size; a pixel that isn't 0 is inside.
    """
    grids = make_instance_grids(boxes, size)
    columns, rows = _grid_pixels(grids, size)

    def sample(inputs):
        png, row, column = inputs
        mask = tf.io.decode_png(png, channels=1)[:, :, 0]
        shape = tf.shape(mask)
        row, column = tf.clip_by_value(row, 0, shape[0] - 1), tf.clip_by_value(column, 0, shape[1] - 1)
        return tf.gather(tf.gather(mask, row), column, axis=1) > 0, shape

    outputs = (tf.TensorSpec([size + 2, size + 2], tf.bool), tf.TensorSpec([2], tf.int32))
    drawn, sides = tf.map_fn(sample, (pngs, rows, columns), fn_output_signature=outputs)
    return resample_masks(drawn, grids, boxes, sides[:, :1], sides[:, 1:], size)


def resample_masks(drawn, grids, boxes, height, width, size):
    """The crops, uint8 [N, S, S] as of `crop_masks`, of instances that are drawn on the grids of their boxes.

    Args:
        drawn: [N, size + 2, size + 2] bool.
        grids: Grids of the N boxes.
        boxes: [N, 4] float32 pixels.
        height, width: of the image in pixels; a scalar or, for instances of several images, [N, 1].
        size: S.
    """
    across = _interpolation_weights(boxes[:, 0], boxes[:, 2], grids.origin[:, 0], grids.step[:, 0], width, size)
    down = _interpolation_weights(boxes[:, 1], boxes[:, 3], grids.origin[:, 1], grids.step[:, 1], height, size)
    crops = tf.matmul(down, tf.matmul(tf.cast(drawn, tf.float32), across, transpose_b=True))
    return tf.cast(tf.round(crops * 255.0), tf.uint8)


def _interpolation_weights(low, high, origin, step, image_side, size):
    """[N, S, size + 2] float32: the weights of an axis of the grid in the samples at the centres of a crop's cells.

    Full-resolution masks are read in two ways: constant within a pixel, or linear between the centres of pixels. A ramp
    of two thirds of a pixel between neighbours stays close to both, also for objects of ten pixels, where stairs count.
    Beyond the centre of the image's outermost pixel that pixel counts, so that an instance cut off by the image's edge
    doesn't fade there.
    """
    positions = _centres(low, (high - low) / size, size)
    positions = tf.clip_by_value(positions, 0.5, tf.maximum(tf.cast(image_side, tf.float32) - 0.5, 0.5))
    positions = (positions - origin[:, None]) / step[:, None] - 0.5
    before = tf.floor(positions)
    positions = before + tf.clip_by_value((positions - before - 0.5) * 1.5 + 0.5, 0.0, 1.0)
    cells = tf.range(size + 2, dtype=tf.float32)
    return tf.maximum(1.0 - tf.abs(positions[:, :, None] - cells), 0.0)


def make_instance_grids(boxes, size):
    """Grids of size + 2 cells a side that contain the boxes [N, 4] with at least one cell around them."""
    low = boxes[:, :2]
    length = boxes[:, 2:] - low
    own_pixels = length <= size
    step = tf.where(own_pixels, 1.0, length / size)
    # A box of S pixels that begins within a pixel reaches into S + 1 of them: one more on the left is all that fits.
    origin = tf.where(own_pixels, tf.floor(low - 0.5), low - step)
    return Grids(origin, step)


def rasterize(segmentations, grids, height, width, rows, columns):
    """The instances on their grids: [N, rows, columns] bool. On grids of the image's pixels: as pycocotools draws them.

    Args:
        segmentations: Segmentations of N instances.
        grids: Grids of the N instances.
        height, width: of the image in pixels, which bounds what is drawn.
        rows, columns: cells of every grid.
    """
    count = tf.shape(segmentations.run_counts)[0]
    rings = _draw_rings(segmentations, grids, height, width, rows, columns)
    # Most images hold no run lengths at all, or nothing else.
    rings = tf.math.unsorted_segment_max(rings, segmentations.ring_instances, count) > 0
    has_runs = segmentations.run_counts > 0
    runs = tf.cond(
        tf.reduce_any(has_runs),
        lambda: _draw_runs(segmentations, grids, height, width, rows, columns),
        lambda: tf.zeros([count, rows, columns], tf.bool),
    )
    return tf.where(has_runs[:, None, None], runs, rings)


def _draw_rings(segmentations, grids, height, width, rows, columns):
    """[Q, rows, columns] int32 0 or 1."""
    ring_count = tf.shape(segmentations.ring_sizes)[0]
    ring_of_point = tf.repeat(tf.range(ring_count), segmentations.ring_sizes)
    origin = tf.gather(grids.origin, segmentations.ring_instances)
    step = tf.gather(grids.step, segmentations.ring_instances)
    points = _lattice(segmentations.points, tf.gather(origin, ring_of_point), tf.gather(step, ring_of_point))
    starts = tf.cumsum(segmentations.ring_sizes, exclusive=True)
    # The vertex after each, where the last of a ring is followed by its first.
    index = tf.range(tf.shape(points)[0])
    first = tf.gather(starts, ring_of_point)
    following = tf.where(index + 1 < first + tf.gather(segmentations.ring_sizes, ring_of_point), index + 1, first)
    edge, column, row = _crossings(points, tf.gather(points, following), columns)
    ring = tf.gather(ring_of_point, edge)
    drawn = _fill(ring, column, row, ring_count, rows, columns)
    return drawn * tf.cast(_inside_image(origin, step, height, width, rows, columns), tf.int32)


def _lattice(points, origin, step):
    """Vertices [P, 2] in fifths of a cell from the grid's origin, as whole float64.

    With a step of 1 the rounding is done in the image's frame, as pycocotools does it, and the shift by whole pixels
    after it: in float32, 5 * 10.7 is the tie 53.5, but 5 * (110.7 - 100) isn't.
    """
    own_pixels = step == 1.0
    cells = tf.where(own_pixels, points, (points - origin) / step)
    fifths = tf.floor(cells * float(SUBPIXELS) + 0.5)
    return tf.cast(fifths - tf.where(own_pixels, origin * float(SUBPIXELS), 0.0), tf.float64)


def _crossings(start, end, columns):
    """Where edges cut the middles of the grid's columns.

    Args:
        start, end: [E, 2] float64 (x, y), whole fifths of a cell.
        columns: of the grid.

    Returns:
        edge, column, row: [C] int32 for each cut: the edge's index, the column and the first row inside below it.
    """
    left = tf.minimum(start[:, 0], end[:, 0])
    right = tf.maximum(start[:, 0], end[:, 0])
    first = tf.maximum(tf.math.ceil((left - 2.0) / SUBPIXELS), 0.0)
    last = tf.minimum(tf.floor((right - 3.0) / SUBPIXELS), float(columns - 1))
    number = tf.cast(tf.maximum(last - first + 1.0, 0.0), tf.int32)
    edge = tf.repeat(tf.range(tf.shape(start)[0]), number)
    nth = tf.range(tf.shape(edge)[0]) - tf.gather(tf.cumsum(number, exclusive=True), edge)
    column = tf.gather(first, edge) + tf.cast(nth, tf.float64)
    lower = _lower_height(tf.gather(start, edge), tf.gather(end, edge), SUBPIXELS * column + 2.0)
    row = tf.math.ceil((lower + 0.5) / SUBPIXELS - 0.5)
    return edge, tf.cast(column, tf.int32), tf.cast(row, tf.int32)


def _lower_height(start, end, x):
    """The lesser y of the outline's two lattice points at x and x + 1, both within the edge; [C] float64 all.

    pycocotools walks an edge along its longer axis, from the end where that coordinate is least, and rounds the other.
    """
    delta = end - start
    flat = tf.abs(delta[:, 0]) >= tf.abs(delta[:, 1])
    swap = tf.where(flat, delta[:, 0] < 0.0, delta[:, 1] < 0.0)[:, None]
    start, end = tf.where(swap, end, start), tf.where(swap, start, end)
    x0, y0 = start[:, 0], start[:, 1]
    dx, dy = end[:, 0] - x0, end[:, 1] - y0
    slope = tf.math.divide_no_nan(dy, dx)
    flat_y = tf.minimum(tf.floor(y0 + slope * (x - x0) + 0.5), tf.floor(y0 + slope * (x + 1.0 - x0) + 0.5))
    # Steep: the first step whose x rounds to the far side is next to the one that exact arithmetic gives, and the point
    # before it is the lower one. pycocotools' own sum settles ties, which are common between whole numbers.
    guess = tf.math.ceil((x + 0.5 - x0) * tf.math.divide_no_nan(dy, dx))
    slant = tf.math.divide_no_nan(dx, dy)
    short_of = [tf.equal(tf.floor(x0 + slant * t + 0.5) > x, dx < 0.0) for t in (guess - 1.0, guess)]
    steep_y = y0 + guess - 2.0 + sum(tf.cast(is_short, tf.float64) for is_short in short_of)
    return tf.where(flat, flat_y, steep_y)


def _draw_runs(segmentations, grids, height, width, rows, columns):
    """[N, rows, columns] bool. A run's end toggles its own column; what came before sets each column's beginning."""
    height = tf.cast(height, tf.int64)
    count = tf.shape(segmentations.run_counts)[0]
    instance = tf.repeat(tf.range(count), segmentations.run_counts)
    # All instances' pixels in one ascending line of numbers, so that a single sorted search serves them all.
    area = height * tf.cast(width, tf.int64)
    run_starts = tf.cumsum(segmentations.run_counts, exclusive=True)
    sums = tf.concat([[tf.constant(0, tf.int64)], tf.cumsum(tf.cast(segmentations.runs, tf.int64))], axis=0)
    ends = sums[1:] - tf.gather(tf.gather(sums, run_starts), instance)
    line = ends + tf.cast(instance, tf.int64) * (area + 1)

    pixel_column = _cell_pixels(grids.origin[:, 0], grids.step[:, 0], columns)
    pixel_row = _cell_pixels(grids.origin[:, 1], grids.step[:, 1], rows)
    top = tf.clip_by_value(tf.cast(pixel_row[:, 0], tf.int64), 0, height - 1)[:, None]
    across = tf.clip_by_value(tf.cast(pixel_column, tf.int64), 0, tf.cast(width, tf.int64) - 1)
    offset = tf.range(tf.cast(count, tf.int64))[:, None] * (area + 1)
    before = tf.searchsorted(line, tf.reshape(across * height + top + offset, [-1]), side="right")
    begun = (tf.reshape(before, [count, columns]) - run_starts[:, None]) % 2  # [N, columns]

    # Along x this is the pixel's own cell: the step isn't less than a pixel, so no second centre lies in it.
    column = _first_cell_from(ends // height, grids.origin[:, 0], grids.step[:, 0], instance)
    row = _first_cell_from(ends % height, grids.origin[:, 1], grids.step[:, 1], instance)
    here = tf.cast(ends // height, tf.float32)
    exact = (column >= 0) & (column < columns)
    nearest = tf.gather_nd(pixel_column, tf.stack([instance, tf.clip_by_value(column, 0, columns - 1)], axis=1))
    below_top = ends % height > tf.gather(top[:, 0], instance)
    kept = tf.where(exact & (nearest == here) & below_top)[:, 0]
    drawn = _fill(*(tf.gather(values, kept) for values in (instance, column, row)), count, rows, columns, begun)
    return (drawn > 0) & _inside_image(grids.origin, grids.step, height, width, rows, columns)


def _grid_pixels(grids, size):
    """The image's columns and rows that the cells of instance grids lie in, both [N, size + 2] int32."""
    return [tf.cast(_cell_pixels(grids.origin[:, axis], grids.step[:, axis], size + 2), tf.int32) for axis in (0, 1)]


def _cell_pixels(origin, step, cells):
    """[N, cells] float32: the pixel in which each cell's centre lies, along one axis."""
    return tf.floor(_centres(origin, step, cells))


def _centres(origin, step, cells):
    return origin[:, None] + (tf.range(cells, dtype=tf.float32) + 0.5)[None, :] * step[:, None]


def _first_cell_from(pixel, origin, step, instance):
    """The first cell whose centre isn't before `pixel` [U] along one axis."""
    pixel, origin, step = tf.cast(pixel, tf.float32), tf.gather(origin, instance), tf.gather(step, instance)
    cell = tf.math.ceil((pixel - origin) / step - 0.5)
    # Rounding may put a centre that lies on a pixel's edge on its other side; as `_cell_pixels` has it is what counts.
    cell -= tf.cast(tf.floor(origin + (cell - 0.5) * step) >= pixel, tf.float32)
    cell += tf.cast(tf.floor(origin + (cell + 0.5) * step) < pixel, tf.float32)
    return tf.cast(cell, tf.int32)


def _fill(instance, column, row, count, rows, columns, begun=None):
    """Toggles -> [count, rows, columns] int32 of 0 and 1.

    Args:
        instance, column, row: [C] int32, one toggle each; those below the grid have no effect, those above count as
            row 0.
        begun: [count, columns] int32, 1 where a column begins inside; None for nowhere.
    """
    kept = tf.where(row < rows)[:, 0]
    cells = tf.gather(tf.stack([instance, tf.maximum(row, 0), column], axis=1), kept)
    toggles = tf.scatter_nd(cells, tf.ones_like(kept, tf.int32), [count, rows, columns])
    filled = tf.cumsum(toggles, axis=1)
    if begun is not None:
        filled += begun[:, None, :]
    return tf.bitwise.bitwise_and(filled, 1)


def _inside_image(origin, step, height, width, rows, columns):
    """[N, rows, columns] bool: the cell's centre lies in the image."""
    x = _centres(origin[:, 0], step[:, 0], columns)
    y = _centres(origin[:, 1], step[:, 1], rows)
    inside_x = (x >= 0.0) & (x < tf.cast(width, tf.float32))
    inside_y = (y >= 0.0) & (y < tf.cast(height, tf.float32))
    return inside_x[:, None, :] & inside_y[:, :, None]
