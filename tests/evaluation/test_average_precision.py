"""COCO's figures on cases small enough to work out by hand, and on files that pycocotools alone would trip over."""

import io
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.evaluation.average_precision import METRICS, evaluate_detections
from mrcnn_tf.evaluation.instance_ground_truth import read_instance_ground_truth
from mrcnn_tf.explain.inspection.inspect_data import read_detections

SIZE = 100  # of every image, both sides
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 90, "name": "brush"}]


def mask_of(box):
    x, y, w, h = box
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[y : y + h, x : x + w] = 1
    return mask


def rle_of(box):
    rle = coco_mask.encode(np.asfortranarray(mask_of(box)))
    return {"size": [SIZE, SIZE], "counts": rle["counts"].decode()}


def runs_of(box):
    flat = mask_of(box).ravel(order="F")
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1, [flat.size]])
    return {"size": [SIZE, SIZE], "counts": np.diff(bounds).tolist()}


def polygon_of(box):
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def truth(box, image_id=1, category_id=3, **keys):
    return {"image_id": image_id, "category_id": category_id, "bbox": list(box), "segmentation": rle_of(box)} | keys


def found(box, score=0.9, image_id=1, category_id=3, **keys):
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": list(box),
        "score": score,
        "segmentation": rle_of(box),
    } | keys


@pytest.fixture
def annotate(tmp_path):
    """Writes a COCO json with these annotations, ids from 0, and gives its path."""

    def write(annotations, image_ids=(1,), **keys):
        data = {
            "images": [{"id": i, "file_name": f"{i}.png", "width": SIZE, "height": SIZE} for i in image_ids],
            "categories": CATEGORIES,
            "annotations": [{"id": i} | a for i, a in enumerate(annotations)],
        }
        path = tmp_path / "truth.json"
        path.write_text(json.dumps(data | keys))
        return path

    return write


def test_a_perfect_detection_scores_one(annotate):
    path = annotate([truth([10, 10, 40, 40])])
    outcome = evaluate_detections([found([10, 10, 40, 40])], path)
    assert outcome.images == 1
    for figures in (outcome.bbox, outcome.segm):
        assert {name: figures[name] for name in ("AP", "AP50", "AP75", "APm", "AR1", "AR100", "ARm")} == pytest.approx(
            dict.fromkeys(("AP", "AP50", "AP75", "APm", "AR1", "AR100", "ARm"), 1.0)
        )
        # 40 x 40 pixels are medium; there is nothing small or large to find.
        assert [figures[name] for name in ("APs", "APl", "ARs", "ARl")] == [None] * 4


def test_a_shifted_box_counts_up_to_its_iou(annotate):
    # Shifted by 8 of 40 pixels: IoU 32 / 48 = 0.667, a match at .5, .55, .6 and .65, four of ten thresholds.
    outcome = evaluate_detections([found([18, 10, 40, 40])], annotate([truth([10, 10, 40, 40])]))
    for figures in (outcome.bbox, outcome.segm):
        assert (figures["AP"], figures["AP50"], figures["AP75"]) == pytest.approx((0.4, 1.0, 0.0))


def test_boxes_and_masks_are_scored_apart(annotate):
    # A perfect box whose mask covers only a quarter of the truth.
    outcome = evaluate_detections(
        [found([10, 10, 40, 40], segmentation=rle_of([10, 10, 20, 20]))], annotate([truth([10, 10, 40, 40])])
    )
    assert (outcome.bbox["AP"], outcome.segm["AP"]) == pytest.approx((1.0, 0.0))


def test_a_higher_scored_false_positive_halves_the_precision(annotate):
    results = [found([60, 60, 30, 30], score=0.95), found([10, 10, 40, 40], score=0.5)]
    outcome = evaluate_detections(results, annotate([truth([10, 10, 40, 40])]))
    assert outcome.bbox["AP"] == pytest.approx(0.5)
    assert (outcome.bbox["AR1"], outcome.bbox["AR10"]) == pytest.approx((0.0, 1.0))


