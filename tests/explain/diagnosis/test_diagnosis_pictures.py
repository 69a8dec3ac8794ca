"""Pictures of stages: the right things in the right places and colours."""

import numpy as np
import pytest
from diagnosis_stub import stages

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.explain.diagnosis import stage_pictures
from mrcnn_tf.explain.diagnosis.diagnose import Diagnosis
from mrcnn_tf.explain.diagnosis.diagnosis_checks import count_boxes
from mrcnn_tf.explain.diagnosis.diagnosis_picture import STATUS_COLOURS, compute_proposal_heatmap
from mrcnn_tf.explain.diagnosis.forward import RoIBins, TrainingRoIs
from mrcnn_tf.explain.diagnosis.lost_objects import diagnose_objects
from mrcnn_tf.explain.diagnosis.stages import FeatureMap, principal_colours

BOX, FAR = [10, 10, 50, 50], [60, 60, 90, 90]
DETECTED, LOST = STATUS_COLOURS["detected"], STATUS_COLOURS["below threshold"]


def case(**changes):
    example = stages([(BOX, 1), (FAR, 2)], [(BOX, [0.17, 0.8, 0.03]), (FAR, [0.95, 0.01, 0.04])], **changes)
    example.feature_maps = [FeatureMap("C4", np.arange(6.0).reshape(2, 3), np.full((2, 3, 3), 9, np.uint8))]
    edges = np.linspace(10, 50, 8).astype(np.float32)
    example.roi_bins = [RoIBins(np.float32(BOX), "C4", edges, edges, edges[:-1] + 2, edges[:-1] + 2)]
    target = np.zeros((1, 28, 28), np.float32)
    example.training_rois = TrainingRoIs(
        boxes=np.float32([BOX, FAR]),
        classes=np.array([1, 0]),
        objects=np.array([0, 0]),
        positive=np.array([True, False]),
        examples={
            "mask_targets": target,
            "predicted_masks": target + 0.5,
            "keypoint_cells": np.array([[3, 9]]),
            "keypoint_valid": np.array([[True, False]]),
            "heatmaps": np.random.default_rng(0).normal(size=(1, 2, 8, 8)).astype(np.float32),
        },
    )
    return example


def diagnosis(example):
    return Diagnosis([""], example, count_boxes(example), diagnose_objects(example) if example.truth else [])


def has(picture, colour):
    """How many pixels of a PIL image are about this colour."""
    wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return int((np.abs(np.asarray(picture).astype(int) - wanted).max(axis=-1) < 12).sum())


def test_objects_have_the_colours_of_their_statuses():
    picture = diagnosis(case()).draw()
    assert has(picture, DETECTED) > 1000 and has(picture, LOST) > 1000
    assert has(picture, STATUS_COLOURS["misplaced"]) < 50
    narrow = diagnosis(case()).draw(heat=False)
    assert narrow.width < 0.6 * picture.width


@pytest.mark.parametrize("level", [5, 250])
def test_lines_show_on_dark_and_bright_images(level):
    example = case(image=np.full((100, 100, 3), level, np.uint8))
    picture = np.asarray(diagnosis(example).draw(heat=False).convert("L"), int)
    example.truth = None
    plain = np.asarray(diagnosis(example).draw(heat=False).convert("L"), int)
    for drawn in (picture, plain):
        assert np.ptp(drawn[60:-90, 60:-60]) > 90


def test_rejected_boxes_are_drawn_where_nothing_is_detected():
    example = stages([], [(BOX, [0.97, 0.02, 0.01])])
    example.truth = None
    picture = diagnosis(example).draw(heat=False)
    assert has(picture, "#009ed7") > 100


def test_heat_lies_on_proposals():
    heat = compute_proposal_heatmap(case())
    height, width = heat.shape
    assert heat[int(0.3 * height), int(0.3 * width)] > 0.8 and heat[int(0.75 * height), int(0.75 * width)] > 0.4
    assert heat[int(0.1 * height), int(0.9 * width)] == 0 and heat[int(0.55 * height), int(0.55 * width)] == 0


