"""What a training config of mmdetection 2.x or 3.x says of its model, as settings of this package.

Every key on the way from an image to detections is checked: a value that no model of this package can have, and a key
that isn't known, is refused by its name. What only training reads is left aside.
"""

import math

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights import mmdetection_keys as keys
from mrcnn_tf.weights.facts import SourceConfig
from mrcnn_tf.weights.mmdetection_keys import Section, is_equal, shorten
from mrcnn_tf.weights.python_config import PRINTED, read_config_file, read_config_text

FPN_STRIDES = [4, 8, 16, 32, 64]


def read_mmdetection_file(path):
    """The `SourceConfig` of a config file of mmdetection (.py, or as mmengine dumps it, .json and .yaml).

    UserError if it can't be read or no model of this package can be what it says.
    """
    return _read(read_config_file(path), str(path))


def read_mmdetection_text(text, name):
    """The `SourceConfig` of a config's text, as it stands in a checkpoint; errors as of `read_mmdetection_file`."""
    return _read(read_config_text(text, name), name)


def _read(values, name):
    config = Section(values, "", name)
    settings, classes = {}, _read_classes(config)
    model = config.section("model", keys.MODEL)
    if not model.values:
        raise UserError(f"{name} says nothing of a model: {PRINTED}.")
    pixels = _read_test_pipeline(config)
    for preprocessor in (
        config.section("data_preprocessor", keys.PREPROCESSOR),
        model.section("data_preprocessor", keys.PREPROCESSOR),
    ):
        pixels |= _read_preprocessor(preprocessor)
    _add_pixels(settings, pixels)
    _add_backbone(settings, model)
    neck = model.section("neck", keys.NECK)
    divisor = settings["model.conventions.pad_multiple"]
    if neck.values and divisor and divisor % FPN_STRIDES[-2]:
        raise UserError(
            f"{name}: images are padded to multiples of {divisor} pixels (pad_size_divisor, or size_divisor of Pad), "
            f"and under a pyramid of this package to multiples of {FPN_STRIDES[-2]}: {keys.COPY}."
        )
    epsilons = [part.section("norm_cfg", None) for part in (model.section("backbone", keys.BACKBONE), neck)]
    _add_rpn(settings, model.section("rpn_head", keys.RPN))
    # Until 2.0 was out the heads stood beside the RPN.
    roi_head = model.section("roi_head", keys.ROI_HEAD) if "roi_head" in model.values else model
    epsilons += _add_heads(settings, roi_head)
    _add_epsilon(settings, epsilons)
    # Beside the model in 2.0; in 3.x that is the loop's.
    tests = model.section("test_cfg", None) if "test_cfg" in model else config.peek("test_cfg")
    _add_tests(settings, tests.section("rpn", keys.TEST_RPN), tests.section("rcnn", keys.TEST_RCNN))
    return SourceConfig(
        name, "mmdetection", {key: value for key, value in settings.items() if value is not None}, classes
    )


def _read_preprocessor(section):
    """{"swaps", "mean", "std", "divisor"} as far as a data preprocessor of 3.x says them."""
    if not section.values:
        return {}
    swaps = bool(section.values.get("bgr_to_rgb")) or bool(section.values.get("rgb_to_bgr"))
    mean, std = section.numbers("mean", 3), section.numbers("std", 3)
    has_order = {"bgr_to_rgb", "rgb_to_bgr", "mean"} & set(section.values)
    divisor = section.count("pad_size_divisor") or (1 if mean else None)
    pixels = {"swaps": swaps if has_order else None, "mean": mean, "std": std, "divisor": divisor}
    return {key: value for key, value in pixels.items() if value is not None}