def test_one_of_two_found_reaches_half_of_the_recalls(annotate):
    outcome = evaluate_detections(
        [found([10, 10, 40, 40])], annotate([truth([10, 10, 40, 40]), truth([55, 55, 40, 40])])
    )
    assert outcome.bbox["AP"] == pytest.approx(51 / 101)  # precision 1 at recalls 0, .01, ... .5
    assert outcome.bbox["AR100"] == pytest.approx(0.5)


def test_classes_are_scored_by_their_sparse_ids(annotate):
    path = annotate([truth([10, 10, 40, 40]), truth([55, 55, 40, 40], category_id=90)], image_ids=(1, 1000007))
    outcome = evaluate_detections([found([55, 55, 40, 40], category_id=90)], path)
    assert outcome.bbox["AP"] == pytest.approx(0.5)
    figures = ("bbox_AP", "bbox_AP50", "segm_AP", "segm_AP50")
    for row, key, name, value in zip(outcome.per_class, (3, 90), ("cat", "brush"), (0, 1), strict=True):
        assert (row["id"], row["name"]) == (key, name)
        assert [row[figure] for figure in figures] == pytest.approx([value] * 4)


def test_ap50_of_a_class_takes_only_the_first_threshold(annotate):
    outcome = evaluate_detections([found([18, 10, 40, 40])], annotate([truth([10, 10, 40, 40])]))
    row = outcome.per_class[0]
    assert (row["bbox_AP"], row["bbox_AP50"], row["segm_AP"], row["segm_AP50"]) == pytest.approx((0.4, 1, 0.4, 1))
    assert outcome.per_class[1]["bbox_AP"] is None


def test_no_detections_score_zero(annotate):
    outcome = evaluate_detections([], annotate([truth([10, 10, 40, 40])]))
    assert outcome.bbox["AP"] == outcome.segm["AP"] == outcome.bbox["AR100"] == 0.0


def test_no_ground_truth_has_no_figures(annotate):
    outcome = evaluate_detections([found([10, 10, 40, 40])], annotate([]))
    assert set(outcome.bbox.values()) == {None}
    assert outcome.segm is None


def test_a_detection_in_an_image_without_ground_truth_is_a_false_positive(annotate):
    path = annotate([truth([10, 10, 40, 40])], image_ids=(1, 2))
    results = [found([10, 10, 40, 40], score=0.5), found([10, 10, 40, 40], score=0.9, image_id=2)]
    assert evaluate_detections(results, path).bbox["AP"] == pytest.approx(0.5)
    assert evaluate_detections(results, path, image_ids=[1]).bbox["AP"] == pytest.approx(1.0)


@pytest.mark.parametrize("encode", [rle_of, runs_of], ids=["compressed", "uncompressed"])
def test_a_crowd_neither_counts_nor_hurts(annotate, encode):
    crowd = truth([50, 50, 50, 50], iscrowd=1, segmentation=encode([50, 50, 50, 50]))
    path = annotate([truth([10, 10, 30, 30]), crowd])
    results = [found([10, 10, 30, 30], score=0.5), found([55, 55, 10, 10]), found([70, 70, 20, 20])]
    outcome = evaluate_detections(results, path)
    assert (outcome.bbox["AP"], outcome.segm["AP"]) == pytest.approx((1.0, 1.0))


@pytest.mark.parametrize("encode", [rle_of, runs_of, polygon_of])
def test_every_way_to_write_a_mask_gives_the_same(annotate, encode):
    path = annotate([truth([10, 10, 40, 40], segmentation=encode([10, 10, 40, 40]))])
    assert evaluate_detections([found([10, 10, 40, 40])], path).segm["AP"] == pytest.approx(1.0)


def test_an_instance_of_several_polygons_is_one_mask(annotate):
    path = annotate([truth([10, 10, 40, 40], segmentation=polygon_of([10, 10, 20, 40]) + polygon_of([30, 10, 20, 40]))])
    assert evaluate_detections([found([10, 10, 40, 40])], path).segm["AP"] == pytest.approx(1.0)


