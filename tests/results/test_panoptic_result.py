"""The Panoptic object: its segments, COCO's format, and its picture."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import PanopticConfig
from mrcnn_tf.datasets.label_maps import colour_numbers
from mrcnn_tf.results import draw
from mrcnn_tf.results import draw_panoptic
from mrcnn_tf.results.detections import Detections
from mrcnn_tf.results.segments import Panoptic
from mrcnn_tf.results.segments import Segment
from mrcnn_tf.weights.architecture import COCO_STUFF

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
        ids = colour_numbers(np.asarray(image))
    np.testing.assert_array_equal(ids, panoptic.segment_map)
    assert {segment["id"]: segment["area"] for segment in record["segments_info"]} == {
        number: int((ids == number).sum()) for number in range(1, 5)
    }


def test_a_png_holds_ids_of_three_bytes():
    segment_map = [[0, 255, 256], [65535, 65536, 256**3 - 1]]
    panoptic = Panoptic(segment_map, [])
    np.testing.assert_array_equal(colour_numbers(np.asarray(Image.open(io.BytesIO(panoptic.png())))), segment_map)


def test_maps_of_another_shape_and_ids_used_twice_are_refused():
    with pytest.raises(ValueError, match=r"\[2, 3, 1\]"):
        Panoptic(np.zeros([2, 3, 1]), [])
    with pytest.raises(ValueError, match="id"):
        Panoptic(np.zeros([2, 3]), [stuff_segment(1), stuff_segment(1)])


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
    places = draw_panoptic._Cells(segment_map).places(1)
    tag = draw_panoptic._place_tag(places, size, segment_map.shape[::-1], np.zeros([0, 4])).astype(int)
    np.testing.assert_array_equal(tag[2:] - tag[:2], size)
    assert segment_map[tag[1] : tag[3], tag[0] : tag[2]].all()


def test_a_place_is_as_deep_as_the_segment_allows():
    numbers = np.zeros([160, 64], int)
    numbers[20:31, 10:41] = 1  # cells, one for each pixel
    depths = draw_panoptic._depths(numbers)
    y, x = np.mgrid[20:31, 10:41]
    expected = 1 + np.minimum(np.minimum(y - 20, 30 - y), np.minimum(x - 10, 40 - x))
    np.testing.assert_array_equal(depths[20:31, 10:41], expected)


def test_a_name_avoids_another_one():
    places = np.array([[100.0, 100.0], [300.0, 100.0]])
    taken = draw_panoptic._place_tag(places, (60, 20), (400, 200), np.zeros([0, 4]))
    np.testing.assert_array_equal(taken, [70, 90, 130, 110])
    other = draw_panoptic._place_tag(places, (60, 20), (400, 200), taken[None])
    np.testing.assert_array_equal(other, [270, 90, 330, 110])


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
    large = draw_panoptic._enlarged(numbers, 4, (12 * 9, 9 * 9))
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
