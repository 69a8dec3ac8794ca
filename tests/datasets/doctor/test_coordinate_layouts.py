"""Habits are found where there are some, and nowhere else."""

import numpy as np
import pytest

from mrcnn_tf.datasets.coco_records import parse_annotation
from mrcnn_tf.datasets.doctor.coco_source import AnnotationRecords
from mrcnn_tf.datasets.doctor.coordinate_layouts import boxes_match, correct_layouts
from mrcnn_tf.datasets.doctor.mask_checks import measure_masks

WIDTH, HEIGHT = 640.0, 400.0


def random_records(rng, count, masks=True):
    """Objects anywhere in images of 640 x 400, as (records, box [count, 4] as x, y, width, height)."""
    sides = rng.uniform(5, 200, (count, 2))
    corner = rng.uniform(0, 1, (count, 2)) * np.maximum((WIDTH, HEIGHT) - sides, 0)
    return np.concatenate([corner, sides], axis=1), masks


def collected(boxes, polygons):
    records = AnnotationRecords("a.json", polygons is not None)
    for number, box in enumerate(boxes.tolist()):
        record = {"id": number + 1, "image_id": 1, "category_id": 1, "bbox": box}
        if polygons is not None:
            record["segmentation"] = [polygons[number].ravel().tolist()]
        records.add(parse_annotation(record))
    records.finish()
    return records


def corners_of(boxes):
    x, y, width, height = boxes.T
    return np.stack([x, y, x + width, y, x + width, y + height, x, y + height], axis=1).reshape(-1, 4, 2)


def corrected(records):
    sides = np.tile((WIDTH, HEIGHT), (len(records.ids), 1))
    corrections = correct_layouts(records, measure_masks(records), sides)
    return [correction.kind for correction in corrections], np.asarray(records.boxes).reshape(-1, 4)


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_sound_datasets_have_no_habit(seed, masks):
    rng = np.random.default_rng(seed)
    boxes, _ = random_records(rng, int(rng.integers(3, 60)))
    boxes[0, 2:] += 30  # one sticks out now and then
    kinds, after = corrected(collected(boxes, corners_of(boxes) if masks else None))
    assert kinds == [] and (after == boxes).all()


WRITTEN = {
    "corner_boxes": lambda x, y, w, h: (x, y, x + w, y + h),
    "swapped_boxes": lambda x, y, w, h: (y, x, h, w),
    "centre_boxes": lambda x, y, w, h: (x + w / 2, y + h / 2, w, h),
    "normalised_boxes": lambda x, y, w, h: (x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT),
}


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("kind", WRITTEN)
def test_boxes_are_read_as_they_were_meant(kind, masks):
    boxes, _ = random_records(np.random.default_rng(1), 60)
    written = np.stack(WRITTEN[kind](*boxes.T), axis=1)
    kinds, after = corrected(collected(written, corners_of(boxes) if masks else None))
    assert kinds == [kind]
    np.testing.assert_allclose(after, boxes, atol=1e-3)


def test_masks_and_boxes_with_the_same_habit():
    boxes, _ = random_records(np.random.default_rng(2), 60)
    kinds, after = corrected(collected(boxes[:, [1, 0, 3, 2]], corners_of(boxes)[..., ::-1]))
    assert kinds == ["swapped_polygons", "swapped_boxes"]
    np.testing.assert_allclose(after, boxes, atol=1e-3)
    scale = np.array([WIDTH, HEIGHT])
    records = collected(boxes / np.tile(scale, 2), corners_of(boxes) / scale)
    masks = measure_masks(records)
    corrections = correct_layouts(records, masks, np.tile((WIDTH, HEIGHT), (60, 1)))
    kinds = [correction.kind for correction in corrections]
    assert kinds == ["normalised_polygons", "normalised_boxes"]
    again = measure_masks(records)
    np.testing.assert_allclose(masks.boxes, again.boxes, rtol=1e-5)
    np.testing.assert_allclose(masks.areas, boxes[:, 2] * boxes[:, 3], rtol=1e-4)
    np.testing.assert_allclose(masks.polygon_areas, again.polygon_areas, rtol=1e-4)


def test_a_few_strange_records_are_no_habit():
    boxes, _ = random_records(np.random.default_rng(3), 60)
    written = boxes.copy()
    written[:5, 2:] += written[:5, :2]
    assert corrected(collected(written, corners_of(boxes)))[0] == []


def test_boxes_agree_within_two_pixels_or_a_twentieth():
    box = np.array([[10.0, 10, 30, 30], [10, 10, 110, 30], [10, 10, 110, 30]])
    other = box + [[2, 0, 0, 0], [4.9, 0, 0, 0], [6, 0, 0, 0]]
    assert boxes_match(box, other).tolist() == [True, True, False]
