"""Panoptic jsons and label maps through the pipeline, from the files to batches."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from panoptic_folder import CAT, DOG, GRASS, SKY, STILL, PanopticFolder, labels_of
from PIL import Image
from scenes import pasted

from mrcnn_tf.common.categories import Category, read_panoptic_categories
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import AugmentConfig, DataConfig, ResizeConfig, SourceConfig
from mrcnn_tf.data.affine import OBJECT_FIELDS
from mrcnn_tf.data.loader import SampleLoader
from mrcnn_tf.data.pipeline import TrainingData, coco_dataset
from mrcnn_tf.datasets import read_coco
from mrcnn_tf.datasets.panoptic_shapes import make_panoptic_shapes
from mrcnn_tf.datasets.read_coco import load_index


@pytest.fixture
def cats(tmp_path):
    return PanopticFolder(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The parts of a generated dataset of 6 pictures, as str."""
    parts = make_panoptic_shapes(tmp_path_factory.mktemp("made"), 6, seed=5, size=96)
    return {name: str(path) for name, path in parts._asdict().items()}


def config(made, *parts, **settings):
    usual = {"resize": ResizeConfig(96, 160), "mask_size": 56, "max_instances": 6, "augment": STILL}
    if "semantic_maps" in parts:
        usual["stuff"] = read_panoptic_categories(made["panoptic"])[1]
    return DataConfig(**{name: made[name] for name in ("images", *parts)}, **(usual | settings))


PANOPTIC = ("panoptic", "panoptic_maps")


def samples(settings):
    loader = SampleLoader(load_index(settings), settings)
    return [loader.load(number) for number in range(6)]


def test_the_index_by_hand(cats):
    cats.add(8)
    cats.add(4, 48, 33)
    index = load_index(cats.config())
    assert [(one.id, one.name) for one in index.categories] == [(1, "dog"), (3, "cat")]
    assert index.image_ids.tolist() == [8, 4] and index.instance_offsets.tolist() == [0, 2, 4]
    assert index.classes.tolist() == [2, 1] * 2 and index.category_ids.tolist() == [3, 1] * 2
    assert index.boxes.tolist() == [[10, 5, 21, 25], [24, 2, 28, 9]] * 2
    assert index.areas.tolist() == [175, 28] * 2 and index.crowd.tolist() == [False, True] * 2
    assert index.annotation_ids.tolist() == [CAT, DOG] * 2
    assert index.map_files.tolist() == [str(cats.path / "maps" / name).encode() for name in ("8.png", "4.png")]
    assert index.segment_offsets.tolist() == [0, 5, 10]
    assert index.segment_ids.tolist() == [0, CAT, GRASS, SKY, DOG] * 2
    assert index.segment_classes.tolist() == [255, 0, 1, 2, 0] * 2
    assert index.problems == []


def test_every_way_to_the_same_labels(cats):
    ids = cats.add(8)
    settings = [cats.config(), cats.label_config()]
    for one in settings:
        sample = SampleLoader(load_index(one), one).load(0)
        assert sample.semantic.dtype == tf.uint8
        np.testing.assert_array_equal(sample.semantic, labels_of(ids))


def test_an_instance_is_its_pixels(cats):
    ids = cats.add(8)
    settings = cats.config(mask_size=112)
    sample = SampleLoader(load_index(settings), settings).load(0)
    for box, crop, number in zip(sample.boxes.numpy(), sample.masks.numpy(), (CAT, DOG), strict=True):
        np.testing.assert_array_equal(pasted(crop, box, ids.shape), ids == number)


def test_things_are_the_instances_of_the_matching_json(made):
    several = [
        samples(config(made, *parts))
        for parts in (PANOPTIC, ("annotations",), ("annotations", "semantic_maps"), ("annotations", *PANOPTIC))
    ]
    for panoptic, *others in zip(*several, strict=True):
        assert panoptic.boxes.shape[0] > 0
        for other in others:
            for name in OBJECT_FIELDS:
                np.testing.assert_array_equal(getattr(panoptic, name), getattr(other, name))
        assert others[0].semantic.shape == (0, 0)
        for other in others[1:]:
            np.testing.assert_array_equal(panoptic.semantic, other.semantic)


