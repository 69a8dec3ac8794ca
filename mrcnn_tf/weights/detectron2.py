"""detectron2's model zoo: detectors on FPN, C4 and DC5, and the backbones that they start from."""

import numpy as np

from mrcnn_tf.weights.rules import CONV, DECONV, LINEAR, NORM, POOLED, PREDICTOR, SCORE, Converted, Rule, translate
from mrcnn_tf.weights.structure import COCO_80, backbone_settings, categories_of, detector_settings, stuff_of

BODY = r"(?:backbone\.bottom_up\.|backbone\.)?"
SKIP = {
    r".*\.num_batches_tracked": "counts training steps",
    r"proposal_generator\.anchor_generator\.cell_anchors\.\d+": "anchors follow from the config",
    r"pixel_(mean|std)": "in the config",
    r"(stem\.|linear\.|fc\.)?(fc|linear)\.(weight|bias)": "the classifier of ImageNet's classes",
}


RESNEXT_STD = [58.395, 57.12, 57.375]  # that the zoo's ResNeXts divide pixels by; its ResNets don't


def _block(match):
    return f"backbone/res{match[1]}_{match[2]}/{match[3]}"


def _head_block(match):
    return f"res5/res5_{match[1]}/{match[2]}"


def _semantic_conv(match):
    return f"semantic_head/p{match[1]}_conv{int(match[2]) // 2 + 1}"  # every other module doubles the map


BACKBONE_RULES = [
    Rule(rf"{BODY}stem\.conv1", lambda m: "backbone/stem", CONV),
    Rule(rf"{BODY}stem\.conv1\.norm", lambda m: "backbone/stem", NORM),
    Rule(rf"{BODY}res(\d)\.(\d+)\.(conv\d|shortcut)", _block, CONV),
    Rule(rf"{BODY}res(\d)\.(\d+)\.(conv\d|shortcut)\.norm", _block, NORM),
]
RPN, ROI = r"proposal_generator\.rpn_head\.", r"roi_heads\."
DETECTOR_RULES = [
    *BACKBONE_RULES,
    Rule(r"backbone\.fpn_(lateral|output)(\d)", lambda m: f"fpn/{m[1]}{m[2]}", CONV),
    Rule(r"backbone\.fpn_(lateral|output)(\d)\.norm", lambda m: f"fpn/{m[1]}{m[2]}", NORM),
    Rule(rf"{RPN}conv(\.conv0)?", lambda m: "rpn/head/conv", CONV),
    Rule(rf"{RPN}conv\.conv(\d)", lambda m: f"rpn/head/conv{int(m[1]) + 1}", CONV),
    Rule(rf"{RPN}(objectness_logits|anchor_deltas)", lambda m: f"rpn/head/{m[1]}", CONV),
    Rule(rf"{ROI}res5\.(\d+)\.(conv\d|shortcut)", _head_block, CONV),
    Rule(rf"{ROI}res5\.(\d+)\.(conv\d|shortcut)\.norm", _head_block, NORM),
    Rule(rf"{ROI}box_head\.fc1", lambda m: "box_head/fc1", POOLED),
    Rule(rf"{ROI}box_head\.fc(\d)", lambda m: f"box_head/fc{m[1]}", LINEAR),
    Rule(rf"{ROI}box_head\.conv(\d)", lambda m: f"box_head/conv{m[1]}", CONV),
    Rule(rf"{ROI}box_head\.conv(\d)\.norm", lambda m: f"box_head/conv{m[1]}", NORM),
    Rule(rf"{ROI}box_predictor\.cls_score", lambda m: "box_head/class_logits", LINEAR),
    Rule(rf"{ROI}box_predictor\.bbox_pred", lambda m: "box_head/box_deltas", LINEAR),
    Rule(rf"{ROI}mask_head\.mask_fcn(\d)", lambda m: f"mask_head/conv{m[1]}", CONV),
    Rule(rf"{ROI}mask_head\.mask_fcn(\d)\.norm", lambda m: f"mask_head/conv{m[1]}", NORM),
    Rule(rf"{ROI}mask_head\.deconv", lambda m: "mask_head", DECONV),
    Rule(rf"{ROI}mask_head\.predictor", lambda m: "mask_head", PREDICTOR),
    Rule(rf"{ROI}keypoint_head\.conv_fcn(\d)", lambda m: f"keypoint_head/conv{m[1]}", CONV),
    Rule(rf"{ROI}keypoint_head\.score_lowres", lambda m: "keypoint_head", SCORE),
    Rule(r"sem_seg_head\.p(\d)\.(\d+)", _semantic_conv, CONV),
    Rule(r"sem_seg_head\.p(\d)\.(\d+)\.norm", _semantic_conv, NORM),
    Rule(r"sem_seg_head\.predictor", lambda m: "semantic_head/predictor", CONV),
]


def recognise(tensors):
    """Whether the names are those of a detectron2 detector or backbone."""
    return any(f"{prefix}stem.conv1.weight" in tensors for prefix in ("", "backbone.bottom_up.", "backbone."))


def convert(tensors):
    """`Converted` weights of a file that `recognise` knows."""
    found = translate(tensors, DETECTOR_RULES, SKIP)
    _background_first(found)
    return assemble(found)


def assemble(found):
    """`Converted` from a `Translation` whose stem reads BGR; Detectron's models have the same settings."""
    _red_first(found)
    if "fpn/output2/kernel" not in found.arrays and "box_head/class_logits/kernel" not in found.arrays:
        settings, config, categories = {"backbone": backbone_settings(found.arrays)}, None, None
    else:
        settings = detector_settings(found.arrays)
        config, categories = _config(settings), categories_of(found.arrays, COCO_80)
    stuff = stuff_of(found.arrays)
    backbone = settings["backbone"]
    resnext = backbone.get("groups", 1) > 1
    # The zoo's group norm and ResNeXt models stride in the 3x3 convolution, all others in the 1x1 before it.
    backbone["stride_in_1x1"] = backbone.get("norm") != "gn" and not resnext
    settings["pixel_std"] = RESNEXT_STD if resnext else [1.0, 1.0, 1.0]
    settings["conventions"] = {"batch_norm_epsilon": 1e-5}
    return Converted(found.arrays, found.changes, found.skipped, found.unknown, settings, config, categories, stuff)


def _config(settings):
    """The name of the config that comes closest; `settings` correct it where the weights differ."""
    heads = {"keypoint": settings["keypoint_head"], "mask": settings["mask_head"]}
    kind = next((name for name, head in heads.items() if head), "faster")
    body = "R_101" if settings["backbone"]["depth"] == 101 else "R_50"
    if settings["semantic_head"]:
        return f"detectron2_panoptic_fpn_{body}"
    # The zoo's C5 is dilated, which no shape shows.
    features = {"C4": "C4", "C5": "DC5"}.get(settings["features"], "FPN")
    if settings["backbone"].get("groups", 1) > 1:
        body, features = "X_101_32x8d", "FPN"
    return f"detectron2_{kind}_rcnn_{body}_{'FPN' if kind == 'keypoint' else features}"


def _background_first(found):
    """Moves the background from the last class to the first."""
    for name in ("kernel", "bias"):
        path = f"box_head/class_logits/{name}"
        if path in found.arrays:
            found.arrays[path] = np.roll(found.arrays[path], 1, axis=-1)
            found.changes[path] = "background first"


def _red_first(found):
    """Turns a stem that reads BGR into one that reads RGB."""
    path = "backbone/stem/kernel"
    if path in found.arrays:
        found.arrays[path] = found.arrays[path][:, :, ::-1]
        found.changes[path] = "BGR to RGB"
