"""mmdetection's checkpoints: names, layouts and orders of tensors, and the training config that is in them as text."""

import numpy as np
import pytest
import tiny_weights
import torch_writer

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import CONVENTIONS, Conventions
from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.weights import mmdetection
from mrcnn_tf.weights.facts import Facts, Origin
from mrcnn_tf.weights.pretrained import read_pretrained

# Of the models of tiny_weights, written as mmengine writes a config.
CONFIG = """
data_preprocessor = dict(
    bgr_to_rgb=False, mean=[103.53, 116.28, 123.675], std=[57.375, 57.12, 58.395], pad_size_divisor=32,
    type='DetDataPreprocessor')
model = dict(
    backbone=dict(depth=10, style='caffe', norm_cfg=dict(type='BN'), type='ResNet'),
    neck=dict(num_outs=5, type='FPN'),
    rpn_head=dict(
        anchor_generator=dict(ratios=[0.5, 1.0, 2.0], scales=[2], strides=[4, 8, 16, 32, 64], type='AnchorGenerator'),
        bbox_coder=dict(target_stds=[0.5, 0.5, 1.0, 1.0], type='DeltaXYWHBBoxCoder'), type='RPNHead'),
    roi_head=dict(
        bbox_head=dict(bbox_coder=dict(target_stds=[0.1, 0.1, 0.2, 0.2], type='DeltaXYWHBBoxCoder'),
                       type='Shared2FCBBoxHead'),
        bbox_roi_extractor=dict(
            roi_layer=dict(output_size=7, sampling_ratio=2, type='RoIAlign'), type='SingleRoIExtractor'),
        mask_roi_extractor=dict(
            roi_layer=dict(output_size=14, sampling_ratio=2, type='RoIAlign'), type='SingleRoIExtractor'),
        type='StandardRoIHead'),
    test_cfg=dict(rcnn=dict(max_per_img=10, nms=dict(iou_threshold=0.4, type='nms'), score_thr=0.01),
                  rpn=dict(max_per_img=30, min_bbox_size=0, nms=dict(iou_threshold=0.6, type='nms'), nms_pre=60)),
    type='MaskRCNN')
test_pipeline = [
    dict(type='LoadImageFromFile'), dict(keep_ratio=True, scale=(128, 64), type='Resize'), dict(type='PackDetInputs')]
"""
META = {"mmdet_version": "3.3.0", "dataset_meta": {"classes": ("cat", "dog")}, "cfg": CONFIG, "epoch": 12}
NAMES = {
    "rpn/head/conv": "rpn_head.rpn_conv",
    "rpn/head/objectness_logits": "rpn_head.rpn_cls",
    "rpn/head/anchor_deltas": "rpn_head.rpn_reg",
    "box_head/class_logits": "roi_head.bbox_head.fc_cls",
    "box_head/box_deltas": "roi_head.bbox_head.fc_reg",
}
NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
POOLED = {"box_head/fc1/kernel": 7}


def as_mmdetection(model, rpn_convs=1, gn=False):
    """The model's weights under mmdetection's names and in its layouts, written out here by hand."""
    tensors = {}
    for path, array in tiny_weights.values(model).items():
        layer, _, kind = path.rpartition("/")
        if path in POOLED:
            array = array.reshape(7, 7, -1, array.shape[1]).transpose(3, 2, 0, 1).reshape(array.shape[1], -1)
        elif path == "mask_head/predictor_kernel":
            array = array.T[:, :, None, None]
        elif array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        elif array.ndim == 2:
            array = array.T
        if layer == "box_head/class_logits":
            array = np.concatenate([array[1:], array[:1]])
        name = _name(layer, kind, rpn_convs, "gn" if gn else "bn")
        tensors[f"{name}.{NORM.get(kind, 'bias' if kind.endswith('bias') else 'weight')}"] = array.copy()
    return tensors


def _name(layer, kind, rpn_convs, norm):
    part, *rest = layer.split("/")
    own, with_norm = kind in NORM, f"{norm if kind in NORM else 'conv'}"
    if layer == "backbone/stem":
        return f"backbone.{norm}1" if own else "backbone.conv1"
    if part in ("backbone", "res5"):
        stage, block = rest[0].removeprefix("res").split("_")
        prefix = f"backbone.layer{int(stage) - 1}" if part == "backbone" else "roi_head.shared_head.layer4"
        if rest[1] == "shortcut":
            return f"{prefix}.{block}.downsample.{int(own)}"
        return f"{prefix}.{block}.{norm if own else 'conv'}{rest[1][-1]}"
    if part == "fpn":
        kinds = "lateral_convs" if "lateral" in rest[0] else "fpn_convs"
        return f"neck.{kinds}.{int(rest[0][-1]) - 2}.{with_norm}"
    if layer.startswith("rpn/head/conv") and rpn_convs > 1:
        return f"rpn_head.rpn_conv.{int(layer[-1]) - 1 if layer[-1].isdigit() else 0}.conv"
    if layer.startswith(("box_head/conv", "mask_head/conv")):
        head = "bbox_head.shared_convs" if part == "box_head" else "mask_head.convs"
        return f"roi_head.{head}.{int(layer[-1]) - 1}.{with_norm}"
    if layer.startswith("box_head/fc"):
        return f"roi_head.bbox_head.shared_fcs.{int(layer[-1]) - 1}"
    if part == "mask_head":
        return f"roi_head.mask_head.{'upsample' if 'deconv' in kind else 'conv_logits'}"
    return NAMES[layer]


