"""Mean IoU of the classes of pixels: a case by hand, a loop, and Keras's metric."""

import io

import keras
import numpy as np
import pytest
from rich.console import Console

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.evaluation.panoptic_metrics import SemanticIoU

SKY, SEA = Category(92, "sky"), Category(154, "sea")


def labels(rows):
    """A map from a text such as "0122 19", a digit for each pixel; 9 is ignored."""
    values = np.array([[int(digit) for digit in row] for row in rows.split()], np.uint8)
    return np.where(values == 9, np.uint8(255), values)


def results_of(*images, stuff=(SKY, SEA)):
    counts = SemanticIoU(stuff)
    for image_id, (truth, found) in enumerate(images):
        counts.add(image_id, labels(truth), labels(found))
    return counts.results()


def test_a_case_by_hand():
    results = results_of(("0011 1199", "0111 1102"), ("1", "1"))
    things, sky, sea = results.per_class
    assert (things["id"], things["name"], things["IoU"], things["accuracy"], things["pixels"]) == (
        None, "things", 1 / 2, 1 / 2, 2,
    )  # fmt: skip
    assert (sky["id"], sky["IoU"], sky["accuracy"], sky["pixels"]) == (92, 5 / 6, 1.0, 5)
    assert (sea["IoU"], sea["accuracy"], sea["pixels"]) == (None, None, 0)
    assert results.mIoU == (1 / 2 + 5 / 6) / 2 and results.pixel_accuracy == 6 / 7
    assert results.images == 2


def test_a_class_without_ground_truth_counts_against_the_one_it_is_taken_for():
    results = results_of(("11", "12"))
    assert [row["IoU"] for row in results.per_class] == [None, 0.5, None] and results.mIoU == 0.5


def test_nothing_labelled_has_no_figures():
    results = results_of(("99", "01"))
    assert (results.mIoU, results.pixel_accuracy, results.images) == (None, None, 1)


def test_kerass_metric_has_the_same_mean():
    generator = np.random.default_rng(0)
    counts, metric = SemanticIoU((SKY, SEA)), keras.metrics.MeanIoU(3, ignore_class=255)
    for image_id in range(4):
        truth = generator.choice(np.array([0, 1, 2, 255], np.uint8), (20, 30))
        found = np.where(generator.random(truth.shape) < 0.7, truth % 3, generator.integers(0, 3, truth.shape))
        counts.add(image_id, truth, found.astype(np.uint8))
        metric.update_state(truth, found)
    assert counts.results().mIoU == pytest.approx(float(metric.result()), abs=1e-6)


def test_it_does_not_matter_where_an_image_is_counted():
    images = {number: np.random.default_rng(number).integers(0, 3, (2, 9, 9)).astype(np.uint8) for number in range(5)}
    whole, first, second = (SemanticIoU((SKY, SEA)) for _ in range(3))
    for number, pair in images.items():
        whole.add(number, *pair)
        (first if number < 3 else second).add(number, *pair)
    second.add(2, *images[2])  # of both
    second.counts |= first.counts
    assert second.results() == whole.results()


def test_other_sizes_and_classes_are_refused():
    with pytest.raises(UserError, match=r"image 0 are a map of \[1, 3\] .* \[1, 2\]"):
        results_of(("11", "111"))
    for pair in (("13", "11"), ("11", "13")):
        with pytest.raises(UserError, match="Image 0 has a pixel of a class beyond the 3"):
            results_of(pair)


def test_the_table_has_a_row_for_each_class():
    console = Console(file=io.StringIO(), width=80)
    results = results_of(("0011", "0111"))
    results.skipped = ["Image 7 is left out."]
    console.print(results.table())
    text = console.file.getvalue()
    assert all(word in text for word in ("things", "sky", "sea", "0.500", "0.667", "–", "Image 7 is left out."))
