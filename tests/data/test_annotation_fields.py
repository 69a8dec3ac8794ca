"""Numbers of the annotations' own in batches, and where a direction among them points after augmentation."""

import dataclasses
import json
import math

import numpy as np
import pytest
from made_up import Folder, annotation
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.load import load_config
from mrcnn_tf.config.settings import AugmentConfig, DataConfig, ResizeConfig, SourceConfig
from mrcnn_tf.data.pipeline import coco_dataset
from mrcnn_tf.datasets import read_coco
from mrcnn_tf.datasets.read_coco import load_index

STILL = AugmentConfig(horizontal_flip=0.0)
WIDTH = 3.0  # of an arrow


def arrow(number, image, rng, width, height):
    """A thin bar in an image: its keypoints are where it begins and ends; fields give the angle from the first to the
    second (y points down) and their distance."""
    angle, length = rng.uniform(-math.pi, math.pi), rng.uniform(12, 20)
    along = length * np.array([math.cos(angle), math.sin(angle)])
    across = WIDTH / 2 * np.array([-math.sin(angle), math.cos(angle)])
    tail = (width, height) * rng.uniform(0.45, 0.55, 2) - along / 2
    corners = np.array([tail + across, tail - across, tail + along - across, tail + along + across])
    low, high = corners.min(0), corners.max(0)
    return annotation(
        number,
        image,
        bbox=[*low, *(high - low)],
        area=length * WIDTH,
        segmentation=[corners.ravel().tolist()],
        keypoints=[*tail, 2, *(tail + along), 2],
        orientation=angle,
        length=length,
    )


@pytest.fixture
def arrows(folder):
    folder.categories = [{"id": 7, "name": "arrow", "keypoints": ["tail", "tip"]}]
    rng = np.random.default_rng(5)
    for number in range(16):
        width, height = [(60, 40), (40, 60)][number % 2]
        folder.add_image(number, width, height)
        folder.annotations += [arrow(3 * number + place, number, rng, width, height) for place in range(2)]
    return folder


EVERYTHING = {
    "horizontal_flip": 0.5,
    "vertical_flip": 0.5,
    "quarter_turns": True,
    "rotation": 90.0,
    "crop": 0.5,
    "scale_jitter": [0.5, 1.8],
    "copy_paste": 0.7,
}


@pytest.mark.parametrize("name", [*EVERYTHING, "min_sizes", "everything", "evaluation"])
def test_a_direction_goes_where_the_two_keypoints_go(arrows, name):
    chosen = {"everything": EVERYTHING, "min_sizes": {"min_sizes": [40, 70]}, "evaluation": {}}
    augment = AugmentConfig(**{"horizontal_flip": 0.0} | chosen.get(name, {name: EVERYTHING.get(name)}))
    config = arrows.config(fields=["orientation", "length"], augment=augment, resize=ResizeConfig(50, 90))
    compared, linear = 0, []
    for batch in coco_dataset(config, training=name != "evaluation"):
        assert np.isfinite(batch["orientation"]).tolist() == (batch["classes"] > 0).numpy().tolist()
        columns = (batch[key][0].numpy() for key in ("orientation", "length", "transform", "keypoints"))
        for angle, length, transform, (tail, tip) in zip(*columns, strict=True):
            if tail[2] and tip[2]:
                direction = length * np.array([math.cos(angle), math.sin(angle)])
                np.testing.assert_allclose(transform @ direction, tip[:2] - tail[:2], atol=0.01)
                compared, linear = compared + 1, [*linear, transform]
    assert compared >= 12
    least = {"quarter_turns": 4, "copy_paste": 1, "evaluation": 1}.get(name, 2)
    assert len({one.round(1).tobytes() for one in linear}) >= least


def test_what_is_pasted_in_has_a_transform_of_its_own(arrows):
    augment = AugmentConfig(horizontal_flip=0.5, copy_paste=1.0)
    mirrored = []
    for batch in coco_dataset(arrows.config(fields=["length"], augment=augment), training=True):
        linear = batch["transform"][0].numpy()[batch["classes"][0] > 0]
        mirrored.append(set((np.linalg.det(linear) < 0).tolist()))
    assert {True, False} in mirrored


def test_a_batch_by_hand(folder, capsys):
    folder.add_image(1)
    folder.add_image(2)
    folder.annotations = [
        annotation(1, weight=2, age=0.5),
        annotation(2, weight="0.25", age=-3),
        annotation(3, area=1.0, weight=9.0, age=9.0),  # the smallest of six, without room
        annotation(4, age=7),
        annotation(5, weight=None, age=8),
        annotation(6, weight=True, age=9),
        annotation(7, 2, weight="north", age=10**400),
        annotation(8, 2, weight=float("nan"), age=1e300),
        annotation(9, 2, weight=[1], age=float("-inf")),
        annotation(10, 2, category_id=99, weight=1, age=1),  # not used
    ]
    config = folder.config(fields=["weight", "age"], images_per_batch=2, resize=ResizeConfig(60, 100))
    (batch,) = coco_dataset(config, training=False)
    nan = math.nan
    assert batch["weight"].dtype == batch["age"].dtype == batch["transform"].dtype == np.float32
    np.testing.assert_array_equal(batch["weight"], [[2, 0.25, nan, nan, 1], [nan] * 5])
    np.testing.assert_array_equal(batch["age"], [[0.5, -3, 7, 8, 9], [nan] * 5])
    double, none = [[2, 0], [0, 2]], [[0, 0], [0, 0]]
    assert batch["transform"].numpy().tolist() == [[double] * 5, [double] * 3 + [none] * 2]
    said = capsys.readouterr().err
    assert f"{config.annotations}: 5 of 9 annotations have no number 'weight'; in batches it is NaN." in said
    assert f"{config.annotations}: 3 of 9 annotations have no number 'age'; in batches it is NaN." in said
    assert said.count("no number") == 2
    bad = "Annotation 7 in .*a.json has 'north' as 'weight', which isn't a finite number and counts as missing: correct"
    assert "5 x bad_field" in said
    problems = [problem for problem in load_index(config).problems if problem.kind == "bad_field"]
    assert [problem.record for problem in problems] == [7, 7, 8, 9, 9]
    with pytest.raises(UserError, match=bad):
        raise UserError(problems[0].message)


