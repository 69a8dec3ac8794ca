import dataclasses
import io
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from rich.console import Console

from mrcnn_tf import Detections, UserError
from mrcnn_tf.common.categories import Category
from mrcnn_tf.config.settings import DetectionConfig
from mrcnn_tf.results.detections import EncodedMaskDetections
from mrcnn_tf.serving.export_check import SAVED_MODEL_TOLERANCES, TFLITE_TOLERANCES, check_detections

CATEGORIES = [Category(3, "cat", ["ear"]), Category(7, "dog", ["nose"])]
LIMITS = DetectionConfig(score_threshold=0.1, max_per_image=4)
BOXES = [[10, 10, 30, 40], [12, 10, 32, 40], [50, 50, 90, 80]]


def detections(boxes=BOXES, scores=(0.9, 0.8, 0.5), classes=(1, 2, 1), size=(100, 120), masks=None, keypoints=None):
    return Detections(boxes, scores, classes, size, CATEGORIES, masks, keypoints=keypoints)


def moved(pixels, row=0):
    boxes = np.array(BOXES, np.float32)
    boxes[row, 2] += pixels
    return boxes


def check(reference, exported, tolerances=SAVED_MODEL_TOLERANCES, limits=LIMITS):
    return check_detections([reference], [exported], tolerances, limits)


def test_equal_detections_differ_by_nothing():
    masks, keypoints = np.full([3, 4, 4], 0.5), np.ones([3, 1, 3])
    one = detections(masks=masks, keypoints=keypoints)
    found = check_detections([one, one], [one, one], SAVED_MODEL_TOLERANCES, LIMITS)
    assert (found.images, found.reference, found.exported, found.matched) == (2, 6, 6, 6)
    assert (found.box, found.score, found.mask, found.keypoint, found.iou) == (0, 0, 0, 0, 1)
    assert found.near_ties == found.only_reference == found.only_exported == 0


def test_largest_differences_are_found_in_any_image():
    masks, keypoints = np.full([3, 4, 4], 0.5), np.ones([3, 1, 3])
    other_masks, other_keypoints = masks.copy(), keypoints.copy()
    other_masks[2, 3, 1] += 0.00390625
    other_keypoints[1, 0] += [0, -0.25, 100]  # the keypoint's score isn't a place
    reference = detections(masks=masks, keypoints=keypoints)
    exported = detections(moved(0.125), (0.9, 0.75, 0.5), masks=other_masks, keypoints=other_keypoints)
    loose = dataclasses.replace(SAVED_MODEL_TOLERANCES, box=1, score=1, mask=1, keypoint=1)
    found = check_detections([reference, reference], [reference, exported], loose, LIMITS)
    assert (found.box, found.mask, found.keypoint) == (0.125, 0.00390625, 0.25)
    assert found.score == pytest.approx(0.05)
    assert found.iou == pytest.approx(20 / 20.125)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"boxes": moved(0.01)}, r"box differs .* by 0\.01 pixels in check image 0, where 0\.001"),
        ({"boxes": moved(np.nan)}, "agree on 66.67%"),
        ({"scores": (0.9, 0.8, 0.501)}, r"score differs .* 0\.001 in"),
        ({"masks": np.full([3, 2, 2], 0.26)}, r"mask differs .* 0\.01"),
        ({"masks": np.full([3, 2, 2], np.nan)}, "mask differs .* by nan in check image 0"),
        ({"masks": np.full([3, 4, 4], 0.25)}, r"\[4, 4\]"),
        ({"masks": None}, "gives masks"),
        ({"keypoints": np.full([3, 1, 3], 2.0)}, "keypoint differs .* by 1 pixels"),
        ({"classes": (2, 2, 1)}, "agree on 66.67%"),
        ({"size": (120, 100)}, "as \\(120, 100\\), not \\(100, 120\\)"),
    ],
)
def test_a_difference_beyond_the_tolerances_is_an_error(change, words):
    usual = {"masks": np.full([3, 2, 2], 0.25), "keypoints": np.ones([3, 1, 3])}
    with pytest.raises(UserError, match=words):
        check(detections(**usual), detections(**(usual | change)))


