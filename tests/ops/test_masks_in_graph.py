import functools

import numpy as np
import pytest
import tensorflow as tf
from pycocotools import mask as coco_mask

from mrcnn_tf.common.categories import Category
from mrcnn_tf.ops import masks_in_graph
from mrcnn_tf.ops.masks import paste_masks
from mrcnn_tf.ops.masks_in_graph import rle_counts
from mrcnn_tf.ops.native.library import stock_operations
from mrcnn_tf.results.detections import Detections

RULES = ("torchvision", "detectron2")
FULL, EMPTY = np.ones([4, 4], np.float32), np.zeros([4, 4], np.float32)


@functools.cache
def traced(rule, side, block):
    """`rle_counts` as an export has it."""
    shapes = ([None, None, side, side], tf.float32), ([None, None, 4], tf.float32), ([None], tf.int32)
    signature = [tf.TensorSpec(*one) for one in (*shapes, ([None, 2], tf.int32))]
    with stock_operations():
        return tf.function(lambda *inputs: rle_counts(*inputs, rule=rule), input_signature=signature)


def encoded(masks, boxes, size, rule):
    """D strings of the graph for one image."""
    function = traced(rule, len(masks[0]), masks_in_graph.BLOCK_SAMPLES)
    strings = function(np.asarray([masks], np.float32), np.asarray([boxes], np.float32), [len(masks)], [size])
    return strings.numpy()[0].tolist()


def pasted(masks, boxes, size, rule):
    """D strings of pycocotools, of whole-image masks."""
    masks, boxes = np.asarray(masks, np.float32), np.asarray(boxes, np.float32)
    whole = paste_masks(masks, boxes, *size, rule)
    return [coco_mask.encode(np.asfortranarray(one, np.uint8))["counts"] for one in whole]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", [(61, 47), (1, 1), (1, 90), (90, 1), (333, 500)])
def test_random_masks_are_what_pycocotools_encodes(rule, size):
    generator = np.random.default_rng(size)
    height, width = size
    corners = generator.uniform(-0.2, 1.2, [12, 2, 2]) * [width, height]
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)
    boxes[::3] = np.round(boxes[::3] * 2) / 2  # edges and centres of pixels
    masks = generator.uniform(0, 1, [12, 7, 7]).astype(np.float32)
    masks[1::4] = np.round(masks[1::4] * 2) / 2  # samples at the threshold itself
    assert encoded(masks, boxes, size, rule) == pasted(masks, boxes, size, rule)


AWKWARD = [
    (FULL, [0, 0, 12, 8]),  # all pixels
    (FULL, [-50, -50, 80, 60]),
    (EMPTY, [0, 0, 12, 8]),
    (FULL, [3, 0, 7, 8]),  # whole columns: a run goes on from one to the next
    (FULL, [3, -20, 7, 30]),
    (FULL, [0, 2, 12, 8]),
    (FULL, [20, 20, 30, 30]),  # outside the image
    (FULL, [-30, 2, -20, 6]),
    (FULL, [4, 4, 4, 4]),  # without area
    (FULL, [5, 1, 5, 7]),
    (FULL, [4.5, 4.5, 4.501, 4.501]),
    (np.tri(4)[::-1], [-2, -2, 14, 10]),  # ends at one column's bottom, starts at the next one's top
    (1 - np.eye(4), [0, 0, 12, 8]),
    (np.full([4, 4], 0.5), [1, 1, 9, 5]),  # at the threshold
    (np.indices([4, 4]).sum(axis=0) % 2, [0, 0, 12, 8]),
]


@pytest.mark.parametrize("rule", RULES)
def test_awkward_masks_are_what_pycocotools_encodes(rule):
    masks, boxes = zip(*AWKWARD, strict=True)
    assert encoded(masks, boxes, (8, 12), rule) == pasted(masks, boxes, (8, 12), rule)


@pytest.mark.parametrize("rule", RULES)
def test_strings_are_those_of_detections(rule):
    generator = np.random.default_rng(3)
    size, boxes = (90, 130), [[-4, 60, 40, 99], [20.3, -7, 128.9, 95.2], [60, 30, 61, 80]]
    masks = generator.uniform(0, 1, [3, 28, 28]).astype(np.float32)
    found = Detections(boxes, [0.9, 0.8, 0.7], [1, 1, 1], size, [Category(1, "cat")], masks, rule)
    expected = [result["segmentation"]["counts"].encode() for result in found.to_coco(0)]
    assert encoded(masks, boxes, size, rule) == expected


def test_large_images_are_encoded_in_blocks(monkeypatch):
    mask = np.random.default_rng(4).uniform(0, 1, [5, 5])
    size, box = (300, 200), [2, -9, 195, 320]
    expected = pasted([mask, np.ones([5, 5])], [box, box], size, "torchvision")
    monkeypatch.setattr(masks_in_graph, "BLOCK_SAMPLES", 299)  # less than a column, so one at a time
    assert encoded([mask, np.ones([5, 5])], [box, box], size, "torchvision") == expected
    monkeypatch.setattr(masks_in_graph, "BLOCK_SAMPLES", 7 * 300 + 1)
    assert encoded([mask, np.ones([5, 5])], [box, box], size, "torchvision") == expected


def test_long_runs_take_more_groups_of_bits():
    size = (5000, 7000)
    boxes = [[10, 10, 20, 20], [0, 0, 7000, 4], [6990, 4990, 7000, 5000]]
    assert encoded([FULL] * 3, boxes, size, "detectron2") == pasted([FULL] * 3, boxes, size, "detectron2")


def test_batches_have_empty_strings_in_padding():
    sizes = np.array([[20, 30], [9, 50], [0, 0]], np.int32)
    boxes = np.tile(np.array([2, 1, 25, 8], np.float32), [3, 2, 1])
    masks = np.ones([3, 2, 4, 4], np.float32)
    found = rle_counts(masks, boxes, tf.constant([2, 1, 0]), sizes).numpy()
    first, second = (pasted([FULL], [boxes[0, 0]], size, "torchvision")[0] for size in sizes[:2].tolist())
    assert found.tolist() == [[first, first], [second, b""], [b"", b""]]
    assert first != second
    none = rle_counts(masks[:0], boxes[:0], tf.zeros([0], tf.int32), sizes[:0])
    assert none.shape == (0, 2) and none.dtype == tf.string


def test_an_unknown_rule_is_an_error():
    with pytest.raises(ValueError, match="matterport"):
        rle_counts(FULL[None, None], np.zeros([1, 1, 4], np.float32), np.array([1]), np.array([[4, 4]]), "matterport")
