"""What a golden file holds, and how much of a library's outputs goes into it.

`NAME.npz` has one record: some images through one set of weights, each image run alone. `ARCHITECTURE.json` describes
the records of that architecture:

    library, architecture, versions, date
    shapes      {tensor name: [shape, dtype]} in state-dict order, an argument of `made_up.weights`
    records     {NAME: {seed, background, min_size, max_size, images: [[height, width, seed], ...],
                        weights_crc32, images_crc32, noise}}; some proposals, detections, normalized, stuff_area,
                        fused_score

so that the weights are `made_up.weights(shapes, seed, background, normalized)` and image i is
`made_up.image(*images[i])`, RGB. `proposals` and `detections` are how many of them an image has at most, where that
isn't the library's 1000 and 100; `stuff_area` and `fused_score` the fusion's limits, where these aren't 4096 and 0.5.
`weights_crc32` and `images_crc32`, over the bytes of all of them in order, tell a change of made_up.py from a change of
the code under test. `noise` compares the library in float32 with itself in float64, the floor under any tolerance: per
stage and image the largest difference over the stage's largest magnitude; for `proposals` the fraction found again at
an IoU of 0.99; for `detections` [found again, in float64, in float32], where found means the same class, an IoU of at
least 0.99 and scores within 0.001; for `masks` the largest difference of probabilities among those, for `keypoints`
the fraction of theirs within half a pixel; for `segments` the fraction of pixels of a segment of the same class.

Keys of the npz for image i are `img{i}/STAGE`. Maps are flattened in the order (height, width, channel), RPN outputs in
(height, width, anchor[, coordinate]), and all maps are those of the padded image.

    size, padded_size    [2] int64: height, width of the resized and of the padded image
    preprocessed         sampled [height, width, 3] after resizing and normalizing, before padding; detectron2's is BGR
    resized              detectron2 only, sampled uint8 [height, width, 3] RGB after resizing
    C2..C5, P2..P6       sampled [height, width, channels]
    rpn_logits2..6       sampled [height, width, 3]; without a pyramid [height, width, 15] of the one map
    rpn_deltas2..6       sampled [height, width, 3, 4]; [height, width, 15, 4]
    proposal_boxes       [<=300, 4] float32: x1, y1, x2, y2 in pixels of the resized image, best first
    proposal_scores      [<=300] float32: probabilities in torchvision, logits in detectron2
    class_logits         sampled [50, classes and background] of the first 50 proposals, the library's order of classes
    box_deltas           sampled [50, 4 * classes] of the same; torchvision's classes include the background
    resized_boxes        [n, 4] float32: final detections in pixels of the resized image, best first
    boxes                [n, 4] float32: the same in pixels of the original image
    scores, labels       [n] float32 and int64; detectron2's labels start at 0, torchvision's at 1
    masks                [<=10, M, M] uint16: probability * 65535 of the detected class, for the first detections
    keypoint_logits      sampled [<=10, P, 56, 56]: the heatmaps of the first `resized_boxes`
    keypoints            [n, P, 3] float32: (x, y, score) in pixels of the original image; the library's own score
    semantic_logits      sampled [height / 4, width / 4, S + 1]
    semantic_map         [height, width] uint8 of the original image: 0 of any thing, 1..S of stuff
    segment_map          [height, width] uint8 of the original image: the fused segments, 0 void
    segment_things       [n] bool, of segment 1, 2, ...: whether it is a thing
    segment_labels       [n] int64, its class: of a thing as `labels`, of stuff as `semantic_map`

A sampled stage is `made_up.sample(array, count)` with `made_up.HEAD_SAMPLES` for class logits, box deltas and keypoint
logits and `made_up.MAP_SAMPLES` for the others. It comes with `STAGE_shape` and `STAGE_max`, the shape of the whole
array and its largest magnitude.
"""

import copy
import datetime
import json
import pathlib
import zlib

import numpy as np
import torch
from golden import made_up

FOLDER = pathlib.Path(__file__).parent
PROPOSALS = 300
HEAD_PROPOSALS = 50
DETECTIONS = 10  # whose masks and heatmaps are kept


def record_all(library, versions, records, build, run):
    """Writes the files of {architecture: {NAME: {seed, background, min_size, max_size, images}}}.

    `build(architecture, entry)` returns a torch module, `run(module, entry, image)` {stage: whole array} in the
    module's precision for a uint8 RGB image.
    """
    for architecture, entries in records.items():
        for name, entry in entries.items():
            model = build(architecture, entry).eval()
            shapes = {key: [list(value.shape), str(value.dtype)[6:]] for key, value in model.state_dict().items()}
            weights = made_up.weights(shapes, entry["seed"], entry["background"], entry.get("normalized", False))
            model.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
            images = [made_up.image(*image) for image in entry["images"]]
            entry["weights_crc32"] = crc32(weights.values())
            entry["images_crc32"] = crc32(images)
            entry["noise"] = _record(name, entry, model, images, run)
            print(name, *entry["noise"].items(), sep="\n    ", flush=True)
        _describe(architecture, {"library": library, "versions": versions}, shapes, entries)


