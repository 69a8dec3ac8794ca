"""When the maps of an exported model count as the Keras model's."""

import numpy as np
import pytest

from mrcnn_tf import Detections, UserError
from mrcnn_tf.common.categories import Category
from mrcnn_tf.config.settings import DetectionConfig, PanopticConfig
from mrcnn_tf.ops.panoptic_maps import Fused
from mrcnn_tf.results.detections import SemanticMap
from mrcnn_tf.serving.export_check import FLOAT16_TOLERANCES, SAVED_MODEL_TOLERANCES, check_detections

THINGS, STUFF = [Category(3, "cat"), Category(7, "dog")], [Category(20, "sky"), Category(21, "sea")]
SIZE = (20, 50)  # a thousand pixels
BOXES = [[0, 0, 10, 20], [10, 0, 20, 20]]
LIMITS = DetectionConfig(score_threshold=0.1, max_per_image=4)


def labels():
    """0 in the boxes, 1 in the upper half beside them, 2 in the lower one."""
    found = np.zeros(SIZE, np.uint8)
    found[:10, 20:], found[10:, 20:] = 1, 2
    return found


def segments(first=1, second=2):
    """The map of both boxes as segments of these numbers, sky 3 and sea 4."""
    found = np.int32(labels()) + 2
    found[:, :10], found[:, 10:20] = first, second
    return found


def detections(semantic=None, segment_map=None, instances=(0, 1), scores=(0.9, 0.8), order=(0, 1), stuff_area=9):
    semantic = labels() if semantic is None else semantic
    segment_map = segments() if segment_map is None else segment_map
    stuff = np.unique(semantic[segment_map > len(instances)])
    classes = np.array([*(1 for _ in instances), *stuff])
    fused = Fused(segment_map, np.array([*instances, *(-1 for _ in stuff)]), classes, None, len(classes))
    given = SemanticMap(semantic, fused, STUFF, PanopticConfig(stuff_area=stuff_area))
    masks = np.ones((2, 4, 4), np.float32)
    boxes, scores = np.array(BOXES)[list(order)], np.array(scores)[list(order)]
    return Detections(boxes, scores, [1, 1], SIZE, THINGS, masks, semantics=given)


def check(reference, exported, tolerances=SAVED_MODEL_TOLERANCES):
    return check_detections([reference, reference], [reference, exported], tolerances, LIMITS)


def test_equal_maps():
    found = check(detections(), detections())
    assert (found.semantic, found.segments) == (1, 1)


@pytest.mark.parametrize("wrong", [1, 2, 3])
def test_pixels_of_another_class(wrong):
    semantic = labels()
    semantic[0, :wrong] = 2
    if wrong < 3:  # of two thousand in both images
        assert check(detections(), detections(semantic)).semantic == 1 - wrong / 2000
    else:
        with pytest.raises(UserError, match=r"99\.85% of the pixels the same class, .*99\.90%.*check image 1\)"):
            check(detections(), detections(semantic))
        assert check(detections(), detections(semantic), FLOAT16_TOLERANCES).semantic == 0.9985


def test_pixels_of_another_segment():
    segment_map = segments()
    segment_map[:3, 10] = 1  # of the second instance, which has the same class
    with pytest.raises(UserError, match=r"99\.85% of the pixels the same segment"):
        check(detections(), detections(segment_map=segment_map))
    segment_map[:3, 10] = 0
    assert check(detections(), detections(segment_map=segment_map), FLOAT16_TOLERANCES).segments == 0.9985


def test_the_numbers_of_segments_are_free():
    turned = detections(segment_map=segments(2, 1), order=(1, 0))
    assert turned.boxes[0, 0] == 10 and check(detections(), turned).segments == 1


def test_an_instance_at_the_fusions_threshold_may_be_missing():
    segment_map = segments()
    segment_map[:, 10:20] = 0
    segment_map[:, 20:] -= 1
    given = {"segment_map": segment_map, "instances": (0,)}
    found = check(detections(scores=(0.9, 0.5)), detections(scores=(0.9, 0.5), **given))
    assert found.segments == 1 and found.semantic == 1
    with pytest.raises(UserError, match="90.00% of the pixels the same segment"):
        check(detections(scores=(0.9, 0.51)), detections(scores=(0.9, 0.51), **given))


@pytest.mark.parametrize(("area", "right"), [(601, True), (602, False), (590, False)])
def test_stuff_at_the_fusions_limit_may_be_missing(area, right):
    """Sky and sea have 300 pixels each here; 0.1 % of the map's thousand is one."""
    semantic, segment_map = labels(), segments()
    semantic[:, 20:], segment_map[:, 20:] = 1, 3
    less = segment_map * (segment_map < 3)
    mine, theirs = (detections(semantic, one, stuff_area=area) for one in (segment_map, less))
    if right:
        assert check(mine, theirs).segments == 1
    else:
        with pytest.raises(UserError, match="of the pixels the same segment"):
            check(mine, theirs)


def test_a_map_that_one_of_the_models_lacks():
    without = Detections(BOXES, [0.9, 0.8], [1, 1], SIZE, THINGS, np.ones((2, 4, 4), np.float32))
    with pytest.raises(UserError, match="gives classes of pixels in check image 1, the other doesn't"):
        check_detections([without, detections()], [without, without], SAVED_MODEL_TOLERANCES, LIMITS)
    found = check_detections([without], [without], SAVED_MODEL_TOLERANCES, LIMITS)
    assert found.semantic is None and found.segments is None


def test_the_table_shows_the_shares():
    found = check(detections(), detections())
    cells = [list(column.cells) for column in found.table().columns]
    assert "pixels of the same class" in cells[0] and "pixels of the same segment" in cells[0]
    assert cells[1][-2:] == ["100.00%"] * 2 and cells[2][-2:] == [">= 99.90%"] * 2
