"""Object keypoint similarity and its figures: against pycocotools by itself, the formula, and cases done by hand."""

import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.evaluation.average_precision import KEYPOINT_METRICS, evaluate_detections, run_keypoint_protocol
from mrcnn_tf.evaluation.instance_ground_truth import COCO_SIGMAS, read_instance_ground_truth

PERSON = {"id": 1, "name": "person", "keypoints": list(COCO_SIGMAS)}
ARROW = {"id": 4, "name": "arrow", "keypoints": ["tip", "tail"]}
KITE = {"id": 9, "name": "kite", "keypoints": ["top", "left", "bottom", "right"]}
STONE = {"id": 11, "name": "stone"}
AREA = 1600  # of most annotations here: 40 x 40 pixels


def truth(points, category=ARROW, image_id=1, **keys):
    """An annotation; points [P, 3] x, y, v."""
    numbers = np.asarray(points, float).ravel().tolist()
    record = {"image_id": image_id, "category_id": category["id"], "bbox": [10, 10, 40, 40], "area": AREA}
    return record | {"keypoints": numbers} | keys


def found(points, category=ARROW, score=0.9, image_id=1, **keys):
    """A detection; points [P, 2]."""
    points = np.asarray(points, float)
    numbers = np.concatenate([points, np.full((len(points), 1), 0.5)], axis=1).ravel().tolist()
    record = {"image_id": image_id, "category_id": category["id"], "bbox": [10, 10, 40, 40], "score": score}
    return record | {"keypoints": numbers} | keys


@pytest.fixture
def annotate(tmp_path):
    """Writes a COCO json with these annotations and gives its path."""

    def write(annotations, categories=(ARROW,), images=1):
        path = tmp_path / "truth.json"
        data = {
            "images": [{"id": i + 1, "file_name": f"{i}.png", "width": 200, "height": 200} for i in range(images)],
            "categories": list(categories),
            "annotations": [{"id": i + 1} | a for i, a in enumerate(annotations)],
        }
        path.write_text(json.dumps(data))
        return path

    return write


VISIBLE = [[20, 20, 2], [40, 20, 2]]
AT = [[20, 20], [40, 20]]


def aside(distance):
    return [[20, 20 + distance], [40, 20 + distance]]


def distance_of(oks, sigma=0.05):
    """Pixels at which a keypoint of an object of `AREA` has this similarity."""
    return 2 * sigma * np.sqrt(2 * AREA * -np.log(oks))


def people(rng):
    """(annotations, detections) of COCO's keypoints in three images: of many sizes, with crowds and unlabelled ones."""
    annotations, detections = [], []
    for number in range(30):
        side, corner = rng.uniform(20, 150), rng.uniform(0, 50, 2)
        points = corner + rng.uniform(0, side, (17, 2))
        visibility = rng.integers(0, 3, 17) * (number % 7 != 3)
        box = {"bbox": [*corner.tolist(), side, side], "area": side * side * 0.6}
        labels = np.concatenate([points * (visibility > 0)[:, None], visibility[:, None]], axis=1)
        keys = {"image_id": 1 + number % 3, "iscrowd": int(number == 8), "num_keypoints": int((visibility > 0).sum())}
        annotations.append(truth(labels, PERSON) | box | keys)
        for _ in range(number % 3):
            moved = points + rng.normal(0, side * rng.uniform(0.01, 0.12), (17, 2))
            score = float(rng.random())
            detections.append(found(moved, PERSON, score, 1 + number % 3, bbox=[0, 0, 5, 5]))
    return annotations, detections


def test_figures_are_those_of_pycocotools(annotate, capsys):
    annotations, detections = people(np.random.default_rng(1))
    path = annotate(annotations, [PERSON], images=3)
    reference = COCO(path)
    # COCO's format of keypoint results has no box; loadRes would take the size from it.
    records = [{key: value for key, value in one.items() if key != "bbox"} for one in detections]
    evaluation = COCOeval(reference, reference.loadRes(json.loads(json.dumps(records))), "keypoints")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    capsys.readouterr()
    outcome = evaluate_detections(detections, path)
    assert capsys.readouterr().out == ""
    assert tuple(outcome.keypoints) == KEYPOINT_METRICS
    assert list(outcome.keypoints.values()) == pytest.approx(evaluation.stats.tolist())
    assert all(0.02 < value < 0.98 for value in outcome.keypoints.values())
    assert outcome.per_class[0]["keypoints_AP"] == pytest.approx(outcome.keypoints["AP"])
    assert outcome.per_class[0]["keypoints_AP50"] == pytest.approx(outcome.keypoints["AP50"])
    assert outcome.notes == outcome.skipped == []


