"""Pictures, judged by their content: what changed, where, and towards which colour."""

import numpy as np
import pytest
from PIL import Image

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.results import draw, draw_text
from mrcnn_tf.results.detections import Detections
from mrcnn_tf.results.draw import HIDDEN, VISIBLE, draw_skeleton, scores_to_visibility

CATEGORIES = [Category(1, "nucleus"), Category(2, "собака")]


def detections(boxes, size, scores=None, masks=True):
    scores = np.linspace(0.9, 0.3, len(boxes)) if scores is None else scores
    probabilities = np.ones((len(boxes), 8, 8)) if masks else None
    return Detections(boxes, scores, [1 + i % 2 for i in range(len(boxes))], size, CATEGORIES, probabilities)


def tags_of(found, size):
    """The tags' rectangles [D, 4] as `draw_detections` lays them out on a picture of `size` (h, w)."""
    instances = [
        draw.Instance(box, f"{name} {score:.2f}", (0, 0, 0))
        for box, name, score in zip(found.boxes, found.category_names, found.scores, strict=True)
    ]
    return draw._place_tags(instances, size[::-1], draw_text.font_for([], 14))


@pytest.mark.parametrize("background", [0, 255, 128])
def test_mask_takes_the_colour_of_its_instance_and_the_rest_stays(background):
    image = np.full((800, 800, 3), background, np.uint8)
    picture = draw.draw_detections(image, detections([[200, 200, 400, 400]], (800, 800)))
    colour = np.array(draw.instance_colour(0), int)
    inside = picture[300, 300].astype(int)
    expected = background + draw.FILL_OPACITY * (colour - background)
    np.testing.assert_allclose(inside, expected, atol=1.5)
    np.testing.assert_array_equal(picture[500:, 500:], image[500:, 500:])
    np.testing.assert_array_equal(image, np.full_like(image, background))


@pytest.mark.parametrize("background", [(0, 0, 0), (255, 255, 255), draw.BASE_COLOURS[0]])
def test_box_shows_on_any_background(background):
    image = np.full((800, 800, 3), background, np.uint8)
    picture = draw.draw_detections(image, detections([[200, 200, 400, 400]], (800, 800), masks=False))
    across = picture[300, 190:210].astype(int)
    assert np.abs(across - background).sum(axis=1).max() > 100


@pytest.mark.parametrize(("dtype", "full"), [(np.float32, 1), (bool, 1), (np.uint8, 255)])
def test_masks_show_where_a_ground_truth_mask_is_set(dtype, full):
    crop = np.zeros((1, 4, 4), dtype)
    crop[:, :, :2] = full  # left half
    crop[:, :, 2:] = 0.4 * full if full == 255 else 0
    image = np.zeros((800, 800, 3), np.uint8)
    picture = draw.draw_ground_truth(image, [[200, 200, 400, 400]], ["cell"], crop)
    assert picture[300, 240].any()
    assert not picture[300, 360].any()


def test_small_pictures_are_enlarged_so_that_text_can_be_read():
    image = np.zeros((64, 128, 3), np.uint8)
    found = detections([[10, 10, 60, 60]], (64, 128))
    assert draw.draw_detections(image, found).shape == (384, 768, 3)
    assert draw.draw_detections(image, found, min_side=0).shape == image.shape
    picture = draw.draw_detections(image, found)
    assert picture[35 * 6, 35 * 6].any(), "the mask moves with the picture"


def test_only_what_scores_enough_is_drawn():
    image = np.zeros((800, 800, 3), np.uint8)
    found = detections([[50, 50, 200, 200], [500, 500, 700, 700]], (800, 800), scores=[0.9, 0.2])
    picture = draw.draw_detections(image, found, min_score=0.5)
    assert picture[100, 100].any()
    assert not picture[400:, 400:].any()


def test_a_single_number_of_each_detection_stands_beside_its_score():
    boxes, size = [[200, 200, 500, 400], [520, 420, 700, 700]], (800, 800)
    extras = {"orientation": [37.249, 0.00123456], "age": np.int32([[4], [12345]]), "embedding": np.ones((2, 8))}
    found = Detections(boxes, [0.974, 0.5], [1, 2], size, CATEGORIES, **extras)
    image = np.full((*size, 3), 90, np.uint8)
    names = ["nucleus 0.97 orientation 37.2 age 4", "собака 0.50 orientation 0.00123 age 1.23e+04"]
    np.testing.assert_array_equal(draw.draw_detections(image, found), draw.draw_ground_truth(image, boxes, names))