def test_a_turned_photos_directions_are_those_of_the_upright_picture(folder):
    tag = Image.Exif()
    tag[0x0112] = 6
    folder.add_image(1, 40, 30, exif=tag)
    folder.images[0] |= {"width": 30, "height": 40}
    folder.annotations = [annotation(1, weight=1)]
    (batch,) = coco_dataset(folder.config(fields=["weight"], resize=ResizeConfig(60, 100)), training=False)
    assert batch["image_size"].numpy().tolist() == [[80, 60]]
    assert batch["transform"][0, 0].numpy().tolist() == [[2, 0], [0, 2]]


def test_other_fields_are_another_index(folder, monkeypatch):
    folder.add_image(1)
    folder.annotations = [annotation(1, a=1, b=2)]
    config = folder.config()

    def values(*names):
        return load_index(dataclasses.replace(config, fields=list(names))).field_values.tolist()

    expected = {(): [[]], ("a",): [[1]], ("b",): [[2]], ("b", "a"): [[2, 1]]}
    assert {names: values(*names) for names in expected} == expected
    monkeypatch.setattr(read_coco, "_compile", None)
    assert {names: values(*names) for names in expected} == expected


def test_without_annotations_there_is_no_field_to_miss(folder):
    folder.add_image(1)
    (batch,) = coco_dataset(folder.config(fields=["weight"]), training=False)
    assert np.isnan(batch["weight"]).tolist() == [[True] * 5] and not batch["transform"].numpy().any()


def test_several_sources(folder, tmp_path):
    (tmp_path / "b").mkdir()
    other = Folder(tmp_path / "b")
    folder.add_image(1)
    other.add_image(1)
    folder.annotations, other.annotations = [annotation(1, weight=3)], [annotation(1), annotation(2, weight=4)]

    def several():
        parts = [one.config(fields=["weight"]) for one in (folder, other)]
        sources = [SourceConfig(part.annotations, part.images) for part in parts]
        return dataclasses.replace(parts[0], annotations="", images="", sources=sources)

    first, second = coco_dataset(several(), training=False)
    np.testing.assert_array_equal(first["weight"], [[3] + [math.nan] * 4])
    np.testing.assert_array_equal(second["weight"], [[math.nan, 4] + [math.nan] * 3])
    other.annotations = [annotation(1)]
    with pytest.raises(UserError, match="No annotation of .*b/a.json has a number 'weight'"):
        coco_dataset(several(), training=False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"orientation": 1}, "has a number 'orientaton', which data.*fields asks for: name 'orientation' there"),
        ({}, "has a number 'orientaton', which data.*fields asks for: give it to annotations, or leave it out there"),
        ({"orientaton": "north"}, "has a number 'orientaton', which data.*fields asks for: give it"),
    ],
)
def test_a_field_that_no_annotation_has(folder, given, message):
    folder.add_image(1)
    folder.annotations = [annotation(1, weight=1, **given)]
    with pytest.raises(UserError, match=f"No annotation of .*a.json {message}"):
        coco_dataset(folder.config(fields=["weight", "orientaton"]), training=True)


def test_data_without_annotations_of_their_own(folder):
    with pytest.raises(UserError, match="fields asks for weight, for which the records r-. have no place: train from"):
        coco_dataset(DataConfig(records="r-*", fields=["weight"]), training=True)
    (folder.path / "p.json").write_text("{}")
    maps = DataConfig(panoptic=str(folder.path / "p.json"), panoptic_maps=str(folder.path), fields=["weight"])
    with pytest.raises(
        UserError, match="fields asks for weight, and .*/p.json has no annotations .*: name a COCO json"
    ):
        coco_dataset(maps, training=True)


@pytest.mark.parametrize("names", [["boxes"], ["transform"], ["a-b"], ["a", "a"], [""], ["2d"]])
def test_names_that_cant_be(folder, names):
    annotations = folder.config().annotations
    setting = f"data.train.fields={json.dumps(names)}"
    with pytest.raises(UserError, match=r"'data.train.fields' is \[.*\]: give names of letters.* none of image,"):
        load_config("mask_rcnn_r50_fpn", [f"data.train.annotations={annotations}", setting])


def test_every_entry_of_a_batch_is_a_name_that_cant_be(arrows):
    config = arrows.config(fields=["length"])
    spec = coco_dataset(config, training=True).element_spec
    for name in {*spec, "semantic"} - {"length"}:
        with pytest.raises(UserError, match="data.train.fields"):
            load_config(
                "mask_rcnn_r50_fpn", [f"data.train.annotations={config.annotations}", f"data.train.fields=[{name}]"]
            )