def _read_test_pipeline(config):
    """{"loads", "swaps", "mean", "std", "divisor", "scale"} as far as the pipeline for test images says them."""
    pixels = {}
    for step in _test_steps(config):
        kind = str(step.values.get("type")).rpartition(".")[2]
        if kind not in keys.STEPS:
            step.refuse("type", "a step that changes images as no model of this package does")
        if keys.STEPS[kind] is None:
            continue
        # `section` checks the keys of what it holds.
        step = Section({"step": {k: v for k, v in step.values.items() if k != "type"}}, step.path, step.name)
        step = step.section("step", keys.STEPS[kind])
        if kind == "LoadImageFromFile" and "channel_order" in step:
            pixels["loads"] = step.values["channel_order"].upper()
        if kind in ("Resize", "MultiScaleFlipAug") and step.choice("scale", "img_scale") is not None:
            pixels["scale"] = _read_scale(step)
        # By default 2.x keeps it, whose sizes are called img_scale, and 3.x doesn't.
        if kind == "Resize" and step.values.get("keep_ratio", "scale" not in step) is not True:
            step.refuse("keep_ratio", "where models of this package keep an image's aspect")
        if kind == "Normalize":
            pixels |= {"mean": step.numbers("mean", 3), "std": step.numbers("std", 3)}
            pixels["swaps"] = step.values.get("to_rgb", True)
            pixels.setdefault("divisor", 1)
        if kind == "Pad":
            pixels["divisor"] = step.count("size_divisor") or pixels.get("divisor")
    return pixels


def _test_steps(config):
    """The steps of the pipeline for test images, each a `Section`; those within MultiScaleFlipAug after it."""
    # The loaders of 3.x, `data.test` of 2.x; by themselves the pipelines' names are a custom of configs.
    places = [
        config.peek(*path) for path in (("test_dataloader", "dataset"), ("data", "test"), ("val_dataloader", "dataset"))
    ]
    place = next((place for place in places if "pipeline" in place), config)
    key = "pipeline" if "pipeline" in place else "test_pipeline"
    pending, steps = [(f"{place.path_of(key)}", place.values.get(key) or ())], []
    while pending:
        path, listed = pending.pop(0)
        if not isinstance(listed, (list, tuple)) or not all(isinstance(step, dict) for step in listed):
            raise UserError(f"{config.name}: {path} is {shorten(listed)}, where a list of steps is expected.")
        for index, step in enumerate(listed):
            steps.append(Section(step, f"{path}[{index}]", config.name))
            if "transforms" in step:
                pending.append((f"{path}[{index}].transforms", step["transforms"]))
    return steps


def _read_scale(step):
    """(longer, shorter) side in pixels of a Resize's scale: a pair in any order, a list of one pair, or a number."""
    key = "scale" if "scale" in step else "img_scale"
    scale = step.values[key]
    if isinstance(scale, list) and len(scale) == 1 and isinstance(scale[0], (list, tuple)):
        scale = scale[0]
    scale = (scale, scale) if isinstance(scale, int) else scale
    is_pair = (
        isinstance(scale, (list, tuple)) and len(scale) == 2 and all(type(side) is int and side > 0 for side in scale)
    )
    if not is_pair:
        step.refuse(key, "where one size is expected, two numbers of pixels")
    return max(scale), min(scale)


def _add_pixels(settings, pixels):
    """Add what `pixels`, of preprocessor and pipeline, mean for the model; means are in the order that it reads."""
    if "swaps" in pixels:
        loaded = pixels.get("loads", "BGR")
        order = loaded[::-1] if pixels["swaps"] else loaded
        settings["file.pixel_order"] = order
        for key in ("mean", "std"):
            if pixels.get(key):
                settings[f"model.pixel_{key}"] = pixels[key] if order == "RGB" else pixels[key][::-1]
    if "scale" in pixels:
        settings["model.resize.max_size"], settings["model.resize.min_size"] = pixels["scale"]
    settings["model.conventions.pad_multiple"] = pixels.get("divisor")


