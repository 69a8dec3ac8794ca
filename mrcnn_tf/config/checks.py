"""What a config's settings may be: known keys, listed choices, sensible ranges. Each mistake is one sentence."""

import difflib
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mrcnn_tf.common.errors import UserError

# Batch norm that learns would take its statistics from padding: a head's slots without an RoI count as samples.
HEAD_NORMS = (None, "frozen_bn", "gn")
# Keys by section whose numbers must be more than 0, between 0 and 1, and not below 0.
_POSITIVE = {
    "model.resize": ("min_size", "max_size"),
    "model.backbone": ("groups", "width_per_group"),
    "model.fpn": ("channels",),
    "model.rpn": (
        "convs",
        "channels",
        "batch_per_image",
        "pre_nms_train",
        "pre_nms_test",
        "post_nms_train",
        "post_nms_test",
    ),
    "model.rois": ("batch_per_image",),
    "model.box_head": ("pool_size", "conv_channels", "channels"),
    "model.mask_head": ("pool_size", "channels"),
    "model.keypoint_head": ("pool_size", "convs", "channels"),
    "model.detections": ("max_per_image",),
    "model.semantic_head": ("channels", "loss_weight"),
    "data.train": ("max_instances", "mask_size"),
    "data.val": ("max_instances", "mask_size"),
    "train": (
        "images_per_batch",
        "learning_rate",
        "learning_rate_batch",
        "steps",
        "accumulate",
        "patience",
        "checkpoint_steps",
        "keep_checkpoints",
        "log_steps",
    ),
}
_FRACTIONS = {
    "model.rpn": ("foreground_iou", "background_iou", "positive_fraction", "nms_iou"),
    "model.rois": ("positive_fraction", "foreground_iou"),
    "model.detections": ("score_threshold", "nms_iou"),
    "model.panoptic": ("score_threshold", "overlap"),
    "data.train.augment": (
        "horizontal_flip",
        "vertical_flip",
        "crop",
        "crop_least",
        "copy_paste",
        "brightness",
        "contrast",
        "saturation",
        "hue",
    ),
    "model.conventions": ("keypoint_offset",),
    "train": ("momentum", "warmup_factor", "decay_factor", "ema"),
}
_COUNTS = {
    "model.box_head": ("convs", "fcs"),
    "model.mask_head": ("convs", "fcs"),
    "model.panoptic": ("stuff_area",),
    "data.train": ("min_keypoints",),
}


def check_keys(tree: Any, schema: Any, source: str, path: str = "") -> None:
    """Raises UserError for a key that the schema lacks, naming a similar one, and for a value in a section's place."""
    if not isinstance(schema, DictConfig) or OmegaConf.get_type(schema) is dict:  # whose keys are the user's
        return
    if not isinstance(tree, dict):
        raise UserError(
            f"{source}: '{path}' is {tree!r} but a section: set one of its keys ({', '.join(map(str, schema))})."
        )
    for key, value in tree.items():
        where = f"{path}.{key}" if path else str(key)
        if key not in schema:
            similar = difflib.get_close_matches(str(key), map(str, schema), n=1)
            known = (
                f"did you mean {where[: -len(str(key))]}{similar[0]}"
                if similar
                else f"known: {', '.join(map(str, schema))}"
            )
            raise UserError(f"{source}: there is no setting '{where}' ({known}).")
        if value is not None:
            check_keys(value, schema[key], source, where)