def test_an_error_names_the_worst_image():
    same, far, farther = detections(), detections(moved(0.25)), detections(moved(0.5))
    with pytest.raises(UserError, match=r"0\.5 pixels in check image 2"):
        check_detections([same] * 4, [same, far, farther, far], SAVED_MODEL_TOLERANCES, LIMITS)
    with pytest.raises(UserError, match=r"\(worst in check image 1\)"):
        check_detections([same] * 2, [same, detections(BOXES[:2], (0.9, 0.8), (1, 2))], SAVED_MODEL_TOLERANCES, LIMITS)


def test_a_missing_image_is_an_error():
    with pytest.raises(UserError, match="answered 1 of 2"):
        check_detections([detections()] * 2, [detections()], SAVED_MODEL_TOLERANCES, LIMITS)


def test_order_of_equal_scores_is_free():
    reference = detections(scores=(0.9, 0.5, 0.5))
    exported = detections([BOXES[0], BOXES[2], BOXES[1]], (0.9, 0.5, 0.5), (1, 1, 2))
    found = check(reference, exported)
    assert (found.matched, found.box, found.score) == (3, 0, 0)


def test_boxes_match_one_to_one_by_the_best_overlap():
    near = [[10, 10, 30, 40], [11, 10, 31, 40]]
    reference = detections(near, (0.9, 0.8), (1, 1))
    found = check(reference, detections(near[::-1], (0.8, 0.9), (1, 1)))
    assert (found.matched, found.box) == (2, 0)
    with pytest.raises(UserError, match="agree on 50.00%"):
        check(reference, detections(near[:1], (0.9,), (1,)))


def test_a_box_without_area_has_a_partner():
    flat = [[10, 10, 10, 40]]
    found = check(detections(flat, (0.9,), (1,)), detections(flat, (0.9,), (1,)))
    assert (found.matched, found.iou) == (1, 1)


def test_a_near_tie_at_the_threshold_is_no_mismatch():
    both = detections(scores=(0.9, 0.8, 0.100005))
    less = detections(BOXES[:2], (0.9, 0.8), (1, 2))
    for pair in ((both, less), (less, both)):
        found = check(*pair)
        assert (found.matched, found.near_ties, found.matched_share) == (2, 1, 1)
    with pytest.raises(UserError, match="agree on"):
        check(detections(scores=(0.9, 0.8, 0.1001)), less)


def test_a_near_tie_at_the_last_place_is_no_mismatch():
    limits = dataclasses.replace(LIMITS, max_per_image=2)
    reference = detections([BOXES[0], BOXES[1]], (0.9, 0.5), (1, 2))
    exported = detections([BOXES[0], BOXES[2]], (0.9, 0.500005), (1, 1))
    assert check(reference, exported, limits=limits).near_ties == 2
    with pytest.raises(UserError, match="agree on"):  # there was room for it
        check(reference, exported)


def test_none_found_by_both():
    none = detections(np.zeros([0, 4]), (), (), masks=np.zeros([0, 2, 2]))
    found = check(none, none)
    assert (found.matched, found.matched_share, found.box, found.mask) == (0, 1, None, None)
    with pytest.raises(UserError, match=r"agree on 0\.00%"):
        check(detections(masks=np.zeros([3, 2, 2])), none)


def test_tflite_may_lose_one_in_a_hundred():
    count = 100
    corners = np.stack(np.divmod(np.arange(count), 10), axis=1) * 20
    boxes = np.concatenate([corners, corners + 16], axis=1)
    limits = DetectionConfig(score_threshold=0.1, max_per_image=200)
    size, scores, classes = (200, 200), np.full(count, 0.5), np.ones(count)
    reference = detections(boxes, scores, classes, size)
    for lost, accepted in ((1, True), (2, False)):
        exported = detections(boxes[lost:], scores[lost:], classes[lost:], size)
        if accepted:
            assert check(reference, exported, TFLITE_TOLERANCES, limits).only_reference == 1
        else:
            with pytest.raises(UserError, match="98.00%"):
                check(reference, exported, TFLITE_TOLERANCES, limits)
    # 0.2 of 16 pixels are more than IoU 0.99 allows.
    with pytest.raises(UserError, match=r"99\.00%|98\.00%|0\.00%"):
        check(reference, detections(boxes + [0, 0, 0.2, 0], scores, classes, size), TFLITE_TOLERANCES, limits)


