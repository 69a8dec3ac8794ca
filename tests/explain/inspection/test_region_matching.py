"""Which segments are which: counted by hand, and against the evaluation's own count of thousands."""

import dataclasses

import numpy as np
import pytest
from panoptic_by_hand import FOUND, THERE, regions

from mrcnn_tf.common.categories import Category
from mrcnn_tf.evaluation.panoptic_metrics import PanopticQuality, SemanticIoU
from mrcnn_tf.explain.inspection.region_matching import compare_class_regions, match_regions
from mrcnn_tf.explain.inspection.regions import ImageRegions, make_class_regions

EVERYTHING = {1, 2, 21, 22}


def as_regions(parts):
    ids, listed = regions(parts)
    return ImageRegions(ids, [{"id": number, "category_id": one.id, "iscrowd": 0} for number, one in listed])


def kinds(outcomes):
    return [dataclasses.astuple(one) for one in outcomes]


def test_every_segment_has_its_verdict():
    first = match_regions(as_regions(THERE[1]), as_regions(FOUND[1]), EVERYTHING)
    assert kinds(first.truths) == [("matched", 0, 1.0), ("matched", 1, 1.0), ("matched", 2, 0.8)]
    assert first.truths == first.predicted and first.mistakes == 0 and first.quality == pytest.approx(2.8 / 3)
    second = match_regions(as_regions(THERE[2]), as_regions(FOUND[2]), EVERYTHING)
    # 20 of 40 pixels aren't more than a half; the dog takes all the grass, and void counts on neither side.
    assert kinds(second.truths) == [("missed", 0, 0.5), ("missed", 1, 1.0)]
    assert kinds(second.predicted) == [("false", 0, 0.5), ("false", 1, 1.0)]
    assert second.mistakes == 4 and second.quality == 0


def test_void_and_crowds_excuse_and_other_categories_do_not_count():
    there, found = as_regions(THERE[2]), as_regions(FOUND[2])
    there.pixels[4:7, :7] = 0  # 28 of the dog's 40 pixels lie in void now
    assert [one.kind for one in match_regions(there, found, EVERYTHING).predicted] == ["false", "ignored"]
    there = as_regions(THERE[2])
    there.segments[1] |= {"category_id": 2, "iscrowd": 1}
    matched = match_regions(there, found, EVERYTHING)
    assert [one.kind for one in matched.truths] == ["missed", "crowd"] and matched.predicted[1].kind == "ignored"
    matched = match_regions(as_regions(THERE[2]), as_regions([]), {21})
    assert kinds(matched.truths) == [("missed", None, 0.0), ("uncounted", None, 0.0)] and matched.quality == 0
    assert match_regions(as_regions([]), as_regions([]), EVERYTHING).quality is None


def random_regions(generator, count, crowds):
    """Rectangles on top of each other, some of them void."""
    ids = np.zeros((30, 40), np.int32)
    for number in range(1, count + 1):
        y, x = generator.integers(0, 25), generator.integers(0, 35)
        ids[y : y + generator.integers(5, 25), x : x + generator.integers(5, 30)] = number * (generator.random() < 0.9)
    segments = [
        {
            "id": int(number),
            "category_id": int(generator.integers(1, 5)),
            "iscrowd": int(crowds and generator.random() < 0.3),
        }
        for number in np.unique(ids[ids > 0])
    ]
    return ImageRegions(ids, segments)


def moved(generator, truth):
    """What a model may find: the segments a little aside, some of another class."""
    ids = np.roll(truth.pixels, generator.integers(-4, 5, 2), (0, 1))
    other = generator.random(len(truth.segments)) < 0.2
    segments = [
        {"id": one["id"], "category_id": one["category_id"] % 4 + 1 if wrong else one["category_id"]}
        for one, wrong in zip(truth.segments, other, strict=True)
    ]
    return ImageRegions(ids, segments)


def test_the_counts_are_those_of_panoptic_quality():
    generator, seen = np.random.default_rng(0), set()
    for image_id in range(150):
        truth = random_regions(generator, generator.integers(0, 8), crowds=True)
        found = moved(generator, truth)
        matched = match_regions(truth, found, {1, 2, 3, 4})
        quality = PanopticQuality([Category(1, "a"), Category(2, "b")], [Category(3, "c"), Category(4, "d")])
        quality.add(image_id, truth.pixels, truth.segments, found.pixels, found.segments)
        for row in quality.results().per_class:
            mine = [o for o, s in zip(matched.truths, truth.segments, strict=True) if s["category_id"] == row["id"]]
            others = [
                o for o, s in zip(matched.predicted, found.segments, strict=True) if s["category_id"] == row["id"]
            ]
            counts = [sum(one.kind == kind for one in mine) for kind in ("matched", "missed")]
            assert [*counts, sum(one.kind == "false" for one in others)] == [row["tp"], row["fn"], row["fp"]]
            if row["tp"]:
                assert np.mean([one.iou for one in mine if one.kind == "matched"]) == pytest.approx(row["SQ"])
            seen |= {one.kind for one in mine} | {one.kind for one in others}
    assert seen == {"matched", "missed", "crowd", "false", "ignored"}


def test_the_overlap_of_classes_is_that_of_semantic_iou():
    generator, stuff = np.random.default_rng(1), [Category(7, "sky"), Category(9, "sea")]
    for image_id in range(30):
        truth = np.kron(generator.choice([0, 1, 2, 255], (3, 4)), np.ones((5, 5))).astype(np.uint8)
        found = np.where(generator.random(truth.shape) < 0.6, truth % 3, 0).astype(np.uint8)
        matched = compare_class_regions(make_class_regions(truth, stuff), make_class_regions(found, stuff))
        counted = SemanticIoU(stuff)
        counted.add(image_id, truth, found)
        results = counted.results()
        expected = [row["IoU"] for row in results.per_class if row["IoU"] is not None]
        assert [one.iou for one in matched.truths] == pytest.approx(expected)
        assert matched.quality == (None if results.mIoU is None else pytest.approx(results.mIoU))
