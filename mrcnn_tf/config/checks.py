"""Checks of a config: keys that exist, values that settings.py allows, and combinations that make sense together.

What a single value may be stands beside its field in settings.py. Each mistake is one sentence with the setting's path.
"""

import dataclasses
import difflib
import itertools
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import Config, ModelConfig


def check_keys(tree: Any, schema: Any, source: str, path: str = "") -> None:
    """Raise UserError for a key that the schema lacks, naming a similar one, and for a value in a section's place."""
    if not isinstance(schema, DictConfig) or OmegaConf.get_type(schema) is dict:  # whose keys are the user's
        return
    known = ", ".join(map(str, schema))
    if not isinstance(tree, dict):
        raise UserError(f"{source}: '{path}' is {tree!r} but a section: set one of its keys ({known}).")
    for key, value in tree.items():
        key_path = f"{path}.{key}" if path else str(key)
        if key not in schema:
            similar = difflib.get_close_matches(str(key), map(str, schema), n=1)
            hint = f"did you mean {key_path[: -len(str(key))]}{similar[0]}" if similar else f"known: {known}"
            raise UserError(f"{source}: there is no setting '{key_path}' ({hint}).")
        if value is not None:
            check_keys(value, schema[key], source, key_path)


def check_values(config: Any, source: str, path: str = "") -> None:
    """Raise UserError for a value that isn't among its setting's choices, or breaks its setting's rule."""
    for field in dataclasses.fields(config):
        value, key_path = getattr(config, field.name), f"{path}.{field.name}" if path else field.name
        choices, is_valid = field.metadata.get("choices"), field.metadata.get("is_valid")
        if choices and value not in choices:
            listed = ", ".join(map(str, choices))
            raise UserError(f"{source}: setting '{key_path}' is {value!r}: choose one of {listed}.")
        if is_valid and value is not None and not is_valid(value):
            raise UserError(f"{source}: setting '{key_path}' is {value}: {field.metadata['rule']}.")
        if dataclasses.is_dataclass(value):
            check_values(value, source, key_path)


def valid_settings(settings: Any, kind: type) -> Any:
    """The settings of a part that was made by hand, or for None the defaults of their dataclass; UserError for a value
    that isn't allowed."""
    if settings is None:
        return kind()
    if not isinstance(settings, kind):
        raise UserError(f"{settings!r} isn't a {kind.__name__}: give settings as mrcnn_tf.parts.{kind.__name__}(...).")
    check_values(settings, kind.__name__)
    return settings


def check_combinations(config: Config, source: str) -> None:
    """Raise UserError for settings that are sensible one by one and not together."""
    model = config.model
    mistakes = (_backbone_mistakes(model), _roi_mistakes(model), _head_mistakes(model), _training_mistakes(config))
    for sentence in itertools.chain(*mistakes):
        raise UserError(f"{source}: {sentence}.")


def _backbone_mistakes(model: ModelConfig) -> Iterator[str]:
    backbone, has_pyramid = model.backbone, model.features == "FPN"
    yield from _anchor_mistakes(model)
    if backbone.depth < 50 and (backbone.groups, backbone.width_per_group) != (1, 64):
        yield "'model.backbone.groups' and 'width_per_group' need a depth of 50 or more"
    if backbone.dilated and model.features != "C5":
        yield "'model.backbone.dilated' is for a single map: set model.features=C5"
    if backbone.callable and backbone.application:
        yield "'model.backbone.callable' is a backbone of your own: set model.backbone.application=null"
    if backbone.arguments and not backbone.callable:
        yield "'model.backbone.arguments' are those of model.backbone.callable, package.module:Name: set it too"
    if backbone.callable and model.features == "C4":
        yield "res5, the heads' part of features C4, is a ResNet's: set model.features to FPN or C5"
    if backbone.application and not has_pyramid:
        yield (
            f"'model.backbone.application' is {backbone.application}, which works under a pyramid only: set "
            "model.features=FPN"
        )
    if backbone.application and backbone.norm != "frozen_bn":
        yield "the normalisation of a keras.applications network is frozen: set model.backbone.norm=frozen_bn"
    if backbone.taps and not backbone.application:
        yield "'model.backbone.taps' are layers of a keras.applications network: name it in model.backbone.application"


