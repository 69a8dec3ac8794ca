"""Made-up samples whose image tells where each of its pixels comes from, and what must become of their objects.

The image's channels are the x and the y of the pixel's middle and a constant. Interpolation keeps such ramps, so an
augmented image itself shows the map it went through, and full-size masks can be looked up through it.
"""

import itertools

import numpy as np
import tensorflow as tf

from mrcnn_tf.data.affine import Sample
from mrcnn_tf.data.rasterize import Segmentations, crop_masks

CROP = 112
EDGE = 0.01  # pixels; a place so near to the next pixel may be rounded to it


def scene(seed, height=90, width=120, count=4, mark=255.0, side=CROP, first_class=1):
    """(Sample, full masks [N, height, width] bool); the n-th object is of class `first_class` + n, so that it can be
    found again. Ellipses and bars of 20 to 70 pixels, some cut off by the image's edge; 3 keypoints each, and the class
    as a field of their own. The labels
    beside them are stuff 1 to 5 in tiles of few pixels, some of which are ignored."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    image = np.stack([x, y, np.full_like(x, mark)], axis=-1).astype(np.float32)
    full = np.zeros((count, height, width), bool)
    for mask in full:
        while mask.sum() < 200:
            angle, (long, short) = rng.uniform(0, np.pi), (rng.uniform(15, 35), rng.uniform(10, 15))
            dx, dy = x - rng.uniform(5, width - 5), y - rng.uniform(5, height - 5)
            along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
            if rng.random() < 0.5:
                mask[:] = (along / long) ** 2 + (across / short) ** 2 < 1
            else:
                mask[:] = (np.abs(along) < long) & (np.abs(across) < short)
    keypoints = np.zeros((count, 3, 3), np.float32)
    keypoints[..., 0], keypoints[..., 1] = rng.uniform(0, width, (count, 3)), rng.uniform(0, height, (count, 3))
    keypoints[..., 2] = rng.integers(0, 3, (count, 3))
    keypoints *= keypoints[..., 2:] > 0
    boxes = np.array([bounds(mask) for mask in full], np.float32).reshape(-1, 4)
    masks = crops(full, boxes, side) if side and count else np.zeros((count, side, side), np.uint8)
    classes = first_class + np.arange(count, dtype=np.int32)
    areas = full.sum((1, 2)).astype(np.float32)
    tiles = (np.arange(height)[:, None] // 3 * 5 + np.arange(width) // 4 * 7 + rng.integers(7)) % 7
    semantic = np.where(full.any(0), 0, np.where(tiles == 6, 255, tiles)).astype(np.uint8)
    fields = classes[:, None].astype(np.float32), np.tile(np.eye(2, dtype=np.float32), (count, 1, 1))
    parts = (image, boxes, classes, np.zeros(count, bool), areas, masks, keypoints, *fields, semantic)
    return Sample(*map(tf.constant, parts)), full


def crops(full, boxes, side):
    """The mask crops that the data pipeline makes of full masks given as run lengths."""
    runs = []
    for mask in full:
        flat = np.concatenate([[0], mask.T.ravel().astype(int)])
        changes = np.flatnonzero(np.diff(flat))
        runs.append(np.diff(np.concatenate([[0], changes, [flat.size - 1]])))
    shapes = Segmentations(
        points=tf.zeros([0, 2]),
        ring_sizes=tf.zeros([0], tf.int32),
        ring_instances=tf.zeros([0], tf.int32),
        runs=tf.constant(np.concatenate(runs), tf.int32),
        run_counts=tf.constant([len(one) for one in runs], tf.int32),
    )
    return crop_masks(shapes, tf.constant(boxes), *full.shape[1:], side).numpy()


def bounds(mask):
    """The box around the pixels of a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def map_of(image, mark=255.0, own=None):
    """[2, 3] float64: where pixels of an augmented scene come from, source = map @ (x, y, 1), fitted to its ramps.

    Only pixels in the midst of others count: at edges the interpolation has to make things up. `own` [h, w] bool: only
    these pixels.
    """
    valid = np.abs(image[..., 2] - mark) < 1e-2
    valid &= True if own is None else own
    inner = valid.copy()
    for axis in (0, 1):
        for step in (1, 2, -1, -2):
            inner &= np.roll(valid, step, axis)
    ends = np.zeros_like(inner)
    ends[6:-6, 6:-6] = True
    row, column = np.nonzero(inner & ends)
    places = np.stack([column + 0.5, row + 0.5, np.ones(row.size)], axis=1)
    solution = np.linalg.lstsq(places, image[row, column, :2].astype(np.float64), rcond=None)[0]
    return solution.T


def looked_up(full, back, shape):
    """Full masks [N, H, W] as seen in an image of `shape` (h, w) that came about by a map, see `map_of`: [N, 4 h, 4 w],
    4 x 4 samples of each pixel."""
    x, y = np.meshgrid((np.arange(4 * shape[1]) + 0.5) / 4, (np.arange(4 * shape[0]) + 0.5) / 4)
    source = back @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    column, row = np.floor(source).astype(int).reshape(2, *x.shape)
    inside = (column >= 0) & (column < full.shape[2]) & (row >= 0) & (row < full.shape[1])
    return full[:, row.clip(0, full.shape[1] - 1), column.clip(0, full.shape[2] - 1)] & inside


