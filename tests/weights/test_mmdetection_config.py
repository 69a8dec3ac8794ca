"""mmdetection's training configs: what their text says, what is refused by name, and that nothing of it runs."""

import json
import textwrap

import pytest
import yaml

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights.mmdetection_config import read_mmdetection_file, read_mmdetection_text
from mrcnn_tf.weights.python_config import read_config_file, read_config_text


def read(text):
    return read_mmdetection_text(textwrap.dedent(text), "config").settings


def test_literals_names_and_arithmetic_are_read():
    values = read_config_text(
        textwrap.dedent("""
        '''A docstring.'''
        import os
        norm = dict(type='BN', eps=1e-3)
        model = dict(a=norm, b={'c': -1.5, **norm}, d=(1, [2, None]), e=1.0 / 9, f='x' + 'y', g=[1] + [2])
        other = os.getcwd()
        """),
        "config",
    )
    assert values["model"] == {
        "a": {"type": "BN", "eps": 1e-3}, "b": {"c": -1.5, "type": "BN", "eps": 1e-3}, "d": (1, [2, None]), "e": 1 / 9,
        "f": "xy", "g": [1, 2],
    }  # fmt: skip
    assert repr(values["other"]) == "<what line 6 computes>"


def test_a_file_is_merged_into_what_it_is_based_on(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.py").write_text("model = dict(a=dict(x=1, y=2), b=dict(x=1))\nkept = 1\n")
    (tmp_path / "own.py").write_text(
        "_base_ = ['base/model.py']\nmodel = dict(a=dict(x=3), b=dict(_delete_=True, z=4))\n"
    )
    values = read_config_file(tmp_path / "own.py")
    assert values == {"model": {"a": {"x": 3, "y": 2}, "b": {"z": 4}}, "kept": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("_base_ = '../nowhere.py'\n", "is based on '../nowhere.py', which isn't there.*print_config.py"),
        ("_base_ = 'own.py'\n", "based on itself"),
        ("_base_ = ['own.py', 'own.py']\n", "based on itself, or on more than"),
        ("model = dict(a=1)\nmodel['b'] = 2\n", "line 2 does more"),
        ("for i in range(3):\n    pass\n", "line 1 does more"),
        ("model = (", "no Python text"),
        ("model = dict(test_cfg=dict(rcnn=dict(score_thr=" + 99 * "-" + "1)))", "score_thr is <what line 1 computes>"),
        ("a = [1] * 9\n" + "a = [a, a, a, a, a, a, a, a, a]\n" * 12, "larger than any config"),
        ("a = 1\n" + "a = [a]\n" * 2000, "larger than any config"),
        ("a = 1\n", "says nothing of a model"),
        ("model = dict(backbone=dict(style=open('x').read()))\n", "<what line 1 computes>"),
        ("model = dict(test_cfg=dict(rcnn=dict(score_thr=0.5 ** 9)))\n", "score_thr is <what line 1 computes>"),
    ],
)
def test_a_text_that_cant_be_read_is_refused_with_a_remedy(tmp_path, text, said):
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(UserError, match=said):
        read_mmdetection_file(tmp_path / "own.py")


def test_nothing_of_a_config_runs(tmp_path):
    target = tmp_path / "made"
    text = f"import pathlib\nmade = pathlib.Path({str(target)!r}).touch()\nmodel = dict(type='MaskRCNN')\n"
    read(text)
    assert not target.exists()


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_dumps_of_other_kinds_say_the_same(tmp_path, suffix):
    tree = {"model": {"type": "MaskRCNN", "test_cfg": {"rcnn": {"score_thr": 0.1, "max_per_img": 300}}}}
    path = tmp_path / f"config.{suffix}"
    path.write_text(json.dumps(tree) if suffix == "json" else yaml.safe_dump(tree))
    settings = read_mmdetection_file(path).settings
    assert settings["model.detections.score_threshold"] == 0.1 and settings["model.detections.max_per_image"] == 300


PIPELINE_2 = """
    norm = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=False)
    model = dict(type='FasterRCNN', backbone=dict(type='ResNet', depth=50))
    data = dict(test=dict(classes=('a', 'b'), pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='MultiScaleFlipAug', img_scale=(1000, 600), flip=False, transforms=[
            dict(type='Resize', keep_ratio=True), dict(type='RandomFlip'), dict(type='Normalize', **norm),
            dict(type='Pad', size_divisor=64), dict(type='ImageToTensor', keys=['img']),
            dict(type='Collect', keys=['img'])])]))
"""


def test_a_pipeline_of_2_tells_pixels_and_sizes():
    config = read_mmdetection_text(textwrap.dedent(PIPELINE_2), "config")
    settings = config.settings
    assert config.classes == ["a", "b"] and settings["file.pixel_order"] == "BGR"
    assert settings["model.pixel_mean"] == [3, 2, 1] and settings["model.pixel_std"] == [6, 5, 4]
    assert settings["model.resize.min_size"] == 600 and settings["model.resize.max_size"] == 1000
    assert settings["model.conventions.pad_multiple"] == 64
    assert settings["model.backbone.stride_in_1x1"] is False  # a ResNet's default there


def test_a_loader_of_rgb_turns_the_order_around():
    text = PIPELINE_2.replace("dict(type='LoadImageFromFile')", "dict(type='LoadImageFromFile', channel_order='rgb')")
    settings = read(text)
    assert settings["file.pixel_order"] == "RGB" and settings["model.pixel_mean"] == [1, 2, 3]