def test_a_box_dataset_has_no_mask_figures(annotate):
    box = {"image_id": 1, "category_id": 3, "bbox": [10, 10, 40, 40]}
    outcome = evaluate_detections([found([10, 10, 40, 40])], annotate([box]))
    assert (outcome.bbox["AP"], outcome.segm) == (pytest.approx(1.0), None)
    assert outcome.skipped == []


def test_a_missing_box_is_that_of_the_mask(annotate):
    record = truth([10, 10, 40, 40])
    del record["bbox"]
    assert evaluate_detections([found([10, 10, 40, 40])], annotate([record])).bbox["AP"] == pytest.approx(1.0)


def test_the_size_of_a_detected_mask_is_its_own_area(annotate):
    # The unmatched mask is small (10 x 10) though its box is large, so it's no false positive among large instances.
    path = annotate([truth([0, 0, 98, 98])])
    stray = found([0, 0, 97, 100], score=0.99, segmentation=rle_of([0, 0, 10, 10]))
    outcome = evaluate_detections([found([0, 0, 98, 98], score=0.5), stray], path)
    assert outcome.segm["APl"] == pytest.approx(1.0)
    assert outcome.segm["AP"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"image_id": 5}, "no image 5"),
        ({"category_id": 4}, "no category 4"),
        ({"segmentation": []}, "it has no segmentation"),
        ({"segmentation": [[1, 2, 3, 4]]}, "it has no polygon of 3 points"),
        ({"segmentation": {"size": [10, 10], "counts": [100]}}, r"size \[10, 10\]"),
        ({"segmentation": {"size": [SIZE, SIZE], "counts": [100]}}, "does not cover"),
        ({"segmentation": {"size": [SIZE, SIZE], "counts": "0=c3000"}}, "does not cover"),
        ({"segmentation": {"size": [SIZE, SIZE], "counts": None}}, "an RLE without size"),
        ({"segmentation": None, "bbox": [1, 2, None, 4]}, "neither a box"),
    ],
)
def test_what_cannot_be_evaluated_is_named(annotate, keys, reason):
    path = annotate([truth([10, 10, 40, 40]), truth([60, 60, 30, 30]) | keys])
    outcome = evaluate_detections([found([10, 10, 40, 40])], path)
    assert len(outcome.skipped) == 1
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(outcome.skipped[0])
    assert "annotation 1" in outcome.skipped[0]
    if outcome.segm:
        assert outcome.segm["AP"] == pytest.approx(1.0)


def test_images_that_cannot_be_told_apart_are_left_out_and_named(annotate):
    images = [{"id": 1, "width": SIZE, "height": SIZE}, {"id": 1, "width": 2, "height": 2}, {"file_name": "a.png"}]
    outcome = evaluate_detections([found([10, 10, 40, 40])], annotate([truth([10, 10, 40, 40])], images=images))
    assert outcome.images == 1 and outcome.bbox["AP"] == pytest.approx(1.0)
    twice, without = outcome.skipped
    assert "image 1 is left out: it has an id that was used before" in twice and "it has no id" in without


