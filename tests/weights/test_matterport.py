"""The importer against outputs recorded from matterport's Mask R-CNN (tests/golden/record_matterport.py)."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from golden import made_up, made_up_matterport

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.weights import keras_applications, matterport
from mrcnn_tf.weights.architecture import COCO_80
from mrcnn_tf.weights.facts import Facts
from mrcnn_tf.weights.pretrained import PretrainedWeights

FOLDER = pathlib.Path(__file__).parent.parent / "golden"
SIDE, SEED, SAMPLES, HEAD_ROIS, MASKS = 256, 21, 1000, 100, 12
IMAGES = {"resnet50": [[256, 256, 31], [256, 192, 32], [160, 256, 33]], "resnet101": [[256, 256, 34]]}
XY = [1, 0, 3, 2]  # (y, x) pairs to (x, y) and back
DELTA_STD = [0.1, 0.1, 0.2, 0.2]


class Recorded:
    """One backbone's recorded outputs, and our model with the same weights."""

    def __init__(self, backbone):
        with np.load(FOLDER / f"matterport_{backbone}.npz") as stages:
            self.recorded = dict(stages)
        self.shapes = json.loads((FOLDER / f"matterport_{backbone}.json").read_text())
        self.converted = matterport.convert(made_up_matterport.weights(self.shapes, SEED), Facts(), {})
        self.images = [made_up.image(*image) for image in IMAGES[backbone]]
        resize = [f"model.resize.min_size={SIDE}", f"model.resize.max_size={SIDE}"]
        config = PretrainedWeights(backbone, "matterport", self.converted, statements=tuple(resize)).config()
        self.model = MaskRCNN.from_settings(config.model)
        self.paths = {weight.path for weight in self.model.weights}
        for weight in self.model.weights:
            weight.assign(self.converted.arrays[weight.path].reshape(weight.shape))
        self.stages = [self.look_at(image) for image in self.images]

    def head(self, name):
        return next(head for head in self.model.heads if head.name == name)

    def look_at(self, image):
        """The `Stages` of the image as matterport molds it: in the middle of a black square."""
        height, width = image.shape[:2]
        top, left = (SIDE - height) // 2, (SIDE - width) // 2
        pixels = np.pad(image, [(top, SIDE - height - top), (left, SIDE - width - left), (0, 0)])
        normalized = tf.constant((pixels - self.model.preprocess.mean)[None], tf.float32)
        inputs = {"image_size": tf.constant([[SIDE, SIDE]])}
        return self.model.stages(inputs, fills_batch=True, normalized=normalized)

    def check(self, stage, image, found):
        """Compares a whole array with the samples of the recorded one; NaN stands for what we don't compute."""
        found = made_up.sample(np.asarray(found), SAMPLES)
        known = np.isfinite(found)
        assert known.mean() > 0.95
        wanted, largest = self.recorded[f"img{image}/{stage}"], self.recorded[f"img{image}/{stage}_max"]
        np.testing.assert_allclose(found[known], wanted[known], rtol=0, atol=1e-4 * largest, err_msg=stage)


@pytest.fixture(scope="module")
def resnet50():
    return Recorded("resnet50")


@pytest.fixture(scope="module")
def resnet101():
    return Recorded("resnet101")


@pytest.fixture(scope="module", params=["resnet50", "resnet101"])
def recorded(request):
    return request.getfixturevalue(request.param)


def test_backbone_and_pyramid(recorded):
    for index, stages in enumerate(recorded.stages):
        assert set(stages.maps) == {*(f"C{level}" for level in range(2, 6)), *(f"P{level}" for level in range(2, 7))}
        for name, features in stages.maps.items():
            recorded.check(name, index, features[0])


def test_rpn(recorded):
    for index, stages in enumerate(recorded.stages):
        logits, deltas = stages.rpn_scores
        recorded.check("rpn_logits", index, np.concatenate(logits, axis=1)[0])
        recorded.check("rpn_deltas", index, (np.concatenate(deltas, axis=1)[0] / DELTA_STD)[:, XY])


def test_box_head_of_equal_roi_features(recorded):
    head = recorded.head("box_head")
    for index, stages in enumerate(recorded.stages):
        rois = recorded.recorded[f"img{index}/rois"][:HEAD_ROIS]
        pooled = crop_and_resize(stages.features, rois, 7)
        logits, deltas = head(pooled[None])
        recorded.check("class_logits", index, logits[0])
        with_background = np.pad(deltas[0], [(0, 0), (1, 0), (0, 0)], constant_values=np.nan)
        recorded.check("box_deltas", index, with_background[..., XY])


