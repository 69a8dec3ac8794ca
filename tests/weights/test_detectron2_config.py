"""detectron2's configs: what they say of a model, and what no model of this package can be."""

import pytest
import yaml

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.load import load_config
from mrcnn_tf.weights.detectron2_config import read_detectron2_config
from mrcnn_tf.weights.facts import override

BASE_FPN = """
MODEL:
  BACKBONE: {NAME: build_resnet_fpn_backbone}
  RESNETS: {OUT_FEATURES: [res2, res3, res4, res5]}
  FPN: {IN_FEATURES: [res2, res3, res4, res5]}
  ANCHOR_GENERATOR: {SIZES: [[32], [64], [128], [256], [512]]}
  RPN: {IN_FEATURES: [p2, p3, p4, p5, p6], PRE_NMS_TOPK_TEST: 1000}
  ROI_HEADS: {NAME: StandardROIHeads, IN_FEATURES: [p2, p3, p4, p5]}
  ROI_BOX_HEAD: {NAME: FastRCNNConvFCHead, NUM_FC: 2, POOLER_RESOLUTION: 7}
  ROI_MASK_HEAD: {NUM_CONV: 4, POOLER_RESOLUTION: 14}
DATASETS:
  TRAIN: ("coco_2017_train",)
VERSION: 2
"""
OWN = """
_BASE_: base.yaml
MODEL:
  MASK_ON: true
  PIXEL_MEAN: !!python/tuple [1.0, 2.0, 3.0]
  PIXEL_STD: (4.0, 5, 6e0)
  RESNETS: {DEPTH: 101, NORM: SyncBN, STRIDE_IN_1X1: false, NUM_GROUPS: 32, WIDTH_PER_GROUP: 8}
  FPN: {NORM: GN, OUT_CHANNELS: 128}
  ANCHOR_GENERATOR: {SIZES: [[8, 16]], ASPECT_RATIOS: [[0.5, 1.0, 2.0, 4.0]]}
  RPN: {NMS_THRESH: 0.6, POST_NMS_TOPK_TEST: 300, BBOX_REG_WEIGHTS: [1, 1, 2, 2], CONV_DIMS: [-1, -1]}
  ROI_HEADS: {NUM_CLASSES: 3, SCORE_THRESH_TEST: 0.2, NMS_THRESH_TEST: 0.4}
  ROI_BOX_HEAD:
    {NUM_CONV: 4, CONV_DIM: 64, NUM_FC: 1, FC_DIM: 512, NORM: GN, POOLER_TYPE: ROIAlign, POOLER_SAMPLING_RATIO: 2,
     CLS_AGNOSTIC_BBOX_REG: true, BBOX_REG_WEIGHTS: [20, 20, 10, 10]}
  ROI_MASK_HEAD: {NUM_CONV: 2, CONV_DIM: 32, POOLER_TYPE: ROIAlign, POOLER_SAMPLING_RATIO: 2, CLS_AGNOSTIC_MASK: true}
INPUT: {FORMAT: RGB, MIN_SIZE_TEST: 600, MAX_SIZE_TEST: 1000}
TEST: {DETECTIONS_PER_IMAGE: 300}
"""


def write(folder, text, name="config.yaml"):
    (folder / "base.yaml").write_text(BASE_FPN, encoding="utf-8")
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def with_keys(folder, **values):
    """A Mask R-CNN on a pyramid with other values, such as MODEL__RPN__NMS_THRESH=0.5; `model` is MODEL here."""
    tree = {"_BASE_": "base.yaml", "MODEL": {"MASK_ON": True}}
    for key, value in values.items():
        *sections, last = key.split("__")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
    return write(folder, yaml.safe_dump(tree))


def refusal(path):
    with pytest.raises(UserError) as error:
        read_detectron2_config(path)
    message = str(error.value)
    assert message.count("\n") == 0 and message.endswith(".") and path.name in message
    return message