def test_masks_of_large_and_small_instances_are_those_of_the_map(made):
    seen = 0
    for side in (14, 112):
        settings = config(made, *PANOPTIC, mask_size=side)
        index = load_index(settings)
        loader = SampleLoader(index, settings)
        for number in range(6):
            sample, owner = loader.load(number), index.annotation_ids[index.instance_offsets[number] :]
            colours = np.asarray(Image.open(index.map_files[number].decode())).astype(int)
            ids = colours @ [1, 256, 65536]
            for box, crop, wanted in zip(sample.boxes.numpy(), sample.masks.numpy(), owner, strict=False):
                x1, y1, x2, y2 = box.astype(int)
                inside = (ids == wanted)[y1:y2, x1:x2]
                # The share of each cell that the instance covers, from 8 x 8 samples of it.
                y, x = (((np.arange(8 * side) + 0.5) / (8 * side)) * length for length in inside.shape)
                share = inside[np.ix_(y.astype(int), x.astype(int))].reshape(side, 8, side, 8).mean((1, 3))
                assert np.abs(crop / 255 - share).mean() < 0.12
                clear = np.abs(share - 0.5) > 0.4
                assert ((crop > 127) == (share > 0.5))[clear].mean() > 0.97
                seen += 1
    assert seen > 20


def nearest(labels, size):
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for old, new in zip(labels.shape, size, strict=True)
    )
    return labels[np.ix_(rows, columns)]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("pad_to", [None, [96, 128]])
def test_batches_are_padded_with_what_is_ignored(cats, training, pad_to):
    ids = {8: cats.add(8), 4: cats.add(4, 61, 37)}
    (batch,) = coco_dataset(cats.config(images_per_batch=2, resize=ResizeConfig(44, 90), pad_to=pad_to), training)
    assert batch["semantic"].dtype == tf.uint8 and batch["semantic"].shape == batch["image"].shape[:3]
    parts = (batch[name].numpy() for name in ("image_id", "image_size", "semantic"))
    for image, size, labels in zip(*parts, strict=True):
        np.testing.assert_array_equal(labels[: size[0], : size[1]], nearest(labels_of(ids[image]), size))
        labels[: size[0], : size[1]] = 255
        assert (labels == 255).all()


def test_static_shapes(cats):
    cats.add(8)
    spec = coco_dataset(cats.config(images_per_batch=2), training=True).element_spec["semantic"]
    assert spec.shape.as_list() == [2, None, None] and spec.dtype == tf.uint8
    spec = coco_dataset(cats.config(images_per_batch=2, pad_to=[32, 64]), training=True).element_spec["semantic"]
    assert spec.shape == (2, 32, 64)


def test_without_labels_batches_are_those_of_instances(made):
    """To the bit, whatever the data would have."""
    ways = [
        config(made, "annotations"),
        config(made, *PANOPTIC, semantic=False),
        config(made, "annotations", *PANOPTIC, semantic=False),
        config(made, "annotations", "semantic_maps", semantic=False),
        config(made, "annotations", semantic=True),
    ]
    batches = [list(coco_dataset(dataclasses.replace(one, images_per_batch=3), False)) for one in ways]
    assert "semantic" not in batches[0][0] and "masks" in batches[0][0]
    for others in batches[1:]:
        for one, other in zip(batches[0], others, strict=True):
            assert one.keys() == other.keys()
            for name in one:
                np.testing.assert_array_equal(one[name], other[name])


def test_maps_that_nobody_needs_may_be_missing(made):
    for parts in (("annotations",), ("annotations", "panoptic")):
        unused = config(made, *parts, semantic=False, semantic_maps="nowhere")
        assert load_index(unused).map_files.tolist() == [b""] * 6


def test_a_semantic_head_needs_labels(made):
    with pytest.raises(UserError, match=r"instances.json has no classes of pixels.*data.train.semantic_maps.*null"):
        TrainingData(config(made, "annotations", semantic=True))
    TrainingData(config(made, "annotations"))