@pytest.mark.parametrize("box", [[0, 0, 30, 30], [770, 0, 800, 30], [0, 580, 30, 600], [770, 590, 800, 600]])
def test_tags_stay_inside_the_picture(box):
    x1, y1, x2, y2 = tags_of(detections([box], (600, 800)), (600, 800))[0]
    assert 0 <= x1 < x2 <= 800 and 0 <= y1 < y2 <= 600


def test_tags_of_equal_boxes_do_not_hide_each_other():
    tags = tags_of(detections([[300, 300, 500, 500]] * 4, (800, 800)), (800, 800))
    for i in range(4):
        for j in range(i):
            low, high = np.maximum(tags[i, :2], tags[j, :2]), np.minimum(tags[i, 2:], tags[j, 2:])
            assert (high <= low).any()


def test_text_of_a_tag_contrasts_with_it():
    for index in range(24):
        colour = draw.instance_colour(index)
        colours = np.array([colour, draw_text.contrast_colour(colour)])
        linear = [(c / 255) ** 2.2 @ (0.2126, 0.7152, 0.0722) for c in colours]
        assert (max(linear) + 0.05) / (min(linear) + 0.05) >= 4.5  # WCAG 2, level AA


def test_instances_get_distinct_colours():
    assert len({draw.instance_colour(index) for index in range(24)}) == 24


def test_no_detections_leave_the_picture_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (800, 700, 3), dtype=np.uint8)
    np.testing.assert_array_equal(draw.draw_detections(image, detections([], (800, 700))), image)


def test_boxes_partly_or_wholly_outside_are_no_trouble():
    found = detections([[-50, -50, 30, 30], [900, 900, 950, 950], [5, 5, 5, 5]], (800, 800))
    assert draw.draw_detections(np.zeros((800, 800, 3), np.uint8), found).shape == (800, 800, 3)


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((8, 8, 4), np.uint8), "a.png"]
)
def test_a_picture_of_another_kind_is_refused(image):
    with pytest.raises(UserError, match="uint8"):
        draw.draw_detections(image, detections([], (8, 8)))


def test_a_picture_of_another_size_is_refused():
    with pytest.raises(UserError, match=r"\(9, 8\).*\(8, 8\)"):
        draw.draw_detections(np.zeros((9, 8, 3), np.uint8), detections([], (8, 8)))


def test_side_by_side_keeps_both_and_puts_titles_above():
    left = np.full((100, 50, 3), (255, 0, 0), np.uint8)
    right = np.full((50, 50, 3), (0, 0, 255), np.uint8)
    sheet = draw.side_by_side(left, right, ("a", "b"))
    strip = sheet.shape[0] - 100
    assert strip > 0 and sheet.shape[1] > 50 + 100
    np.testing.assert_array_equal(sheet[strip:, :50], left)
    np.testing.assert_array_equal(sheet[strip:, -100:], np.full((100, 100, 3), (0, 0, 255)))
    assert (sheet[:strip] < 128).any()


def test_save_png_writes_the_pixels_and_leaves_nothing_else(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    path = tmp_path / "new folder" / "picture.png"
    draw.save_png(image, path)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), image)
    assert [p.name for p in path.parent.iterdir()] == ["picture.png"]


# Keypoints, judged by the pixels where they should and should not be.

KITE = Category(1, "kite", ["top", "left", "bottom", "right"], [[1, 3], [2, 4]])
STONE = Category(2, "stone")
POINTS = np.array([[200, 60, 2], [60, 200, 2], [200, 340, 2], [340, 200, 2]], float)
COLOUR = (0, 158, 215)


def drawn(points=POINTS, background=128, category=KITE, size=300, line=2.0):
    canvas = np.full((400, 400, 3), background, np.uint8)
    draw_skeleton(canvas, np.asarray(points, float), category, size, COLOUR, line)
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
    np.testing.assert_array_equal(scores_to_visibility(keypoints), [[[1, 2, VISIBLE], [3, 4, HIDDEN]]])
    keypoints[0, 0, 2] = 7.5
    np.testing.assert_array_equal(scores_to_visibility(keypoints), [[[1, 2, VISIBLE], [3, 4, VISIBLE]]])
    assert scores_to_visibility(np.zeros((0, 2, 3))).shape == (0, 2, 3)


def pictures(image, keypoints, scale=1, min_side=0, masks=None):
    """The picture of these detections and the one of the same as ground truth: a kite and a stone."""
    boxes = np.array([[50, 50, 350, 350], [370, 370, 380, 380]]) * scale
    size, categories = image.shape[:2], [KITE, STONE]
    found = Detections(boxes, [0.9, 0.8], [1, 2], size, categories, masks, "detectron2", keypoints)
    names = [category.name for category in categories]
    truth = draw.draw_ground_truth(image, boxes, names, masks, min_side, scores_to_visibility(keypoints), categories)
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