def test_detections_and_truth_of_images_whose_ids_are_names(annotate, tmp_path):
    names = ["town_000000_000019", "town_000001_000019"]
    images = [{"id": name, "width": SIZE, "height": SIZE} for name in names]
    path = annotate([truth([10, 10, 40, 40], image_id=name) for name in names], images=images)
    results = [found([10, 10, 40, 40]) | {"image_id": name, "category_id": "3"} for name in names]
    (tmp_path / "found.json").write_text(json.dumps(results))
    read = read_detections(tmp_path / "found.json")
    outcome = evaluate_detections(read, path)
    assert outcome.images == 2 and outcome.bbox["AP"] == outcome.segm["AP"] == pytest.approx(1.0)
    assert outcome.skipped == [] and read_instance_ground_truth(path).image_names == dict(
        zip((result["image_id"] for result in read), names, strict=True)
    )


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_figures_are_those_of_pycocotools(annotate, capsys, kind):
    rng = np.random.default_rng(0)
    boxes = [[int(v) for v in (*rng.integers(0, 50, 2), *rng.integers(5, 50, 2))] for _ in range(30)]
    records = [
        truth(b, image_id=1 + i % 3, category_id=(3, 90)[i % 2], id=i + 1, iscrowd=int(i == 7), area=b[2] * b[3])
        for i, b in enumerate(boxes)
    ]
    path = annotate(records, image_ids=(1, 2, 3, 4))
    results = [
        found(
            [*np.add(b[:2], rng.integers(-4, 5, 2)).clip(0).tolist(), *b[2:]],
            score=float(rng.random()),
            image_id=1 + i % 3,
            category_id=(3, 90)[i % 2],
        )
        for i, b in enumerate(boxes)
    ]
    reference = COCO(path)
    # With a box in the record, loadRes would take the box's area for the mask's.
    records = [{key: r[key] for key in r if kind == "bbox" or key != "bbox"} for r in results]
    evaluation = COCOeval(reference, reference.loadRes(json.loads(json.dumps(records))), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    capsys.readouterr()
    outcome = evaluate_detections(results, path)
    assert capsys.readouterr().out == ""
    figures = [-1 if value is None else value for value in getattr(outcome, kind).values()]
    assert figures == pytest.approx(evaluation.stats.tolist())
    assert 0.05 < figures[0] < 0.95


def test_the_model_may_know_fewer_categories(annotate):
    path = annotate([truth([10, 10, 40, 40]), truth([55, 55, 40, 40], category_id=90)])
    outcome = evaluate_detections([found([10, 10, 40, 40])], path, categories=[Category(3, "cat")])
    assert outcome.bbox["AP"] == pytest.approx(1.0)
    with pytest.raises(UserError, match="no category 8 .dog."):
        evaluate_detections([], path, categories=[Category(8, "dog")])


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"image_id": 9}, "image 9"),
        ({"category_id": 1}, "image 1 is of category 1"),
        ({"segmentation": {"size": [50, 80], "counts": ""}}, r"\[50, 80\].*\[100, 100\]"),
    ],
)
def test_detections_of_another_dataset_are_refused(annotate, keys, reason):
    with pytest.raises(UserError, match=reason):
        evaluate_detections([found([10, 10, 40, 40]) | keys], annotate([truth([10, 10, 40, 40])]))


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"images": []}, "no images"),
        ({"images": [{"id": 1}]}, "image 1 has no"),
        ({"categories": {}}, '"categories"'),
        ({"categories": ["cat"]}, "Category cat"),
    ],
)
def test_a_wrong_json_is_refused(annotate, keys, reason):
    with pytest.raises(UserError, match=reason):
        evaluate_detections([], annotate([], **keys))


def test_a_missing_or_broken_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="nowhere.json"):
        evaluate_detections([], tmp_path / "nowhere.json")
    (tmp_path / "half.json").write_text('{"images": [')
    with pytest.raises(UserError, match="half.json isn't valid json"):
        evaluate_detections([], tmp_path / "half.json")


def test_table_and_json_tell_zero_from_unknown(annotate):
    outcome = evaluate_detections([found([18, 10, 40, 40])], annotate([truth([10, 10, 40, 40])]))
    plain = json.loads(json.dumps(outcome.to_json(), allow_nan=False))
    assert plain["bbox"]["AP75"] == 0.0 and plain["bbox"]["APs"] is None
    assert list(plain["segm"]) == list(METRICS)
    screen = io.StringIO()
    Console(width=100, file=screen).print(outcome.table())
    rows = {line.split("│")[1].strip(): line for line in screen.getvalue().splitlines() if line.startswith("│")}
    assert "0.400" in rows["AP"] and "0.000" in rows["AP75"] and "–" in rows["APs"]
    assert "0.400" in rows["cat"] and "–" in rows["brush"]
