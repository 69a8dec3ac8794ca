"""Masks as crops, from polygons, run lengths and PNGs: against pycocotools and against one another."""

import io
import json

import numpy as np
import pytest
import tensorflow as tf
from made_up import NUCLEI, runs_of
from PIL import Image
from pycocotools import mask as coco_mask

from mrcnn_tf.data.rasterize import Grids, Segmentations, crop_masks, crop_png_masks, rasterize
from mrcnn_tf.ops.masks import mask_targets


def full_grids(count):
    """Grids that are the pixels of the image."""
    return Grids(tf.zeros([count, 2]), tf.ones([count, 2]))


def polygon_segmentations(instances):
    """Segmentations of instances given as lists of [n, 2] rings."""
    rings = [ring for instance in instances for ring in instance]
    return Segmentations(
        points=tf.constant(np.concatenate(rings), tf.float32),
        ring_sizes=tf.constant([len(ring) for ring in rings]),
        ring_instances=tf.repeat(tf.range(len(instances)), [len(instance) for instance in instances]),
        runs=tf.zeros([0], tf.int32),
        run_counts=tf.zeros([len(instances)], tf.int32),
    )


def run_segmentations(masks):
    runs = [runs_of(mask) for mask in masks]
    return Segmentations(
        points=tf.zeros([0, 2]),
        ring_sizes=tf.zeros([0], tf.int32),
        ring_instances=tf.zeros([0], tf.int32),
        runs=tf.constant(np.concatenate(runs), tf.int32),
        run_counts=tf.constant([len(one) for one in runs], tf.int32),
    )


def reference(instances, height, width):
    """pycocotools' masks [N, H, W] bool."""
    masks = [coco_mask.merge(coco_mask.frPyObjects([r.ravel().tolist() for r in i], height, width)) for i in instances]
    return np.stack([coco_mask.decode(mask) for mask in masks]).astype(bool)


def random_ring(rng, height, width, radius, decimals):
    angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 40))))
    reach = radius * rng.uniform(0.5, 1.2, (angles.size, 1))
    ring = rng.uniform(0, 1, 2) * (width, height) + reach * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.clip(ring, 0, (width, height)).round(decimals)


def intersection_over_union(one, other):
    axes = tuple(range(1, one.ndim))
    union = (one | other).sum(axis=axes)
    return np.where(union > 0, (one & other).sum(axis=axes) / np.maximum(union, 1), 1.0)


def extents(instances):
    points = [np.concatenate(rings) for rings in instances]
    return np.array([[*p.min(axis=0), *p.max(axis=0)] for p in points], np.float32)


def test_a_square_by_hand():
    # Corners on whole pixels: columns 1 and 2, rows 2 to 4.
    square = np.array([[1, 2], [3, 2], [3, 5], [1, 5]])
    expected = np.zeros((6, 5), bool)
    expected[2:5, 1:3] = True
    np.testing.assert_array_equal(rasterize(polygon_segmentations([[square]]), full_grids(1), 6, 5, 6, 5)[0], expected)


@pytest.mark.parametrize("radius", [2, 5, 30, 120])
@pytest.mark.parametrize("decimals", [0, 1, 2, 7])
def test_polygons_are_pycocotools_pixels(radius, decimals):
    rng = np.random.default_rng(radius * 10 + decimals)
    height, width = 150, 170
    instances = [[random_ring(rng, height, width, radius, decimals)] for _ in range(25)]
    drawn = rasterize(polygon_segmentations(instances), full_grids(25), height, width, height, width).numpy()
    overlap = intersection_over_union(drawn, reference(instances, height, width))
    # Vertices of more digits than float32 holds may round to another fifth of a pixel.
    assert overlap.mean() > 0.999 if decimals > 2 else overlap.min() == 1.0


def test_polygons_of_one_instance_are_united_and_each_keeps_its_holes():
    rng = np.random.default_rng(3)
    star = np.array([[20, 2], [32, 38], [2, 14], [38, 14], [8, 38]])  # crosses itself: even-odd leaves a hole
    instances = [[random_ring(rng, 50, 60, 15, 1) for _ in range(number)] for number in (1, 3, 2)] + [[star, star + 9]]
    drawn = rasterize(polygon_segmentations(instances), full_grids(4), 50, 60, 50, 60).numpy()
    np.testing.assert_array_equal(drawn, reference(instances, 50, 60))
    assert not drawn[3, 20, 20]  # the hole of the first star, outside the second