@pytest.mark.parametrize("sigmas", [[0.05, 0.05], [0.02, 0.3]])
def test_similarity_is_the_published_formula(annotate, sigmas):
    labels = np.array([[20, 20, 2], [45, 30, 1]])
    guess = np.array([[23, 24], [44, 28]])
    similarity = run_keypoint_protocol(
        read_instance_ground_truth(annotate([truth(labels)])), [found(guess)], [1], {4: np.array(sigmas)}
    ).ious[1, 4]
    distances = np.hypot(*(guess - labels[:, :2]).T)  # 5 and sqrt(5) pixels
    expected = np.exp(-(distances**2) / (2 * AREA * (2 * np.array(sigmas)) ** 2)).mean()
    np.testing.assert_allclose(similarity, [[expected]], rtol=1e-12)


def test_unlabelled_keypoints_do_not_count(annotate):
    path = annotate([truth([[20, 20, 2], [0, 0, 0]])])
    assert evaluate_detections([found([[20, 20], [150, 150]])], path).keypoints["AP"] == pytest.approx(1.0)


@pytest.mark.parametrize("oks", [0.52, 0.77, 0.93])
def test_a_detection_counts_up_to_its_similarity(annotate, oks):
    path = annotate([truth(VISIBLE)])
    outcome = evaluate_detections([found(aside(distance_of(oks)))], path)
    expected = sum(threshold <= oks for threshold in np.arange(50, 100, 5) / 100) / 10
    assert outcome.keypoints["AP"] == pytest.approx(expected)
    assert outcome.keypoints["AP75"] == pytest.approx(float(oks > 0.75))
    # Boxes are scored by themselves.
    assert outcome.bbox["AP"] == pytest.approx(1.0)


def test_sigmas_of_the_dataset_are_taken(annotate):
    path = annotate([truth(VISIBLE)])
    results = [found(aside(distance_of(0.52, sigma=0.1)))]
    assert evaluate_detections(results, path).keypoints["AP50"] == 0
    outcome = evaluate_detections(results, path, sigmas={"arrow": [0.1, 0.1]})
    assert outcome.keypoints["AP"] == pytest.approx(0.1)
    assert outcome.notes == []


def test_coco_sigmas_go_by_the_names_of_keypoints(annotate):
    # The same persons, their keypoints listed in another order.
    annotations, detections = people(np.random.default_rng(2))
    expected = evaluate_detections(detections, annotate(annotations, [PERSON], images=3)).keypoints
    order = np.random.default_rng(0).permutation(17)
    for record in annotations + detections:
        record["keypoints"] = np.reshape(record["keypoints"], (17, 3))[order].ravel().tolist()
    shuffled = PERSON | {"keypoints": [PERSON["keypoints"][i] for i in order]}
    outcome = evaluate_detections(detections, annotate(annotations, [shuffled], images=3))
    assert outcome.keypoints == pytest.approx(expected)


def test_guessed_sigmas_are_owned_up_to(annotate):
    square = [[20, 20, 2], [40, 20, 2], [40, 40, 2], [20, 40, 2]]
    path = annotate([truth(VISIBLE), truth(square, KITE)], [ARROW, KITE, STONE])
    results = [found(AT)]
    assert [sentence.split(" were ")[0] for sentence in evaluate_detections(results, path).notes] == [
        "The keypoints of arrow",
        "The keypoints of kite",
    ]
    assert len(evaluate_detections(results, path, sigmas={"kite": [0.1] * 4}).notes) == 1