def test_what_a_config_says(tmp_path):
    config = read_detectron2_config(write(tmp_path, OWN))
    assert (config.library, config.classes) == ("detectron2", None)  # three classes aren't COCO's
    assert config.settings == {
        "file.pixel_order": "RGB", "file.fpn_fuse": "sum", "file.anchor_offset": 0.0,
        "model.features": "FPN", "model.pixel_mean": [1.0, 2.0, 3.0], "model.pixel_std": [4.0, 5.0, 6.0],
        "model.resize.min_size": 600, "model.resize.max_size": 1000,
        "model.backbone.depth": 101, "model.backbone.norm": "sync_bn", "model.backbone.stride_in_1x1": False,
        "model.backbone.groups": 32, "model.backbone.width_per_group": 8, "model.backbone.dilated": False,
        "model.fpn.norm": "gn", "model.fpn.channels": 128,
        "model.rpn.anchor_sizes": [[8.0, 16.0]] * 5, "model.rpn.aspect_ratios": [0.5, 1.0, 2.0, 4.0],
        "model.rpn.convs": 2, "model.rpn.channels": 128, "model.rpn.nms_iou": 0.6, "model.rpn.pre_nms_test": 1000,
        "model.rpn.post_nms_test": 300, "model.rpn.delta_weights": [1.0, 1.0, 2.0, 2.0],
        "model.conventions.min_proposal_size": 0.0, "model.conventions.roi_aligned": False,
        "model.conventions.roi_sampling_ratio": 2, "model.roi_layer.kind": "align",
        "model.roi_layer.aggregate": "average",
        "model.box_head.pool_size": 7, "model.box_head.convs": 4, "model.box_head.conv_channels": 64,
        "model.box_head.norm": "gn", "model.box_head.fcs": 1, "model.box_head.channels": 512,
        "model.box_head.class_agnostic": True, "model.box_head.delta_weights": [20.0, 20.0, 10.0, 10.0],
        "model.mask_head.pool_size": 14, "model.mask_head.convs": 2, "model.mask_head.channels": 32,
        "model.mask_head.norm": None, "model.mask_head.class_agnostic": True,
        "model.keypoint_head": None, "model.semantic_head": None,
        "model.detections.score_threshold": 0.2, "model.detections.nms_iou": 0.4, "model.detections.max_per_image": 300,
    }  # fmt: skip
    stated = [override(name, value) for name, value in config.settings.items() if name.startswith("model.")]
    load_config("detectron2_mask_rcnn_R_50_FPN", ["model.categories=[{id: 1, name: a}]", *stated])


def test_statistics_are_in_rgb_order_whatever_the_format(tmp_path):
    settings = read_detectron2_config(with_keys(tmp_path, MODEL__PIXEL_STD=[1.0, 2.0, 3.0])).settings
    assert settings["file.pixel_order"] == "BGR"
    assert (settings["model.pixel_mean"], settings["model.pixel_std"]) == ([123.675, 116.28, 103.53], [3.0, 2.0, 1.0])


def test_a_config_without_a_base_has_the_defaults_of_a_c4_model(tmp_path):
    settings = read_detectron2_config(write(tmp_path, "MODEL: {MASK_ON: true}\nVERSION: 2\n")).settings
    wanted = {
        "features": "C4",
        "box_head.pool_size": 14,
        "box_head.fcs": 0,
        "mask_head.pool_size": 7,
        "mask_head.convs": 0,
    }
    assert {name: settings[f"model.{name}"] for name in wanted} == wanted
    assert settings["model.rpn.anchor_sizes"] == [32.0, 64.0, 128.0, 256.0, 512.0]
    assert (settings["model.rpn.channels"], settings["model.rpn.pre_nms_test"]) == (1024, 6000)


