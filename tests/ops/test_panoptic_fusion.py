import functools

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.datasets.map_files import rgb_to_ids
from mrcnn_tf.ops.masks import paste_masks
from mrcnn_tf.ops.panoptic_maps import fuse, ids_to_rgb

SIDE = 8  # pixels, of the images of the hand-made cases
WHOLE = [0, 0, SIDE, SIDE]


def pixels(*spans):
    """A mask [SIDE, SIDE] with some pixels set, counted along the rows."""
    mask = np.zeros(SIDE * SIDE, np.float32)
    for first, last in spans:
        mask[first:last] = 1
    return mask.reshape(SIDE, SIDE)


def fused(masks, scores, semantic=None, classes=None, stuff=2, **settings):
    """Segments of masks as large as the image, which the exact rule pastes as they are: the map, and a list of
    (instance, class, area)."""
    masks = np.asarray(masks, np.float32).reshape(-1, SIDE, SIDE)
    semantic = np.zeros([SIDE, SIDE]) if semantic is None else semantic
    classes = np.arange(1, len(masks) + 1) if classes is None else classes
    settings = {"stuff_area": 1, "rule": "detectron2"} | settings
    boxes = np.tile(np.float32(WHOLE), [len(masks), 1])
    found = fuse(masks, boxes, np.float32(scores), np.int32(classes), np.uint8(semantic), stuff, **settings)
    table = [values.numpy() for values in (found.instances, found.classes, found.areas)]
    count = int(found.count)
    assert {len(values) for values in table} == {len(masks) + stuff}
    np.testing.assert_array_equal(table[0][count:], -1)
    np.testing.assert_array_equal(np.stack(table[1:])[:, count:], 0)
    return found.segment_map.numpy(), list(zip(*(values[:count].tolist() for values in table), strict=True))


@pytest.mark.parametrize(("covered", "kept"), [(4, True), (5, True), (6, False), (10, False)])
def test_an_instance_may_be_covered_up_to_the_limit(covered, kept):
    first, second = pixels((0, 20)), pixels((20 - covered, 30 - covered))
    segment_map, segments = fused([second, first], [0.6, 0.9])
    expected = pixels((0, 20)) + 2 * pixels((20, 30 - covered)) * kept
    np.testing.assert_array_equal(segment_map, expected)
    assert segments == [(1, 2, 20)] + [(0, 1, 10 - covered)] * kept


def test_a_share_of_seven_tenths_is_not_more_than_seven_tenths():
    masks = [pixels((0, 20)), pixels((13, 23))]
    assert len(fused(masks, [0.9, 0.8], overlap=0.7)[1]) == 2
    assert len(fused(masks, [0.9, 0.8], overlap=0.6999999)[1]) == 1


def test_an_instance_without_a_free_pixel_is_left_out_whatever_the_limit():
    segment_map, segments = fused([pixels((0, 20)), pixels((5, 9)), pixels((20, 22))], [0.9, 0.8, 0.7], overlap=1.0)
    assert segments == [(0, 1, 20), (2, 3, 2)]
    np.testing.assert_array_equal(segment_map, pixels((0, 20)) + 2 * pixels((20, 22)))


def test_an_instance_without_a_pixel_takes_no_number():
    segment_map, segments = fused([pixels(), pixels((3, 7))], [0.9, 0.8])
    assert segments == [(1, 2, 4)]
    np.testing.assert_array_equal(segment_map, pixels((3, 7)))


def test_one_left_out_covers_nothing():
    masks = [pixels((0, 10)), pixels((2, 13)), pixels((9, 14))]
    segment_map, segments = fused(masks, [0.9, 0.8, 0.7])
    assert segments == [(0, 1, 10), (2, 3, 4)], "the third is covered by the first alone"
    np.testing.assert_array_equal(segment_map, pixels((0, 10)) + 2 * pixels((10, 14)))


def test_of_equal_scores_the_lower_row_comes_first():
    masks = [pixels((first, first + 4)) for first in (0, 2, 4, 6)]
    segment_map, segments = fused(masks, [0.7, 0.8, 0.8, 0.7])
    assert segments == [(1, 2, 4), (2, 3, 2), (0, 1, 2), (3, 4, 2)]
    np.testing.assert_array_equal(segment_map.ravel()[:10], [3, 3, 1, 1, 1, 1, 2, 2, 4, 4])