def test_categories_with_other_keypoint_counts_are_averaged(annotate):
    square = np.array([[20, 20, 2], [40, 20, 2], [40, 40, 2], [20, 40, 2]])
    path = annotate([truth(VISIBLE), truth(square, KITE), truth([], STONE)], [ARROW, KITE, STONE, PERSON])
    stone = found(AT, STONE)
    del stone["keypoints"]
    results = [found(AT), found(square[:, :2] + [0, distance_of(0.62)], KITE), stone]
    outcome = evaluate_detections(results, path)
    # The arrow counts at all ten thresholds, the kite at .5, .55 and .6. No person is there to be found.
    assert outcome.keypoints["AP"] == pytest.approx((1.0 + 0.3) / 2)
    assert (outcome.keypoints["AP50"], outcome.keypoints["AP75"]) == pytest.approx((1.0, 0.5))
    assert outcome.keypoints["AR"] == pytest.approx((1.0 + 0.3) / 2)
    assert (outcome.keypoints["APm"], outcome.keypoints["APl"]) == (pytest.approx(0.65), None)
    found_ap = {row["name"]: (row["keypoints_AP"], row["keypoints_AP50"]) for row in outcome.per_class}
    assert found_ap == {
        "arrow": pytest.approx((1.0, 1.0)),
        "kite": pytest.approx((0.3, 1.0)),
        "stone": (None, None),
        "person": (None, None),
    }


def test_a_class_that_was_not_found_pulls_the_mean_down(annotate):
    square = [[20, 20, 2], [40, 20, 2], [40, 40, 2], [20, 40, 2]]
    path = annotate([truth(VISIBLE), truth(square, KITE)], [ARROW, KITE])
    assert evaluate_detections([found(AT)], path).keypoints["AP"] == pytest.approx(0.5)
    assert evaluate_detections([], path).keypoints["AP"] == 0
    outcome = evaluate_detections([found(AT)], path, categories=[Category(4, "arrow", ["tip", "tail"])])
    assert outcome.keypoints["AP"] == pytest.approx(1.0)


def test_at_most_twenty_detections_count(annotate):
    results = [found([[150, 150], [170, 150]], score=0.9) for _ in range(19)] + [found(AT, score=0.8)]
    path = annotate([truth(VISIBLE)])
    assert evaluate_detections(results, path).keypoints["AR"] == pytest.approx(1.0)
    assert evaluate_detections([*results[:1], *results], path).keypoints["AR"] == 0


@pytest.mark.parametrize("keys", [{}, {"num_keypoints": 2}])
def test_missing_counts_are_counted_and_given_ones_kept(annotate, keys):
    record = read_instance_ground_truth(annotate([truth([[20, 20, 2], [40, 20, 1]], **keys)])).annotations[0]
    assert record["num_keypoints"] == 2
    record = read_instance_ground_truth(annotate([truth([[20, 20, 2], [0, 0, 0]], num_keypoints=0)])).annotations[0]
    assert record["num_keypoints"] == 0


@pytest.mark.parametrize(
    ("keypoints", "reason"),
    [
        ([20, 20, 2], "3 numbers instead of 6"),
        ([20, 20, 2] * 3, "9 numbers instead of 6"),
        ([20, 20, 3, 40, 20, 2], "visibility"),
        ([20, 20, 0.5, 40, 20, 2], "visibility"),
        ([20, 20, 2, None, 20, 2], "aren't a list of numbers"),
        ([20, float("nan"), 2, 40, 20, 2], "not all numbers"),
        ({"tip": [20, 20]}, "aren't a list of numbers"),
    ],
)
def test_wrong_keypoints_are_named_and_their_instance_is_ignored(annotate, keypoints, reason):
    # A good arrow beside it, so that there is something to find.
    good = truth([[120, 120, 2], [140, 120, 2]], bbox=[110, 110, 40, 40])
    path = annotate([truth(VISIBLE) | {"keypoints": keypoints, "num_keypoints": 2}, good])
    results = [found(AT, score=0.99), found([[120, 120], [140, 120]], score=0.5, bbox=[110, 110, 40, 40])]
    outcome = evaluate_detections(results, path)
    assert len(outcome.skipped) == 1
    assert f"{path}: annotation 1: its keypoints" in outcome.skipped[0] or "annotation 1: the vis" in outcome.skipped[0]
    assert reason in outcome.skipped[0]
    assert (outcome.keypoints["AP"], outcome.bbox["AP"]) == pytest.approx((1.0, 1.0))
    assert evaluate_detections(results[1:], path).keypoints["AP"] == pytest.approx(1.0), "none to be found there either"