def _add_backbone(settings, model):
    backbone, shared = model.section("backbone", keys.BACKBONE), None
    roi_head = model.section("roi_head", None) if "roi_head" in model else model
    shared = roi_head.section("shared_head", keys.SHARED_HEAD)
    if not backbone.values:
        return
    settings["model.backbone.depth"] = backbone.count("depth")
    # Where a config doesn't say it, a ResNet is of pytorch's style.
    style = backbone.values.get("style", "pytorch")
    if shared.values and shared.values.get("style", "pytorch") != style:
        shared.refuse("style", f"where the backbone's is {style!r}")
    if "depth" in backbone or "style" in backbone:
        settings["model.backbone.stride_in_1x1"] = style == "caffe"
    strides, dilations = (tuple(backbone.numbers(key) or ()) for key in ("strides", "dilations"))
    if strides[3:] == (1,) and dilations == (1, 1, 1, 2) and strides[:3] == (1, 2, 2):
        settings["model.backbone.dilated"] = True
    elif strides not in ((), (1, 2, 2, 2), (1, 2, 2)):
        backbone.refuse("strides", "where models of this package have (1, 2, 2, 2)")
    elif any(dilation != 1 for dilation in dilations):
        backbone.refuse("dilations", "where models of this package dilate res5 alone, with a stride of 1")


def _add_rpn(settings, rpn):
    if not rpn.values:
        return
    loss = rpn.section("loss_cls", None)
    if loss.values and loss.values.get("use_sigmoid", False) is not True:
        loss.refuse("use_sigmoid", "where the keys.RPN of this package has one score for an anchor")
    settings["model.rpn.delta_weights"] = _delta_weights(rpn)
    anchors = rpn.section("anchor_generator", keys.ANCHORS)
    if not anchors.values:  # 2.0's own keys before there was a generator
        names = {"anchor_scales": "scales", "anchor_ratios": "ratios", "anchor_strides": "strides"}
        names["anchor_base_sizes"] = "base_sizes"
        anchors = Section({own: rpn.values.get(key) for key, own in names.items()}, rpn.path, rpn.name)
    strides, scales = anchors.numbers("strides"), anchors.numbers("scales")
    if scales is None and "octave_base_scale" in anchors and "scales_per_octave" in anchors:
        count = anchors.count("scales_per_octave")
        scales = [anchors.number("octave_base_scale") * 2 ** (index / count) for index in range(min(count, 100))]
    if strides is not None and strides != FPN_STRIDES and strides not in ([16.0],):
        anchors.refuse("strides", f"where models of this package have {FPN_STRIDES}, or [16]")
    if "anchor_generator" in rpn:
        settings["file.anchor_offset"] = 0.0  # all that `section` lets pass
    if strides and scales:
        bases = anchors.numbers("base_sizes", len(strides)) or strides
        sizes = [[base * scale for scale in scales] for base in bases]
        sizes = sizes[0] if len(strides) == 1 else [each[0] if len(each) == 1 else each for each in sizes]
        settings["model.rpn.anchor_sizes"] = sizes
    settings["model.rpn.aspect_ratios"] = anchors.numbers("ratios")
    settings["model.conventions.rpn_box_beta"] = _smooth_l1_beta(rpn)


def _delta_weights(head):
    """The factors of a head's deltas: one over the standard deviations that its coder divides by."""
    coder = head.section("bbox_coder", keys.CODER) if "bbox_coder" in head else head
    deviations = coder.numbers("target_stds", 4)
    if deviations and min(deviations) <= 0:
        coder.refuse("target_stds", "where numbers above 0 are expected")
    return deviations and [float(f"{1 / deviation:.12g}") for deviation in deviations]


def _smooth_l1_beta(head):
    """Of smooth L1, which training goes on with; None for another loss."""
    loss = head.section("loss_bbox", None)
    kind = str(loss.values.get("type")).rpartition(".")[2]
    return {"L1Loss": 0.0, "SmoothL1Loss": loss.number("beta") or 1.0}.get(kind)