def test_every_stage_has_a_picture():
    drawn = stage_pictures.draw_all_stages(case())
    assert list(drawn) == [
        *("input", "feature_maps", "anchors", "anchor_matches", "objectness", "proposals", "proposal_levels"),
        *("roi_bins", "class_scores", "class_boxes", "detections", "training_rois", "mask_targets", "keypoint_targets"),
    ]
    for name, picture in drawn.items():
        pixels = np.asarray(picture.convert("RGB"))
        assert min(pixels.shape[:2]) > 100, name
        assert pixels.std() > 5, name
    assert has(drawn["roi_bins"], "#e69f00") > 200
    assert has(drawn["class_scores"], "#00b27d") > 100 and has(drawn["class_scores"], "#d55e00") > 10


def test_without_proposals_nothing_fails():
    example = stages([])
    example.truth = None
    for name in ("proposals", "proposal_levels", "roi_bins", "class_scores", "class_boxes", "detections"):
        assert getattr(stage_pictures, f"draw_{name}")(example).width > 100


@pytest.mark.parametrize("name", ["anchor_matches", "training_rois", "mask_targets", "keypoint_targets"])
def test_what_is_missing_is_said(name):
    example = case()
    example.anchor_matches = example.training_rois = None
    with pytest.raises(UserError, match="ground_truth"):
        getattr(stage_pictures, f"draw_{name}")(example)


def test_without_masks_or_keypoints_there_are_no_targets():
    example = case()
    del example.training_rois.examples["predicted_masks"], example.training_rois.examples["heatmaps"]
    assert "mask_targets" not in stage_pictures.draw_all_stages(example)
    with pytest.raises(UserError, match="masks"):
        stage_pictures.draw_mask_targets(example)
    with pytest.raises(UserError, match="keypoints"):
        stage_pictures.draw_keypoint_targets(example)


def test_what_a_pooling_layer_of_ones_own_reads_is_not_drawn():
    example = case()
    example.proposals.pooled_from, example.roi_bins = None, []
    drawn = stage_pictures.draw_all_stages(example)
    assert "proposal_levels" not in drawn and "roi_bins" not in drawn and "proposals" in drawn
    for draw in (stage_pictures.draw_proposal_levels, stage_pictures.draw_roi_bins):
        with pytest.raises(UserError, match="pooling layer of your own"):
            draw(example)


def test_maps_of_any_name_stand_in_a_row_until_they_get_finer_again():
    example, fill = case(), np.zeros((8, 8, 3), np.uint8)
    maps = [("early", 8), ("late", 4), ("up", 8), ("down", 4), ("last", 4)]
    example.feature_maps = [FeatureMap(name, np.ones((side, side)), fill[:side, :side]) for name, side in maps]
    two_rows = stage_pictures.draw_feature_maps(example)
    example.feature_maps = example.feature_maps[2:]
    one_row = stage_pictures.draw_feature_maps(example)
    assert one_row.width == two_rows.width and 1.8 < two_rows.height / one_row.height < 2.2


def test_equal_features_have_equal_colours():
    values = np.zeros((4, 6, 16), np.float32)
    values[:2, :, 3], values[2:, 3:, 5] = 1, 2
    colours = principal_colours(values)
    assert (colours[:2] == colours[0, 0]).all() and (colours[2:, 3:] == colours[3, 5]).all()
    assert len({tuple(colours[place]) for place in ((0, 0), (3, 0), (3, 5))}) == 3


@pytest.mark.parametrize("fill", [1.5, np.nan, np.inf])
def test_a_map_that_says_nothing_has_a_picture(fill):
    assert principal_colours(np.full((3, 3, 2), fill, np.float32)).shape == (3, 3, 3)
