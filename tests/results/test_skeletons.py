"""Drawn keypoints, judged by the pixels where they should and should not be."""

import numpy as np
import pytest

from mrcnn_tf.common.categories import Category
from mrcnn_tf.results import draw
from mrcnn_tf.results.detections import Detections
from mrcnn_tf.results.draw import HIDDEN
from mrcnn_tf.results.draw import VISIBLE
from mrcnn_tf.results.draw import Skeleton
from mrcnn_tf.results.draw import draw_skeleton
from mrcnn_tf.results.draw import with_visibility

KITE = Category(1, "kite", ["top", "left", "bottom", "right"], [[1, 3], [2, 4]])
STONE = Category(2, "stone")
POINTS = np.array([[200, 60, 2], [60, 200, 2], [200, 340, 2], [340, 200, 2]], float)
COLOUR = (0, 158, 215)


def drawn(points=POINTS, background=128, category=KITE, size=300, line=2.0):
    canvas = np.full((400, 400, 3), background, np.uint8)
    draw_skeleton(canvas, Skeleton(np.asarray(points, float), category, size), COLOUR, (0, 0, 0), line)
    return canvas


def at(canvas, x, y):
    return tuple(canvas[round(y), round(x)].tolist())


def radius_of(canvas, point):
    """Pixels to the right of a dot's centre that changed."""
    row = canvas[int(point[1]), int(point[0]) :]
    return int((row != canvas[0, 0]).any(axis=-1).argmin())


def test_dots_tell_left_from_right_and_limbs_have_the_colour_of_the_instance():
    canvas = drawn()
    assert at(canvas, 60, 200) == (255, 255, 255)
    assert at(canvas, 340, 200) == (0, 0, 0)
    assert at(canvas, 200, 60) == at(canvas, 200, 340) == COLOUR
    assert at(canvas, 130, 200) == at(canvas, 200, 270) == COLOUR
    assert at(canvas, 130, 130) == (128, 128, 128), "the limbs are those of the skeleton"


@pytest.mark.parametrize(
    ("name", "colour"),
    [
        ("left_eye", 255), ("leftEye", 255), ("L_eye", 255), ("eye.l", 255), ("LEFT EYE", 255),
        ("right_eye", 0), ("eyeRight", 0), ("r-eye", 0), ("nose", None), ("ear", None), ("wheel", None),
    ],
)  # fmt: skip
def test_sides_are_known_by_name(name, colour):
    canvas = drawn([[200, 200, 2]], category=Category(1, "face", [name]))
    assert at(canvas, 200, 200) == (COLOUR if colour is None else (colour,) * 3)


@pytest.mark.parametrize("background", [0, 255, (0, 158, 215)])
def test_dots_and_limbs_show_on_any_background(background):
    canvas = drawn(background=background).astype(int)
    for x, y in [*POINTS[:, :2], (130, 200), (200, 270)]:
        around = canvas[int(y) - 14 : int(y) + 15, int(x) - 14 : int(x) + 15] - np.array(background)
        assert np.abs(around).sum(axis=2).max() > 200


def test_hidden_keypoints_are_hollow_and_their_limbs_pale():
    points = POINTS.copy()
    points[1, 2] = HIDDEN
    canvas = drawn(points, line=3.0)
    alone = drawn(points * [[0], [1], [0], [0]], line=3.0)
    for one in (canvas, alone):
        assert at(one, 60 - 9, 200) == at(one, 60, 200 + 9) == (255, 255, 255), "the ring"
        assert at(one, 60, 200) != (255, 255, 255)
    assert at(alone, 60, 200) == (128, 128, 128), "through the hole one sees the image"
    pale, full = np.array(at(canvas, 130, 200)), np.array(at(canvas, 200, 130))
    assert tuple(full) == COLOUR
    assert 10 < np.abs(pale - 128).sum() < 0.9 * np.abs(full - 128).sum()