def _add_heads(settings, roi_head):
    """Add the settings of the box and mask heads; returns the sections of their norms."""
    box, mask = roi_head.section("bbox_head", keys.BOX_HEAD), roi_head.section("mask_head", keys.MASK_HEAD)
    settings["model.box_head.delta_weights"] = _delta_weights(box)
    settings["model.conventions.box_beta"] = _smooth_l1_beta(box)
    loss = box.section("loss_cls", None)
    if loss.values and not is_equal("type", loss.values.get("type"), "CrossEntropyLoss"):
        loss.refuse("type", "where the classes of this package share a softmax")
    layers = []
    for part, extractor in (("box_head", "bbox_roi_extractor"), ("mask_head", "mask_roi_extractor")):
        layer = roi_head.section(extractor, keys.EXTRACTOR).section("roi_layer", keys.ROI_LAYER)
        if layer.values:
            settings[f"model.{part}.pool_size"] = layer.count("output_size", "out_size")
            samples = max(int(layer.number("sampling_ratio", "sample_num") or 0), 0)
            layers.append((layer, layer.values.get("aligned", True), samples))
    if layers:
        settings["model.conventions.roi_aligned"], settings["model.conventions.roi_sampling_ratio"] = layers[0][1:]
        if layers[-1][1:] != layers[0][1:]:
            layers[-1][0].refuse("type", "aligned or sampled in another way than the box head's, which share it here")
    shared = roi_head.section("shared_head", keys.SHARED_HEAD)
    if not shared.values and mask.values and len(layers) == 1:
        roi_head.refuse(
            "mask_roi_extractor", "where the mask head of a model of this package cuts out its own features"
        )
    if shared.values:
        settings["model.mask_head.pool_size"] = 7 if mask.values else None
    return [part.section("norm_cfg", None) for part in (box, mask, shared)]


def _add_epsilon(settings, norms):
    """Add the epsilon of the normalisations, which is one for all of them here."""
    epsilons = {}
    for norm in norms:
        if not norm.values:
            continue
        kind = str(norm.values.get("type", "BN")).rpartition(".")[2]
        if kind not in keys.NORMS:
            norm.refuse("type", f"where models of this package have {', '.join(keys.NORMS)}")
        if kind == "GN" and norm.values.get("num_groups", 32) != 32:
            norm.refuse("num_groups", "where group norm has 32 in this package")
        epsilons[norm.number("eps") or 1e-5] = norm
    if len(epsilons) > 1:
        list(epsilons.values())[-1].refuse("eps", "another than that of the backbone, where one counts for all")
    settings["model.conventions.batch_norm_epsilon"] = next(iter(epsilons), None)


def _add_tests(settings, rpn, rcnn):
    settings["model.rpn.pre_nms_test"] = rpn.count("nms_pre")
    most = rpn.count("max_per_img", "max_num")
    if "nms_post" in rpn and "max_per_img" not in rpn and rpn.count("nms_post") < (most or math.inf):
        rpn.refuse("nms_post", "a limit for each level, where models of this package have one for all of them")
    settings["model.rpn.post_nms_test"] = most
    own_nms = rpn.section("nms", keys.NMS) if "nms" in rpn else rpn
    settings["model.rpn.nms_iou"] = own_nms.number("iou_threshold", "iou_thr", "nms_thr")
    least = rpn.number("min_bbox_size")
    if least is not None and least < 0:
        rpn.refuse("min_bbox_size", "where boxes without an area are dropped here")
    settings["model.conventions.min_proposal_size"] = least if least is None else float(least)
    settings["model.detections.score_threshold"] = rcnn.number("score_thr")
    settings["model.detections.nms_iou"] = rcnn.section("nms", keys.NMS).number("iou_threshold", "iou_thr")
    settings["model.detections.max_per_image"] = rcnn.count("max_per_img")


def _read_classes(config):
    """The names of the classes, where the config says them: in a dataset, its metainfo, or by themselves."""
    datasets = [config.peek(key, "dataset") for key in ("test_dataloader", "train_dataloader")]
    datasets += [config.peek("data", key) for key in ("test", "train")]
    for place in [*datasets, config]:
        for section in (place.peek("metainfo"), place):
            names = section.values.get("classes")
            if isinstance(names, (list, tuple)) and names and all(isinstance(each, str) for each in names):
                return list(names)
    return None