def test_polygons_that_leave_the_image():
    rng = np.random.default_rng(5)
    instances = [[random_ring(rng, 200, 200, 50, 2) - 70.0] for _ in range(40)]
    drawn = rasterize(polygon_segmentations(instances), full_grids(40), 60, 60, 60, 60).numpy()
    assert intersection_over_union(drawn, reference(instances, 60, 60)).mean() > 0.995


def test_runs_are_exact():
    rng = np.random.default_rng(0)
    masks = [rng.random((31, 23)) < share for share in (0.0, 0.1, 0.5, 0.9, 1.0)]
    masks.append(np.pad(np.ones((31, 1), bool), ((0, 0), (4, 18))))  # a run that ends at the foot of its column
    drawn = rasterize(run_segmentations(masks), full_grids(6), 31, 23, 31, 23).numpy()
    np.testing.assert_array_equal(drawn, np.stack(masks))


def test_runs_and_polygons_side_by_side():
    rng = np.random.default_rng(8)
    ring = random_ring(rng, 40, 50, 15, 1)
    mask = reference([[ring]], 40, 50)[0]
    runs = runs_of(mask)
    shapes = Segmentations(
        points=tf.constant(ring, tf.float32),
        ring_sizes=tf.constant([len(ring)]),
        ring_instances=tf.constant([1]),
        runs=tf.constant(np.r_[runs, runs], tf.int32),
        run_counts=tf.constant([len(runs), 0, len(runs)]),
    )
    drawn = rasterize(shapes, full_grids(3), 40, 50, 40, 50).numpy()
    np.testing.assert_array_equal(drawn, np.stack([mask] * 3))
    box = extents([[ring]] * 3)
    crops = crop_masks(shapes, box, 40, 50, 28).numpy()
    np.testing.assert_array_equal(crops[0], crops[1])
    np.testing.assert_array_equal(crops[0], crops[2])


def test_an_instance_cut_off_by_the_image_doesnt_fade_at_its_edge():
    shapes = run_segmentations([np.ones((9, 7), bool)])
    crops = crop_masks(shapes, np.array([[0, 0, 7, 9]], np.float32), 9, 7, 28).numpy()
    assert crops.min() == 255


def test_no_instances():
    shapes = Segmentations(tf.zeros([0, 2]), *(tf.zeros([0], tf.int32) for _ in range(4)))
    assert crop_masks(shapes, tf.zeros([0, 4]), 9, 7, 28).shape == (0, 28, 28)


def area_target(mask, roi, size):
    """[size, size]: the share of each cell of the RoI that a mask of whole pixels covers."""

    def weights(low, high, extent):
        edges = np.linspace(low, high, size + 1)[:, None]
        pixels = np.arange(extent)
        overlap = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
        return np.maximum(overlap, 0) / (edges[1] - edges[0])

    height, width = mask.shape
    return weights(roi[1], roi[3], height) @ mask @ weights(roi[0], roi[2], width).T


def aligned_target(mask, roi, size):
    """[size, size]: RoIAlign (aligned, adaptive sampling) of the full-resolution mask, as detectron2's bit masks."""

    def weights(low, high, extent):
        samples = max(int(np.ceil((high - low) / size)), 1)
        places = low - 0.5 + (np.arange(size * samples) + 0.5) * (high - low) / (size * samples)
        off = (places < -1) | (places > extent)
        places = np.clip(places, 0, extent - 1)[:, None]
        linear = np.maximum(1 - np.abs(places - np.arange(extent)), 0) * ~off[:, None]
        return linear.reshape(size, samples, extent).mean(axis=1)

    height, width = mask.shape
    return weights(roi[1], roi[3], height) @ mask @ weights(roi[0], roi[2], width).T


def agreement(shapes, boxes, masks, rng):
    """Mean IoU of 28 x 28 targets from the crops with both readings of the full-resolution masks, at random RoIs."""
    side = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    rois = (boxes + rng.uniform(-0.15, 0.15, boxes.shape) * side).astype(np.float32)
    crops = tf.cast(crop_masks(shapes, boxes, *masks[0].shape, 112), tf.float32) / 255.0
    targets = mask_targets(crops, boxes, rois, 28).numpy() >= 0.5
    found = []
    for read in (area_target, aligned_target):
        wanted = np.stack([read(m, roi.astype(float), 28) >= 0.5 for m, roi in zip(masks, rois, strict=True)])
        found.append(intersection_over_union(targets, wanted).mean())
    return found