def in_pixels(samples):
    """[h, w] bool: the pixels of which at least half of the samples [4 h, 4 w] are set."""
    return samples.reshape(samples.shape[0] // 4, 4, -1, 4).mean((1, 3)) >= 0.5


def check_mask(crop, box, samples, least_iou=0.97):
    """Asserts that a crop [S, S] in its box is the mask whose samples [4 h, 4 w] are given."""
    drawn = pasted(crop, 4 * np.asarray(box), samples.shape)
    assert (drawn & samples).sum() / (drawn | samples).sum() >= least_iou


def pasted(crop, box, shape):
    """A crop [S, S] uint8 in its box as a mask [h, w] bool: each pixel's middle, between the middles of cells."""
    side = crop.shape[0]
    edged = np.pad(crop.astype(np.float64), 1)
    axes = []
    for low, high, length in ((box[1], box[3], shape[0]), (box[0], box[2], shape[1])):
        place = (np.arange(length) + 0.5 - low) / (high - low) * side + 0.5
        inside = (place > 0) & (place < side + 1)
        place = place.clip(0, side + 1 - 1e-6)
        below = place.astype(int)
        weights = np.zeros((length, side + 2))
        weights[np.arange(length), below] = 1 - (place - below)
        weights[np.arange(length), below + 1] = place - below
        axes.append(weights * inside[:, None])
    return axes[0] @ edged @ axes[1].T > 127.5


def check_labels(semantic, source, back, own=True):
    """Asserts that labels [h, w] are those of the source [H, W] at the places where the map `back` puts them, to the
    nearest pixel, and 255 outside; only places on a line between two pixels may be either's. `own` [h, w] bool: only
    these pixels."""
    x, y = np.meshgrid(np.arange(semantic.shape[1]) + 0.5, np.arange(semantic.shape[0]) + 0.5)
    places = (back @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])).reshape(2, *x.shape)
    right = np.zeros(semantic.shape, bool)
    for shift in itertools.product((-EDGE, EDGE), repeat=2):
        column, row = np.floor(places + np.reshape(shift, (2, 1, 1))).astype(int)
        inside = (column >= 0) & (column < source.shape[1]) & (row >= 0) & (row < source.shape[0])
        expected = source[row.clip(0, source.shape[0] - 1), column.clip(0, source.shape[1] - 1)]
        right |= semantic == np.where(inside, expected, 255)
    assert (right | ~np.broadcast_to(own, right.shape)).all()


def check_objects(result, sample, full, back):
    """Asserts that an augmented sample's objects are where the map `back` of its image puts the source's full masks,
    and its labels, too.

    A box may be off by half a cell of its crop and one pixel: of the source, where that is enlarged. Masks must agree
    where at least 20 pixels of the source are to be seen in both directions.
    """
    shape = tuple(result.image.shape[:2])
    slack = max(1.0, np.linalg.norm(np.linalg.inv(back[:, :2]), axis=1).max())
    expected = looked_up(full, back, shape)
    classes, ids = result.classes.numpy(), sample.classes.numpy()
    assert np.isin(classes, ids).all() and len(set(classes)) == len(classes)
    for number, samples in enumerate(expected):
        mask = in_pixels(samples)
        place = np.flatnonzero(classes == ids[number])
        if not place.size:
            assert not mask.any() or (np.ptp(np.reshape(bounds(mask), (2, 2)), axis=0) <= 1 + slack).any()
            continue
        box, crop = result.boxes.numpy()[place[0]], result.masks.numpy()[place[0]]
        low, high = np.split(box, 2)
        assert (low >= -1e-3).all() and (high <= np.array(shape[::-1]) + 1e-3).all() and (high - low >= 1).all()
        if not mask.any():
            assert (high - low).min() <= 1 + slack
            continue
        check_box(box, mask, slack + 0.5 * (high - low).max() / crop.shape[0])
        if min(np.ptp(np.reshape(bounds(mask), (2, 2)), axis=0)) >= 20 * slack:
            check_mask(crop, box, samples)
            np.testing.assert_allclose(result.areas.numpy()[place[0]], samples.mean() * mask.size, rtol=0.03)
    check_keypoints(result, sample, back)
    check_fields(result, back)
    check_labels(result.semantic.numpy(), sample.semantic.numpy(), back)


def check_fields(result, back, own=slice(None), tolerance=1e-3):
    """Asserts that objects, `own` of them, have their fields and went by the inverse of `back`'s linear part."""
    np.testing.assert_array_equal(result.field_values[:, 0], result.classes)
    transforms = result.transforms.numpy()[own]
    expected = np.broadcast_to(np.linalg.inv(back[:, :2]), transforms.shape)
    np.testing.assert_allclose(transforms, expected, rtol=0, atol=tolerance)


def check_box(box, mask, tolerance):
    """Asserts that a box is the mask's, each side up to `tolerance` pixels.

    Where an outline meets the image's edge at a flat angle, a shift across it moves the box's end by a multiple.
    """
    at_edge = mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
    np.testing.assert_allclose(box, bounds(mask), rtol=0, atol=4 * tolerance if at_edge else tolerance)


def check_keypoints(result, sample, back, tolerance=1e-3, hidden=None):
    """Asserts that keypoints went the image's way, that those outside are (0, 0, 0), and that those in `hidden` [h, w]
    bool, but not at its edge, are no longer visible."""
    height, width = result.image.shape[:2]
    forth = np.linalg.inv(np.vstack([back, [0, 0, 1]]))[:2]
    ids = sample.classes.numpy()
    for number, points in zip(result.classes.numpy(), result.keypoints.numpy(), strict=True):
        source = sample.keypoints.numpy()[np.flatnonzero(ids == number)[0]]
        for (x, y, v), point in zip(source, points, strict=True):
            place = forth @ (x, y, 1)
            margin = min(*place, width - place[0], height - place[1])
            if v == 0 or margin < -tolerance:
                assert not point.any()
            elif margin > tolerance:
                np.testing.assert_allclose(point[:2], place, rtol=0, atol=tolerance)
                column, row = place.astype(int)
                around = None if hidden is None else hidden[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
                if around is None or not around.any():
                    assert point[2] == v
                elif around.all():
                    assert point[2] == 1