def test_pixels_alone(cats):
    """Without a json: no instances, and images are numbered by their names."""
    ids = [cats.add(number, name=name) for number, name in ((8, "8.png"), (4, "4.jpg"))]
    settings = cats.label_config(images_per_batch=2, masks=False)
    (batch,) = coco_dataset(settings, training=False)
    assert batch["image_id"].numpy().tolist() == [1, 2] and not batch["classes"].numpy().any()
    np.testing.assert_array_equal(batch["semantic"][:, :30, :40], [labels_of(ids[1]), labels_of(ids[0])])
    (batch,) = coco_dataset(settings, training=True)
    assert sorted(batch["image_id"].numpy()) == [1, 2]


def test_label_maps_go_by_the_paths_of_images(cats):
    ids = cats.add(8)
    for name in ("images", "labels"):
        (cats.path / name / "city").mkdir()
        (cats.path / name / "8.png").rename(cats.path / name / "city" / "a.b.png")
    settings = cats.label_config()
    index = load_index(settings)
    assert index.map_files.tolist() == [str(cats.path / "labels" / "city" / "a.b.png").encode()]
    np.testing.assert_array_equal(SampleLoader(index, settings).load(0).semantic, labels_of(ids))
    cats.add(9)
    assert load_index(settings).image_ids.tolist() == [1, 2]  # a new image is seen


def test_stuff_is_numbered_as_the_model_has_it(cats):
    ids = cats.add(8)
    chosen = [Category(90, "sky"), Category(7, "grass")]
    for settings in (cats.config(stuff=chosen), cats.label_config(stuff=chosen)):
        semantic = SampleLoader(load_index(settings), settings).load(0).semantic.numpy()
        np.testing.assert_array_equal(semantic, np.array([0, 2, 1] + [255] * 253, np.uint8)[labels_of(ids)])


def test_what_the_model_does_not_know_is_ignored(cats):
    ids = cats.add(8)
    settings = cats.config(stuff=[Category(90, "sky")], categories=[Category(1, "dog")])
    index = load_index(settings)
    assert index.category_ids.tolist() == [1]
    assert [problem.kind for problem in index.problems] == ["unknown_category"] * 2
    assert index.problems[0].message == (
        f"Category 7 ('grass') in {cats.path}/p.json isn't among model.stuff and its 1 segments are ignored: add it "
        "there if pixels are to be classified so."
    )
    assert index.problems[1].message.startswith(f"Segment {CAT} of image 8 in {cats.path}/p.json has category 3, which")
    expected = np.select([ids == DOG, ids == SKY], [0, 1], 255)
    np.testing.assert_array_equal(SampleLoader(index, settings).load(0).semantic, expected)


def test_a_map_is_of_the_image_as_it_is_seen(cats):
    exif = Image.Exif()
    exif[0x0112] = 6
    ids = cats.add(8, 40, 30)
    Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(cats.path / "images" / "8.png", exif=exif)
    for settings in (cats.config(), cats.label_config()):
        index = load_index(settings)
        assert index.orientations.tolist() == [6]
        sample = SampleLoader(index, settings).load(0)
        assert sample.image.shape == (30, 40, 3)
        np.testing.assert_array_equal(sample.semantic, labels_of(ids))


def test_the_index_is_kept_until_a_map_changes(cats, monkeypatch):
    ids = cats.add(8)
    settings = cats.config()
    first = load_index(settings)
    with monkeypatch.context() as patch:
        patch.setattr(read_coco, "_compile", None)
        second = load_index(settings)
    for field in dataclasses.fields(first):
        one, other = getattr(first, field.name), getattr(second, field.name)
        np.testing.assert_array_equal(one, other) if isinstance(one, np.ndarray) else one == other
    ids[20, 20:30] = DOG + np.arange(1, 11)
    cats.write_map(8, ids)
    assert [problem.kind for problem in load_index(settings).problems] == ["unknown_segment"]
    assert load_index(dataclasses.replace(settings, stuff=[Category(90, "sky")])).segment_classes.max() == 255


