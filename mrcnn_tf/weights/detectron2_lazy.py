"""detectron2's lazy configs, as LazyConfig.save dumps them: a tree of classes (`_target_`) and their arguments.

It is read as the keys of the older configs, where the classes are those that these configs build; others are refused.
What a class isn't called with has the class's own default.
"""

import re

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights.detectron2_keys import Keys
from mrcnn_tf.weights.foreign_yaml import NotPlain

ABSENT = object()
MOST_STEPS = 20  # from an interpolation to the value, over others
# Place in the tree -> (key, default of the class; ABSENT where there is none). Lists of numbers of channels, pairs of a
# number for training and one for detecting, and classes are translated by `_Translation`.
PIXELS = {
    "model.pixel_mean": ("MODEL.PIXEL_MEAN", ABSENT),
    "model.pixel_std": ("MODEL.PIXEL_STD", ABSENT),
}
FPN = {
    "in_features": ("MODEL.FPN.IN_FEATURES", ABSENT),
    "out_channels": ("MODEL.FPN.OUT_CHANNELS", ABSENT),
    "norm": ("MODEL.FPN.NORM", ""),
    "fuse_type": ("MODEL.FPN.FUSE_TYPE", "sum"),
}
RESNET = {
    "stem.out_channels": ("MODEL.RESNETS.STEM_OUT_CHANNELS", 64),
    "stages.depth": ("MODEL.RESNETS.DEPTH", ABSENT),
    "stages.norm": ("MODEL.RESNETS.NORM", "BN"),
    "stages.stride_in_1x1": ("MODEL.RESNETS.STRIDE_IN_1X1", False),
    "stages.num_groups": ("MODEL.RESNETS.NUM_GROUPS", 1),
}
RPN = {
    "in_features": ("MODEL.RPN.IN_FEATURES", ABSENT),
    "head.conv_dims": ("MODEL.RPN.CONV_DIMS", [-1]),
    "anchor_generator.sizes": ("MODEL.ANCHOR_GENERATOR.SIZES", ABSENT),
    "anchor_generator.aspect_ratios": ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", ABSENT),
    "anchor_generator.offset": ("MODEL.ANCHOR_GENERATOR.OFFSET", 0.5),
    "box2box_transform.weights": ("MODEL.RPN.BBOX_REG_WEIGHTS", ABSENT),
    "nms_thresh": ("MODEL.RPN.NMS_THRESH", 0.7),
    "min_box_size": ("MODEL.PROPOSAL_GENERATOR.MIN_SIZE", 0.0),
}
BOXES = {
    "num_classes": ("MODEL.ROI_HEADS.NUM_CLASSES", ABSENT),
    "box_predictor.test_score_thresh": ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0),
    "box_predictor.test_nms_thresh": ("MODEL.ROI_HEADS.NMS_THRESH_TEST", 0.5),
    "box_predictor.test_topk_per_image": ("TEST.DETECTIONS_PER_IMAGE", 100),
    "box_predictor.cls_agnostic_bbox_reg": ("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", False),
    "box_predictor.use_sigmoid_ce": ("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", False),
    "box_predictor.box2box_transform.weights": ("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", ABSENT),
}
POOLER = {"output_size": "POOLER_RESOLUTION", "sampling_ratio": "POOLER_SAMPLING_RATIO", "pooler_type": "POOLER_TYPE"}
SEMANTIC = {
    "sem_seg_head.num_classes": ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", ABSENT),
    "sem_seg_head.conv_dims": ("MODEL.SEM_SEG_HEAD.CONVS_DIM", ABSENT),
    "sem_seg_head.common_stride": ("MODEL.SEM_SEG_HEAD.COMMON_STRIDE", ABSENT),
    "sem_seg_head.norm": ("MODEL.SEM_SEG_HEAD.NORM", ""),
    "combine_overlap_thresh": ("MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH", 0.5),
    "combine_stuff_area_thresh": ("MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT", 4096),
    "combine_instances_score_thresh": ("MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH", 0.5),
}
BACKBONES = {"FPN": "build_resnet_fpn_backbone", "ResNet": "build_resnet_backbone"}
# The classes that must stand at a place; a part that isn't there is none of them.
CLASSES = {
    "stem": "BasicStem",
    "stages": "make_default_stages",
    "top_block": "LastLevelMaxPool",
    "box2box_transform": "Box2BoxTransform",
    "box_predictor": "FastRCNNOutputLayers",
    "pooler": "ROIPooler",
    "box_pooler": "ROIPooler",
    "mask_pooler": "ROIPooler",
    "keypoint_pooler": "ROIPooler",
}
# Places under the model that change nothing in what it detects: training, shapes that follow from others, and pictures.
HARMLESS = re.compile(
    r"model\.(vis_period|input_format)|.*\.(input_shape|anchor_matcher|proposal_matcher)(\..*)?"
    r"|.*\.(batch_size_per_image|positive_fraction|loss_weight|loss_normalizer|ignore_value|freeze_at|vis_period)(\..*)?"
    r"|.*\.(smooth_l1_beta|box_reg_loss_type|use_fed_loss|get_fed_loss_cls_weights|fed_loss_num_classes)(\..*)?"
    r"|.*\.(anchor_boundary_thresh|proposal_append_gt|train_on_pred_boxes|out_features)"
    r"|.*\.stem\.in_channels|.*\.head\.(in_channels|num_anchors)|.*\.anchor_generator\.strides|.*pooler\.scales"
    r"|.*\.(box_predictor|mask_head)\.num_classes|.*\.res5\.(_target_|block_class|num_blocks|stride_per_block)"
    r"|.*\.res5\.(in_channels|bottleneck_channels|out_channels)"
)


