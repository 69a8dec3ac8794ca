"""The Panoptic object: its segments and COCO's format."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from mrcnn_tf.common.categories import Category
from mrcnn_tf.config.settings import PanopticConfig
from mrcnn_tf.datasets.map_files import rgb_to_ids
from mrcnn_tf.results.detections import Detections
from mrcnn_tf.results.segments import Panoptic, Segment

THINGS = [Category(3, "cat"), Category(90, "tooth brush")]
STUFF = [Category(101, "sky"), Category(102, "grass"), Category(200, "Straße")]
SETTINGS = PanopticConfig(score_threshold=0.5, overlap=0.5, stuff_area=10)


def scene():
    """12 x 16 pixels: a cat in front of a brush, sky above grass, the rest of no class; a second cat scores too
    little."""
    boxes = [[1, 1, 4, 2], [4, 2, 10, 6], [2, 3, 8, 6]]
    found = Detections(boxes, [0.4, 0.7, 0.9], [1, 2, 1], (12, 16), THINGS, np.ones([3, 4, 4]), mask_rule="detectron2")
    semantic = np.zeros([12, 16], np.uint8)
    semantic[:5], semantic[5:9, 3:] = 1, 2
    semantic[11, :9] = 3
    return found, semantic


def test_segments_are_things_by_score_and_then_stuff():
    panoptic = Panoptic.fuse(*scene(), STUFF, SETTINGS)
    expected = np.zeros([12, 16], int)
    expected[:5], expected[5:9, 3:] = 3, 4
    expected[2:6, 4:10], expected[3:6, 2:8] = 2, 1
    np.testing.assert_array_equal(panoptic.segment_map, expected)
    assert panoptic.segment_map.dtype == np.int32
    assert panoptic.segments == [
        Segment(1, THINGS[0], True, float(np.float32(0.9)), 18, [2, 3, 6, 3], 2),
        Segment(2, THINGS[1], True, float(np.float32(0.7)), 12, [4, 2, 6, 4], 1),
        Segment(3, STUFF[0], False, None, 80 - 6 - 8 - 8, [0, 0, 16, 5]),
        Segment(4, STUFF[1], False, None, 52 - 5 - 2, [3, 5, 13, 4]),
    ]
    assert len(panoptic) == 4
    assert repr(panoptic) == "<Panoptic: 4 segments in 12 x 16 pixels: cat, tooth brush, sky, grass>"


def test_settings_count():
    found, semantic = scene()
    panoptic = Panoptic.fuse(found, semantic, STUFF, PanopticConfig(0.3, 0.2, 9))
    assert [segment.category.name for segment in panoptic.segments] == ["cat", "cat", "sky", "grass", "Straße"]
    assert [segment.instance for segment in panoptic.segments] == [2, 0, None, None, None]


def test_nothing_found_is_void():
    none = Detections([], [], [], (12, 16), THINGS, np.zeros([0, 4, 4]))
    panoptic = Panoptic.fuse(none, np.zeros([12, 16], np.uint8), STUFF, SETTINGS)
    assert panoptic.segments == [] and panoptic.segment_map.shape == (12, 16) and not panoptic.segment_map.any()
    assert repr(panoptic) == "<Panoptic: 0 segments in 12 x 16 pixels>"
    assert panoptic.to_coco(1, "a.png")["segments_info"] == []


def test_areas_and_boxes_are_those_of_the_pixels():
    generator = np.random.default_rng(0)
    segment_map = np.kron(generator.integers(0, 21, [6, 9]), np.ones([7, 5], int))
    segment_map[:21][:, ::3] = 0
    numbers = np.unique(segment_map[segment_map > 0])
    segment_map = np.searchsorted(numbers, segment_map) + (segment_map > 0)
    none = Detections([], [], [], segment_map.shape, THINGS)
    classes = np.concatenate([np.ones(len(numbers), int), np.zeros(5, int)])  # as long as a server's tables
    panoptic = Panoptic.from_fused(segment_map, -np.ones(len(classes), int), classes, none, STUFF)
    assert len(panoptic) == len(numbers) > 10
    for segment in panoptic.segments:
        y, x = np.nonzero(segment_map == segment.id)
        assert segment.area == len(y)
        assert segment.bbox == [x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1]


def test_coco_record_and_png_say_the_same():
    panoptic = Panoptic.fuse(*scene(), STUFF, SETTINGS)
    record = json.loads(json.dumps(panoptic.to_coco(np.int64(42), "42.png")))
    assert record["image_id"] == 42 and record["file_name"] == "42.png"
    assert [segment["category_id"] for segment in record["segments_info"]] == [3, 90, 101, 102]
    assert record["segments_info"][1] == {
        "id": 2,
        "category_id": 90,
        "area": 12,
        "bbox": [4, 2, 6, 4],
        "iscrowd": 0,
    }
    with Image.open(io.BytesIO(panoptic.png())) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        ids = rgb_to_ids(np.asarray(image))
    np.testing.assert_array_equal(ids, panoptic.segment_map)
    assert {segment["id"]: segment["area"] for segment in record["segments_info"]} == {
        number: int((ids == number).sum()) for number in range(1, 5)
    }


def test_a_png_holds_ids_of_three_bytes():
    segment_map = [[0, 255, 256], [65535, 65536, 256**3 - 1]]
    panoptic = Panoptic(segment_map, [])
    np.testing.assert_array_equal(rgb_to_ids(np.asarray(Image.open(io.BytesIO(panoptic.png())))), segment_map)


def test_maps_of_another_shape_and_ids_used_twice_are_refused():
    with pytest.raises(ValueError, match=r"\[2, 3, 1\]"):
        Panoptic(np.zeros([2, 3, 1]), [])
    with pytest.raises(ValueError, match="id"):
        Panoptic(np.zeros([2, 3]), [Segment(1, STUFF[0], False, None, 1, [0, 0, 1, 1])] * 2)
