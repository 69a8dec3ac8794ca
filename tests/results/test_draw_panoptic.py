"""Pictures of panoptic segments: fills, borders between them, colours of stuff, and names well inside."""

import numpy as np
import pytest

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.results import draw, draw_panoptic
from mrcnn_tf.results.draw_text import place_tag
from mrcnn_tf.results.segments import Panoptic, Segment
from mrcnn_tf.weights.architecture import COCO_STUFF

STUFF = [Category(101, "sky"), Category(102, "grass")]


def stuff_segment(number, category=STUFF[0]):
    return Segment(number, category, False, None, 1, [0, 0, 1, 1])


def thing_segment(number, name="cat"):
    return Segment(number, Category(3, name), True, 0.9, 1, [0, 0, 1, 1], 0)


def test_fills_are_blended_and_void_stays_the_photo():
    image = np.random.default_rng(1).integers(0, 256, (400, 900, 3), np.uint8)
    segment_map = np.zeros([400, 900])
    segment_map[:, :300], segment_map[:, 600:] = 70000, 5
    picture = Panoptic(segment_map, [stuff_segment(5), thing_segment(70000)]).draw(image)
    np.testing.assert_array_equal(picture[:, 310:590], image[:, 310:590])
    opacity = draw_panoptic.OPACITY
    for part, colour in (
        (np.s_[:50, :290], draw.instance_colour(0)),
        (np.s_[:50, 610:], draw_panoptic.stuff_colour(STUFF[0])),
    ):
        expected = image[part] * (1 - opacity) + opacity * np.array(colour)
        np.testing.assert_allclose(picture[part], expected, atol=1.5)


def test_stuff_keeps_its_colour_and_things_differ():
    image = np.zeros([800, 800, 3], np.uint8)
    segment_map = np.repeat([1, 2, 3, 4], 200)[None].repeat(800, axis=0)
    one = Panoptic(segment_map, [thing_segment(1), thing_segment(2), stuff_segment(3), stuff_segment(4, STUFF[1])])
    other = Panoptic(segment_map, [stuff_segment(1), stuff_segment(2, STUFF[1]), thing_segment(3), thing_segment(4)])
    one, other = (panoptic.draw(image)[100, 100::200].tolist() for panoptic in (one, other))
    assert one[2:] == other[:2] and one[:2] == other[2:]
    assert len(set(map(tuple, one))) == 4


def test_stuff_of_any_twenty_ids_in_a_row_has_distinct_colours():
    colours = np.array([draw_panoptic.stuff_colour(Category(number, "")) for number in range(1, 220)])
    apart = np.abs(colours[:, None] - colours[None]).max(axis=-1)
    places = np.arange(len(colours))
    near = np.abs(places[:, None] - places[None]) < 20
    assert apart[near & (places[:, None] != places[None])].min() >= 12


def test_cocos_stuff_has_distinct_colours_and_nature_its_own():
    colours = {one.name: np.array(draw_panoptic.stuff_colour(one)) for one in COCO_STUFF}
    table = np.array(list(colours.values()))
    apart = np.abs(table[:, None] - table[None]).max(axis=-1) + 255 * np.eye(len(table), dtype=int)
    assert len(table) == 53 and apart.min() >= 8
    channels = {"sky-other-merged": 2, "sea": 2, "grass-merged": 1, "tree-merged": 1, "sand": 0, "dirt-merged": 0}
    assert {name: int(colours[name].argmax()) for name in channels} == channels


def test_lines_show_between_segments_of_any_brightness():
    for brightness in (0, 128, 255):
        image = np.full([800, 800, 3], brightness, np.uint8)
        segment_map = np.repeat([1, 2], 400)[None].repeat(800, axis=0)
        picture = Panoptic(segment_map, [thing_segment(1), thing_segment(2)]).draw(image).astype(int)
        across = picture[100, 385:415]
        assert (np.abs(across - picture[100, 300]).sum(axis=1) > 100).any()
        assert (np.abs(across - picture[100, 500]).sum(axis=1) > 100).any()