def test_mask_head_of_equal_roi_features(recorded):
    head = recorded.head("mask_head")
    for index, stages in enumerate(recorded.stages):
        detections = recorded.recorded[f"img{index}/detections"][:MASKS]
        pooled = crop_and_resize(stages.features, detections[:, :4], 14)
        scores = head(pooled[None], detections[None, :, 4].astype(np.int32))
        wanted = recorded.recorded[f"img{index}/masks"] / 65535
        assert wanted.std() > 0.1
        np.testing.assert_allclose(np.exp(scores.foreground[0]), wanted, atol=1e-4)


def crop_and_resize(features, rois, side):
    """What matterport's PyramidROIAlign does, RoI by RoI: float32 [N, side, side, C] of normalized rois [N, 4]."""
    maps, pooled = [np.asarray(level[0]) for level in features.maps.values()], []
    for y1, x1, y2, x2 in rois:
        level = 4 + round(float(np.log2(max(np.sqrt((y2 - y1) * (x2 - x1)) * SIDE / 224, 1e-9))))
        features = maps[min(max(level, 2), 5) - 2]
        rows, columns = _samples(y1, y2, side, len(features)), _samples(x1, x2, side, len(features))
        pooled.append(np.tensordot(columns, np.tensordot(rows, features, (1, 0)), (1, 1)).swapaxes(0, 1))
    return np.stack(pooled).astype(np.float32)


def _samples(start, end, side, length):
    """Linear interpolation's weights [side, length] for samples from `start` to `end`, both included."""
    last = np.float32(length - 1)
    positions = start * last + np.arange(side, dtype=np.float32) * ((end - start) * last / np.float32(side - 1))
    weights = np.maximum(0, 1 - np.abs(positions[:, None] - np.arange(length)))
    # TensorFlow takes a sample that rounding has carried beyond the last cell for one outside the map.
    return weights * (positions <= last)[:, None]


def in_pixels(boxes):
    """Normalized (y1, x1, y2, x2) that end at their last pixel -> (x1, y1, x2, y2) that end at its edge."""
    return (boxes[:, XY] * (SIDE - 1) + [0, 0, 1, 1]).astype(np.float32)