def lazy_keys(tree, name):
    """The `Keys` of a lazy config's tree; UserError for classes and arguments that aren't known."""
    return _Translation(tree, name).keys()


class _Translation:
    """Reads a tree of plain values; notes which places were read."""

    def __init__(self, tree, name):
        self.tree, self.name, self.read = tree, name, set()
        self.values, self.labels = {}, {}

    def keys(self):
        classes = (
            ("model", "MODEL.META_ARCHITECTURE", ("GeneralizedRCNN", "PanopticFPN")),
            ("model.backbone", "MODEL.BACKBONE.NAME", BACKBONES.values()),
            ("model.roi_heads", "MODEL.ROI_HEADS.NAME", ("StandardROIHeads", "Res5ROIHeads")),
        )
        for place, key, known in classes:
            if self._class(place, key) not in known:  # called with what isn't known either; `settings_of` refuses it
                return Keys(self.name, self.values, self.labels)
        self._table("", PIXELS)
        self._images()
        self._backbone()
        self._rpn()
        self._boxes()
        self._masks()
        self._keypoints()
        self._semantic()
        self._check_classes()
        self._check_all_read()
        return Keys(self.name, self.values, self.labels)

    # Values by their places.

    def get(self, place, default=ABSENT):
        """What stands at a place, such as "model.backbone.norm"; UserError if nothing does and there is no default."""
        self.read.add(place)
        value = self._at(place.split("."))
        if value is ABSENT and default is ABSENT:
            raise UserError(f"{self.name}: {place} is missing: give the config.yaml that training wrote.")
        return default if value is ABSENT else value

    def _at(self, path, steps=0):
        node = self.tree
        for depth, part in enumerate(path):
            if not isinstance(node, dict):
                return ABSENT
            node = self._resolved(node.get(part, ABSENT), path[: depth + 1], steps)
        return node

    def _resolved(self, value, path, steps):
        """The value that an interpolation stands for, such as "${..num_classes}": two dots are the parent's parent."""
        match = re.fullmatch(r"\$\{(\.*)([\w.]+)\}", value) if isinstance(value, str) else None
        if not match:
            return value
        if steps == MOST_STEPS:
            raise UserError(f"{self.name}: {'.'.join(path)} refers to itself ({value}): write its value there.")
        dots = len(match[1])
        above = path[: len(path) - dots] if dots else []
        target = self._at([*above, *match[2].split(".")], steps + 1)
        if target is ABSENT:
            raise UserError(
                f"{self.name}: {'.'.join(path)} refers to {value}, and nothing stands there: write its value."
            )
        return target

    def note(self, key, place, value):
        self.values[key], self.labels[key] = value, place

    def _table(self, prefix, table):
        for place, (key, default) in table.items():
            self.note(key, prefix + place, self.get(prefix + place, default))

    def _class(self, place, key):
        """Notes the name of the class at a place, of a backbone that of its function, and returns it."""
        name = self._class_name(f"{place}._target_")
        name = BACKBONES.get(name, name) if key == "MODEL.BACKBONE.NAME" else name
        self.note(key, f"{place}._target_", name)
        return name

    def _class_name(self, place):
        target = self.get(place)
        target = target.tag if isinstance(target, NotPlain) else target
        return target.rpartition(".")[2] if isinstance(target, str) else "?"

    def _only(self, place, allowed, default=ABSENT):
        """Refuse anything but `allowed`, a value or a class's name."""
        is_class = place.endswith(("_target_", "block_class"))
        value = self._class_name(place) if is_class else self.get(place, default)
        if value != allowed:
            raise UserError(
                f"{self.name}: {place} is {value!r}, and in a model of this package it can only be {allowed!r}: give "
                "weights of such a model."
            )

    # The parts.

    def _images(self):
        """Of the test images. The order of their channels is what they are read in; `input_format` is for pictures."""
        place = next(
            (place for place in ("dataloader.test.mapper.image_format", "dataloader.train.mapper.image_format")
             if self._at(place.split(".")) is not ABSENT),
            "model.input_format",
        )  # fmt: skip
        self.note("INPUT.FORMAT", place, self.get(place))
        names = "dataloader.train.dataset.names"
        self.note("DATASETS.TRAIN", names, self.get(names, []))
        place = "dataloader.test.mapper.augmentations"
        changes = self.get(place, None)
        if changes is None:
            raise UserError(
                f"{self.name}: {place} is missing, which says how images are resized: add the section dataloader."
            )
        known = {"_target_", "short_edge_length", "max_size", "sample_style", "interp"}
        change = changes[0] if isinstance(changes, list) and len(changes) == 1 and isinstance(changes[0], dict) else {}
        target = str(change.get("_target_")).rpartition(".")[2]
        size = change.get("short_edge_length")
        size = size[0] if isinstance(size, list) and len(set(map(str, size))) == 1 else size
        if target != "ResizeShortestEdge" or set(change) - known or change.get("interp", 2) not in (2, "BILINEAR"):
            raise UserError(
                f"{self.name}: {place} isn't ResizeShortestEdge alone, which is how a model of this package resizes: "
                "give weights of a model that is tested so."
            )
        self.note("INPUT.MIN_SIZE_TEST", f"{place}.0.short_edge_length", size)
        self.note("INPUT.MAX_SIZE_TEST", f"{place}.0.max_size", change.get("max_size", 2**31 - 1))

    def _backbone(self):
        prefix = "model.backbone."
        if self.values["MODEL.BACKBONE.NAME"] == BACKBONES["FPN"]:
            self._table(prefix, FPN)
            self._only(f"{prefix}square_pad", 0, 0)
            prefix += "bottom_up."
            self._only(f"{prefix}_target_", "ResNet")
        self._resnet(prefix)

    def _resnet(self, prefix):
        self._table(prefix, RESNET)
        stages, depth = f"{prefix}stages.", self.values["MODEL.RESNETS.DEPTH"]
        basic = isinstance(depth, int) and depth < 50
        self._only(f"{stages}dilation", 1, 1)
        if self.get(f"{stages}block_class", None) is not None:
            self._only(f"{stages}block_class", "BasicBlock" if basic else "BottleneckBlock")
        norm = self.values["MODEL.RESNETS.NORM"]
        self._only(f"{prefix}stem.norm", norm, "BN")
        # The channels of a stage's 3x3 convolutions, all groups together, are those of a ResNet.
        groups = self.values["MODEL.RESNETS.NUM_GROUPS"]
        width = 64 // groups if isinstance(groups, int) and groups > 0 else 64
        self.note("MODEL.RESNETS.WIDTH_PER_GROUP", f"{stages}num_groups", width)
        self.values["MODEL.RESNETS.RES2_OUT_CHANNELS"] = 64 if basic else 256

    def _rpn(self):
        place = "model.proposal_generator"
        self._class(place, "MODEL.PROPOSAL_GENERATOR.NAME")
        self._class(f"{place}.head", "MODEL.RPN.HEAD_NAME")
        self._class(f"{place}.anchor_generator", "MODEL.ANCHOR_GENERATOR.NAME")
        self._only(f"{place}.head.box_dim", 4, 4)
        self._table(f"{place}.", RPN)
        for part in ("pre_nms_topk", "post_nms_topk"):
            pair = self.get(f"{place}.{part}")
            last = pair[1] if isinstance(pair, list) and len(pair) == 2 else pair
            self.note(f"MODEL.RPN.{part.upper()}_TEST", f"{place}.{part}", last)

    def _boxes(self):
        place, box = "model.roi_heads", "MODEL.ROI_BOX_HEAD."
        self._table(f"{place}.", BOXES)
        if self.values["MODEL.ROI_HEADS.NAME"] == "Res5ROIHeads":
            self.note("MODEL.ROI_HEADS.IN_FEATURES", f"{place}.in_features", self.get(f"{place}.in_features"))
            self._pooler(f"{place}.pooler", box)
            for part in ("norm", "stride_in_1x1", "num_groups"):
                key, default = RESNET[f"stages.{part}"]
                self._only(f"{place}.res5.{part}", self.values[key], default)
            return
        features = f"{place}.box_in_features"
        self.note("MODEL.ROI_HEADS.IN_FEATURES", features, self.get(features))
        self._pooler(f"{place}.box_pooler", box)
        self._class(f"{place}.box_head", f"{box}NAME")
        self._channels(f"{place}.box_head.conv_dims", f"{box}NUM_CONV", f"{box}CONV_DIM")
        self._channels(f"{place}.box_head.fc_dims", f"{box}NUM_FC", f"{box}FC_DIM")
        self.note(f"{box}NORM", f"{place}.box_head.conv_norm", self.get(f"{place}.box_head.conv_norm", ""))

    def _masks(self):
        place, mask = "model.roi_heads.mask_head", "MODEL.ROI_MASK_HEAD."
        self.values["MODEL.MASK_ON"] = self.get(place, None) is not None
        if not self.values["MODEL.MASK_ON"]:
            return
        self._class(place, f"{mask}NAME")
        if self.values["MODEL.ROI_HEADS.NAME"] != "Res5ROIHeads":
            self._only("model.roi_heads.mask_in_features", self.values["MODEL.ROI_HEADS.IN_FEATURES"])
            self._pooler("model.roi_heads.mask_pooler", mask)
        self._channels(f"{place}.conv_dims", f"{mask}NUM_CONV", f"{mask}CONV_DIM")
        if isinstance(self.values[f"{mask}NUM_CONV"], int):  # the last one is the deconvolution's
            self.values[f"{mask}NUM_CONV"] -= 1
        self.note(f"{mask}NORM", f"{place}.conv_norm", self.get(f"{place}.conv_norm", ""))
        classes, masks = self.values["MODEL.ROI_HEADS.NUM_CLASSES"], self.get(f"{place}.num_classes")
        self.values[f"{mask}CLS_AGNOSTIC_MASK"] = masks == 1 and classes != 1

    def _keypoints(self):
        place, head = "model.roi_heads.keypoint_head", "MODEL.ROI_KEYPOINT_HEAD."
        self.values["MODEL.KEYPOINT_ON"] = self.get(place, None) is not None
        if not self.values["MODEL.KEYPOINT_ON"]:
            return
        self._class(place, f"{head}NAME")
        self._only("model.roi_heads.keypoint_in_features", self.values["MODEL.ROI_HEADS.IN_FEATURES"])
        self._pooler("model.roi_heads.keypoint_pooler", head)
        self.note(f"{head}CONV_DIMS", f"{place}.conv_dims", self.get(f"{place}.conv_dims"))
        self.note(f"{head}NUM_KEYPOINTS", f"{place}.num_keypoints", self.get(f"{place}.num_keypoints"))

    def _semantic(self):
        if self.values["MODEL.META_ARCHITECTURE"] == "PanopticFPN":
            place = "model.sem_seg_head"
            self._class(place, "MODEL.SEM_SEG_HEAD.NAME")
            self._table("model.", SEMANTIC)
            shapes = self.get(f"{place}.input_shape", {})
            maps = sorted(shapes) if isinstance(shapes, dict) else shapes
            self.note("MODEL.SEM_SEG_HEAD.IN_FEATURES", f"{place}.input_shape", maps)

    def _pooler(self, place, section):
        for part, key in POOLER.items():
            self.note(section + key, f"{place}.{part}", self.get(f"{place}.{part}"))
        self._only(f"{place}.canonical_box_size", 224, 224)
        self._only(f"{place}.canonical_level", 4, 4)

    def _channels(self, place, count_key, key):
        """A list of as many channels as there are layers."""
        channels = self.get(place)
        if not isinstance(channels, list) or len(set(map(str, channels))) > 1:
            raise UserError(
                f"{self.name}: {place} is {channels!r}, and in this package all have as many channels: give weights "
                "of a model with such a head."
            )
        self.note(count_key, place, len(channels))
        if channels:
            self.note(key, place, channels[0])

    # What was left.

    def _check_classes(self):
        for place in self._places(self.tree["model"], "model"):
            part, _, last = place.rpartition(".")
            wanted = CLASSES.get(part.rpartition(".")[2])
            if last == "_target_" and wanted:
                self._only(place, wanted)

    def _check_all_read(self):
        for place in self._places(self.tree["model"], "model"):
            if place not in self.read and not HARMLESS.fullmatch(place):
                raise UserError(
                    f"{self.name}: {' '.join(place.split())} is no argument that is known, and what it changes isn't "
                    "either: if the model detects the same without it, delete it from a copy of the file and give that."
                )

    def _places(self, node, place):
        if isinstance(node, dict):
            for key, value in node.items():
                yield from self._places(value, f"{place}.{key}")
        else:
            yield place
