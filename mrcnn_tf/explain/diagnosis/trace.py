"""What every stage of a model gives for one image, by the model's own layers, in one graph as in `detect`."""

import numpy as np
import tensorflow as tf


def trace(model, image):
    """The tensors of every stage, a batch of one, boxes in pixels of the network's input.

    The graph is `detect`'s with more outputs. In eager mode convolutions aren't fused with what follows, and numbers
    would differ from `detect`'s in their last bits.

    Args:
        model: a `MaskRCNN`.
        image: uint8 [H, W, 3].

    Returns:
        A dictionary: `inputs` (what `Preprocess` gives), `normalized` [1, h, w, 3], `maps` (the backbone's) and
        `features` (what RPN and heads read), `logits` and `deltas` (of the RPN, lists over levels), `candidates` and
        `proposals` (see layers/rpn.py), `class_logits`, `box_deltas` and `class_candidates` (see layers/box_head.py),
        and `outputs` (what `MaskRCNN.detections` gives).
    """
    function = tf.function(lambda pixels: _stages(model, pixels), autograph=False)
    return function.get_concrete_function(tf.TensorSpec([None, None, 3], tf.uint8))(tf.constant(image))


def input_extent(model, inputs):
    """int32 [B, 2]: what proposals and detections are clipped to, in the pixels of the model's own boxes."""
    return inputs["image_size"] - int(model.box_ends[-1])


def _stages(model, pixels):
    inputs = model.preprocess(pixels)
    normalized = model.preprocess.normalize(inputs["image"], inputs["image_size"])
    maps = model.backbone(normalized)
    features = model.fpn(maps) if model.fpn else maps[-1:]
    logits, deltas = model.rpn.scores(features)
    extent = input_extent(model, inputs)
    proposals = model.rpn.propose(features, logits, deltas, extent)
    class_logits, box_deltas = model.box_head(model.box_features(features, proposals.boxes))
    return {
        "inputs": inputs,
        "normalized": normalized,
        "maps": maps,
        "features": features,
        "logits": logits,
        "deltas": deltas,
        "candidates": model.rpn.candidates(features, logits, deltas, extent),
        "proposals": proposals,
        "class_logits": class_logits,
        "box_deltas": box_deltas,
        "class_candidates": model.box_head.candidates(class_logits, box_deltas, proposals, extent),
        "outputs": model.detections_in(features, logits, deltas, inputs),
    }


def level_names(model):
    """Names of the maps that RPN and heads read: P2 to P6, or the backbone's last."""
    return [f"P{level}" for level in range(2, 7)] if model.fpn else [model.config.features]


def stages_not_finite(seen, names):
    """Names of the stages whose output holds NaN or infinity, in the order of the computation."""
    stages = [("the normalised image", seen["normalized"])]
    stages += [(f"the backbone's C{2 + place}", values) for place, values in enumerate(seen["maps"])]
    if len(names) > 1:
        stages += [(f"the pyramid's {name}", values) for name, values in zip(names, seen["features"], strict=True)]
    for what in ("logits", "deltas"):
        stages += [(f"the RPN's {what} on {name}", values) for name, values in zip(names, seen[what], strict=True)]
    stages += [("the box head's class logits", seen["class_logits"]), ("the box head's deltas", seen["box_deltas"])]
    for name in ("masks", "keypoints"):
        if name in seen["outputs"]:
            stages.append((f"the {name[:-1]} head's {name}", seen["outputs"][name]))
    if "semantic_logits" in seen["outputs"]:
        stages.append(("the semantic head's logits", seen["outputs"]["semantic_logits"]))
    return [name for name, values in stages if not np.isfinite(np.asarray(tf.cast(values, tf.float32))).all()]