def check_choices(config: Any, source: str) -> None:
    """Raises UserError for a word that isn't among those a setting allows."""
    model = config.model
    choices = [
        ("model.backbone.depth", model.backbone.depth, (18, 34, 50, 101, 152)),
        ("model.backbone.norm", model.backbone.norm, ("frozen_bn", "bn", "sync_bn", "gn")),
        ("model.backbone.stem_pool", model.backbone.stem_pool, ("symmetric", "same")),
        ("model.features", model.features, ("FPN", "C4", "C5")),
        ("model.fpn.norm", model.fpn.norm, HEAD_NORMS),
        ("model.roi_layer.kind", model.roi_layer.kind, ("align", "pool", "warp")),
        ("model.roi_layer.aggregate", model.roi_layer.aggregate, ("average", "max")),
        ("model.box_head.norm", model.box_head and model.box_head.norm, HEAD_NORMS),
        ("model.mask_head.norm", model.mask_head and model.mask_head.norm, HEAD_NORMS),
        ("model.mask_head.activation", model.mask_head and model.mask_head.activation, (None, "sigmoid", "softmax")),
        ("model.semantic_head.norm", model.semantic_head and model.semantic_head.norm, HEAD_NORMS),
        ("model.backbone.freeze_at", model.backbone.freeze_at, tuple(range(6))),
        ("model.resize.rule", model.resize.rule, ("torchvision", "detectron2")),
        (
            "model.conventions.level_assignment",
            model.conventions.level_assignment,
            ("torchvision", "detectron2", "paper", "matterport"),
        ),
        ("model.conventions.box_ends", model.conventions.box_ends, ("edge", "pixel")),
        ("model.conventions.anchor_stride", model.conventions.anchor_stride, ("fixed", "padded")),
        ("model.conventions.rpn_normalizer", model.conventions.rpn_normalizer, ("sampled", "batch_size")),
        ("model.conventions.mask_target", model.conventions.mask_target, ("soft", "binary")),
        ("model.conventions.keypoint_score", model.conventions.keypoint_score, ("probability", "logit")),
        ("model.conventions.mask_paste", model.conventions.mask_paste, ("torchvision", "detectron2")),
        ("data.val.coco_backend", config.data.val.coco_backend, ("pycocotools", "hotcoco")),
        ("train.precision", config.train.precision, ("float32", "bfloat16", "float16", "auto")),
        ("train.strategy", config.train.strategy, ("auto", "mirrored", "none")),
    ]
    for key, value, allowed in choices:
        if value not in allowed:
            raise UserError(f"{source}: setting '{key}' is {value!r}: choose one of {', '.join(map(str, allowed))}.")


def check_ranges(config: Any, source: str) -> None:
    """Raises UserError for a number outside its setting's range."""
    train = config.train
    for section, key, value in _values(config, _POSITIVE):
        if value is not None and not value > 0:
            raise UserError(f"{source}: setting '{section}.{key}' is {value}: it must be more than 0.")
    for section, key, value in _values(config, _FRACTIONS):
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"{source}: setting '{section}.{key}' is {value}: it must lie between 0 and 1.")
    for section, key, value in _values(config, _COUNTS):
        if value < 0:
            raise UserError(f"{source}: setting '{section}.{key}' is {value}: it can't be negative.")
    if train.decay_steps != sorted(train.decay_steps):
        raise UserError(f"{source}: setting 'train.decay_steps' is {train.decay_steps}: it must rise.")
    sizes = config.data.train.augment.min_sizes
    if any(size <= 0 for size in sizes):
        raise UserError(f"{source}: setting 'data.train.augment.min_sizes' is {sizes}: pixels must be more than 0.")


