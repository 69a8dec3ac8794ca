"""Configs: files, overrides, presets, what is filled in, and mistakes."""

import dataclasses

import pytest

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.load import CONFIG_FOLDERS, list_config_names, load_config
from mrcnn_tf.config.settings import Conventions, ModelConfig


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "own.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("name", list_config_names())
def test_every_shipped_config_loads_and_says_what_to_expect(name):
    load_config(name)
    path = next(folder / f"{name}.yaml" for folder in CONFIG_FOLDERS if (folder / f"{name}.yaml").is_file())
    header = path.read_text(encoding="utf-8").split("model:")[0]
    assert "# Expected" in header and "# Command: mrcnn-tf" in header


def test_overrides_are_read_as_yaml():
    config = load_config(
        "mask_rcnn_r50_fpn",
        ["train.steps=7", "train.decay_steps=[3, 5]", "train.clip_norm=null", "model.fpn.channels=64"],
    )
    assert (config.train.steps, config.train.decay_steps, config.train.clip_norm) == (7, [3, 5], None)
    assert config.model.fpn.channels == 64


def test_a_config_may_start_from_another(write):
    config = load_config(write("base: mask_rcnn_r50_fpn\ntrain: {steps: 9}\n"))
    assert config.train.steps == 9
    assert config.train.decay_steps == load_config("mask_rcnn_r50_fpn").train.decay_steps


def test_what_decides_for_several_places_is_filled_in():
    config = load_config("nuclei_r18_fpn", ["train.images_per_batch=3", "model.resize.min_size=200"])
    assert config.data.train.images_per_batch == 3
    assert config.data.val.images_per_batch == 1
    assert config.data.train.resize.min_size == config.data.val.resize.min_size == 200
    assert config.model.categories == config.data.val.categories == [Category(1, "nucleus")]


def test_default_conventions_are_torchvisions_with_aligned_roi_align():
    default, torchvision = Conventions(), _conventions("torchvision")
    mirrored = {"keypoint_offset": 0.0, "keypoint_score": "logit"}  # pixel centres and probabilities are ours too
    assert dataclasses.replace(default, roi_aligned=False, **mirrored) == torchvision


def test_presets_replace_and_single_keys_adjust(write):
    assert _conventions("detectron2").roi_sampling_ratio == 0
    assert _conventions("paper").box_beta == 1.0
    path = write("model:\n  conventions: {preset: detectron2, roi_aligned: false}\n")
    mixed = load_config(path, ["model.conventions.box_beta=0.5"]).model.conventions
    assert (mixed.roi_aligned, mixed.roi_sampling_ratio, mixed.box_beta) == (False, 0, 0.5)
    assert load_config(path, ["model.conventions=torchvision"]).model.conventions == _conventions("torchvision")


def test_a_model_config_survives_as_a_plain_dictionary():
    config = ModelConfig(categories=[Category(4, "a"), Category(9, "b")])
    config.backbone.depth = 101
    assert load_config({"model": dataclasses.asdict(config)}).model == config


@pytest.mark.parametrize(
    "override, words",
    [
        ("train.stepz=3", "train.stepz.*did you mean train.steps"),
        ("model.backbone.deepth=50", "model.backbone.deepth.*did you mean model.backbone.depth"),
        ("train.steps=many", "train.steps.*many"),
        ("train.decay_steps=3", "train.decay_steps"),
        ("train=3", "train"),
        ("model.backbone.depth=19", "model.backbone.depth.*19.*10, 18, 34, 50, 101"),
        ("model.backbone.norm=ln", "model.backbone.norm.*frozen_bn"),
        ("model.conventions=caffe", "caffe.*detectron2"),
        ("train.precision=float8", "train.precision.*bfloat16"),
        ("train.steps", "key.path=value"),
        ("train.steps=[1", "quote it"),
        ("train.steps=0", "train.steps.*0"),
        ("model.rois.positive_fraction=1.5", "model.rois.positive_fraction.*1.5"),
        ("model.rpn.anchor_sizes=[32]", "model.rpn.anchor_sizes.*5 numbers"),
        ("model.rpn.delta_weights=[1, 1]", "model.rpn.delta_weights.*4 numbers"),
        ("model.box_head.delta_weights=[10, 10, 0, 5]", "model.box_head.delta_weights.*4 numbers above 0"),
        ("model.mask_head.fcs=-1", "model.mask_head.fcs.*negative"),
        ("model.keypoint_head={conv: 8}", "model.keypoint_head.conv'.*model.keypoint_head.convs"),
    ],
)
def test_a_wrong_setting_is_named_in_one_sentence(override, words):
    with pytest.raises(UserError, match=words) as caught:
        load_config("nuclei_r18_fpn", [override])
    assert "\n" not in str(caught.value)


C4 = ("model.features=C4", "model.box_head.pool_size=14", "model.mask_head.pool_size=7")


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["model.backbone.groups=32"], "groups.*depth of 50 or more"),
        (["model.backbone.dilated=true"], "dilated.*set model.features=C5"),
        ([*C4, "model.box_head.pool_size=10"], "7 or 14 bins.*model.box_head.pool_size"),
        ([*C4, "model.mask_head.pool_size=14"], "set model.mask_head.pool_size=7"),
        ([*C4, "model.keypoint_head={}"], "keypoints need finer features"),
        (["model.features=C5", "model.rpn.anchor_sizes=[]"], "anchor_sizes' is empty"),
        (["model.backbone.application=MobileNetV3Small", "model.backbone.norm=gn"], "model.backbone.norm=frozen_bn"),
        (["model.backbone.application=MobileNetV3Small", "model.features=C5"], "set model.features=FPN"),
        (["model.backbone.taps=[a]"], "name it in model.backbone.application"),
        (["model.mask_head.fcs=2", "model.mask_head.activation=softmax"], "set model.mask_head.fcs=0"),
        (["model.mask_head.class_agnostic=true", "model.mask_head.activation=softmax"], "activation=sigmoid"),
        (["model.roi_layer.kind=pool"], "RoIPool takes maxima: set model.roi_layer.aggregate=max"),
        (["model.roi_layer.aggregate=max", "model.conventions=detectron2"], "roi_sampling_ratio to 1 or more"),
        (["model.roi_layer.kind=warp", "model.conventions.box_width=inclusive"], "box_width=inclusive.*kind=align"),
    ],
)
def test_settings_that_make_no_sense_together_are_named_in_one_sentence(overrides, words):
    with pytest.raises(UserError, match=words) as caught:
        load_config("nuclei_r18_fpn", overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text, words",
    [("model: [", "own.yaml isn't valid YAML"), ("just text", "own.yaml holds no settings"), ("modle: {}", "modle")],
)
def test_a_wrong_file_is_named(write, text, words):
    with pytest.raises(UserError, match=words):
        load_config(write(text))


def test_an_unknown_config_lists_the_known_ones():
    with pytest.raises(UserError, match="no config 'mask_rcnn_r51'.*mask_rcnn_r50_fpn"):
        load_config("mask_rcnn_r51")


def _conventions(preset):
    return load_config("mask_rcnn_r50_fpn", [f"model.conventions={preset}"]).model.conventions