def write(path, tensors, meta):
    torch_writer.save_torch(path, tensors, meta)
    return path


@pytest.fixture(scope="module")
def tiny():
    return tiny_weights.make(conventions=Conventions(**CONVENTIONS["mmdetection"]))


def convert(tensors, config=CONFIG, **meta):
    facts = Facts()
    return mmdetection.convert(tensors, facts, {"meta": META | {"cfg": config} | meta}), facts


def test_a_checkpoint_becomes_the_model_that_its_config_says(tiny, tmp_path):
    path = write(tmp_path / "epoch_12.pth", as_mmdetection(tiny), META)
    model, expected = MaskRCNN.from_pretrained(path, verbose=False), tiny_weights.values(tiny)
    expected["backbone/stem/kernel"] = expected["backbone/stem/kernel"][:, :, ::-1]  # the file reads BGR
    for name, value in tiny_weights.values(model).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    settings = model.settings
    assert settings.pixel_mean == [123.675, 116.28, 103.53] and settings.pixel_std == [58.395, 57.12, 57.375]
    assert settings.backbone.stride_in_1x1 and settings.rpn.anchor_sizes == [8, 16, 32, 64, 128]
    assert settings.rpn.delta_weights == [2, 2, 1, 1] and settings.conventions.roi_sampling_ratio == 2
    assert (settings.resize.rule, settings.resize.min_size, settings.resize.max_size) == ("opencv", 64, 128)
    assert (settings.rpn.pre_nms_test, settings.rpn.post_nms_test, settings.rpn.nms_iou) == (60, 30, 0.6)
    detections = settings.detections
    assert (detections.score_threshold, detections.nms_iou, detections.max_per_image) == (0.01, 0.4, 10)
    assert settings.conventions.delta_limit == "both" and settings.conventions.pad_multiple == 32
    assert [(category.id, category.name) for category in model.categories] == [(1, "cat"), (2, "dog")]


def test_group_norm_convolutions_in_all_heads_and_one_box_for_all_classes():
    norms = {f"{part}__norm": "gn" for part in ("backbone", "fpn", "box_head", "mask_head")}
    sizes = {"box_head__convs": 2, "box_head__conv_channels": 32, "box_head__fcs": 1, "mask_head__channels": 32}
    model = tiny_weights.make(**norms, **sizes, rpn__convs=2, box_head__class_agnostic=True)
    weights, facts = convert(as_mmdetection(model, rpn_convs=2, gn=True), config="model = dict(type='MaskRCNN')")
    assert not weights.unknown
    for name, value in tiny_weights.values(model).items():
        array = weights.arrays[name].reshape(value.shape)
        array = array[:, :, ::-1] if name == "backbone/stem/kernel" else array  # taken to be BGR, as its gn models are
        np.testing.assert_array_equal(array, value, err_msg=name)
    assert facts.value("model.box_head.class_agnostic") and facts.value("model.rpn.convs") == 2
    assert facts["file.pixel_order"].origin == Origin.ASSUMPTION


def test_on_c4_all_sizes_of_a_ratio_follow_each_other_there():
    model = tiny_weights.make(
        features="C4", conventions=Conventions(**CONVENTIONS["mmdetection"]), box_head__pool_size=14, box_head__fcs=0,
        mask_head__convs=0, mask_head__pool_size=7,
    )  # fmt: skip
    tensors = as_mmdetection(model)
    for name, values in (("rpn_cls", 1), ("rpn_reg", 4)):
        for part in ("weight", "bias"):
            array = tensors[f"rpn_head.{name}.{part}"]
            sizes_first = array.reshape(5, 3, values, *array.shape[1:])
            tensors[f"rpn_head.{name}.{part}"] = np.swapaxes(sizes_first, 0, 1).reshape(array.shape)
    weights, facts = convert(tensors, config="model = dict(backbone=dict(style='pytorch'))")
    for name, value in tiny_weights.values(model).items():
        if name.startswith(("rpn", "res5")):
            np.testing.assert_array_equal(weights.arrays[name].reshape(value.shape), value, err_msg=name)
    assert facts.value("model.features") == "C4" and weights.config == "mmdetection_mask_rcnn_r50_caffe_c4"