def test_dilated_c5(tmp_path):
    text = """
    MODEL:
      RESNETS: {OUT_FEATURES: [res5], RES5_DILATION: 2}
      RPN: {IN_FEATURES: [res5]}
      ROI_HEADS: {NAME: StandardROIHeads, IN_FEATURES: [res5]}
      ROI_BOX_HEAD: {NAME: FastRCNNConvFCHead, NUM_FC: 2, POOLER_RESOLUTION: 7}
    """
    settings = read_detectron2_config(write(tmp_path, text)).settings
    assert (settings["model.features"], settings["model.backbone.dilated"]) == ("C5", True)
    assert (settings["model.rpn.channels"], settings["model.mask_head"]) == (2048, None)


def test_keypoints_and_panoptic_heads(tmp_path):
    path = with_keys(
        tmp_path, MODEL__MASK_ON=False, MODEL__KEYPOINT_ON=True, MODEL__ROI_HEADS__NUM_CLASSES=1,
        MODEL__ROI_KEYPOINT_HEAD__CONV_DIMS=[16, 16], DATASETS__TRAIN=["keypoints_coco_2017_train"],
    )  # fmt: skip
    config = read_detectron2_config(path)
    assert config.classes == ["person"]
    assert {name: value for name, value in config.settings.items() if "keypoint" in name} == {
        "model.keypoint_head.pool_size": 14, "model.keypoint_head.convs": 2, "model.keypoint_head.channels": 16
    }  # fmt: skip
    path = with_keys(
        tmp_path, MODEL__META_ARCHITECTURE="PanopticFPN", MODEL__PANOPTIC_FPN__COMBINE__STUFF_AREA_LIMIT=100,
        DATASETS__TRAIN=["coco_2017_train_panoptic_separated"], MODEL__SEM_SEG_HEAD__NORM="",
    )  # fmt: skip
    config = read_detectron2_config(path)
    assert (len(config.classes), config.classes[0]) == (80, "person")
    assert {name: value for name, value in config.settings.items() if "semantic" in name or "panoptic" in name} == {
        "model.semantic_head.channels": 128, "model.semantic_head.norm": None, "model.panoptic.score_threshold": 0.5,
        "model.panoptic.overlap": 0.5, "model.panoptic.stuff_area": 100,
    }  # fmt: skip


@pytest.mark.parametrize(
    "names, count, first, last",
    [
        (["coco_2014_train", "coco_2014_valminusminival"], 80, "person", "toothbrush"),
        (["voc_2007_trainval", "voc_2012_trainval"], 20, "aeroplane", "tvmonitor"),
        ("('cityscapes_fine_instance_seg_train',)", 8, "person", "bicycle"),
        (["lvis_v1_train"], 1203, "aerosol_can", "zucchini"),
        (["lvis_v0.5_train"], 1230, "acorn", "zucchini"),
    ],
)
def test_classes_of_detectron2s_own_sets(tmp_path, names, count, first, last):
    path = with_keys(tmp_path, DATASETS__TRAIN=names, MODEL__ROI_HEADS__NUM_CLASSES=count)
    classes = read_detectron2_config(path).classes
    assert (len(classes), classes[0], classes[-1]) == (count, first, last)


@pytest.mark.parametrize("names", [[], ["my_train"], ["coco_2017_train", "my_train"], "lvis_v1_train", None])
def test_classes_of_other_sets_are_not_known(tmp_path, names):
    assert read_detectron2_config(with_keys(tmp_path, DATASETS__TRAIN=names)).classes is None


def test_roi_pool_and_plain_depths(tmp_path):
    settings = read_detectron2_config(
        with_keys(
            tmp_path, MODEL__ROI_BOX_HEAD__POOLER_TYPE="ROIPool", MODEL__ROI_MASK_HEAD__POOLER_TYPE="ROIPool",
            MODEL__RESNETS__DEPTH=18, MODEL__RESNETS__RES2_OUT_CHANNELS=64,
        )
    ).settings  # fmt: skip
    assert (settings["model.roi_layer.kind"], settings["model.roi_layer.aggregate"]) == ("pool", "max")
    assert not {"model.conventions.roi_aligned", "model.backbone.stride_in_1x1"} & set(settings)