def hwc(tensor):
    """[1, C, H, W] -> numpy [H, W, C]."""
    return tensor[0].permute(1, 2, 0).numpy()


def anchors_last(tensor, width):
    """[1, A * width, H, W] -> numpy [H, W, A, width]."""
    array = hwc(tensor)
    return array.reshape(*array.shape[:2], -1, width)


@torch.no_grad()
def _record(name, entry, model, images, run):
    arrays, noise, exact = {}, {}, copy.deepcopy(model).double()
    for index, image in enumerate(images):
        stages = run(model, entry, image)
        for stage, difference in _compare(stages, run(exact, entry, image)).items():
            noise.setdefault(stage, []).append(difference)
        for stage, array in stages.items():
            arrays.update({f"img{index}/{key}": kept for key, kept in _reduce(stage, array).items()})
    np.savez_compressed(FOLDER / f"{name}.npz", **arrays)
    return noise


def _describe(architecture, head, shapes, records):
    """Writes the json with one line per tensor and per record."""
    head = {"architecture": architecture, **head, "date": str(datetime.date.today())}
    body = [f'"{key}": {json.dumps(value)}' for key, value in head.items()]
    for key, table in {"shapes": shapes, "records": records}.items():
        rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in table.items())
        body.append(f'"{key}": {{\n{rows}\n}}')
    (FOLDER / f"{architecture}.json").write_text("{\n" + ",\n".join(body) + "\n}\n")


def crc32(arrays):
    """Of the bytes of all arrays, one after another."""
    value = 0
    for array in arrays:
        value = zlib.crc32(np.ascontiguousarray(array).tobytes(), value)
    return value


def _reduce(stage, array):
    if stage in ("proposal_boxes", "proposal_scores"):
        return {stage: np.float32(array[:PROPOSALS])}
    if stage == "masks":
        return {stage: np.round(array[:DETECTIONS] * 65535).astype(np.uint16)}
    if stage in ("size", "padded_size", "labels", "segment_labels"):
        return {stage: np.int64(array)}
    if stage in ("semantic_map", "segment_map"):
        return {stage: np.uint8(array)}
    if stage == "segment_things":
        return {stage: array.astype(bool)}
    if stage in ("boxes", "resized_boxes", "scores", "keypoints"):
        return {stage: np.float32(array)}
    count = made_up.MAP_SAMPLES
    if stage in ("class_logits", "box_deltas"):
        array, count = array[:HEAD_PROPOSALS], made_up.HEAD_SAMPLES
    if stage == "keypoint_logits":
        array, count = array[:DETECTIONS], made_up.HEAD_SAMPLES
    return {
        stage: made_up.sample(array, count),
        f"{stage}_shape": np.int64(array.shape),
        f"{stage}_max": np.abs(array).max(),
    }


def _compare(stages, exact):
    """Returns {stage: difference} as the module's docstring defines `noise`."""
    found = {}
    for stage, array in exact.items():
        if stage[0] in "CP" or stage.startswith(("rpn", "pre", "semantic_logits")):
            found[stage] = float(f"{np.abs(stages[stage] - array).max() / np.abs(array).max():.2g}")
    if "proposal_boxes" in exact:
        boxes, others = exact["proposal_boxes"], stages["proposal_boxes"]
        found["proposals"] = float((_overlaps(boxes, others) >= 0.99).any(1).mean().round(4))
    if "boxes" not in exact:
        return found
    pairs = _overlaps(exact["boxes"], stages["boxes"]) >= 0.99
    pairs &= exact["labels"][:, None] == stages["labels"][None]
    pairs &= np.abs(exact["scores"][:, None] - stages["scores"][None]) <= 1e-3
    found["detections"] = [int(pairs.any(1).sum()), *map(len, (exact["scores"], stages["scores"]))]
    if "segment_map" in exact:
        same = segment_classes(exact) == segment_classes(stages)
        found["segments"] = float(f"{same.mean():.5f}")
    rows, columns = np.nonzero(pairs)
    if "masks" in exact and len(rows):
        found["masks"] = float(f"{np.abs(exact['masks'][rows] - stages['masks'][columns]).max():.2g}")
    if "keypoints" in exact and len(rows):
        gaps = np.abs(exact["keypoints"][rows] - stages["keypoints"][columns])[..., :2].max(axis=-1)
        found["keypoints"] = float(f"{(gaps <= 0.5).mean():.4f}")
    return found


def segment_classes(stages):
    """Returns [height, width] int64: 0 void, 1 + label of things, -1 - label of stuff."""
    classes = np.where(stages["segment_things"], 1 + stages["segment_labels"], -1 - stages["segment_labels"])
    return np.concatenate([[0], classes])[stages["segment_map"]]


def _overlaps(left, right):
    """Returns the IoU [len(left), len(right)] of boxes (x1, y1, x2, y2)."""
    low = np.maximum(left[:, None, :2], right[None, :, :2])
    high = np.minimum(left[:, None, 2:], right[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (left, right)]
    return common / (areas[0][:, None] + areas[1][None] - common)
