"""The Detections object: ids, masks, COCO's result format."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from mrcnn_tf.common.categories import Category
from mrcnn_tf.results.detections import Detections

CATEGORIES = [Category(3, "cat"), Category(90, "tooth brush"), Category(7, "Fußgänger")]


def make(boxes, masks=None, classes=None, size=(12, 16), rule="detectron2"):
    count = len(boxes)
    classes = [1] * count if classes is None else classes
    scores = np.linspace(0.9, 0.5, count)
    return Detections(boxes, scores, classes, size, CATEGORIES, masks, rule)


def test_classes_become_the_ids_and_names_of_the_dataset():
    found = make([[0, 0, 4, 4]] * 3, classes=[2, 3, 1])
    assert found.category_ids.tolist() == [90, 7, 3]
    assert found.category_names == ["tooth brush", "Fußgänger", "cat"]


def test_masks_are_pasted_once_into_the_whole_image():
    found = make([[2, 1, 6, 4]], np.ones((1, 4, 4)))
    expected = np.zeros((1, 12, 16), bool)
    expected[0, 1:4, 2:6] = True
    np.testing.assert_array_equal(found.masks, expected)
    assert found.masks is found.masks


def test_coco_results_hold_ids_boxes_and_masks_of_the_original_image():
    found = make([[2, 1, 6, 4], [0.5, 2.25, 3, 9]], np.ones((2, 4, 4)), classes=[2, 1])
    results = json.loads(json.dumps(found.to_coco(np.int64(42))))
    assert [r["image_id"] for r in results] == [42, 42]
    assert [r["category_id"] for r in results] == [90, 3]
    assert [r["bbox"] for r in results] == [[2, 1, 4, 3], [0.5, 2.25, 2.5, 6.75]]
    assert [r["score"] for r in results] == pytest.approx([0.9, 0.5])
    assert results[0]["segmentation"]["size"] == [12, 16]
    for result, mask in zip(results, found.masks, strict=True):
        np.testing.assert_array_equal(coco_mask.decode(result["segmentation"]).astype(bool), mask)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["torchvision", "detectron2"]))
def test_encoded_masks_are_those_that_pycocotools_encodes(seed, rule):
    rng = np.random.default_rng(seed)
    low = rng.uniform(-8, 12, (5, 2))
    boxes = np.concatenate([low, low + rng.uniform(0, 24, (5, 2))], axis=1)
    probabilities = rng.random((5, 5, 5))
    probabilities[0] = 1  # over the whole image the runs of neighbouring columns join
    boxes[:2] = [-9, -9, 30, 30]  # the second one's runs join in some columns only
    boxes[2] = [-30, -30, -20, -20]
    found = make(boxes, probabilities, rule=rule)
    for result, mask in zip(found.to_coco(1), found.masks, strict=True):
        expected = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert result["segmentation"]["counts"] == expected["counts"].decode()


def test_no_detections():
    found = make(np.zeros((0, 4)), np.zeros((0, 28, 28)))
    assert len(found) == 0
    assert found.to_coco(1) == []
    assert found.masks.shape == (0, 12, 16)
    assert repr(found) == "<Detections: 0 in 12 x 16 pixels>"


def test_without_mask_head_there_are_only_boxes():
    found = make([[0, 0, 4, 4]])
    assert found.masks is None
    assert "segmentation" not in found.to_coco(1)[0]


def test_repr_names_the_best():
    assert repr(make([[0, 0, 4, 4]] * 2, classes=[1, 3])) == (
        "<Detections: 2 in 12 x 16 pixels: cat 0.90, Fußgänger 0.50>"
    )
    assert repr(make([[0, 0, 4, 4]] * 9)).endswith(", ...>")


@pytest.mark.parametrize("classes", [[0], [4]])
def test_a_class_without_category_is_refused(classes):
    with pytest.raises(ValueError, match=r"1\.\.3"):
        make([[0, 0, 4, 4]], classes=classes)


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="equally many"):
        make([[0, 0, 4, 4]], np.ones((2, 4, 4)))


ARROW, KITE, STONE = (
    Category(4, "arrow", ["tip", "tail"], [[1, 2]]),
    Category(9, "kite", ["top", "left", "right"]),
    Category(11, "stone"),
)


def with_keypoints(keypoints, classes, offset=0.0):
    count = len(classes)
    return Detections(
        np.tile([0, 0, 8, 8], (count, 1)), np.full(count, 0.5), classes, (12, 16), [ARROW, KITE, STONE],
        keypoints=keypoints, keypoint_offset=offset,
    )  # fmt: skip


def test_coco_results_hold_the_keypoints_of_the_class_as_the_dataset_counts():
    keypoints = np.arange(27).reshape(3, 3, 3) + 0.5
    found = with_keypoints(keypoints, [3, 1, 2], offset=0.5)
    stone, arrow, kite = json.loads(json.dumps(found.to_coco(1)))
    assert "keypoints" not in stone
    # The scores are no places: the offset is not theirs.
    assert arrow["keypoints"] == [9, 10, 11.5, 12, 13, 14.5]
    assert kite["keypoints"] == [18, 19, 20.5, 21, 22, 23.5, 24, 25, 26.5]
    np.testing.assert_array_equal(found.keypoints, keypoints)
    assert found.keypoints.dtype == np.float32 and found.keypoint_offset == 0.5
    assert [category.name for category in found.categories] == ["stone", "arrow", "kite"]


def test_without_keypoint_head_there_are_none():
    found = with_keypoints(None, [1, 2])
    assert found.keypoints is None
    assert all("keypoints" not in result for result in found.to_coco(1))


def test_no_detections_with_a_keypoint_head():
    found = with_keypoints(np.zeros((0, 3, 3)), [])
    assert found.keypoints.shape == (0, 3, 3) and found.to_coco(1) == []


@pytest.mark.parametrize(
    ("shape", "reason"),
    [((2, 3, 3), "equally many"), ((1, 2, 3), r"\[D, 3 or more, 3\]"), ((1, 3, 2), "3"), ((1, 9), "3")],
)
def test_keypoints_of_another_shape_are_refused(shape, reason):
    with pytest.raises(ValueError, match=reason):
        with_keypoints(np.zeros(shape), [2])


def test_draw_gives_a_picture():
    picture = make([[2, 2, 8, 8]], np.ones((1, 4, 4))).draw(np.zeros((12, 16, 3), np.uint8), min_side=0)
    assert picture.shape == (12, 16, 3) and picture.dtype == np.uint8 and picture.any()