def test_settings_of_2_0_stand_beside_the_model_and_in_the_heads():
    settings = read("""
        model = dict(type='MaskRCNN',
            rpn_head=dict(anchor_scales=[8], anchor_ratios=[1.0], anchor_strides=[4, 8, 16, 32, 64],
                          target_means=[.0, .0, .0, .0], target_stds=[1.0, 1.0, 1.0, 1.0], type='RPNHead'),
            bbox_head=dict(type='Shared2FCBBoxHead', target_means=[0., 0., 0., 0.], target_stds=[0.1, 0.1, 0.2, 0.2]))
        test_cfg = dict(rpn=dict(nms_across_levels=False, nms_pre=900, nms_post=800, max_num=800, nms_thr=0.6,
                                 min_bbox_size=0), rcnn=dict(score_thr=0.2, nms=dict(type='nms', iou_thr=0.3)))
    """)
    assert settings["model.rpn.anchor_sizes"] == [32, 64, 128, 256, 512]
    assert settings["model.box_head.delta_weights"] == [10, 10, 5, 5]
    assert (settings["model.rpn.pre_nms_test"], settings["model.rpn.post_nms_test"]) == (900, 800)
    assert (settings["model.rpn.nms_iou"], settings["model.detections.nms_iou"]) == (0.6, 0.3)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("type='CascadeRCNN'", "model.type is 'CascadeRCNN'"),
        ("backbone=dict(type='SwinTransformer')", "model.backbone.type"),
        ("backbone=dict(dcn=dict(type='DCN'))", "model.backbone.dcn"),
        ("backbone=dict(plugins=[dict(cfg=dict(type='ContextBlock'))])", "model.backbone.plugins"),
        ("backbone=dict(norm_cfg=dict(type='GN', num_groups=16))", "num_groups is 16"),
        ("backbone=dict(strides=(1, 2, 1, 1))", "model.backbone.strides"),
        ("neck=dict(type='FPN', add_extra_convs='on_input')", "model.neck.add_extra_convs"),
        ("neck=[dict(type='FPN'), dict(type='BFP')]", "model.neck is"),
        ("rpn_head=dict(anchor_generator=dict(center_offset=0.5))", "center_offset is 0.5"),
        ("rpn_head=dict(bbox_coder=dict(clip_border=False))", "clip_border is False"),
        ("rpn_head=dict(bbox_coder=dict(type='LegacyDeltaXYWHBBoxCoder'))", "LegacyDeltaXYWHBBoxCoder"),
        ("rpn_head=dict(loss_cls=dict(type='CrossEntropyLoss'))", "use_sigmoid"),
        ("roi_head=dict(type='DynamicRoIHead')", "model.roi_head.type"),
        ("roi_head=dict(bbox_head=dict(loss_cls=dict(type='SeesawLoss')))", "SeesawLoss"),
        ("roi_head=dict(bbox_roi_extractor=dict(finest_scale=112))", "finest_scale is 112"),
        ("roi_head=dict(bbox_head=dict(twist=1))", "model.roi_head.bbox_head.twist is 1, a setting that isn't known"),
        ("test_cfg=dict(rcnn=dict(nms=dict(type='soft_nms')))", "soft_nms"),
        ("test_cfg=dict(rcnn=dict(nms=dict(class_agnostic=True)))", "class_agnostic is True"),
        ("test_cfg=dict(rcnn=dict(mask_thr_binary=0.4))", "mask_thr_binary is 0.4"),
        ("test_cfg=dict(rcnn=dict(max_per_img=-1))", "max_per_img is -1"),
        ("test_cfg=dict(rpn=dict(nms_pre=1000, nms_post=500, max_num=1000))", "nms_post is 500"),
        ("data_preprocessor=dict(mean=[1, 2, 3], pad_size_divisor=1), neck=dict(type='FPN')", "multiples of 1 pixels"),
    ],
)
def test_what_no_model_of_this_package_does_is_refused_by_name(model, said):
    with pytest.raises(UserError, match=said):
        read(f"model = dict({model})")


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("dict(type='Resize', scale=(9, 9))", "keep_ratio"),
        ("dict(type='Resize', scale=(9, 9), keep_ratio=True, backend='pillow')", "backend is 'pillow'"),
        ("dict(type='Sharpness')", r"test_pipeline\[0\].type is 'Sharpness'"),
        ("dict(type='MultiScaleFlipAug', img_scale=[(9, 9), (8, 8)], transforms=[])", "img_scale"),
        ("dict(type='RandomFlip', prob=1.0)", "prob is 1.0"),
    ],
)
def test_other_ways_to_prepare_an_image_are_refused_by_name(step, said):
    with pytest.raises(UserError, match=said):
        read(f"model = dict(type='MaskRCNN')\ntest_pipeline = [{step}]")


def test_alignment_and_samples_must_be_the_same_in_both_heads():
    layers = "type='RoIAlign', output_size={}, aligned={}"
    both = ", ".join(
        f"{head}_roi_extractor=dict(roi_layer=dict({layers.format(size, aligned)}))"
        for head, size, aligned in (("bbox", 7, False), ("mask", 14, True))
    )
    with pytest.raises(UserError, match=r"mask_roi_extractor.roi_layer.*another way than the box head's"):
        read(f"model = dict(roi_head=dict({both}))")
    assert (
        read(f"model = dict(roi_head=dict({both.replace('True', 'False')}))")["model.conventions.roi_aligned"] is False
    )
