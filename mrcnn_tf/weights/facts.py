"""What is known of an imported model's settings, and from where: facts, and what is merely assumed.

A setting goes by the name of its override, such as "model.pixel_std". What files may differ in and a model of this
package has no setting for is called "file.": the order of the pixels' channels, where anchors lie in a cell, how a
pyramid adds up its maps.
"""

import dataclasses
import enum
import json
from operator import attrgetter
from typing import Any

import numpy as np

from mrcnn_tf.common.errors import UserError


class Origin(str, enum.Enum):
    """Where the value of a setting comes from, the weakest first."""

    ASSUMPTION = "assumption"  # nothing says so: the default of the library that the file is of
    LIBRARY = "library"  # what that library always does
    PUBLISHED = "published file"  # the file has the name, or the content, of a published one
    AUTHOR = "author"  # the file's `__author__`
    EMBEDDED = "embedded config"  # the training config that stands in the file
    COMPANION = "companion config"  # the training config beside the file, or given
    SHAPE = "shape"  # the tensors' names and shapes
    BUFFER = "buffer"  # a tensor that says so, such as pixel_std
    STATEMENT = "statement"  # the user's


_STRENGTH = {origin: strength for strength, origin in enumerate(Origin)}
# Of these no two may differ: one of them would be of another model.
_HARD = {Origin.EMBEDDED, Origin.COMPANION, Origin.SHAPE, Origin.BUFFER}
BATCH_NORMS = ("frozen_bn", "bn", "sync_bn")


@dataclasses.dataclass(frozen=True)
class Fact:
    """The value of a setting, its origin, and what in particular says so, such as "tensor pixel_std"."""

    value: Any
    origin: Origin
    source: str

    def to_json(self):
        """The fact as a plain dictionary."""
        return {"value": self.value, "origin": self.origin.value, "source": self.source}


class Facts(dict):
    """Name of a setting -> `Fact`.

    Args:
        stated: name -> value of the settings that the user states: nothing else counts of them.
    """

    def __init__(self, stated=()):
        super().__init__()
        self.stated = dict(stated)
        self.unlike_published = []  # settings in which the file isn't the published one whose name it has

    def is_stated(self, name):
        """Whether the user states the setting."""
        return any(name == key or name.startswith(f"{key}.") for key in self.stated)

    def add(self, name, value, origin, source):
        """Note a setting's value; of two that differ the one of the stronger origin stays.

        UserError if both come from the file or its config: they contradict each other.
        """
        old = self.get(name)
        if old is not None and not _agree(name, old.value, value):
            origins = {old.origin, origin}
            if origins <= _HARD and not self.is_stated(name):
                raise UserError(
                    f"{old.source} says {override(name, old.value)}, and {source} says {override(name, value)}: give "
                    f"the config that belongs to the file, or state which is right, such as {override(name, value)}."
                )
            if Origin.PUBLISHED in origins and origins & _HARD:
                self.unlike_published.append(name)
        if old is None or _STRENGTH[origin] >= _STRENGTH[old.origin]:
            self[name] = Fact(value, origin, source)

    def add_all(self, settings, origin, source, prefix="model."):
        """`add` each value of a nested dictionary, such as {"backbone": {"depth": 50}}."""
        for name, value in flatten(settings, prefix):
            self.add(name, value, origin, source)

    def value(self, name, default=None):
        """A setting's value, or `default` where nothing says it."""
        if name in self.stated and not name.startswith("file."):  # those are facts themselves
            return self.stated[name]
        return self[name].value if name in self else default


@dataclasses.dataclass
class SourceConfig:
    """What a training config of another library says of the model that it is of.

    Attributes:
        name: of the file, or of the place in the file of weights, for messages.
        library: "detectron2" or "mmdetection".
        settings: name of a setting -> value, such as {"model.pixel_std": [1.0, 1.0, 1.0], "file.pixel_order": "BGR"}.
        classes: the names of the K foreground classes; None where it doesn't say them.
        num_classes: K; None where it doesn't say it.
    """

    name: str
    library: str
    settings: dict[str, Any]
    classes: list[str] | None = None
    num_classes: int | None = None


def flatten(settings, prefix=""):
    """(name, value) of each value in a nested dictionary."""
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def nest(settings):
    """The nested dictionaries of name -> value, the reverse of `flatten`."""
    tree = {}
    for name, value in settings.items():
        *sections, key = name.split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[key] = value
    return tree


def override(name, value):
    """The override that sets a setting, for messages: "model.pixel_std=[1.0, 1.0, 1.0]"; six digits of each number."""
    return f"{name}={value if isinstance(value, str) else json.dumps(_rounded(value))}"


