"""The keys of a detectron2 config that decide what a model detects: their defaults, and how their values are read."""

import math

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights.foreign_yaml import NotPlain

# Of detectron2's config/defaults.py, which a zoo's YAML leaves out.
DEFAULTS = {
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.MASK_ON": False,
    "MODEL.KEYPOINT_ON": False,
    "MODEL.PIXEL_MEAN": [103.530, 116.280, 123.675],
    "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
    "INPUT.FORMAT": "BGR",
    "INPUT.MIN_SIZE_TEST": 800,
    "INPUT.MAX_SIZE_TEST": 1333,
    "TEST.DETECTIONS_PER_IMAGE": 100,
    "DATASETS.TRAIN": [],
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.NORM": "FrozenBN",
    "MODEL.RESNETS.STRIDE_IN_1X1": True,
    "MODEL.RESNETS.NUM_GROUPS": 1,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 64,
    "MODEL.RESNETS.RES5_DILATION": 1,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 256,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 64,
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE": [False, False, False, False],
    "MODEL.RESNETS.OUT_FEATURES": ["res4"],
    "MODEL.FPN.IN_FEATURES": [],
    "MODEL.FPN.OUT_CHANNELS": 256,
    "MODEL.FPN.NORM": "",
    "MODEL.FPN.FUSE_TYPE": "sum",
    "MODEL.PROPOSAL_GENERATOR.NAME": "RPN",
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": 0,
    "MODEL.ANCHOR_GENERATOR.NAME": "DefaultAnchorGenerator",
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32, 64, 128, 256, 512]],
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "MODEL.ANCHOR_GENERATOR.OFFSET": 0.0,
    "MODEL.RPN.HEAD_NAME": "StandardRPNHead",
    "MODEL.RPN.IN_FEATURES": ["res4"],
    "MODEL.RPN.CONV_DIMS": [-1],
    "MODEL.RPN.NMS_THRESH": 0.7,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 6000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.BBOX_REG_WEIGHTS": [1.0, 1.0, 1.0, 1.0],
    "MODEL.ROI_HEADS.NAME": "Res5ROIHeads",
    "MODEL.ROI_HEADS.NUM_CLASSES": 80,
    "MODEL.ROI_HEADS.IN_FEATURES": ["res4"],
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.05,
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.5,
    "MODEL.ROI_BOX_HEAD.NAME": "",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": [10.0, 10.0, 5.0, 5.0],
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_BOX_HEAD.NUM_FC": 0,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 1024,
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 0,
    "MODEL.ROI_BOX_HEAD.CONV_DIM": 256,
    "MODEL.ROI_BOX_HEAD.NORM": "",
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": False,
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": False,
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 0,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 256,
    "MODEL.ROI_MASK_HEAD.NORM": "",
    "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": False,
    "MODEL.ROI_KEYPOINT_HEAD.NAME": "KRCNNConvDeconvUpsampleHead",
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": [512] * 8,
    "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS": 17,
    "MODEL.SEM_SEG_HEAD.NAME": "SemSegFPNHead",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 54,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 128,
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": 4,
    "MODEL.SEM_SEG_HEAD.NORM": "GN",
    "MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH": 0.5,
    "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT": 4096,
    "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH": 0.5,
}