@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_a_score_at_the_threshold_is_enough(threshold):
    scores = [np.float32(threshold), np.nextafter(np.float32(threshold), np.float32(0))]
    _, segments = fused([pixels((0, 3)), pixels((10, 13))], scores, score_threshold=threshold)
    assert segments == [(0, 1, 3)]


def test_padding_is_no_instance():
    _, segments = fused([pixels((0, 3)), pixels((10, 13))], [0.0, 0.0], classes=[2, 0], score_threshold=0.0)
    assert segments == [(0, 2, 3)]


def test_stuff_takes_what_is_free_and_instances_stay():
    semantic = 2 * pixels((0, 30)) + pixels((30, 50))
    segment_map, segments = fused([pixels((20, 40))], [0.9], semantic)
    assert segments == [(0, 1, 20), (-1, 1, 10), (-1, 2, 20)], "stuff by class"
    expected = pixels((20, 40)) + 2 * pixels((40, 50)) + 3 * pixels((0, 20))
    np.testing.assert_array_equal(segment_map, expected)


@pytest.mark.parametrize(("limit", "kept"), [(10, True), (11, False)])
def test_stuff_needs_an_area_of_free_pixels(limit, kept):
    semantic = pixels((0, 30)) + 2 * pixels((30, 50))
    segment_map, segments = fused([pixels((0, 20))], [0.9], semantic, stuff_area=limit)
    assert segments == [(0, 1, 20)] + [(-1, 1, 10)] * kept + [(-1, 2, 20)]
    np.testing.assert_array_equal(segment_map.ravel()[20:30], 2 if kept else 0)


def test_stuff_without_a_free_pixel_is_no_segment():
    _, segments = fused([pixels((0, 64))], [0.9], pixels((0, 30)), stuff_area=0)
    assert segments == [(0, 1, 64)]


def test_pixels_of_things_without_an_instance_stay_void():
    segment_map, segments = fused([pixels((0, 3))], [0.9], 2 * pixels((60, 64)))
    assert segments == [(0, 1, 3), (-1, 2, 4)]
    assert not segment_map.ravel()[3:60].any()


def test_labels_of_no_class_stay_void():
    segment_map, segments = fused([], [], 255 * pixels((0, 20)) + 3 * pixels((20, 40)) + 2 * pixels((40, 50)))
    assert segments == [(-1, 2, 10)]
    np.testing.assert_array_equal(segment_map, pixels((40, 50)))


def test_nothing_found_is_all_void():
    segment_map, segments = fused([], [], stuff=0)
    assert segments == [] and segment_map.shape == (SIDE, SIDE) and not segment_map.any()


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_an_image_without_pixels_has_no_segments(size):
    found = fuse(np.ones([1, 4, 4]), [[0, 0, 4, 4]], [0.9], [1], np.ones(size, np.uint8), 1, stuff_area=0)
    assert int(found.count) == 0 and found.segment_map.shape == size


@pytest.mark.parametrize("rule", ["torchvision", "detectron2"])
def test_boxes_outside_the_image_are_no_segments(rule):
    boxes = np.float32([[20, 2, 25, 6], [-30, -9, -20, -2], [2, 40, 4, 50], [-4, -4, 3, 3]])
    masks, semantic = np.ones([4, 5, 5]), np.zeros([8, 12], np.uint8)
    found = fuse(masks, boxes, np.ones(4), np.ones(4), semantic, 0, rule=rule)
    assert found.instances.numpy().tolist() == [3, -1, -1, -1]
    np.testing.assert_array_equal(found.segment_map, paste_masks(masks, boxes, 8, 12, rule)[3])