def test_features_c5_are_dilated_as_in_its_own_models(tmp_path):
    model = tiny_weights.make(features="C5", mask_head=False)
    path = write(tmp_path / "latest.pth", as_mmdetection(model), META | {"cfg": None})
    weights = read_pretrained(path, source_config=False)
    settings = weights.config().model
    assert settings.backbone.dilated and settings.box_head.pool_size == 7 and settings.mask_head is None
    assert weights.provenance()["model.backbone.dilated"].origin == Origin.ASSUMPTION


def test_classes_of_another_number_are_reported_and_not_used(tiny):
    weights, facts = convert(as_mmdetection(tiny), dataset_meta={"classes": ("cat",)})
    assert weights.skipped["meta.dataset_meta.classes"] == "names 1 classes of 2" and weights.categories is None
    assert "model.categories" not in facts


def test_a_checkpoint_of_2_has_its_config_and_classes_elsewhere(tiny):
    weights, facts = convert(as_mmdetection(tiny), config=None, config_text=None, CLASSES=("a", "b"), dataset_meta=None)
    assert [category.name for category in weights.categories] == ["a", "b"]
    assert facts["model.pixel_std"].origin == Origin.ASSUMPTION
    facts = Facts()
    mmdetection.convert(as_mmdetection(tiny), facts, {"meta": {"config": CONFIG}})
    assert facts["model.pixel_std"].origin == Origin.EMBEDDED


def test_1_is_refused_by_its_names_and_by_its_version(tiny):
    tensors = as_mmdetection(tiny)
    for changed, version in (
        ({name.removeprefix("roi_head."): array for name, array in tensors.items()}, "3.3.0"),
        (tensors, "1.2.0+abc"),
    ):
        assert mmdetection.matches(changed)
        with pytest.raises(UserError, match=r"of mmdetection 1.x.*upgrade_model_version.py"):
            convert(changed, mmdet_version=version)


def test_the_text_in_a_published_file_of_before_2_0_is_left_aside(tiny):
    """It may be of neither: such files were trained while 2.0 was made."""
    facts = Facts()
    facts.add("model.pixel_std", [1.0, 1.0, 1.0], Origin.PUBLISHED, "a preset")
    mmdetection.convert(as_mmdetection(tiny), facts, {"meta": META | {"mmdet_version": "1.0.0+1a2b3c4"}})
    assert facts["model.pixel_std"].value == [1, 1, 1] and "model.detections.nms_iou" not in facts


def test_an_rpn_with_two_scores_for_an_anchor_is_refused(tiny):
    tensors = as_mmdetection(tiny)
    for part in ("weight", "bias"):
        tensors[f"rpn_head.rpn_cls.{part}"] = np.repeat(tensors[f"rpn_head.rpn_cls.{part}"], 2, axis=0)
    with pytest.raises(UserError, match="use_sigmoid"):
        convert(tensors)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("roi_head.bbox_head.0.fc_cls.weight", "Cascade"),
        ("bbox_head.retina_cls.weight", "RetinaNet"),
        ("neck.fpn_convs.4.conv.weight", "add_extra_convs"),
        ("backbone.layer2.0.conv2_offset.weight", "deformable"),
        ("backbone.stem.0.weight", "three convolutions in its stem"),
        ("roi_head.point_head.fcs.0.conv.weight", "PointRend"),
    ],
)
def test_other_detectors_are_refused_by_what_they_are(tmp_path, name, said):
    tensors = dict.fromkeys(["backbone.layer1.0.conv1.weight", name], np.zeros(2, np.float32))
    path = write(tmp_path / "latest.pth", tensors, META)
    with pytest.raises(UserError, match=said):
        read_pretrained(path, source_config=False)


def test_a_config_that_is_given_counts_where_that_in_the_file_cant_be_followed(tiny, tmp_path):
    """As the refusal of the latter says."""
    embedded = CONFIG.replace("iou_threshold=0.4, type='nms'", "iou_threshold=0.4, type='soft_nms'")
    path = write(tmp_path / "epoch_1.pth", as_mmdetection(tiny), META | {"cfg": embedded})
    with pytest.raises(UserError, match=r"model.test_cfg.rcnn.nms.type is 'soft_nms'.*--source-config"):
        read_pretrained(path, source_config=False)
    (tmp_path / "copy.py").write_text(CONFIG, encoding="utf-8")
    weights = read_pretrained(path, source_config=tmp_path / "copy.py")
    assert weights.converted.facts["model.detections.nms_iou"].origin == Origin.COMPANION
