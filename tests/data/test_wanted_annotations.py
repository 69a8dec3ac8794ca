"""Datasets of models without masks or without keypoints, which ask for less and get less."""

import dataclasses

import numpy as np
import pytest
from made_up import FACE, SQUARE, annotation

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import AugmentConfig, ResizeConfig
from mrcnn_tf.data.order import select_training_images
from mrcnn_tf.data.pipeline import coco_dataset
from mrcnn_tf.datasets import read_coco
from mrcnn_tf.datasets.read_coco import load_index

EVERYTHING = AugmentConfig(0.5, 0.5, True)
UNUSABLE = [
    ...,
    None,
    [],
    {},
    "text",
    [[1.0, 2.0, 3.0, 4.0]],
    [1.0, 2.0, 3.0, 4.0, 5.0],
    [[0, 0, 5, float("inf"), 5, 5]],
    {"size": [30, 40]},
    {"size": [3, 3], "counts": [9]},
    {"size": [30, 40], "counts": [1200]},
    {"size": [30, 40], "counts": "not an RLE"},
]


def test_without_masks_a_box_is_enough(folder, capsys):
    folder.add_image(1)
    folder.annotations = [annotation(number, segmentation=bad) for number, bad in enumerate(UNUSABLE)]
    folder.annotations.append(annotation(90))
    settings = {"max_instances": 20}
    index = load_index(folder.config(masks=False, **settings))
    assert index.annotation_ids.tolist() == [*range(len(UNUSABLE)), 90]
    assert index.boxes.tolist() == [[2, 3, 12, 13]] * (len(UNUSABLE) + 1)
    assert index.problems == [] and "not used" not in capsys.readouterr().err
    assert not (index.points.size or index.runs.size or index.ring_offsets.any() or index.run_offsets.any())
    for masks in (True, None):
        assert load_index(folder.config(masks=masks, **settings)).annotation_ids.tolist() == [90]


def test_without_masks_a_missing_box_still_comes_from_the_segmentation(folder):
    folder.add_image(1)
    runs = {"size": [30, 40], "counts": [60, 5, 1135]}
    folder.annotations = [
        annotation(1, bbox=..., segmentation=SQUARE),
        annotation(2, bbox=..., segmentation=...),
        annotation(3),
        annotation(4, bbox=..., segmentation=runs),
        annotation(5, bbox=None, segmentation={"size": [3, 3], "counts": [9]}),
        annotation(6, bbox=[1, 2, 3]),
    ]
    index = load_index(folder.config(masks=False))
    assert index.annotation_ids.tolist() == [1, 3, 4, 6]
    assert index.boxes.tolist() == [[2, 3, 12, 13], [2, 3, 12, 13], [2, 0, 3, 5], [2, 3, 12, 13]]
    messages = {(one.record, one.kind): one.message for one in index.problems}
    assert set(messages) == {(1, "missing_box"), (2, "bad_box"), (4, "missing_box"), (5, "rle_size"), (6, "bad_box")}
    assert messages[2, "bad_box"] == (
        f"Annotation 2 in {folder.path}/a.json has neither a bbox nor a segmentation to take it from and was skipped: "
        "give [x, y, width, height]."
    )


@pytest.mark.parametrize("training", [True, False])
def test_without_masks_batches_are_otherwise_the_same(faces, monkeypatch, training):
    faces.add_image(1, 40, 30)
    faces.add_image(2, 40, 20)
    faces.annotations = [
        annotation(1, keypoints=FACE),
        annotation(2, category_id=9, bbox=[20, 5, 15, 10], iscrowd=1),
        annotation(3, 2, category_id=3, keypoints=[3, 4, 2, 9, 8, 1]),
    ]
    settings = {"augment": EVERYTHING, "resize": ResizeConfig(60, 90)}
    with_masks = list(coco_dataset(faces.config(**settings), training).repeat(4))
    monkeypatch.setattr("mrcnn_tf.data.loader.crop_masks", lambda *_: pytest.fail("masks are drawn"))
    without = list(coco_dataset(faces.config(masks=False, **settings), training).repeat(4))
    assert len(with_masks) == len(without) == 8
    for one, other in zip(with_masks, without, strict=True):
        assert set(one) - set(other) == {"masks"}
        for name, value in other.items():
            np.testing.assert_array_equal(value, one[name], name)


def test_without_keypoints_nobody_looks_at_them(faces, capsys):
    """Of a left eye without a right one, of lists too short and of other names than the config's."""
    faces.categories[0]["keypoints"] = ["nose", "left_eye", "chin"]
    faces.add_image(1)
    faces.annotations = [annotation(1, keypoints=FACE), annotation(2, keypoints=[1, 2]), annotation(3)]
    settings = {"augment": AugmentConfig(1.0), "keypoints": False}
    for categories in ([], [Category(7, "face", ["left", "right"], [[1, 2]])]):
        config = faces.config(categories=categories, **settings)
        index = load_index(config)
        assert index.annotation_ids.size == 3 and index.keypoints.size == 0 and not index.keypoint_offsets.any()
        assert index.problems == [] and "not used" not in capsys.readouterr().err
        assert not any(category.keypoints or category.skeleton for category in index.categories)
    (batch,) = coco_dataset(config, training=True)
    assert "keypoints" not in batch and "masks" in batch and (batch["classes"].numpy() > 0).sum() == 3
    assert config.categories[0].keypoints == ["left", "right"]
    for keypoints in (True, None):
        with pytest.raises(UserError, match="same names in the same order"):
            load_index(faces.config(categories=config.categories, keypoints=keypoints))