# What no model of this package can be: the key, its value, and what stands in the message beside them.
@pytest.mark.parametrize(
    "key, value, remedy",
    [
        ("MODEL.META_ARCHITECTURE", "RetinaNet", "give weights of a GeneralizedRCNN"),
        ("MODEL.BACKBONE.NAME", "build_vovnet_fpn_backbone", "give weights of a model with detectron2's ResNet"),
        ("MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "give weights of a model with StandardROIHeads"),
        ("MODEL.ANCHOR_GENERATOR.OFFSET", 0.5, "give weights of a model with 0.0"),
        ("MODEL.ANCHOR_GENERATOR.NAME", "RotatedAnchorGenerator", "DefaultAnchorGenerator"),
        ("MODEL.ANCHOR_GENERATOR.SIZES", [[8], [16]], "one list for each, or one for all"),
        ("MODEL.ANCHOR_GENERATOR.SIZES", [[8], [16], [32], [64], [128, 256]], "give each as many sizes"),
        ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[1], [1], [1], [1], [2]], "with such anchors"),
        ("MODEL.FPN.FUSE_TYPE", "avg", "give weights of a model with sum"),
        ("MODEL.FPN.IN_FEATURES", ["res3", "res4", "res5"], "give weights"),
        ("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, True, True, True], "without them"),
        ("MODEL.RESNETS.NORM", "LN", "BN or GN"),
        ("MODEL.RESNETS.DEPTH", 38, "of depth 50"),
        ("MODEL.RESNETS.STEM_OUT_CHANNELS", 32, "of that width"),
        ("MODEL.PROPOSAL_GENERATOR.NAME", "RRPN", "with RPN"),
        ("MODEL.RPN.IN_FEATURES", ["p3", "p4", "p5", "p6"], "['p2', 'p3', 'p4', 'p5', 'p6'] are read"),
        ("MODEL.RPN.CONV_DIMS", [64, 32], "with [-1]"),
        ("MODEL.ROI_HEADS.IN_FEATURES", ["p3", "p4", "p5"], "['p2', 'p3', 'p4', 'p5'] are read"),
        ("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True, "without it"),
        ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignRotated", "ROIAlignV2 or ROIAlign"),
        ("MODEL.ROI_BOX_HEAD.NUM_FC", 0, "with some"),
        ("MODEL.ROI_MASK_HEAD.NAME", "PointRendMaskHead", "MaskRCNNConvUpsampleHead"),
        ("MODEL.ROI_MASK_HEAD.POOLER_TYPE", "ROIAlign", "all heads share model.conventions.roi_aligned"),
        ("MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO", 2, "all heads share model.conventions.roi_sampling_ratio"),
        ("INPUT.FORMAT", "YUV-BT.601", "RGB or BGR"),
        ("INPUT.MIN_SIZE_TEST", 0, "set it to your images' shorter side"),
        ("MODEL.PIXEL_MEAN", [1.0], "3 numbers"),
        ("MODEL.PIXEL_STD", [1.0, 0.0, 1.0], "correct it"),
        ("TEST.DETECTIONS_PER_IMAGE", -1, "1 or more"),
        ("MODEL.RPN.NMS_THRESH", "half", "no number"),
        ("MODEL.MASK_ON", "maybe", "neither true nor false"),
        ("MODEL.TRIDENT.NUM_BRANCH", 3, "delete it from a copy of the file and give that"),
        ("INPUT.GAMMA", 2.2, "delete it from a copy of the file and give that"),
        ("MODEL.RESNETS", None, "delete it from a copy"),
        ("MODEL.a\nb", 1, "delete it from a copy"),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path, key, value, remedy):
    message = refusal(with_keys(tmp_path, **{key.replace(".", "__"): value}))
    assert key.replace("\n", " ") in message and remedy in message
    assert repr(value) in message or "isn't known" in message


def test_the_remedy_for_an_unknown_key_works(tmp_path):
    refusal(with_keys(tmp_path, INPUT__GAMMA=2.2))
    read_detectron2_config(with_keys(tmp_path))


def test_training_changes_nothing(tmp_path):
    plain = read_detectron2_config(with_keys(tmp_path)).settings
    training = {
        "MODEL.DEVICE": "cpu", "MODEL.WEIGHTS": "a.pth", "MODEL.BACKBONE.FREEZE_AT": 0,
        "MODEL.RPN.IOU_THRESHOLDS": [0.2, 0.8],
        "MODEL.RPN.BBOX_REG_LOSS_TYPE": "giou", "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 1.0, "MODEL.RETINANET.NORM": "GN",
        "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": [0.5], "INPUT.CROP.ENABLED": True, "INPUT.MIN_SIZE_TRAIN": [640],
        "TEST.AUG.ENABLED": True, "TEST.PRECISE_BN.NUM_ITER": 5, "SOLVER.BASE_LR": 0.1, "WANDB.NAME": "x", "SEED": 1,
        "DATALOADER.NUM_WORKERS": 2, "MODEL.ROI_KEYPOINT_HEAD.NAME": "of a head that isn't there",
    }  # fmt: skip
    path = with_keys(tmp_path, **{key.replace(".", "__"): value for key, value in training.items()})
    assert read_detectron2_config(path).settings == plain


def test_bases(tmp_path):
    message = refusal(write(tmp_path, "_BASE_: ../no/base.yaml\nMODEL: {}\n"))
    assert "copy it there" in message and "../no/base.yaml" in message
    (tmp_path / "no").mkdir()
    read_detectron2_config(write(tmp_path / "no", "_BASE_: ../base.yaml\nMODEL: {}\n"))
    for base in ("https://server/base.yaml", "{a: b}", "[1]", "~nobody/base.yaml", "x" * 5000, '"a\\0b"'):
        assert "config.yaml" in refusal(write(tmp_path, f"_BASE_: {base}\nMODEL: {{}}\n"))
    for itself in ("config.yaml", "[base.yaml, config.yaml, config.yaml]"):
        assert "on itself" in refusal(write(tmp_path, f"_BASE_: {itself}\nMODEL: {{}}\n"))
    assert "base.yaml" in refusal(_with_base(tmp_path, "just text"))


def _with_base(folder, text):
    path = write(folder, "_BASE_: base.yaml\nMODEL: {}\n")
    (folder / "base.yaml").write_text(text, encoding="utf-8")
    return path


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{below}'] * 10)}]\n" for below, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "no section MODEL"),
        ("just a sentence", "no section MODEL"),
        ("model: {backbone: {depth: 50}}\ntrain: {steps: 1}", "no section MODEL"),  # a config of this package
        ("MODEL: {MASK_ON: [}", "isn't valid YAML"),
        ("MODEL: {}\n---\nMODEL: {}", "isn't valid YAML"),
        ("MODEL: !!float x", "isn't valid YAML"),
        ("- " * 2000, "nested too deeply"),
        (BOMB + "MODEL: *i", "too many for a config"),
        ("MODEL: &m {a: *m}", "nested too deeply"),
        ("a: &a {MODEL: {}}\n<<: *a", "write the keys out"),
        (
            "MODEL: {PIXEL_MEAN: !!python/object/apply:os.system [exit]}",
            "the Python object python/object/apply:os.system",
        ),
        ("MODEL: {WEIGHT: a.pkl}", "of version 1"),
        ("x" * 300_000, "too many for a config"),
        ("MODEL: \x01", "isn't valid YAML"),
        (b"MODEL: \xff\xfe", "isn't text in UTF-8"),
    ],
)
def test_damaged_files_are_one_sentence(tmp_path, text, reason):
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert reason in refusal(path)


def test_there_is_no_such_file(tmp_path):
    assert "There is no config" in refusal(tmp_path / "config.yaml")