def overrides_by_origin(provenance):
    """Origin -> the overrides that say the same, of what `Fact.to_json` gave by name; assumptions first."""
    groups = {}
    for name, fact in provenance.items():
        groups.setdefault(fact["origin"], []).append(override(name, fact["value"]))
    return {origin.value: groups[origin.value] for origin in Origin if origin.value in groups}


def _rounded(value):
    if isinstance(value, (list, tuple)):
        return [_rounded(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _agree(name, first, second):
    """`same_value`, where batch norms are alike: how they learn is nothing that weights tell."""
    both_norms = name.endswith(".norm") and first in BATCH_NORMS and second in BATCH_NORMS
    return both_norms or same_value(first, second)


def same_value(first, second):
    """Whether two values of a setting mean the same; numbers may differ by float32's rounding."""
    if first is None or second is None:  # which numpy takes for not a number, unlike itself
        return first is second
    if type(first) is type(second) and first == second:
        return True
    try:
        return bool(np.allclose(np.asarray(first, np.float64), np.asarray(second, np.float64), rtol=1e-5, atol=1e-7))
    except (TypeError, ValueError):  # text, or lists of other lengths
        return False


# What can be the case of a file, by the settings that a model of this package doesn't have: the one way that it works.
REPRESENTED = {"file.anchor_offset": 0.0, "file.fpn_fuse": "sum"}
FILE_SETTINGS = ("file.pixel_order", "file.entry", *REPRESENTED)
PIXEL_ORDERS = ("RGB", "BGR")

# The settings that change what the same weights detect, and no shape shows. Those of a backbone come first.
_BACKBONE = (
    "file.pixel_order", "model.pixel_mean", "model.pixel_std", "model.backbone.stride_in_1x1",
    "model.backbone.stem_pool", "model.conventions.batch_norm_epsilon",
)  # fmt: skip
_DETECTOR = (
    "model.resize.min_size", "model.resize.max_size", "model.resize.rule",
    "model.conventions.pad_multiple", "model.conventions.box_width",
)  # fmt: skip
_REGIONS = (
    "model.rpn.anchor_sizes", "model.rpn.aspect_ratios", "file.anchor_offset", "model.conventions.anchor_rounding",
    "model.conventions.anchor_stride", "model.rpn.delta_weights", "model.conventions.delta_limit",
    "model.rpn.pre_nms_test", "model.rpn.post_nms_test", "model.rpn.nms_iou", "model.conventions.min_proposal_size",
    "model.conventions.level_assignment",
    "model.conventions.roi_aligned", "model.conventions.roi_sampling_ratio", "model.roi_layer.kind",
    "model.roi_layer.aggregate", "model.box_head.pool_size", "model.box_head.delta_weights",
    "model.conventions.min_detection_size", "model.detections.score_threshold", "model.detections.nms_iou",
    "model.detections.max_per_image",
)  # fmt: skip
_MASKS = ("model.mask_head.pool_size", "model.mask_head.activation", "model.conventions.mask_paste")
_KEYPOINTS = ("model.keypoint_head.pool_size", "model.conventions.keypoint_offset", "model.conventions.keypoint_score")
_PANOPTIC = ("model.panoptic.score_threshold", "model.panoptic.overlap", "model.panoptic.stuff_area")


def deciding_settings(model=None):
    """The names of the settings that change what the weights of a `ModelConfig` detect, and no shape shows.

    Without a model those of a backbone.
    """
    if model is None:
        return list(_BACKBONE)
    names = [*_BACKBONE, *_DETECTOR]
    names += (
        ["file.fpn_fuse"] if model.features == "FPN" else ["model.backbone.dilated"] if model.features == "C5" else []
    )
    for section, those in (
        (model.box_head, _REGIONS), (model.mask_head, _MASKS), (model.keypoint_head, _KEYPOINTS),
        (model.semantic_head, _PANOPTIC),
    ):  # fmt: skip
        names += those if section else ()
    return names


def setting_of(model, name):
    """The value of a setting in a `ModelConfig`; of a "file." setting the one that can be represented."""
    return REPRESENTED[name] if name in REPRESENTED else attrgetter(name.removeprefix("model."))(model)


def check_represented(facts):
    """Raise UserError for what no model of this package does."""
    order = facts.value("file.pixel_order")
    if order is not None and order not in PIXEL_ORDERS:
        fact = facts["file.pixel_order"]
        raise UserError(
            f"{fact.source} says that the network reads {order} pixels, and only RGB and BGR can be imported."
        )
    for name, only in REPRESENTED.items():
        if name in facts and not same_value(facts[name].value, only):
            raise UserError(
                f"{facts[name].source} says {override(name, facts[name].value)}, which no model of this package "
                f"does ({override(name, only)} is all it can): such weights can't be imported."
            )