AUGMENT = {
    "turns": {"horizontal_flip": 0.5, "vertical_flip": 0.5, "quarter_turns": True},
    "crop": {"crop": 1.0, "min_sizes": [80, 120]},
    "rotation": {"rotation": 40.0, "scale_jitter": [0.5, 1.6]},
    "paste": {"copy_paste": 1.0, "horizontal_flip": 0.5},
}
AUGMENT["everything"] = {name: value for augment in AUGMENT.values() for name, value in augment.items()}


@pytest.mark.parametrize("name", AUGMENT)
def test_augmented_labels_agree_with_augmented_masks(made, name):
    """Well inside a mask all labels are those of things, and well outside of all none is."""
    settings = config(made, *PANOPTIC, images_per_batch=2, mask_size=112, augment=AugmentConfig(**AUGMENT[name]))
    settings.max_instances = 20
    inside, outside = 0, 0
    for batch in coco_dataset(settings, training=True).repeat(2):
        for row, (height, width) in enumerate(batch["image_size"].numpy()):
            labels = batch["semantic"].numpy()[row, :height, :width]
            masks, boxes = batch["masks"].numpy()[row], batch["boxes"].numpy()[row]
            count = int((batch["classes"].numpy()[row] > 0).sum())
            drawn = [pasted(mask, box, (height, width)) for mask, box in zip(masks[:count], boxes[:count], strict=True)]
            drawn = np.any([np.zeros((height, width), bool), *drawn], axis=0)
            core, around = eroded(drawn, 2), ~eroded(~drawn, 3)
            inside += (labels[core] != 0).sum() / max(core.sum(), 1)
            outside += (labels[~around] == 0).sum() / max((~around).sum(), 1)
    assert inside < 0.02 and outside < 0.02  # of twelve images together; a sliver left by a crop counts as no object


def eroded(mask, pixels):
    """What is left of a mask [H, W] when so many pixels are taken from its rim; beyond the image it goes on."""
    padded = np.pad(mask, pixels, mode="edge")
    result = mask.copy()
    for down in range(2 * pixels + 1):
        for across in range(2 * pixels + 1):
            result &= padded[down : down + mask.shape[0], across : across + mask.shape[1]]
    return result


def test_labels_follow_from_the_seed(made):
    augment = AugmentConfig(**(AUGMENT["turns"] | AUGMENT["rotation"]))
    settings = config(made, *PANOPTIC, images_per_batch=2, mask_size=28, augment=augment)
    streams = [TrainingData(settings).stream(step) for step in (0, 1)]
    batches = list(streams[0].take(2))
    for name, value in next(iter(streams[1])).items():
        np.testing.assert_array_equal(batches[1][name], value)
    settings.seed = 1
    other = next(iter(TrainingData(settings).stream()))["semantic"].numpy()
    assert not np.array_equal(batches[0]["semantic"], other)


def test_maps_and_other_kinds_of_data_are_refused_together(made, cats):
    everything = config(made, *PANOPTIC, "semantic_maps")
    with pytest.raises(UserError, match=r"both .*panoptic.json and .*semantic: name one of them"):
        load_index(everything)
    sources = config(made, *PANOPTIC, sources=[SourceConfig(made["annotations"], made["images"])])
    with pytest.raises(UserError, match="sources and also .*panoptic.json"):
        coco_dataset(sources, False)
    with pytest.raises(UserError, match="both .*panoptic.json and r-"):
        coco_dataset(config(made, *PANOPTIC, records="r-*"), False)


def test_reports_name_the_json(cats, capsys):
    cats.add(8)
    cats.add(9)
    (cats.path / "maps" / "9.png").unlink()
    load_index(cats.config())
    assert f"{cats.path}/p.json: 1 records are not used as they stand" in capsys.readouterr().err
    assert json.loads(next(cats.path.glob("cache/p-*.problems.json")).read_text())["counts"] == {"missing_map": 1}