def check_combinations(config: Any, source: str) -> None:
    """Raises UserError for settings that are sensible one by one and not together."""
    model = config.model
    backbone, mask, rois = model.backbone, model.mask_head, model.roi_layer
    c4 = model.features == "C4"
    rules = [
        (
            model.features == "FPN" and len(model.rpn.anchor_sizes) != 5,
            "'model.rpn.anchor_sizes' must hold 5 numbers, one for each of P2 to P6",
        ),
        (not model.rpn.anchor_sizes, "'model.rpn.anchor_sizes' is empty: give sizes in pixels"),
        (
            backbone.depth < 50 and (backbone.groups, backbone.width_per_group) != (1, 64),
            "'model.backbone.groups' and 'width_per_group' need a depth of 50 or more",
        ),
        (
            backbone.dilated and model.features != "C5",
            "'model.backbone.dilated' is for a single map: set model.features=C5",
        ),
        (
            backbone.application and model.features != "FPN",
            f"'model.backbone.application' is {backbone.application}, which works under a pyramid only: set "
            "model.features=FPN",
        ),
        (
            backbone.application and backbone.norm != "frozen_bn",
            "the normalisation of a keras.applications network is frozen: set model.backbone.norm=frozen_bn",
        ),
        (
            backbone.taps and not backbone.application,
            "'model.backbone.taps' are layers of a keras.applications network: name it in model.backbone.application",
        ),
        (
            c4 and model.box_head and model.box_head.pool_size not in (7, 14),
            "with model.features=C4 res5 takes 7 or 14 bins a side: set model.box_head.pool_size to one of them",
        ),
        (
            c4 and mask and mask.pool_size != 7,
            "with model.features=C4 the mask head reads res5's 7x7 output: set model.mask_head.pool_size=7",
        ),
        (
            c4 and model.keypoint_head,
            "keypoints need finer features than res5's 7x7 output: set model.features=FPN or C5",
        ),
        (
            mask and mask.fcs and mask.activation == "softmax",
            "'model.mask_head.activation' softmax is for the convolutional head: set model.mask_head.fcs=0",
        ),
        (
            mask and mask.class_agnostic and mask.activation == "softmax",
            "one mask for all classes leaves nothing to divide: set model.mask_head.activation=sigmoid",
        ),
        (
            rois.kind == "pool" and rois.aggregate == "average",
            "RoIPool takes maxima: set model.roi_layer.aggregate=max",
        ),
        (
            rois.kind != "pool" and rois.aggregate == "max" and model.conventions.roi_sampling_ratio < 1,
            "maxima need a fixed number of samples: set model.conventions.roi_sampling_ratio to 1 or more",
        ),
        (
            rois.kind != "align" and model.conventions.box_ends == "pixel",
            "matterport's model.conventions.box_ends=pixel is defined for model.roi_layer.kind=align only",
        ),
        *_semantic_rules(model),
        *_training_rules(config),
    ]
    for broken, sentence in rules:
        if broken:
            raise UserError(f"{source}: {sentence}.")


def _semantic_rules(model: Any) -> list[tuple[bool, str]]:
    head = model.semantic_head
    return [
        (
            bool(head) and model.features != "FPN",
            "the semantic head reads a pyramid: set model.features=FPN",
        ),
        (
            bool(head) and head.norm == "gn" and head.channels % 32 != 0,
            "group norm splits channels into 32 groups: set model.semantic_head.channels to a multiple of 32",
        ),
        (
            not model.box_head and not head,
            "the model would find nothing: set model.box_head or model.semantic_head",
        ),
        (
            not model.box_head and bool(model.mask_head or model.keypoint_head),
            "masks and keypoints are of boxes: set model.mask_head=null and model.keypoint_head=null, or a box_head",
        ),
    ]


def _training_rules(config: Any) -> list[tuple[bool, str]]:
    train, data, val = config.train, config.data.train, config.data.val
    named = [bool(data.annotations or data.panoptic), bool(data.records), bool(data.sources)]
    return [
        (
            sum(named) > 1,
            "'data.train' takes annotations or panoptic, or both, or records, or sources: set the others to nothing",
        ),
        (
            bool(val.records or val.sources),
            "'data.val' is evaluated against a COCO json: set data.val.annotations and data.val.images",
        ),
        (
            any(bool(source.annotations) == bool(source.records) for source in data.sources),
            "each of 'data.train.sources' takes annotations and images, or records",
        ),
        (
            train.images_per_batch % train.accumulate != 0,
            f"'train.images_per_batch' is {train.images_per_batch}, which {train.accumulate} parts (train.accumulate) "
            "can't share equally: set it to a multiple",
        ),
        (
            train.jit_compile and train.strategy == "mirrored",
            "XLA can't compile a step on several devices: set train.jit_compile=false",
        ),
    ]


def _values(config: Any, keys: dict[str, tuple[str, ...]]):
    """(section, key, value) of each of the settings in `keys`."""
    for section, names in keys.items():
        part: Any = config
        for name in section.split("."):
            part = getattr(part, name)
        for name in names if part is not None else ():
            yield section, name, getattr(part, name)
