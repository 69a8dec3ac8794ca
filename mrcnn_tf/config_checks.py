"""What a config's settings may be: known keys, listed choices, sensible ranges. Each mistake is one sentence."""

import difflib
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mrcnn_tf.errors import UserError

# Batch norm that learns would take its statistics from padding: a head's slots without an RoI count as samples.
HEAD_NORMS = (None, "frozen_bn", "gn")


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
        ("model.fpn.norm", model.fpn.norm, HEAD_NORMS),
        ("model.box_head.norm", model.box_head.norm, HEAD_NORMS),
        ("model.mask_head.norm", model.mask_head and model.mask_head.norm, HEAD_NORMS),
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
        ("model.conventions.mask_paste", model.conventions.mask_paste, ("torchvision", "detectron2")),
        ("train.precision", config.train.precision, ("float32", "bfloat16", "auto")),
    ]
    for key, value, allowed in choices:
        if value not in allowed:
            raise UserError(f"{source}: setting '{key}' is {value!r}: choose one of {', '.join(map(str, allowed))}.")


def check_ranges(config: Any, source: str) -> None:
    """Raises UserError for a number outside its setting's range."""
    model, train = config.model, config.train
    positive = {
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
        "model.box_head": ("pool_size", "conv_channels", "fcs", "channels"),
        "model.mask_head": ("pool_size", "convs", "channels"),
        "model.detections": ("max_per_image",),
        "data.train": ("max_instances", "mask_size"),
        "data.val": ("max_instances", "mask_size"),
        "train": ("images_per_batch", "learning_rate", "learning_rate_batch", "steps"),
    }
    fractions = {
        "model.rpn": ("foreground_iou", "background_iou", "positive_fraction", "nms_iou"),
        "model.rois": ("positive_fraction", "foreground_iou"),
        "model.detections": ("score_threshold", "nms_iou"),
        "data.train.augment": ("horizontal_flip", "vertical_flip"),
        "train": ("momentum", "warmup_factor", "decay_factor"),
    }
    for section, key, value in _values(config, positive):
        if value is not None and not value > 0:
            raise UserError(f"{source}: setting '{section}.{key}' is {value}: it must be more than 0.")
    for section, key, value in _values(config, fractions):
        if not 0 <= value <= 1:
            raise UserError(f"{source}: setting '{section}.{key}' is {value}: it must lie between 0 and 1.")
    if len(model.rpn.anchor_sizes) != 5:
        raise UserError(f"{source}: setting 'model.rpn.anchor_sizes' must hold 5 numbers, one for each of P2 to P6.")
    if model.backbone.depth < 50 and (model.backbone.groups, model.backbone.width_per_group) != (1, 64):
        raise UserError(f"{source}: 'model.backbone.groups' and 'width_per_group' need a depth of 50 or more.")
    if train.decay_steps != sorted(train.decay_steps):
        raise UserError(f"{source}: setting 'train.decay_steps' is {train.decay_steps}: it must rise.")


def _values(config: Any, keys: dict[str, tuple[str, ...]]):
    """(section, key, value) of each of the settings in `keys`."""
    for section, names in keys.items():
        part: Any = config
        for name in section.split("."):
            part = getattr(part, name)
        for name in names if part is not None else ():
            yield section, name, getattr(part, name)
