import json

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import DataConfig
from mrcnn_tf.datasets.read_coco import load_index
from mrcnn_tf.datasets.shapes import (
    SHAPE_KINDS,
    Look,
    clip_polygon,
    contains_point,
    make_shapes,
    paint_scene,
    pixel_coverage,
    place_shapes,
    polygon_area,
)

SIZE = 96


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(json, image folder, the json's content) of 20 pictures."""
    path, images = make_shapes(tmp_path_factory.mktemp("shapes"), 20, seed=3, size=SIZE)
    return path, images, json.loads(path.read_text())


def _scene(seed):
    return place_shapes(np.random.default_rng(seed), SIZE, Look((4, 6), (1 / 6, 1 / 2)))


def _rastered(ring, size):
    return coco_mask.decode(coco_mask.frPyObjects([np.ravel(ring).tolist()], size, size))[..., 0].astype(bool)


def _alone(shape, size):
    """The pixels that a shape changes most, drawn by itself on a plain ground, at ten times the size."""
    picture = Image.new("L", (10 * size, 10 * size))
    ImageDraw.Draw(picture).polygon([tuple(point) for point in 10 * shape.outline - 0.5], fill=255)
    return np.asarray(picture, float).reshape(size, 10, size, 10).mean(axis=(1, 3)) / 255


def test_coverage_is_what_pillow_draws_at_ten_times_the_size():
    for seed in range(5):
        for shape in _scene(seed):
            expected = _alone(shape, SIZE)  # Pillow also fills the outline's own pixels, a twentieth beyond it
            assert np.abs(shape.coverage - expected).max() < 0.3
            assert np.abs(shape.coverage - expected).mean() < 0.1 * expected.mean()


def test_polygon_area_and_raster_are_those_of_the_shape_drawn():
    for seed in range(10):
        for shape in _scene(seed):
            drawn = shape.coverage > 0.5
            rastered = _rastered(shape.ring, SIZE)
            assert (drawn & rastered).sum() / (drawn | rastered).sum() > 0.75  # a pixel of a thin stroke is a lot
            np.testing.assert_allclose(shape.coverage.sum(), polygon_area(shape.ring), rtol=0.03)


def test_the_picture_shows_the_shapes_where_the_truth_has_them():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        scene = place_shapes(rng, SIZE, Look((1, 1), (0.42, 0.5)))
        state = rng.bit_generator.state
        picture = paint_scene(rng, scene, SIZE).astype(float)
        rng.bit_generator.state = state
        ground = paint_scene(rng, [], SIZE).astype(float)
        changed = np.abs(picture - ground).sum(axis=2)
        mask = scene[0].coverage
        assert np.median(changed[mask == 1]) > 3 * np.median(changed[mask == 0])


def _along(outline):
    """Points [P, 2] a fiftieth of a side apart on a polygon's sides."""
    share = np.linspace(0, 1, 51)[:, None, None]
    return ((1 - share) * outline + share * np.roll(outline, -1, axis=0)).reshape(-1, 2)


def test_clip_agrees_with_counting_samples():
    rng, cut = np.random.default_rng(0), 0
    for trial in range(300):
        kind = SHAPE_KINDS[trial % len(SHAPE_KINDS)]
        angle = rng.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        outline = kind.draw(30, 4, rng.uniform())[0] @ turn.T + rng.uniform(-4, 24, 2)
        ring = clip_polygon(outline, 20)
        mask = pixel_coverage(outline, 20)  # which looks at the image's own samples alone
        assert (polygon_area(ring) if len(ring) else 0) == pytest.approx(mask.sum(), abs=1.2)
        # What is left reaches as far as the sides do within the image, and as its corners inside the shape.
        corners = [corner for corner in ((0, 0), (0, 20), (20, 0), (20, 20)) if contains_point(outline, corner)]
        points = _along(outline)
        points = np.concatenate([points[((points >= 0) & (points <= 20)).all(axis=1)], np.reshape(corners, (-1, 2))])
        if len(points):
            cut += mask.sum() < 0.9 * polygon_area(outline)
            np.testing.assert_allclose(ring.min(axis=0), points.min(axis=0), atol=0.7)
            np.testing.assert_allclose(ring.max(axis=0), points.max(axis=0), atol=0.7)
    assert cut > 100


def test_clip_of_a_notched_shape_leaves_no_trace_of_what_is_outside():
    # A U whose bottom lies outside: two pieces, and nothing of the corner beyond them.
    outline = np.array([[2, 3], [4, 3], [4, -2], [6, -2], [6, 3], [8, 3], [8, -4], [2, -4]], float)
    ring = clip_polygon(outline, 10)
    assert polygon_area(ring) == pytest.approx(12)
    np.testing.assert_allclose([*ring.min(axis=0), *ring.max(axis=0)], [2, 0, 8, 3])
    assert len(clip_polygon(outline + [0, -20], 10)) == 0


def test_truth_is_sound(made):
    _, images, data = made
    categories = {category["id"]: category for category in data["categories"]}
    assert [category["name"] for category in data["categories"]] == ["blade", "arrow", "hook", "cross"]
    assert {record["category_id"] for record in data["annotations"]} == set(categories)
    assert len({record["id"] for record in data["annotations"]}) == len(data["annotations"])
    seen = set()
    for record in data["annotations"]:
        ring = np.reshape(record["segmentation"][0], (-1, 2))
        assert ring.min() >= 0 and ring.max() <= SIZE
        assert record["area"] == pytest.approx(polygon_area(ring), abs=1e-3)
        np.testing.assert_allclose(record["bbox"], [*ring.min(axis=0), *np.ptp(ring, axis=0)], atol=0.011)
        names = categories[record["category_id"]].get("keypoints", [])
        points = np.reshape(record.get("keypoints", []), (-1, 3))
        assert len(points) == len(names)
        assert record.get("num_keypoints", 0) == (points[:, 2:] > 0).sum()
        seen |= set(points[:, 2])
        for x, y, visible in points[points[:, 2] > 0]:
            assert visible in (1, 2) and min(x, y) >= 0 and max(x, y) <= SIZE - 1
            place = np.array([x, y]) + 0.5  # from pixel numbers to where polygons have their zero
            assert contains_point(ring, place) or np.linalg.norm(_along(ring) - place, axis=1).min() < 0.6
        np.testing.assert_array_equal(points[points[:, 2] == 0], 0)
    assert seen == {0, 1, 2}
    assert np.asarray(Image.open(images / "000001.png")).shape == (SIZE, SIZE, 3)


def test_shapes_hide_each_other_only_in_part_and_say_so():
    hidden = 0
    for seed in range(20):
        scene = _scene(seed)
        for index, shape in enumerate(scene):
            above = np.max([np.zeros_like(shape.coverage), *(s.coverage for s in scene[index + 1 :])], axis=0)
            share = (shape.coverage * above).sum() / shape.coverage.sum()
            assert share <= 0.5
            hidden += share > 0.05
    assert hidden > 10  # or there would be no overlap to cope with


def test_left_and_right_are_those_of_someone_who_looks_along_the_arrow():
    for seed in range(10):
        for shape in _scene(seed):
            if shape.kind.name == "arrow":
                tip, tail, left, right = shape.keypoints
                along, across = tip - tail, right - left
                assert along[0] * across[1] - along[1] * across[0] > 0  # y points down: right is clockwise


def test_contains():
    square = np.array([[0, 0], [4, 0], [4, 4], [2, 1], [0, 4]], float)
    assert contains_point(square, (0.5, 2)) and contains_point(square, (3.5, 2))
    assert not any(contains_point(square, outside) for outside in ((2, 2), (5, 2), (-1, 2)))


def test_a_picture_depends_on_seed_and_number_alone(tmp_path, made):
    path, images, data = made
    again, pictures = make_shapes(tmp_path / "again", 20, seed=3, size=SIZE)
    assert again.read_bytes() == path.read_bytes()
    fewer, few = make_shapes(tmp_path / "fewer", 2, seed=3, size=SIZE)
    kept = [record for record in data["annotations"] if record["image_id"] <= 2]
    assert json.loads(fewer.read_text())["annotations"] == kept
    for name in ("000001.png", "000002.png"):
        expected = (images / name).read_bytes()
        assert (pictures / name).read_bytes() == expected == (few / name).read_bytes()
    other, _ = make_shapes(tmp_path / "other", 2, seed=4, size=SIZE)
    assert json.loads(other.read_text())["annotations"] != kept
    assert {file.name for file in (tmp_path / "fewer").iterdir()} == {"annotations.json", "images"}


def test_kinds_and_strokes_can_be_chosen(tmp_path):
    """Alone, a blade covers half of its length times its base, which is about two strokes wide."""
    look = Look(shapes=(1, 1), lengths=(0.4, 0.4), strokes=(0.3, 0.3), kinds=("blade",))
    path, _ = make_shapes(tmp_path, 6, size=SIZE, look=look)
    data = json.loads(path.read_text())
    assert [category["name"] for category in data["categories"]] == ["blade"]
    assert {record["category_id"] for record in data["annotations"]} == {1}
    whole = max(record["area"] for record in data["annotations"])
    assert 0.8 * 0.3 < whole / (0.4 * SIZE) ** 2 < 1.2 * 0.3


def test_the_pipeline_takes_it_without_a_word(made):
    path, images, data = made
    index = load_index(DataConfig(annotations=str(path), images=str(images)))
    assert index.problems == []
    assert len(index.image_ids) == 20 and len(index.classes) == len(data["annotations"])


@pytest.mark.parametrize(
    "wrong, word",
    [
        ({"images": 0}, "at least 1"),
        ({"size": 8}, "of at least 16"),
        ({"look": Look(shapes=(3, 2))}, "the least and the most"),
        ({"look": Look(lengths=(0.6, 0.4))}, "smallest first"),
        ({"look": Look(lengths=(0.6, 1.4))}, "smallest first"),
        ({"look": Look(strokes=(0.3, 0.2))}, "shares up to a half"),
        ({"look": Look(kinds=("arrow", "spoon"))}, "called spoon: choose of blade, arrow, hook, cross"),
    ],
)
def test_numbers_that_make_no_sense(tmp_path, wrong, word):
    with pytest.raises(UserError, match=word):
        make_shapes(tmp_path, **{"images": 1} | wrong)