# Of detectron2's own keys those that change nothing in what a model of ours would detect, by how they begin.
HARMLESS = (
    # Where a model runs, and where its training starts.
    *("MODEL.DEVICE", "MODEL.WEIGHTS", "MODEL.LOAD_PROPOSALS", "MODEL.BACKBONE.FREEZE_AT"),
    # Training: its images, samples and losses.
    *("INPUT.MIN_SIZE_TRAIN", "INPUT.MAX_SIZE_TRAIN", "INPUT.RANDOM_FLIP", "INPUT.CROP.", "INPUT.MASK_FORMAT"),
    *("MODEL.RPN.BOUNDARY_THRESH", "MODEL.RPN.IOU_", "MODEL.RPN.BATCH_SIZE_PER_IMAGE", "MODEL.RPN.POSITIVE_FRACTION"),
    *("MODEL.RPN.BBOX_REG_LOSS_", "MODEL.RPN.SMOOTH_L1_BETA", "MODEL.RPN.LOSS_WEIGHT"),
    *("MODEL.RPN.PRE_NMS_TOPK_TRAIN", "MODEL.RPN.POST_NMS_TOPK_TRAIN"),
    *("MODEL.ROI_HEADS.IOU_", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "MODEL.ROI_HEADS.POSITIVE_FRACTION"),
    *("MODEL.ROI_HEADS.PROPOSAL_APPEND_GT", "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_", "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA"),
    *("MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES", "MODEL.ROI_BOX_HEAD.USE_FED_LOSS", "MODEL.ROI_BOX_HEAD.FED_LOSS_"),
    *("MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE", "MODEL.ROI_KEYPOINT_HEAD.LOSS_WEIGHT"),
    "MODEL.ROI_KEYPOINT_HEAD.NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS",
    *("MODEL.SEM_SEG_HEAD.IGNORE_VALUE", "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT"),
    "MODEL.PANOPTIC_FPN.COMBINE.ENABLED",  # which is no longer read
    # Of parts that a model of ours never has; whether there are any is said by other keys.
    *("MODEL.RETINANET.", "MODEL.ROI_BOX_CASCADE_HEAD.", "MODEL.ANCHOR_GENERATOR.ANGLES"),
    *("MODEL.RESNETS.DEFORM_MODULATED", "MODEL.RESNETS.DEFORM_NUM_GROUPS"),
    # How it is evaluated beside what it detects. Averaging over changed images is for a figure of its own there, and
    # statistics of batch norm that are measured again stand in the weights.
    *("TEST.EXPECTED_RESULTS", "TEST.EVAL_PERIOD", "TEST.KEYPOINT_OKS_SIGMAS", "TEST.AUG.", "TEST.PRECISE_BN."),
)


class Keys:
    """The values of a config by key, such as "MODEL.RESNETS.DEPTH"; a getter refuses what isn't of its kind.

    Args:
        name: of the file.
        values: key -> value; for one that isn't there its default counts.
        labels: key -> what it is called in the file, where that differs.
    """

    def __init__(self, name, values, labels=None):
        self.name, self.values, self.labels = name, values, labels or {}

    def __getitem__(self, key):
        return self.values.get(key, DEFAULTS[key])

    def says(self, key):
        """The key as it is called in the file, and its value: "MODEL.RESNETS.DEPTH is 50"."""
        value = self[key]
        shown = f"the Python object {value.tag}" if isinstance(value, NotPlain) else repr(value)
        return f"{self.labels.get(key, key)} is {shown if len(shown) <= 120 else f'{shown[:120]}...'}"

    def refuse(self, key, rest):
        """Raise UserError about a key's value: `rest` says why it can't be, and what to do."""
        raise UserError(f"{self.name}: {self.says(key)}{rest}.")

    def number(self, key, least=-math.inf):
        value = self[key]
        if not _is_number(value) or value < least:
            more = "" if least == -math.inf else f" of {least} or more"
            self.refuse(key, f" and no number{more}: correct it, or give the config.yaml that training wrote")
        return value

    def whole(self, key, least=0):
        value = self.number(key, least)
        if value != int(value):
            self.refuse(key, " and no whole number: correct it, or give the config.yaml that training wrote")
        return int(value)

    def flag(self, key):
        if not isinstance(self[key], bool):
            self.refuse(key, " and neither true nor false: correct it, or give the config.yaml that training wrote")
        return self[key]

    def word(self, key):
        if not isinstance(self[key], str):
            self.refuse(key, " and no name: correct it, or give the config.yaml that training wrote")
        return self[key]

    def numbers(self, key, count=None):
        value = self[key]
        valid = isinstance(value, list) and all(map(_is_number, value)) and (count is None or len(value) == count)
        if not valid:
            wanted = "numbers" if count is None else f"{count} numbers"
            self.refuse(key, f" and no list of {wanted}: correct it, or give the config.yaml that training wrote")
        return [float(number) for number in value]

    def lists(self, key):
        """A list of lists of numbers, one for each map; a list of numbers is one for all."""
        value = self[key]
        value = [value] if isinstance(value, list) and value and not isinstance(value[0], list) else value
        if not (isinstance(value, list) and value and all(_is_list_of_numbers(each) for each in value)):
            self.refuse(
                key, " and no list of lists of numbers: correct it, or give the config.yaml that training wrote"
            )
        return [[float(number) for number in each] for each in value]

    def expect(self, key, allowed, rest):
        """Refuse a value that isn't among `allowed`."""
        if not any(self[key] == each for each in allowed):  # which a list can't be looked up in
            self.refuse(key, rest)


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15


def _is_list_of_numbers(value):
    return isinstance(value, list) and bool(value) and all(map(_is_number, value))