def ring():
    """A ring around void: its middle isn't in it."""
    y, x = np.mgrid[:600, :900]
    distance = np.hypot(y - 300, x - 450)
    return ((distance > 150) & (distance < 280)).astype(int)


def letter_u():
    segment_map = np.zeros([600, 900], int)
    segment_map[50:550, 100:300] = segment_map[50:550, 600:800] = segment_map[450:550, 100:800] = 1
    return segment_map


@pytest.mark.parametrize("segment_map", [ring(), letter_u(), ring().T, np.ones([600, 900], int)])
def test_names_lie_well_inside_their_segments(segment_map):
    size = 120, 24
    places = draw_panoptic.SegmentGrid(segment_map).roomy_places(1)
    tag = place_tag(places - np.array(size) / 2, size, segment_map.shape[::-1], np.zeros([0, 4])).astype(int)
    np.testing.assert_array_equal(tag[2:] - tag[:2], size)
    assert segment_map[tag[1] : tag[3], tag[0] : tag[2]].all()


def test_a_place_is_as_deep_as_the_segment_allows():
    numbers = np.zeros([160, 64], int)
    numbers[20:31, 10:41] = 1  # cells, one for each pixel
    depths = draw_panoptic.segment_depths(numbers)
    y, x = np.mgrid[20:31, 10:41]
    expected = 1 + np.minimum(np.minimum(y - 20, 30 - y), np.minimum(x - 10, 40 - x))
    np.testing.assert_array_equal(depths[20:31, 10:41], expected)


def changed_by_names(segment_map, names):
    """Where a picture's pixels depend on what its segments are called: bool [H, W]."""
    image = np.full([*segment_map.shape, 3], 90, np.uint8)
    one, other = (
        Panoptic(segment_map, [thing_segment(number, name) for number, name in enumerate(texts, 1)]).draw(image)
        for texts in (names, ["?"] * len(names))
    )
    return (one != other).any(axis=2)


def test_large_segments_are_named_and_specks_are_not():
    segment_map = np.zeros([800, 800], int)
    segment_map[100:400, 100:700], segment_map[600:606, 600:606] = 1, 2
    assert changed_by_names(segment_map, ["cat", "?"])[100:400, 100:700].any()
    assert not changed_by_names(segment_map, ["?", "brush"]).any()


@pytest.mark.parametrize("size", [(3, 5), (200, 300), (1200, 300), (1, 1)])
def test_small_pictures_are_enlarged_so_that_text_can_be_read(size):
    segment_map = np.ones(size, int)
    segment_map[:, size[1] // 2 :] = 2
    segments = [stuff_segment(1), thing_segment(2)] if size[1] > 1 else [thing_segment(2)]
    panoptic, image = Panoptic(segment_map, segments), np.zeros([*size, 3], np.uint8)
    scale = max(1, draw.MIN_SIDE / max(size))
    assert panoptic.draw(image).shape == (round(size[0] * scale), round(size[1] * scale), 3)
    assert panoptic.draw(image, min_side=0).shape == image.shape


def test_an_enlarged_map_keeps_every_pixel():
    numbers = np.random.default_rng(2).integers(0, 5, [9, 12]).astype(np.uint16)
    large = draw_panoptic._enlarge_numbers(numbers, 4, (12 * 9, 9 * 9))
    np.testing.assert_array_equal(large[4::9, 4::9], numbers)


def test_without_segments_the_picture_stays():
    image = np.random.default_rng(0).integers(0, 256, (800, 700, 3), dtype=np.uint8)
    np.testing.assert_array_equal(Panoptic(np.zeros([800, 700]), []).draw(image), image)


def test_a_picture_of_another_size_or_kind_is_refused():
    panoptic = Panoptic(np.zeros([8, 8]), [])
    with pytest.raises(UserError, match=r"\(9, 8\).*\(8, 8\)"):
        panoptic.draw(np.zeros((9, 8, 3), np.uint8))
    with pytest.raises(UserError, match="uint8"):
        panoptic.draw(np.zeros((8, 8, 3)))