def test_unlabelled_keypoints_and_their_limbs_are_not_drawn():
    points = POINTS.copy()
    points[1] = 0
    canvas = drawn(points)
    assert at(canvas, 60, 200) == at(canvas, 130, 200) == at(canvas, 0, 0) == (128, 128, 128)
    assert at(canvas, 340, 200) == (0, 0, 0)
    np.testing.assert_array_equal(drawn(np.zeros((4, 3))), np.full((400, 400, 3), 128))


def test_places_that_the_class_lacks_are_not_drawn():
    padded = np.concatenate([POINTS, [[100, 100, 2]]])
    np.testing.assert_array_equal(drawn(padded), drawn())


def test_dots_grow_with_the_picture_and_shrink_with_the_instance():
    assert radius_of(drawn(line=4.0), POINTS[3]) > 1.5 * radius_of(drawn(line=2.0), POINTS[3])
    assert 2 <= radius_of(drawn(size=28), POINTS[3]) < 0.7 * radius_of(drawn(), POINTS[3])


def test_keypoints_outside_the_picture_are_cut_off():
    points = POINTS.copy()
    points[:, 0] -= 250
    canvas = drawn(points)
    np.testing.assert_array_equal(canvas[:, 120:], np.full((400, 280, 3), 128))
    assert at(canvas, 90, 200) == (0, 0, 0)


def test_unsure_detections_are_hidden_and_logits_all_visible():
    keypoints = np.array([[[1, 2, 0.9], [3, 4, 0.01]]], np.float32)
    np.testing.assert_array_equal(with_visibility(keypoints), [[[1, 2, VISIBLE], [3, 4, HIDDEN]]])
    keypoints[0, 0, 2] = 7.5
    np.testing.assert_array_equal(with_visibility(keypoints), [[[1, 2, VISIBLE], [3, 4, VISIBLE]]])
    assert with_visibility(np.zeros((0, 2, 3))).shape == (0, 2, 3)


def pictures(image, keypoints, scale=1, min_side=0, masks=None):
    """The picture of these detections and the one of the same as ground truth: a kite and a stone."""
    boxes = np.array([[50, 50, 350, 350], [370, 370, 380, 380]]) * scale
    size, categories = image.shape[:2], [KITE, STONE]
    found = Detections(boxes, [0.9, 0.8], [1, 2], size, categories, masks, "detectron2", keypoints)
    names = [category.name for category in categories]
    truth = draw.draw_ground_truth(image, boxes, names, masks, min_side, with_visibility(keypoints), categories)
    return draw.draw_detections(image, found, min_side=min_side), truth


def both(scale=1.0):
    points = POINTS * (scale, scale, 0.25)
    return np.stack([points, np.zeros_like(points)])


def test_pictures_show_keypoints_above_masks_and_below_tags():
    image = np.full((400, 400, 3), 128, np.uint8)
    keypoints = both()
    keypoints[0, 0, :2] = 60, 42  # under the tag above the box's left corner
    for picture in pictures(image, keypoints, masks=np.ones((2, 8, 8))):
        assert at(picture, 60, 200) == (255, 255, 255) and at(picture, 340, 200) == (0, 0, 0)
        tag = picture[38:48, 53:68].reshape(-1, 3).tolist()
        assert list(draw.instance_colour(0)) in tag
        assert at(picture, 200, 340) == draw.instance_colour(0), "a dot, not the mask's paler fill"
    for picture in pictures(image, keypoints):
        np.testing.assert_array_equal(picture[382:, 382:], image[382:, 382:]), "a stone has no keypoints"


def test_keypoints_move_with_an_enlarged_picture():
    for picture in pictures(np.full((40, 40, 3), 128, np.uint8), both(0.1), 0.1, min_side=400):
        assert picture.shape == (400, 400, 3)
        assert at(picture, 60, 200) == (255, 255, 255) and at(picture, 340, 200) == (0, 0, 0)