def encoded(found, masks=None):
    """A `Detections` with its masks, or others, as strings of pycocotools."""
    arrays = [np.asfortranarray(mask, np.uint8) for mask in (found.masks if masks is None else masks)]
    counts = [coco_mask.encode(array)["counts"] for array in arrays]
    return EncodedMaskDetections(
        counts,
        boxes=found.boxes,
        scores=found.scores,
        classes=found.classes,
        image_size=found.image_size,
        categories=CATEGORIES,
    )


def test_encoded_masks_are_compared_by_their_pixels():
    # From 0.3 in the first column to 0.7 in the last; half a pixel of the image apart from its neighbours.
    slope = np.tile(np.linspace(0.3, 0.7, 8), (3, 8, 1))
    reference = detections(masks=slope)
    found = check(reference, encoded(reference))
    assert (found.mask_pixels, found.mask) == (0, None)
    shifted = detections(np.float32(BOXES) + 0.75, masks=slope)  # moves whole-pixel boxes
    loose = dataclasses.replace(SAVED_MODEL_TOLERANCES, box=1)
    assert not np.array_equal(shifted.masks, reference.masks)
    assert check(reference, encoded(shifted), loose).mask_pixels == 0
    for place in ((60, 110), (20, 12)):  # outside of the first box, and inside on the empty side
        masks = reference.masks.copy()
        assert not masks[(0, *place)]
        masks[(0, *place)] = True
        with pytest.raises(UserError, match="have 1 pixels"):
            check(reference, encoded(reference, masks))
    masks = reference.masks.copy()
    masks[0, 20, 28] = False
    with pytest.raises(UserError, match="have 1 pixels"):
        check(reference, encoded(reference, masks))
    # Probabilities that differ by less than the tolerance may change pixels.
    other = detections(masks=slope + 0.02)
    assert not np.array_equal(other.masks, reference.masks)
    assert check(reference, encoded(other), dataclasses.replace(SAVED_MODEL_TOLERANCES, mask=0.025)).mask_pixels == 0
    with pytest.raises(UserError, match="pixels that the Keras"):
        check(reference, encoded(other))


def test_table_and_json_say_what_was_found():
    found = check(detections(), detections(moved(0.0005)), TFLITE_TOLERANCES)
    output = io.StringIO()
    Console(file=output, width=100).print(found.table())
    assert "0.0005" in output.getvalue() and "99.00%" in output.getvalue() and "mask" not in output.getvalue()
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert document["box"] == pytest.approx(0.0005, rel=1e-2) and document["tolerances"]["box"] is None
    assert document["mask"] is None and document["matched_share"] == 1


def test_what_other_heads_give_is_compared_relative_to_itself():
    def with_angles(*angles, name="angle"):
        return Detections(BOXES, (0.9, 0.8, 0.5), (1, 2, 1), (100, 120), CATEGORIES, **{name: np.float32(angles)})

    assert check(with_angles(1, 90, 300), with_angles(1, 90, 300)).extra == 0
    # 0.003 of 300, and 0.004 where 1 is more than the number: nine in ten lie below 0.8 of the way between the two.
    found = check(with_angles(0.5, 90, 300), with_angles(0.504, 90, 300.9))
    assert found.extra == pytest.approx(0.003 + 0.8 * 0.001, abs=1e-5)
    with pytest.raises(
        UserError, match=r"extra differs from the Keras model's by 0\.\d+ in check image 0, where 0\.01"
    ):
        check(with_angles(1, 90, 300), with_angles(2, 45, 150))
    with pytest.raises(UserError, match=r"model's angle are \[2\] each"):
        check(with_angles(1, 90, 300), with_angles([1, 1], [90, 90], [300, 300]))
    # A head that renames an output for its Detections is not known to an export.
    assert check(with_angles(1, 90, 300), with_angles(2, 45, 150, name="direction")).extra is None
    assert check(detections(), detections()).extra is None
