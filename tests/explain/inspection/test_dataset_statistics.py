"""Counts over a dataset that was counted by hand, and histograms against numpy's."""

import dataclasses

import numpy as np
import pytest
from counted_by_hand import annotation

from mrcnn_tf.config.settings import ModelConfig, ResizeConfig, RPNConfig
from mrcnn_tf.evaluation.instance_ground_truth import read_instance_ground_truth
from mrcnn_tf.explain.inspection.dataset_statistics import (
    MAX_BINS,
    compute_statistics,
    make_integer_histogram,
    make_log_histogram,
)


def test_everything_is_counted(dataset):
    s = compute_statistics(read_instance_ground_truth(dataset[0]))
    assert (s.images, s.objects, s.crowds, s.empty) == (3, 4, 1, 0)
    assert s.image_sizes == [[120, 80, 3]] and s.different_sizes == 1
    assert [dataclasses.astuple(c) for c in s.classes] == [(3, "cat", 2, 2, 0), (17, "dog", 2, 2, 1)]
    assert (s.small, s.medium, s.large) == (1, 3, 0)  # areas 1200, 1200, 900, 2500 against 1024 and 9216
    assert s.objects_per_image.edges == [0, 1, 2, 3] and s.objects_per_image.counts == [0, 2, 1]
    assert sum(s.aspect_ratios.counts) == 4 and sum(s.mask_shares.counts) == 4
    points = [dataclasses.astuple(one)[1:] for one in s.keypoints]
    assert points == [("nose", 1, 0, 1), ("tail", 1, 1, 0)]
    assert s.to_json()["classes"][0]["name"] == "cat"


def test_boxes_are_compared_with_anchors_at_the_resized_image(dataset):
    truth = read_instance_ground_truth(dataset[0])
    rpn = RPNConfig(anchor_sizes=[60.0, 100.0], aspect_ratios=[1.0])
    model = ModelConfig(resize=ResizeConfig(min_size=160, max_size=1000), rpn=rpn)  # twice the 80 pixels
    fit = compute_statistics(truth, model).anchors
    # 80x60 in 60x60: 3600/4800; 60x80 as well; 60x60: 1; 100x100: 1
    assert fit.good == 1.0 and fit.too_small == fit.too_large == 0
    assert fit.box_sizes.counts == [1, 2, 1] and fit.box_sizes.edges[0] == pytest.approx(2**5.5)  # 60, 69, 69, 100
    small = ModelConfig(resize=ResizeConfig(160, 1000), rpn=RPNConfig(anchor_sizes=[20.0], aspect_ratios=[1.0]))
    fit = compute_statistics(truth, small).anchors
    assert fit.good == 0.0 and fit.too_large == 4
    large = ModelConfig(
        resize=ResizeConfig(800, 1200), rpn=RPNConfig(anchor_sizes=[512.0, 4000.0], aspect_ratios=[1.0])
    )
    fit = compute_statistics(truth, large).anchors
    # Ten times: 400x300 (IoU 0.46) twice and 300x300 (0.34) are too small, 500x500 fits.
    assert fit.good == 0.25 and fit.too_small == 3 and fit.resized_to == [800, 1200]
    # The longer side limits the scale: 1.5 instead of 10 times makes 60x45, 45x60, 45x45 and 75x75.
    limited = ModelConfig(resize=ResizeConfig(800, 180), rpn=RPNConfig(anchor_sizes=[75.0], aspect_ratios=[1.0]))
    assert compute_statistics(truth, limited).anchors.good == 0.25
    flat, of_maps = ([20.0, 75.0, 30.0, 90.0], [[20.0, 75.0], [30.0, 90.0]])
    flat, of_maps = (ModelConfig(resize=limited.resize, rpn=RPNConfig(anchor_sizes=sizes)) for sizes in (flat, of_maps))
    assert compute_statistics(truth, of_maps).anchors == compute_statistics(truth, flat).anchors


def test_a_dataset_without_objects_or_masks_has_statistics(tmp_path):
    import json

    data = {"images": [{"id": 1, "file_name": "a.png", "width": 9, "height": 7}], "annotations": []}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(data | {"categories": [{"id": 1, "name": "x"}]}))
    s = compute_statistics(read_instance_ground_truth(path))
    assert (s.objects, s.empty, s.mask_shares, s.anchors.good) == (0, 1, None, None)
    flat = annotation(1, 1, 1, [1, 1, 5, 0])
    del flat["segmentation"]
    path.write_text(json.dumps(data | {"categories": [{"id": 1, "name": "x"}], "annotations": [flat]}))
    s = compute_statistics(read_instance_ground_truth(path))
    assert s.objects == 1 and s.mask_shares is None and sum(s.aspect_ratios.counts) == 0


@pytest.mark.parametrize("top", [0, 1, 7, 23, 24, 100, 99_999])
def test_bins_of_whole_numbers_hold_all_of_them(top):
    values = np.random.default_rng(top).integers(0, top + 1, 500)
    values[0] = top
    bins = make_integer_histogram(values)
    assert sum(bins.counts) == 500 and len(bins.counts) <= MAX_BINS
    for low, high, count in zip(bins.edges, bins.edges[1:], bins.counts, strict=False):
        assert count == ((values >= low) & (values < high)).sum()


def test_bins_by_factor_hold_what_is_positive_and_finite():
    values = np.r_[np.exp(np.random.default_rng(0).normal(0, 2, 500)), 0, -1, np.inf, np.nan]
    bins = make_log_histogram(values)
    assert bins.log and len(bins.counts) <= MAX_BINS and sum(bins.counts) == 500
    assert np.array_equal(bins.counts, np.histogram(values[:500], bins.edges)[0])
    assert np.allclose(np.diff(np.log2(bins.edges)), np.diff(np.log2(bins.edges))[0])
    assert make_log_histogram([4.0, 4.0]).counts[0] == 2
