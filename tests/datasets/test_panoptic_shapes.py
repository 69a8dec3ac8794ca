import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.map_files import read_label_map, read_segment_map
from mrcnn_tf.datasets.panoptic_shapes import FIRST_STUFF, STONES, STUFF, draw_landscape, make_panoptic_shapes
from mrcnn_tf.datasets.shapes import Look

SIZE = 96


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_panoptic_shapes(tmp_path_factory.mktemp("made"), 12, seed=3, size=SIZE)


def test_all_forms_of_the_truth_say_the_same(made):
    panoptic, instances = json.loads(made.panoptic.read_text()), json.loads(made.annotations.read_text())
    categories = {one["id"]: one for one in panoptic["categories"]}
    assert {one["name"]: one["isthing"] for one in categories.values()} == {
        **dict.fromkeys(("blade", "arrow", "hook", "cross"), 1),
        **dict.fromkeys(STUFF, 0),
    }
    assert [one["id"] for one in instances["categories"]] == [1, 2, 3, 4]
    assert panoptic["images"] == instances["images"] and len(panoptic["images"]) == 12
    left = {one["id"]: one for one in instances["annotations"]}
    seen, void = set(), 0
    for annotation in panoptic["annotations"]:
        ids = read_segment_map(made.panoptic_maps / annotation["file_name"])
        labels = read_label_map(made.semantic_maps / annotation["file_name"])
        segments = annotation["segments_info"]
        assert set(np.unique(ids)) - {0} == {one["id"] for one in segments}
        assert len({one["id"] for one in segments}) == len(segments)
        stuff = [one["category_id"] for one in segments if one["category_id"] >= FIRST_STUFF]
        assert len(set(stuff)) == len(stuff)  # one of each kind
        for one in segments:
            mask = ids == one["id"]
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert one["area"] == mask.sum() and one["bbox"] == box and one["iscrowd"] == 0
            assert (labels[mask] == one["category_id"]).all()
            seen.add(one["category_id"])
            if categories[one["category_id"]]["isthing"]:
                (same,) = [
                    number
                    for number, other in left.items()
                    if other["image_id"] == annotation["image_id"] and other["bbox"] == one["bbox"]
                ]
                other = left.pop(same)
                assert (other["area"], other["category_id"]) == (one["area"], one["category_id"])
                np.testing.assert_array_equal(coco_mask.decode(other["segmentation"]), mask)
        assert not labels[ids == 0].any()
        void += (ids == 0).sum()
    assert not left and seen == set(categories) and void > 0


def test_stuff_is_told_by_its_looks():
    """A pixel's surroundings name its kind: the nearest of the kinds' mean colours is right far more often than not."""
    colours, kinds = [], []
    for seed in range(60):
        regions, picture = draw_landscape(np.random.default_rng(seed), SIZE)
        assert picture.shape == (SIZE, SIZE, 3) and set(np.unique(regions)) <= set(range(STONES + 1))
        blocks = picture.reshape(SIZE // 8, 8, SIZE // 8, 8, 3).mean((1, 3)).reshape(-1, 3)
        regions = regions.reshape(SIZE // 8, 8, SIZE // 8, 8).transpose(0, 2, 1, 3).reshape(len(blocks), -1)
        pure = (regions == regions[:, :1]).all(1)
        colours.append(blocks[pure])
        kinds.append(regions[pure, 0])
    colours, kinds = np.concatenate(colours), np.concatenate(kinds)
    assert (np.bincount(kinds, minlength=STONES + 1)[:STONES] > 100).all()
    half = len(kinds) // 2
    means = np.array([colours[:half][kinds[:half] == kind].mean(0) for kind in range(STONES)])
    rest = kinds[half:] != STONES
    found = np.linalg.norm(colours[half:][rest][:, None] - means, axis=2).argmin(1)
    assert (found == kinds[half:][rest]).mean() > 0.9


def test_shapes_stand_out_from_the_ground(made):
    panoptic = json.loads(made.panoptic.read_text())
    contrasts = []
    for annotation in panoptic["annotations"]:
        picture = np.asarray(Image.open(made.images / annotation["file_name"])).astype(float)
        ids = read_segment_map(made.panoptic_maps / annotation["file_name"])
        for one in annotation["segments_info"]:
            if one["category_id"] < FIRST_STUFF:
                x, y, width, height = one["bbox"]
                part = ids[y : y + height, x : x + width], picture[y : y + height, x : x + width]
                own = part[0] == one["id"]
                contrasts.append(np.linalg.norm(part[1][own].mean(0) - part[1][~own].mean(0)))
    assert len(contrasts) > 20 and min(contrasts) > 25 and np.median(contrasts) > 80


def test_a_picture_depends_on_seed_and_number_alone(tmp_path, made):
    again = make_panoptic_shapes(tmp_path / "again", 12, seed=3, size=SIZE)
    fewer = make_panoptic_shapes(tmp_path / "fewer", 2, seed=3, size=SIZE)
    for part in ("panoptic", "annotations"):
        assert getattr(again, part).read_bytes() == getattr(made, part).read_bytes()
    for part in ("images", "panoptic_maps", "semantic_maps"):
        for name in ("000001.png", "000002.png"):
            expected = (getattr(made, part) / name).read_bytes()
            assert (getattr(again, part) / name).read_bytes() == expected == (getattr(fewer, part) / name).read_bytes()
    kept = json.loads(made.panoptic.read_text())["annotations"][:2]
    assert json.loads(fewer.panoptic.read_text())["annotations"] == kept
    other = make_panoptic_shapes(tmp_path / "other", 2, seed=4, size=SIZE)
    assert json.loads(other.panoptic.read_text())["annotations"] != kept
    names = {"images", "panoptic.json", "panoptic", "instances.json", "semantic"}
    assert {file.name for file in (tmp_path / "fewer").iterdir()} == names


def test_kinds_can_be_chosen(tmp_path):
    made = make_panoptic_shapes(tmp_path, 3, size=SIZE, look=Look(shapes=(1, 2), kinds=("hook", "cross")))
    panoptic = json.loads(made.panoptic.read_text())
    assert [(one["id"], one["name"]) for one in panoptic["categories"]][:3] == [(1, "hook"), (2, "cross"), (21, "sky")]
    found = {one["category_id"] for annotation in panoptic["annotations"] for one in annotation["segments_info"]}
    assert found & {1, 2} and not found & {3, 4}


def test_numbers_that_make_no_sense(tmp_path):
    with pytest.raises(UserError, match="at least 1"):
        make_panoptic_shapes(tmp_path, 0)
    with pytest.raises(UserError, match="called spoon"):
        make_panoptic_shapes(tmp_path, 1, look=Look(kinds=("spoon",)))