def _anchor_mistakes(model: ModelConfig) -> Iterator[str]:
    sizes = model.rpn.anchor_sizes
    of_maps = [each if isinstance(each, list) else [each] for each in sizes]
    is_number = [isinstance(size, (int, float)) and size > 0 for each in of_maps for size in each]
    if not is_number:
        yield "'model.rpn.anchor_sizes' is empty: give sizes in pixels"
    elif not all(is_number):
        yield f"'model.rpn.anchor_sizes' is {sizes}: give pixels, a number or a list of numbers above 0 for each map"
    elif len({len(each) for each in of_maps}) > 1:
        yield f"'model.rpn.anchor_sizes' is {sizes}: give each map as many sizes, since one head reads all maps"
    elif model.features == "FPN" and not model.backbone.callable and len(sizes) != 5:
        yield "'model.rpn.anchor_sizes' must hold 5 numbers or lists of numbers, one for each of P2 to P6"


def _roi_mistakes(model: ModelConfig) -> Iterator[str]:
    layer, conventions = model.roi_layer, model.conventions
    if layer.kind == "pool" and layer.aggregate == "average":
        yield "RoIPool takes maxima: set model.roi_layer.aggregate=max"
    if layer.kind != "pool" and layer.aggregate == "max" and conventions.roi_sampling_ratio < 1:
        yield "maxima need a fixed number of samples: set model.conventions.roi_sampling_ratio to 1 or more"
    if layer.kind != "align" and conventions.box_width == "inclusive":
        yield "matterport's model.conventions.box_width=inclusive is defined for model.roi_layer.kind=align only"


def _head_mistakes(model: ModelConfig) -> Iterator[str]:
    box, mask, semantic = model.box_head, model.mask_head, model.semantic_head
    has_res5_head = model.features == "C4"
    for part, settings in (("rpn", model.rpn), ("box_head", box)):
        if settings and (len(settings.delta_weights) != 4 or min(settings.delta_weights) <= 0):
            yield f"'model.{part}.delta_weights' must hold 4 numbers above 0, for dx, dy, dw and dh"
    if has_res5_head and box and box.pool_size not in (7, 14):
        yield "with model.features=C4 res5 takes 7 or 14 bins a side: set model.box_head.pool_size to one of them"
    if has_res5_head and mask and mask.pool_size != 7:
        yield "with model.features=C4 the mask head reads res5's 7x7 output: set model.mask_head.pool_size=7"
    if has_res5_head and model.keypoint_head:
        yield "keypoints need finer features than res5's 7x7 output: set model.features=FPN or C5"
    if mask and mask.activation == "softmax" and mask.fcs:
        yield "'model.mask_head.activation' softmax is for the convolutional head: set model.mask_head.fcs=0"
    if mask and mask.activation == "softmax" and mask.class_agnostic:
        yield "one mask for all classes leaves nothing to divide: set model.mask_head.activation=sigmoid"
    if semantic and model.features != "FPN":
        yield "the semantic head reads a pyramid: set model.features=FPN"
    if semantic and semantic.norm == "gn" and semantic.channels % 32 != 0:
        yield "group norm splits channels into 32 groups: set model.semantic_head.channels to a multiple of 32"
    for index, own in enumerate(model.own_heads):
        if not own.callable:
            yield f"'model.own_heads[{index}]' names no class: set its callable to package.module:Name"
    if not box and not semantic and not model.own_heads:
        yield "the model would find nothing: set model.box_head or model.semantic_head"
    if not box and (mask or model.keypoint_head):
        yield "masks and keypoints are of boxes: set model.mask_head=null and model.keypoint_head=null, or a box_head"


def _training_mistakes(config: Config) -> Iterator[str]:
    train, data, val = config.train, config.data.train, config.data.val
    if sum(map(bool, (data.annotations or data.panoptic, data.records, data.sources))) > 1:
        yield "'data.train' takes annotations or panoptic, or both, or records, or sources: set the others to nothing"
    if val.records or val.sources:
        yield "'data.val' is evaluated against a COCO json: set data.val.annotations and data.val.images"
    if any(bool(source.annotations) == bool(source.records) for source in data.sources):
        yield "each of 'data.train.sources' takes annotations and images, or records"
    if train.images_per_batch % train.accumulate != 0:
        yield (
            f"'train.images_per_batch' is {train.images_per_batch}, which {train.accumulate} parts (train.accumulate) "
            "can't share equally: set it to a multiple"
        )
    if train.jit_compile and train.strategy == "mirrored":
        yield "XLA can't compile a step on several devices: set train.jit_compile=false"
