"""What `compute_stages` gives is what the model does: held against `detect`, the layers themselves and plain numpy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny import tiny_config

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.explain.diagnosis.stages import compute_stages
from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.model.necks import FeatureMaps

IMAGE = np.random.default_rng(0).integers(0, 255, (50, 70, 3)).astype(np.uint8)
RECORDS = [
    {"bbox": [4, 4, 26, 24], "category_id": 3, "segmentation": [[4, 4, 30, 4, 30, 28, 4, 28]]},
    {"bbox": [30, 10, 36, 30], "category_id": 17, "segmentation": [[30, 10, 66, 10, 66, 40, 48, 40, 48, 25, 30, 25]]},
    {"bbox": [0, 40, 70, 10], "category_id": 17, "iscrowd": 1, "segmentation": [[0, 40, 70, 40, 70, 50, 0, 50]]},
]
KEYPOINTS = [[10, 10, 2, 20, 20, 1], [40, 20, 2, 50, 30, 2, 0, 0, 0], [0] * 9]


def make(kind):
    """A model of a kind, "boxes" being one without masks in bfloat16, and "pool" one of RoIPool."""
    keras.utils.set_random_seed(3)
    config = tiny_config(kind if kind in ("c4", "keypoints") else "gn")
    config.backbone.norm = "gn"  # so that a random backbone's scores spread
    if kind == "boxes":
        config.mask_head = None
    if kind == "gn":
        config.mask_head.class_agnostic = True
    config.roi_layer.kind = "pool" if kind == "pool" else "align"
    return MaskRCNN.from_settings(config, dtype="mixed_bfloat16" if kind == "boxes" else None)


@pytest.fixture(scope="module", params=["gn", "c4", "keypoints", "boxes"])
def seen(request):
    """(kind, model, its `Stages` of IMAGE)."""
    model = make(request.param)
    records = [{**record, "keypoints": points} for record, points in zip(RECORDS, KEYPOINTS, strict=True)]
    return request.param, model, compute_stages(model, IMAGE, records if request.param == "keypoints" else RECORDS)


def original(stages, boxes):
    """Boxes of the network's input in the image's pixels."""
    y, x = IMAGE.shape[0] / stages.input_size[0], IMAGE.shape[1] / stages.input_size[1]
    return np.asarray(boxes) * [x, y, x, y]


def test_the_last_stage_is_what_detect_gives(seen):
    _, model, stages = seen
    expected = model.detect(IMAGE)
    assert len(expected) > 0
    for name in ("boxes", "scores", "classes", "mask_probabilities", "keypoints"):
        np.testing.assert_array_equal(getattr(stages.detections, name), getattr(expected, name))


def test_proposals_are_the_rpns(seen):
    kind, model, stages = seen
    proposals = model.stages(model.preprocess(IMAGE)).proposals
    count = len(stages.proposals.boxes)
    assert proposals.valid.numpy().sum() == count == 30
    objectness = 1 / (1 + np.exp(-proposals.scores.numpy()[0]))
    rough = kind == "boxes"  # eager bfloat16 rounds elsewhere, which changes the order of boxes
    np.testing.assert_allclose(stages.proposals.objectness, objectness, atol=0.01 if rough else 1e-4)
    if not rough:
        np.testing.assert_allclose(stages.proposals.boxes, original(stages, proposals.boxes[0]), atol=0.01)


def test_the_first_survivors_are_proposals_and_detections(seen):
    _, model, stages = seen
    best = stages.candidates.kept[: stages.limits.max_proposals]
    np.testing.assert_array_equal(stages.candidates.boxes[best], stages.proposals.boxes)
    assert len(stages.candidates.kept) > len(best) == 30
    best = stages.classification.kept[: stages.limits.max_detections]
    np.testing.assert_array_equal(stages.classification.boxes.reshape(-1, 4)[best], stages.detections.boxes)
    np.testing.assert_array_equal(stages.classification.probabilities[:, 1:].ravel()[best], stages.detections.scores)
    np.testing.assert_array_equal(best % 2 + 1, stages.detections.classes)


def test_suppression_is_greedy(seen, greedy_nms):
    _, _, stages = seen
    scores = np.where(stages.candidates.usable, stages.candidates.objectness, -1)
    # At the same scale on both axes, or overlaps wouldn't be the network's.
    boxes = stages.candidates.boxes / original(stages, np.ones(4))
    expected = greedy_nms(boxes, scores, stages.candidates.levels, stages.limits.rpn_nms_iou, len(boxes))
    expected = [one for one in expected if scores[one] >= 0]
    assert len(set(expected) ^ set(stages.candidates.kept.tolist())) <= 2  # ties in rounding


def test_matched_anchors_against_numpy(seen):
    _, model, stages = seen
    scale = original(stages, np.ones(4))
    anchors = np.concatenate([level.anchors for level in stages.levels]) / scale
    truth = stages.truth.boxes / scale
    low, high = np.maximum(anchors[:, None, :2], truth[:, :2]), np.minimum(anchors[:, None, 2:], truth[:, 2:])
    shared = np.maximum(high - low, 0).prod(axis=-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=-1) for boxes in (anchors, truth)]
    iou = shared / (areas[0][:, None] + areas[1] - shared)
    objects = iou[:, ~stages.truth.crowd]
    best = objects.max(axis=1)
    expected = np.where(best < 0.3, -1, -2)
    expected[shared[:, 2] >= 0.7 * areas[0]] = -2
    chosen = (best >= 0.7) | np.isclose(objects, objects.max(axis=0), atol=1e-6).any(axis=1)
    expected[chosen] = objects.argmax(axis=1)[chosen]
    np.testing.assert_array_equal(stages.anchor_matches.matches, expected)
    np.testing.assert_allclose(stages.anchor_matches.best_iou, iou.max(axis=0), rtol=1e-5)


def test_anchors_against_plain_loops(seen):
    kind, model, stages = seen
    config, level = model.rpn.settings, stages.levels[0]
    sizes = config.anchor_sizes if kind in ("c4", "keypoints") else config.anchor_sizes[:1]
    rounded = (lambda side: side) if kind == "c4" else round
    stride = stages.network_input.shape[0] // level.cells[0]
    expected = [
        [x * stride - wide, y * stride - high, x * stride + wide, y * stride + high]
        for y in range(level.cells[0])
        for x in range(level.cells[1])
        for size in sizes
        for ratio in config.aspect_ratios
        for wide, high in [(rounded(size / ratio**0.5 / 2), rounded(size * ratio**0.5 / 2))]
    ]
    np.testing.assert_allclose(level.anchors, original(stages, expected), atol=1e-4)


def test_sampled_rois_and_targets(seen):
    kind, model, stages = seen
    sampled, examples = stages.training_rois, stages.training_rois.examples
    positives = int(sampled.positive.sum())
    assert 0 < positives <= 4 and not sampled.positive[positives:].any()
    assert (sampled.classes[:positives] == stages.truth.classes[sampled.objects[:positives]]).all()
    assert not sampled.classes[positives:].any()
    assert ("predicted_masks" in examples) == (kind != "boxes")
    assert ("heatmaps" in examples) == (kind == "keypoints")
    # An RoI that is the object's own box sees the whole mask: the second object fills three quarters of its.
    if kind != "boxes":
        own = [
            np.abs(sampled.boxes[roi] - stages.truth.boxes[sampled.objects[roi]]).max() < 0.01
            for roi in range(positives)
        ]
        for roi in np.flatnonzero(own):
            share = (1.0, 1 - 18 * 15 / (36 * 30))[sampled.objects[roi]]
            assert examples["mask_targets"][roi].mean() == pytest.approx(share, abs=0.03)
        assert examples["predicted_masks"].shape == examples["mask_targets"].shape
        assert any(own)


def test_keypoint_targets_lie_on_the_keypoints(seen):
    kind, _, stages = seen
    sampled, examples = stages.training_rois, stages.training_rois.examples
    if kind != "keypoints":
        assert "keypoint_cells" not in examples and stages.truth.keypoints is None
        return
    side = examples["heatmaps"].shape[-1]
    labelled = np.argwhere(examples["keypoint_valid"])
    assert len(labelled)
    for roi, point in labelled:
        left, top, right, bottom = sampled.boxes[roi]
        y, x = divmod(examples["keypoint_cells"][roi, point], side)
        place = stages.truth.keypoints[sampled.objects[roi], point]
        assert abs(left + (x + 0.5) / side * (right - left) - place[0]) <= (right - left) / side
        assert abs(top + (y + 0.5) / side * (bottom - top) - place[1]) <= (bottom - top) / side


def test_samples_are_where_the_roi_layer_reads(seen):
    """Maps whose values are their cells' places in the image: an RoI's features are the means of its samples."""
    _, model, stages = seen
    layer = getattr(model.heads[0].pooling, "roi_layer", model.heads[0].pooling)
    x, y = original(stages, np.ones(4))[:2]
    maps, compared = {}, 0
    for (name, stride), level in zip(model.spec.strides.items(), stages.levels, strict=True):
        rows, columns = np.meshgrid(*(np.arange(side) + 0.5 for side in level.cells), indexing="ij")
        maps[name] = tf.constant(np.stack([columns * stride * x, rows * stride * y], axis=-1)[None], tf.float32)
    boxes = np.stack([samples.box for samples in stages.roi_bins]) / original(stages, np.ones(4))
    features = FeatureMaps(maps, model.spec.strides)
    pooled = layer(tf.constant(boxes[None], tf.float32), features=features).numpy()[0]
    for samples, values in zip(stages.roi_bins, pooled, strict=True):
        level = next(level for level in stages.levels if level.name == samples.level)
        for points, means, scale, cells in (
            (samples.x, values[0, :, 0], x, level.cells[1]),
            (samples.y, values[:, 0, 1], y, level.cells[0]),
        ):
            points = points.reshape(len(means), -1)
            low, high = 0.5 * level.stride * scale, (cells - 0.5) * level.stride * scale
            inside = (points > low).all(axis=1) & (points < high).all(axis=1)  # beyond it values stay the same
            np.testing.assert_allclose(points.mean(axis=1)[inside], means[inside], atol=0.02)
            compared += inside.sum()
    assert compared > 10


def test_roi_pool_has_bins_without_samples_and_needs_no_ground_truth():
    stages = compute_stages(make("pool"), IMAGE)
    assert stages.roi_bins and all(len(one.x) == 0 and len(one.edges_x) == 8 for one in stages.roi_bins)
    assert stages.truth is stages.anchor_matches is stages.training_rois is None


def test_without_objects():
    model = make("gn")
    stages = compute_stages(model, IMAGE, [])
    assert len(stages.truth) == 0 and len(stages.anchor_matches.best_iou) == 0
    assert set(np.unique(stages.anchor_matches.matches)) == {-1}
    assert not stages.training_rois.positive.any() and stages.training_rois.examples == {}


def test_another_kind_of_image_is_refused(seen):
    _, model, _ = seen
    with pytest.raises(UserError, match="uint8 pixels"):
        compute_stages(model, IMAGE.astype(np.float32))
