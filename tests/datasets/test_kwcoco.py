"""kwcoco's polygons with holes and named keypoints, in the forms that version 0.9.1 writes, worked out by hand."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mrcnn_tf.datasets.coco_records import parse_annotation, parse_image, stream_records
from mrcnn_tf.datasets.kwcoco import flatten_polygon

EXTERIOR = [[2, 2], [12, 2], [12, 10], [2, 10]]
HOLE, OTHER_HOLE = [[4, 4], [6, 4], [6, 8], [4, 8]], [[8, 4], [10, 4], [10, 8], [8, 8]]
CATEGORIES = [{"id": 6, "name": "superstar", "keypoints": ["left_eye", "right_eye"]}, {"id": 7, "name": "eff"}]
KEYPOINT_CATEGORIES = [{"name": "right_eye", "id": 2, "reflection_id": 1}, {"name": "left_eye", "id": 1}]


def block(*boxes):
    """bool [12, 16]: the first box (x1, y1, x2, y2) without the others."""
    mask = np.zeros((12, 16), bool)
    for is_inside, (x1, y1, x2, y2) in zip([True] + [False] * len(boxes), boxes, strict=False):
        mask[y1:y2, x1:x2] = is_inside
    return mask


def pixels(rings):
    rles = coco_mask.frPyObjects([ring.tolist() for ring in rings], 12, 16)
    return coco_mask.decode(coco_mask.merge(rles)).astype(bool)


def annotation(**fields):
    return {"id": 1, "image_id": 1, "category_id": 6, "bbox": [2, 2, 10, 8]} | fields


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("as_list", [True, False])
def test_interiors_are_holes_whichever_way_round(direction, as_list):
    polygon = {"exterior": EXTERIOR, "interiors": [HOLE[::direction], OTHER_HOLE[::-direction]]}
    parsed = parse_annotation(annotation(segmentation=[polygon] if as_list else polygon))
    assert np.array_equal(pixels(parsed.rings), block((2, 2, 12, 10), (4, 4, 6, 8), (8, 4, 10, 8)))
    assert parsed.loose == ["segmentation"] and not parsed.faults
    ring = np.reshape(flatten_polygon(polygon), (-1, 2))
    x, y = ring.T
    assert abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2 == 10 * 8 - 2 * 2 * 4


def test_several_polygons_and_plain_lists_are_read_together():
    plain = [13, 2, 15, 2, 15, 6, 13, 6]
    polygons = [{"exterior": EXTERIOR, "interiors": []}, {"exterior": [[13, 7], [15, 7], [15, 9], [13, 9]]}, plain]
    parsed = parse_annotation(annotation(segmentation=polygons))
    expected = block((2, 2, 12, 10)) | block((13, 2, 15, 6)) | block((13, 7, 15, 9))
    assert np.array_equal(pixels(parsed.rings), expected) and parsed.loose == ["segmentation"]


@pytest.mark.parametrize("exterior", [[[1, 2, 3]], [1, 2, 3, 4], "x", None, [["a", 1], [2, 2], [3, 3]]])
def test_an_exterior_without_points_is_a_fault(exterior):
    parsed = parse_annotation(annotation(segmentation=[{"exterior": exterior, "interiors": []}]))
    assert parsed.faults["segmentation"].kind == "bad_polygon" and not parsed.rings
    parsed = parse_annotation(annotation(segmentation=[{"exterior": [[1, 1]], "interiors": []}]))
    assert parsed.faults["segmentation"].kind == "empty_segmentation"


@pytest.fixture
def read(tmp_path):
    """The AnnotationRecord of an annotation in a json; its categories may come last."""

    def run(first=True, **fields):
        top = {"categories": CATEGORIES, "keypoint_categories": KEYPOINT_CATEGORIES}
        rest = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [annotation(**fields)]}
        path = tmp_path / "data.kwcoco.json"
        path.write_text(json.dumps(top | rest if first else rest | top))
        ((_, record),) = [pair for pair in stream_records(path) if pair[0] == "annotations"]
        return record

    return run


NAMED = [
    [{"xy": [5, 6], "keypoint_category_id": 2}, {"xy": [3, 4], "keypoint_category_id": 1, "visible": 1}],
    [{"xy": [5, 6], "keypoint_category": "right_eye"}, {"xy": [3, 4], "keypoint_category": "left_eye", "visible": 1}],
    [{"xy": [5, 6], "category": "right_eye", "visible": 2}, {"xy": [3, 4], "category": "left_eye", "visible": 1}],
    {"x": [5, 3], "y": [6, 4], "keypoint_category_id": [2, 1], "visible": [2, 1]},
    {"x": [5, 3], "y": [6, 4], "keypoint_category_name": ["right_eye", "left_eye"], "visible": [2, 1]},
]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("keypoints", NAMED)
def test_named_keypoints_come_in_the_order_of_their_category(read, keypoints, first):
    parsed = read(first, keypoints=keypoints)
    assert parsed.keypoints.tolist() == [3, 4, 1, 5, 6, 2] and not parsed.faults.get("keypoints")


def test_keypoints_that_are_not_there_are_zeros(read):
    assert read(keypoints=NAMED[0][:1]).keypoints.tolist() == [0, 0, 0, 5, 6, 2]
    assert read(keypoints=[3, 4, 1, 5, 6, 2]).keypoints.tolist() == [3, 4, 1, 5, 6, 2], "those of COCO stay as they are"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"keypoints": NAMED[0], "category_id": 7}, "'right_eye' is not among the \"keypoints\" of category 7"),
        ({"keypoints": [{"xy": [1, 2], "keypoint_category": "nose"}]}, "'nose' is not among"),
        ({"keypoints": [{"xy": [1, 2]}]}, "None is not among"),
        ({"keypoints": [{"xy": [1], "keypoint_category_id": 1}]}, 'no "xy" of two numbers'),
        ({"keypoints": [{"xy": [None, 1], "keypoint_category_id": 1}]}, "'left_eye' has no place"),
        ({"keypoints": {"x": [1], "y": [1, 2]}}, "lists aren't of one length"),
        ({"keypoints": {"x": [1]}}, "lists aren't of one length"),
    ],
)
def test_other_keypoints_are_faults_that_say_why(read, fields, reason):
    fault = read(**fields).faults["keypoints"]
    assert fault.kind == "bad_keypoints" and reason in fault.what


def test_the_file_of_an_image_with_one_asset_is_that_of_the_asset():
    assets = [{"file_name": "a/b.tif", "channels": "red|green|blue"}, {"file_name": "a/c.tif", "channels": "nir"}]
    for key in ("assets", "auxiliary"):
        record = {"id": 1, "file_name": None, "name": "generated-1-0", "width": 5, "height": 4}
        assert parse_image(record | {key: assets[:1]}).names == ["a/b.tif"]
        assert parse_image(record | {key: assets}).names == []