def iou(boxes, others):
    """[N, M] of boxes [N, 4] and others [M, 4]."""
    low, high = np.maximum(boxes[:, None, :2], others[:, :2]), np.minimum(boxes[:, None, 2:], others[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(sides[:, 2:] - sides[:, :2]).prod(axis=1) for sides in (boxes, others)]
    return shared / (areas[0][:, None] + areas[1] - shared)


def test_proposals(resnet50):
    for index, stages in enumerate(resnet50.stages):
        found = stages.proposals.boxes[0].numpy()
        best = iou(in_pixels(resnet50.recorded[f"img{index}/rois"][:200]), found + [0, 0, 1, 1]).max(axis=1)
        assert np.mean(best >= 0.99) >= 0.99


def test_detections_of_a_square_image(recorded):
    detections = recorded.model.detect(recorded.images[0])
    boxes, (classes, scores) = recorded.recorded["img0/boxes"], recorded.recorded["img0/detections"][:, 4:].T
    overlaps = iou(boxes, detections.boxes) * (classes[:, None] == detections.classes)
    partner, found = overlaps.argmax(axis=1), overlaps.max(axis=1) >= 0.99
    # One of resnet101's 50 comes from the 998th of 1000 proposals: an NMS over all levels at once ends with two others.
    assert len(boxes) > 20 and abs(len(detections.boxes) - len(boxes)) <= 1
    assert found.mean() >= 0.98 and len(set(partner[found])) == found.sum()
    np.testing.assert_allclose(detections.scores[partner[found]], scores[found], atol=1e-3)
    shown = found[:MASKS]
    masks = detections.mask_probabilities[partner[:MASKS][shown]]
    np.testing.assert_allclose(masks, recorded.recorded["img0/masks"][shown] / 65535, atol=2e-3)


def test_detections_of_an_oblong_image(resnet50):
    """Measured: 51 % found again.

    The image lies in the middle of a black square there, in the corner of a canvas of mean pixels here. Random weights
    make the most of that: padded to a square beforehand, all are found.
    """
    detections = resnet50.model.detect(resnet50.images[1])
    overlaps = iou(resnet50.recorded["img1/boxes"], detections.boxes)
    overlaps *= resnet50.recorded["img1/detections"][:, 4:5] == detections.classes
    assert np.mean(overlaps.max(axis=1) >= 0.5) >= 0.45


def test_report(recorded):
    converted = recorded.converted
    assert matterport.matches(recorded.shapes)
    assert not keras_applications.matches(recorded.shapes)
    assert set(converted.arrays) == recorded.paths
    assert all(array.dtype == np.float32 for array in converted.arrays.values())
    assert converted.unknown == [] and converted.skipped == {} and converted.categories == COCO_80
    assert converted.conversions["rpn/head/objectness_logits/kernel"] == "foreground less background"
    assert converted.conversions["mask_head/conv1/bias"] == "batch norm folded in"
    assert converted.facts.value("model.backbone.depth") in (50, 101)
    assert converted.facts.value("model.rpn.channels") == 512


@pytest.fixture(scope="module")
def small():
    """The file of a model of one class with two channels a layer, all ones."""
    shapes = json.loads((FOLDER / "matterport_resnet50.json").read_text())
    tensors = {}
    for name, shape in shapes.items():
        last = {"mrcnn_class_logits": 2, "mrcnn_bbox_fc": 8, "mrcnn_mask": 2, "rpn_class_raw": 6, "rpn_bbox_pred": 12}
        channels = last.get(name.split("/")[-2], 2)
        tensors[name] = np.ones([*[min(side, 2) for side in shape[:-1]], channels], np.float16)
    return tensors


def test_one_class(small):
    converted = matterport.convert(small, Facts(), {})
    assert converted.categories is None
    assert converted.arrays["mask_head/predictor_kernel"].shape == (2, 1)
    assert converted.arrays["box_head/box_deltas/kernel"].shape == (2, 4)
    assert converted.arrays["box_head/class_logits/bias"].shape == (2,)
    assert {array.dtype for array in converted.arrays.values()} == {np.dtype(np.float32)}


def test_without_the_classes_layers(small):
    heads = ("mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_mask/")
    rest = {name: array for name, array in small.items() if not name.startswith(heads)}
    assert matterport.matches(rest)
    lost = set(matterport.convert(small, Facts(), {}).arrays) - set(matterport.convert(rest, Facts(), {}).arrays)
    assert {path.split("/")[1] for path in lost} == {
        "class_logits", "box_deltas", "predictor_kernel", "predictor_bias"
    }  # fmt: skip


def test_what_is_skipped_and_unknown(small):
    converted = matterport.convert(
        small | {"anchors/Variable:0": np.ones((1, 9, 4)), "mrcnn_extra/mrcnn_extra/kernel:0": np.ones(2)},
        Facts(),
        {},
    )
    assert list(converted.skipped) == ["anchors/Variable:0"]
    assert converted.unknown == ["mrcnn_extra/mrcnn_extra/kernel:0"]


@pytest.mark.parametrize(
    "name, shape, message",
    [
        ("mrcnn_class_bn1/mrcnn_class_bn1/gamma:0", None, "lacks gamma .* box_head/fc1"),
        ("mrcnn_mask_conv3/mrcnn_mask_conv3/kernel:0", None, "lacks kernel .* mask_head/conv3"),
        ("mrcnn_class_conv1/mrcnn_class_conv1/kernel:0", (2, 2), "mrcnn_class_conv1.* should have 4"),
        ("mrcnn_bbox_fc/mrcnn_bbox_fc/kernel:0", (2, 7), r"box_deltas/kernel is of shape \[2, 7\]"),
        ("rpn_model/rpn_class_raw/bias:0", (5,), "objectness_logits/bias"),
    ],
)
def test_what_does_not_fit_is_refused(small, name, shape, message):
    changed = {other: array for other, array in small.items() if other != name}
    if shape:
        changed[name] = np.ones(shape)
    with pytest.raises(UserError, match=message):
        matterport.convert(changed, Facts(), {})


@pytest.mark.parametrize(
    "names", [[], ["rpn_model/rpn_class_raw/kernel:0"], ["res2a_branch2a/res2a_branch2a/kernel:0"]]
)
def test_other_files_are_not_recognised(names):
    assert not matterport.matches(dict.fromkeys(names))