def expected_segments(masks, scores, classes, semantic, stuff, score_threshold, overlap, stuff_area):
    """What the rule says, pixel by pixel of whole-image masks."""
    segment_map, segments = np.zeros(semantic.shape, int), []
    for row in sorted(range(len(scores)), key=lambda row: (-scores[row], row)):
        mask = masks[row]
        free = mask & (segment_map == 0)
        if scores[row] < score_threshold or classes[row] == 0 or not free.any():
            continue
        if (mask.sum() - free.sum()) / mask.sum() <= overlap:
            segments.append((row, int(classes[row]), int(free.sum())))
            segment_map[free] = len(segments)
    for label in range(1, stuff + 1):
        free = (semantic == label) & (segment_map == 0)
        if free.any() and free.sum() >= stuff_area:
            segments.append((-1, label, int(free.sum())))
            segment_map[free] = len(segments)
    return segment_map, segments


@functools.cache
def exported(rule, stuff, detections):
    """`fuse` as a server has it, for images of any size."""
    shapes = [[detections, 7, 7], [detections, 4], [detections]]
    signature = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    signature += [tf.TensorSpec([detections], tf.int32), tf.TensorSpec([None, None], tf.uint8)]
    return tf.function(
        lambda *inputs: fuse(*inputs, stuff, 0.3, 0.4, 60, rule), input_signature=signature, autograph=False
    ).get_concrete_function()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("rule", ["torchvision", "detectron2"])
def test_random_scenes_are_fused_as_the_rule_says(rule, seed):
    generator = np.random.default_rng(seed)
    height, width = (int(side) for side in generator.integers(20, 90, 2))
    corners = generator.uniform(-0.2, 1.2, [30, 2, 2]) * [width, height]
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)
    masks = generator.uniform(0.2, 1, [30, 7, 7]).astype(np.float32)
    masks[::4] = np.round(masks[::4] * 2) / 2  # samples at the threshold itself
    scores = generator.integers(0, 12, 30).astype(np.float32) / 12  # many of them equal
    classes = generator.integers(0, 4, 30).astype(np.int32)
    semantic = generator.integers(0, 7, [height, width], np.uint8) * (generator.uniform(size=[1, width]) < 0.8)
    semantic = semantic.astype(np.uint8)
    found = exported(rule, 5, 30)(*(tf.constant(one) for one in (masks, boxes, scores, classes, semantic)))
    pasted = paste_masks(masks, boxes, height, width, rule)
    segment_map, segments = expected_segments(
        pasted, scores.astype(float), classes, semantic, 5, np.float32(0.3), 0.4, 60
    )
    things = sum(segment[0] >= 0 for segment in segments)
    assert things > 2, "the scene must have instances"
    np.testing.assert_array_equal(found.segment_map, segment_map)
    table = np.stack([found.instances, found.classes, found.areas], axis=1)[: int(found.count)]
    assert [tuple(row) for row in table.tolist()] == segments


def test_tables_have_a_static_length():
    found = exported("torchvision", 5, 30).structured_outputs
    assert [values.shape.as_list() for values in found] == [[None, None], [35], [35], [35], []]


def test_more_instances_than_a_byte_counts():
    boxes = np.float32([[x, y, x + 1, y + 1] for y in range(20) for x in range(20)])
    found = exported("detectron2", 5, 400)(
        *(tf.constant(one) for one in (np.ones([400, 7, 7], np.float32), boxes)),
        tf.linspace(1.0, 0.5, 400),
        tf.ones([400], tf.int32),
        tf.zeros([20, 20], tf.uint8),
    )
    np.testing.assert_array_equal(found.segment_map, np.arange(1, 401).reshape(20, 20))


def test_an_unknown_rule_is_an_error():
    with pytest.raises(ValueError, match="matterport"):
        fused([pixels((0, 3))], [0.9], rule="matterport")


def test_colours_stand_for_ids():
    colours = np.uint8([[[0, 0, 0], [7, 0, 0]], [[1, 2, 3], [255, 255, 255]]])
    ids = [[0, 7], [1 + 512 + 196608, 256**3 - 1]]
    np.testing.assert_array_equal(rgb_to_ids(colours), ids)
    np.testing.assert_array_equal(rgb_to_ids(np.dstack([colours, colours[..., 0]])), ids)
    np.testing.assert_array_equal(ids_to_rgb(np.int32(ids)), colours)
    assert ids_to_rgb(np.int32(ids)).dtype == np.uint8
