"""Our model's outputs stage by stage, and how they compare with those that another library recorded in tests/golden."""

import functools
import json
import pathlib

import numpy as np
import tensorflow as tf
import torch_writer
from golden import made_up

from mrcnn_tf.ops import boxes as box_ops

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
HEAD_STAGES = ("class_logits", "box_deltas", "keypoint_logits")
HEATMAPS = 10  # of the first detections, recorded


@functools.cache
def architecture(name):
    """What `NAME.json` says of an architecture: shapes of its tensors, and its records."""
    return json.loads((GOLDEN / f"{name}.json").read_text())


def state_dict(name, record):
    """The tensors of a record of architecture `name`, under the library's own names."""
    info = architecture(name)
    entry = info["records"][record]
    return made_up.weights(info["shapes"], entry["seed"], entry["background"], entry.get("normalized", False))


def save(path, name, record, rename=str):
    """Writes a record's tensors as torch does, under `rename(name)`; returns the path."""
    torch_writer.save_torch(path, {rename(key): value for key, value in state_dict(name, record).items()})
    return path


def sizes(name, record):
    """The overrides that give a model the record's image size and its limits on proposals and detections."""
    entry = architecture(name)["records"][record]
    keys = {"min_size": "resize.min_size", "max_size": "resize.max_size", "proposals": "rpn.post_nms_test"}
    keys |= {"detections": "detections.max_per_image", "stuff_area": "panoptic.stuff_area"}
    keys["fused_score"] = "panoptic.score_threshold"
    return [f"model.{setting}={entry[key]}" for key, setting in keys.items() if key in entry]


def images(name, record):
    """(image, {stage: recorded array}) of each image of a record."""
    entry = architecture(name)["records"][record]
    recorded = np.load(GOLDEN / f"{record}.npz")
    for index, (height, width, seed) in enumerate(entry["images"]):
        prefix = f"img{index}/"
        stages = {key.removeprefix(prefix): recorded[key] for key in recorded.files if key.startswith(prefix)}
        yield made_up.image(height, width, seed), stages


def dense_stages(model, prepared):
    """{stage: array}, named and laid out as in the golden files, of what `model.preprocess` gives for an image.

    Proposals are ours; so that an early difference can't hide in them, `head_stages` takes them from outside. The maps
    that the heads read are returned too.
    """
    size = prepared["image_size"]
    height, width = size.numpy()[0]
    stages = model.stages(prepared, fills_batch=True)
    found = {"size": size.numpy()[0], "padded_size": np.array(stages.normalized.shape[1:3])}
    found["preprocessed"] = stages.normalized.numpy()[0, :height, :width]
    found |= {name: level_map.numpy()[0] for name, level_map in stages.maps.items()}
    for (name, level_map), scores, shifts in zip(stages.features.maps.items(), *stages.rpn_scores, strict=True):
        cells, level = level_map.shape[1:3], name[1:]
        found[f"rpn_logits{level}"] = scores.numpy().reshape(*cells, -1)
        found[f"rpn_deltas{level}"] = shifts.numpy().reshape(*cells, -1, 4)
    found["proposals"] = stages.proposals.boxes.numpy()[0][stages.proposals.valid.numpy()[0]]
    return found, stages.features


def named(model, name):
    """The model's head of that name."""
    return next(head for head in model.heads if head.name == name)


def head_stages(model, features, proposals, background):
    """The box head's outputs for the recorded proposals, in the library's order of classes.

    Where the background is first, the library predicts a box for it too, which nobody reads: NaN here.
    """
    head = named(model, "box_head")
    logits, deltas = (value.numpy()[0] for value in head(head.pooling(tf.constant(proposals[None]), features=features)))
    deltas = deltas.reshape(len(deltas), -1)
    if background == "last":
        return {"class_logits": np.roll(logits, -1, axis=1), "box_deltas": deltas}
    return {"class_logits": logits, "box_deltas": np.pad(deltas, ((0, 0), (4, 0)), constant_values=np.nan)}


def keypoint_stages(model, features, boxes):
    """The heatmaps of one-class detections `boxes` [N, 4] of the resized image; nothing without a keypoint head."""
    if not model.gives("keypoints"):
        return {}
    head = named(model, "keypoint_head")
    boxes = tf.constant(boxes[None, :HEATMAPS])
    classes = tf.ones(boxes.shape[:2], tf.int32)
    return {"keypoint_logits": head(head.pooling(boxes, features=features), classes).numpy()[0]}


def difference(stage, ours, recorded):
    """The largest difference of a sampled stage over the stage's largest magnitude; NaN isn't compared."""
    count = made_up.HEAD_SAMPLES if stage in HEAD_STAGES else made_up.MAP_SAMPLES
    assert ours.shape == tuple(recorded[f"{stage}_shape"]), stage
    return float(np.nanmax(np.abs(made_up.sample(ours, count) - recorded[stage])) / recorded[f"{stage}_max"])