def test_images_without_keypoints_are_not_chosen_by_their_number(faces):
    faces.add_image(1)
    faces.annotations = [annotation(1, keypoints=FACE)]
    config = faces.config(keypoints=False, min_keypoints=2)
    sentence = r"^data.train.min_keypoints is 2, but the data is used without keypoints: set it to 0 or add [^:]*\.$"
    with pytest.raises(UserError, match=sentence):
        coco_dataset(config, training=True)
    config.min_keypoints = 0
    assert select_training_images(load_index(config), config).tolist() == [0]


def test_each_choice_has_its_own_cached_index(faces, monkeypatch):
    faces.add_image(1)
    faces.annotations = [annotation(1, keypoints=FACE), annotation(2, segmentation=..., keypoints=FACE)]
    config = faces.config()  # writes the json, which stays as it is from here on
    expected = {
        (True, True): ([1], 8, 3),
        (True, False): ([1], 8, 0),
        (False, True): ([1, 2], 0, 6),
        (False, False): ([1, 2], 0, 0),
    }

    def found(masks, keypoints):
        index = load_index(dataclasses.replace(config, masks=masks, keypoints=keypoints))
        return index.annotation_ids.tolist(), index.points.size, len(index.keypoints)

    assert {choice: found(*choice) for choice in expected} == expected
    monkeypatch.setattr(read_coco, "_compile", lambda config: pytest.fail("compiled again"))
    assert {choice: found(*choice) for choice in expected} == expected
    assert found(None, None) == expected[True, True]


def nobodys_keypoints():
    """(annotations, categories or None for the usual ones, keypoints) of sets without a labelled keypoint."""
    return {
        "zeros": ([annotation(1, keypoints=[0] * 9)], None, True),
        "zeros, not said": ([annotation(1, keypoints=[0] * 9)], None, None),
        "none": ([annotation(1)], None, True),
        "a crowd's": ([annotation(1), annotation(2, iscrowd=1, keypoints=FACE)], None, True),
        "a category's without": ([annotation(1, category_id=9, keypoints=FACE)], None, True),
        "no names": ([annotation(1, keypoints=FACE)], [{"id": 7, "name": "face"}], True),
    }


@pytest.mark.parametrize("case", nobodys_keypoints())
def test_a_keypoint_head_needs_labelled_keypoints(faces, case):
    faces.annotations, categories, keypoints = nobodys_keypoints()[case]
    faces.categories = categories or faces.categories
    faces.add_image(1)
    sentence = r"^No annotation of [^ ]*/a\.json has a labelled keypoint to train on: name .*model.keypoint_head=null"
    with pytest.raises(UserError, match=sentence):
        coco_dataset(faces.config(keypoints=keypoints), training=True)


def test_others_need_no_labelled_keypoints(faces):
    faces.add_image(1)
    faces.annotations = [annotation(1, keypoints=[0] * 9)]
    for config in (faces.config(keypoints=False), faces.config(categories=[Category(7, "face")])):
        assert select_training_images(load_index(config), config).tolist() == [0]
    assert len(coco_dataset(faces.config(keypoints=True), training=False)) == 1


@pytest.mark.parametrize("crowd", [1, "1", True])
def test_crowds_alone_teach_nothing(folder, crowd):
    folder.add_image(1)
    folder.annotations = [annotation(number, iscrowd=crowd) for number in (1, 2)]
    with pytest.raises(UserError, match=r"^All 2 annotations of [^ ]*/a\.json that can be used are crowds.* to 0"):
        coco_dataset(folder.config(), training=True)
    folder.annotations.append(annotation(3, iscrowd="0"))
    coco_dataset(folder.config(), training=True)


def test_classes_without_an_object_are_named_before_training(folder, capsys):
    folder.add_image(1)
    folder.categories += [{"id": 50 + number, "name": f"thing {number}"} for number in range(7)]
    folder.categories.append({"id": 70, "name": "N/A"})
    known = len(folder.categories)
    folder.annotations = [annotation(1), annotation(2, category_id=50), annotation(3, category_id=51, iscrowd=1)]
    coco_dataset(folder.config(), training=True)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "no object to learn from" in line]
    unlearnt = known - 3  # of these one has objects, one is no class, and one is that of annotation 1
    assert f"a.json: {unlearnt} of {known} classes have no object to learn from (" in line
    assert "thing 1" in line and "thing 0" not in line and "N/A" not in line
    assert line.endswith("leave such classes out.")
