"""Outputs of exported models become detections."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from served_stand_in import LABELS

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.serving.export_labels import read_labels
from mrcnn_tf.serving.outputs import make_detections

SIZE = (30, 40)


def outputs(**changes):
    """Two detections and a row of padding in an image of 30 x 40 pixels."""
    masks = np.zeros((3, 8, 8), np.float32)
    masks[:2, :, :4] = 0.9
    found = {
        "boxes": np.array([[4, 6, 20, 26], [10.5, 2.25, 39, 29], [0, 0, 0, 0]], np.float32),
        "scores": np.array([0.75, 0.5, 0], np.float32),
        "classes": np.array([2, 1, 0], np.int32),
        "num_detections": np.int32(2),
        "masks": masks,
    }
    return found | changes


def encoded(masks):
    """COCO's own strings of [D, H, W] bool."""
    return [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"] for mask in masks]


def test_padding_is_cut_off_and_classes_get_their_names():
    found = make_detections(outputs(), read_labels(LABELS), SIZE)
    assert (len(found), found.category_names, found.image_size) == (2, ["tall", "wide"], SIZE)
    np.testing.assert_array_equal(found.category_ids, [4, 17])
    np.testing.assert_array_equal(found.boxes, outputs()["boxes"][:2])
    assert (found.mask_rule, found.keypoint_offset) == ("detectron2", 0.5)
    # The left half of the first box, whose edges are whole pixels.
    expected = np.zeros(SIZE, bool)
    expected[6:26, 4:12] = True
    assert (found.masks[0] ^ expected).sum() <= 20, "beyond the column where the mask falls to one half"


def test_nothing_found_and_no_masks():
    without = outputs(num_detections=np.int32(0))
    del without["masks"]
    found = make_detections(without, read_labels(LABELS), SIZE)
    assert len(found) == 0 and found.masks is None and found.keypoints is None


def test_keypoints_are_told_apart_from_padding():
    keypoints = np.arange(18, dtype=np.float32).reshape(3, 2, 3)
    found = make_detections(outputs(keypoints=keypoints), read_labels(LABELS), SIZE)
    np.testing.assert_array_equal(found.keypoints, keypoints[:2])
    tall, wide = found.to_coco(3)
    assert tall["keypoints"] == [-0.5, 0.5, 2, 2.5, 3.5, 5] and "keypoints" not in wide


@pytest.mark.parametrize("missing", ["boxes", "scores", "classes", "num_detections"])
def test_a_missing_output_is_named(missing):
    given = outputs()
    del given[missing]
    with pytest.raises(UserError, match=f"lack {missing}"):
        make_detections(given, read_labels(LABELS), SIZE)


def test_labels_of_another_model():
    with pytest.raises(UserError, match=r"1\.\.2.*labels.json"):
        make_detections(outputs(classes=np.array([3, 1, 0])), read_labels(LABELS), SIZE)


def test_run_lengths_are_the_masks_that_they_came_from():
    masks = np.random.default_rng(0).random((2, *SIZE)) < 0.3
    masks[0, 25:] = True  # runs that go on from the bottom of a column to the top of the next
    strings = np.array([*encoded(masks), b""], object)
    given = outputs(masks_rle_bytes=strings)
    del given["masks"]
    found = make_detections(given, read_labels(LABELS), SIZE)
    np.testing.assert_array_equal(found.masks, masks)
    for result, mask in zip(found.to_coco(1), masks, strict=True):
        np.testing.assert_array_equal(coco_mask.decode(result["segmentation"]), mask)
    json.dumps(found.to_coco(1))


def test_a_picture_of_run_lengths_shows_the_masks():
    size, boxes = (300, 400), outputs()["boxes"] * 10  # large enough for names not to cover the masks
    facts, image = read_labels(LABELS), np.full((300, 400, 3), 90, np.uint8)
    of_probabilities = make_detections(outputs(boxes=boxes), facts, size)
    given = outputs(boxes=boxes, masks_rle_bytes=np.array([*encoded(of_probabilities.masks), b""], object))
    del given["masks"]
    expected = of_probabilities.draw(image, min_side=0)
    without = make_detections(outputs(boxes=boxes, masks=np.zeros((3, 8, 8))), facts, size).draw(image, min_side=0)
    shown = make_detections(given, facts, size).draw(image, min_side=0)
    assert (shown != expected).any(-1).mean() < 0.02 < 0.2 < (without != expected).any(-1).mean()


@pytest.mark.parametrize("string", [b"", b"1", b"zzzz", b"\xff\x00"])
def test_run_lengths_of_another_image_are_refused(string):
    good = encoded(np.zeros((1, *SIZE), bool))[0]
    given = outputs(masks_rle_bytes=np.array([good, string, b""], object))
    with pytest.raises(UserError, match="run lengths"):
        make_detections(given, read_labels(LABELS), SIZE)