def found_again(theirs, ours):
    """The fraction of boxes `theirs` [N, 4] that overlap one of `ours` [M, 4] with an IoU of 0.99 or more."""
    return float((box_ops.iou(theirs[:, None], ours[None]).numpy() >= 0.99).any(axis=1).mean())


def matched(recorded, detections, labels):
    """Pairs (index of theirs, index of ours) matched one to one: same class, IoU >= 0.99, scores within 1e-3."""
    overlap = box_ops.iou(recorded["boxes"][:, None], detections.boxes[None]).numpy()
    fits = (overlap >= 0.99) & (recorded["labels"][:, None] == np.asarray(labels)[None])
    fits &= np.abs(recorded["scores"][:, None] - detections.scores[None]) <= 1e-3
    pairs, taken = [], set()
    for their in range(len(fits)):
        ours = next((int(index) for index in np.flatnonzero(fits[their]) if int(index) not in taken), None)
        if ours is not None:
            taken.add(ours)
            pairs.append((their, ours))
    return pairs


def compare_detections(model, images, first_label):
    """Checks masks, keypoints and counts of `images`; returns (how many detections they have, how many we found).

    `first_label` is the library's number of our first class.
    """
    theirs = found = 0
    kinds = min(5, len(model.categories))
    for image, recorded in images:
        detections = model.detect(image)
        assert len(set(recorded["labels"])) >= kinds, "weights that detect a few classes only prove little"
        assert abs(len(detections) - len(recorded["scores"])) <= 0.02 * len(recorded["scores"])
        pairs = matched(recorded, detections, detections.classes - 1 + first_label)
        theirs, found = theirs + len(recorded["scores"]), found + len(pairs)
        assert (detections.mask_probabilities is None) == ("masks" not in recorded)
        for their, ours in pairs:
            if "masks" in recorded and their < len(recorded["masks"]):
                mask = recorded["masks"][their] / 65535
                np.testing.assert_allclose(detections.mask_probabilities[ours], mask, atol=2e-3)
        assert (detections.keypoints is None) == ("keypoints" not in recorded)
        if "keypoints" in recorded:
            their, ours = np.array(pairs).T
            check_keypoints(detections.keypoints[ours], recorded["keypoints"][their])
    return theirs, found


def check_keypoints(ours, theirs):
    """Keypoints [N, P, 3] of the same detections: 99 % within half a pixel, and of those the scores equal."""
    near = np.abs(ours - theirs)[..., :2].max(axis=-1) <= 0.5
    assert near.mean() >= 0.99
    np.testing.assert_allclose(ours[near][:, 2], theirs[near][:, 2], rtol=1e-3)


def check_stages(model, ours, recorded):
    """Every recorded stage within 1e-4, the sizes equal, and 99 % of the proposals found again."""
    stages = [key.removesuffix("_max") for key in recorded if key.endswith("_max") and key != "resized_max"]
    maps = {"P2": 4 + 3 * 5, "C4": 3 + 2, "C5": 4 + 2}[next(iter(model.spec.strides))]
    assert len(stages) == 1 + maps + 2 + model.gives("keypoints") + model.gives("semantic_logits")
    np.testing.assert_array_equal(ours["size"], recorded["size"])
    np.testing.assert_array_equal(ours["padded_size"], recorded["padded_size"])
    differences = {stage: difference(stage, ours[stage], recorded) for stage in stages}
    assert max(differences.values()) <= 1e-4, differences
    assert found_again(recorded["proposal_boxes"], ours["proposals"]) >= 0.99


def semantic_stages(model, features):
    """The semantic head's logits; nothing without one."""
    if not model.gives("semantic_logits"):
        return {}
    return {"semantic_logits": named(model, "semantic_head").detect(features, None)["semantic_logits"].numpy()[0]}


def segment_classes(segment_map, things, labels):
    """int64 [H, W]: 0 void, 1 + label of things, -1 - label of stuff, for segments 1, 2, ..."""
    return np.concatenate([[0], np.where(things, 1 + labels, -1 - labels)])[segment_map]


def compare_segments(model, images):
    """Of all pixels of `images`, the shares with detectron2's semantic class and with its segment's class."""
    semantic, fused = [], []
    things, stuff = ([category.id for category in each] for each in (model.categories, model.stuff))
    for image, recorded in images:
        kinds = recorded["segment_things"]
        assert kinds.any() and not kinds.all(), "segments of one kind prove little"
        theirs = segment_classes(recorded["segment_map"], kinds, recorded["segment_labels"])
        detections = model.detect(image)
        segments = detections.panoptic.segments
        labels = [
            things.index(segment.category.id) if segment.is_thing else 1 + stuff.index(segment.category.id)
            for segment in segments
        ]
        own = np.array([segment.is_thing for segment in segments], bool), np.array(labels, np.int64)
        fused.append((segment_classes(detections.panoptic.segment_map, *own) == theirs).ravel())
        semantic.append((detections.semantic == recorded["semantic_map"]).ravel())
    return float(np.concatenate(semantic).mean()), float(np.concatenate(fused).mean())