@pytest.mark.parametrize("split", ["train", "val"])
def test_targets_agree_with_full_resolution_on_nuclei(split):
    records = json.loads((NUCLEI / f"{split}.json").read_text())["annotations"]
    masks = [coco_mask.decode(record["segmentation"]).astype(bool) for record in records]
    boxes = np.array([record["bbox"] for record in records], np.float32)
    boxes[:, 2:] += boxes[:, :2]
    assert min(agreement(run_segmentations(masks), boxes, masks, np.random.default_rng(0))) >= 0.98


def test_targets_agree_with_full_resolution_on_random_polygons():
    rng = np.random.default_rng(1)
    instances = [[random_ring(rng, 400, 440, rng.uniform(6, 150), 2)] for _ in range(80)]
    instances = [rings for rings in instances if (np.ptp(rings[0], axis=0) > 4).all()]
    masks = reference(instances, 400, 440)
    assert min(agreement(polygon_segmentations(instances), extents(instances), masks, rng)) >= 0.98


def png(mask, value=1):
    data = io.BytesIO()
    Image.fromarray((mask * value).astype(np.uint8)).save(data, "PNG")
    return data.getvalue()


def run_columns(masks):
    runs = [runs_of(mask) for mask in masks]
    empty = tf.zeros([0], tf.int32)
    counts = tf.constant([one.size for one in runs])
    return tf.zeros([0, 2]), empty, empty, tf.constant(np.concatenate(runs), tf.int32), counts


def random_masks(rng, height, width, count):
    masks = np.zeros((count, height, width), bool)
    for mask in masks:
        for _ in range(3):
            top, left = rng.integers(0, height - 1), rng.integers(0, width - 1)
            mask[top : top + rng.integers(1, height), left : left + rng.integers(1, width)] ^= True
        mask[rng.integers(0, height, 40), rng.integers(0, width, 40)] ^= True
    return masks


def random_boxes(rng, height, width, count, whole):
    sides = np.sort(rng.uniform(0, 1, (count, 2, 2)) * (width, height), axis=1)
    if whole:
        sides = np.stack([np.floor(sides[:, 0]), np.floor(sides[:, 1]) + 1], axis=1)
    boxes = sides.reshape(count, 4).astype(np.float32)
    boxes[0] = [0, 0, width, height]  # a crop that the image's edge bounds on all sides
    return boxes


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("size", [14, 28, 112])
def test_a_png_gives_the_bits_of_the_same_runs(size, whole):
    rng = np.random.default_rng(size + whole)

    @tf.function(reduce_retracing=True)
    def both(pngs, shapes, boxes, height, width):
        return crop_png_masks(pngs, boxes, size), crop_masks(Segmentations(*shapes), boxes, height, width, size)

    for _ in range(6):
        height, width = rng.integers(20, 400, 2).tolist()
        masks = random_masks(rng, height, width, 9)
        boxes = random_boxes(rng, height, width, 9, whole)
        pngs, sides = tf.constant([png(mask) for mask in masks]), (tf.constant(height), tf.constant(width))
        crops, expected = both(pngs, run_columns(masks), tf.constant(boxes), *sides)
        np.testing.assert_array_equal(crops, expected)
        assert 0 < crops.numpy().mean() < 255


def test_whatever_isnt_zero_is_inside_and_palettes_of_one_bit_are_read():
    mask = np.zeros((20, 30), bool)
    mask[4:9, 5:17] = True
    bits = io.BytesIO()
    Image.fromarray(mask).save(bits, "PNG")
    boxes = tf.constant([[7.0, 5.0, 15.0, 8.0]] * 3)
    crops = crop_png_masks(tf.constant([png(mask), png(mask, 255), bits.getvalue()]), boxes, 28).numpy()
    np.testing.assert_array_equal(crops, np.full((3, 28, 28), 255))


def test_no_masks_at_all():
    assert crop_png_masks(tf.zeros([0], tf.string), tf.zeros([0, 4]), 28).shape == (0, 28, 28)