@pytest.mark.parametrize("keys", [{"keypoints": [0] * 6}, {"keypoints": []}, {"keypoints": None}])
def test_an_unlabelled_instance_is_neither_right_nor_wrong(annotate, keys):
    good = truth([[120, 120, 2], [140, 120, 2]], bbox=[110, 110, 40, 40])
    path = annotate([truth(VISIBLE) | keys, good])
    outcome = evaluate_detections([found(AT, score=0.99), found([[120, 120], [140, 120]], score=0.5)], path)
    assert outcome.keypoints["AP"] == pytest.approx(1.0)
    assert outcome.skipped == []


def test_without_keypoints_there_are_no_figures(annotate):
    box = {key: value for key, value in truth(VISIBLE).items() if key != "keypoints"}
    detection = {key: value for key, value in found(AT).items() if key != "keypoints"}
    in_neither = evaluate_detections([detection], annotate([box], [STONE | {"id": 4}]))
    in_truth = evaluate_detections([detection], annotate([truth(VISIBLE)]))
    in_detections = evaluate_detections([found(AT)], annotate([box]))
    for outcome in (in_neither, in_truth, in_detections):
        assert outcome.bbox["AP"] == pytest.approx(1.0)
        assert outcome.keypoints is None
        assert outcome.per_class[0]["keypoints_AP"] is None
        assert outcome.notes == outcome.skipped == []
        assert "keypoints" not in shown(outcome)


def test_the_model_may_name_the_keypoints(annotate):
    path = annotate([truth(VISIBLE)], [{"id": 4, "name": "arrow"}])
    outcome = evaluate_detections([found(AT)], path)
    assert outcome.keypoints is None and "its category names no keypoints" in outcome.skipped[0]
    outcome = evaluate_detections([found(AT)], path, categories=[Category(4, "arrow", ["tip", "tail"])])
    assert outcome.keypoints["AP"] == pytest.approx(1.0) and outcome.skipped == []


def test_other_keypoints_than_the_model_has_are_refused(annotate):
    path = annotate([truth(VISIBLE)])
    with pytest.raises(UserError, match=r"arrow\) tip, tail, the model tail, tip"):
        evaluate_detections([], path, categories=[Category(4, "arrow", ["tail", "tip"])])
    with pytest.raises(UserError, match=r"image 1 has 9 numbers .* category 4 .* 2 keypoints"):
        evaluate_detections([found([[1, 1]] * 3)], path)


@pytest.mark.parametrize(
    ("sigmas", "reason"),
    [
        ({"arow": [0.1, 0.1]}, "'arow'.*those with keypoints are arrow"),
        ({"stone": [0.1]}, "'stone', which has no keypoints"),
        ({"arrow": [0.1]}, "must be 2, one for each keypoint, not 1"),
        ({"arrow": [0.1, 0.0]}, "give 0.0 for tail"),
        ({"arrow": [float("nan"), 0.1]}, "give nan for tip"),
    ],
)
def test_wrong_sigmas_are_refused(annotate, sigmas, reason):
    with pytest.raises(UserError, match=reason):
        evaluate_detections([], annotate([truth(VISIBLE)], [ARROW, STONE]), sigmas=sigmas)


def shown(outcome):
    screen = io.StringIO()
    Console(width=120, file=screen).print(outcome.table())
    return screen.getvalue()


def test_table_and_json_have_a_column_of_keypoints(annotate):
    outcome = evaluate_detections([found(AT)], annotate([truth(VISIBLE)]))
    plain = json.loads(json.dumps(outcome.to_json(), allow_nan=False))
    assert plain["keypoints"]["AP"] == pytest.approx(1.0) and plain["keypoints"]["APl"] is None
    assert plain["per_class"][0]["keypoints_AP50"] == pytest.approx(1.0)
    lines = [line.split("│")[1:-1] for line in shown(outcome).splitlines() if line.startswith("│")]
    rows = {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}
    assert rows["AP"] == ["1.000", "–", "1.000"]
    assert rows["APl"] == ["–", "–", "–"]
    assert rows["APs"] == ["–", "–", ""] and rows["AR50"] == ["", "", "1.000"]  # figures that a kind hasn't got
    assert rows["arrow"] == ["1.000", "1.000", "–", "–", "1.000", "1.000"]
    assert "sigma of 0.05" in shown(outcome)
