"""LVIS's protocol: cases worked out by hand, figures of lvis-api, and the same by both programs."""

import io
import json
import types

import pytest
from pycocotools import mask as coco_mask
from rich.console import Console

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import DetectionConfig
from mrcnn_tf.evaluation import evaluate_model
from mrcnn_tf.evaluation.average_precision import BACKENDS, evaluate_detections
from mrcnn_tf.evaluation.instance_ground_truth import read_instance_ground_truth
from mrcnn_tf.evaluation.lvis import METRICS

SIDE = 300  # of every image, pixels
CATEGORIES = [
    {"id": 4, "name": "owl", "frequency": "r"},
    {"id": 9, "name": "cup", "frequency": "c"},
    {"id": 12, "name": "dog", "frequency": "f"},
    {"id": 20, "name": "pen", "frequency": "c"},
]
# lvis 0.5.3 from PyPI, LVISEval(truth, [record without the other of bbox and segmentation], kind).run() on made_up().
LVIS_API = {
    "bbox": {
        "AP": 0.15302673,
        "AP50": 0.28270157,
        "AP75": 0.17324837,
        "APs": 0.1087963,
        "APm": 0.22072624,
        "APl": 0.26950758,
        "APr": 0.15240649,
        "APc": 0.12089868,
        "APf": 0.21790307,
        "AR300": 0.48625,
        "ARs": 0.25,
        "ARm": 0.77222222,
        "ARl": 0.7525,
    },
    "segm": {
        "AP": 0.06697964,
        "AP50": 0.10823563,
        "AP75": 0.05890772,
        "APs": 0.0664529,
        "APm": 0.1284639,
        "APl": 0.08832862,
        "APr": 0.09764851,
        "APc": 0.0550495,
        "APf": 0.06017102,
        "AR300": 0.33625,
        "ARs": 0.21666667,
        "ARm": 0.6,
        "ARl": 0.4675,
    },
}


def image(image_id=1, absent=(), incomplete=()):
    lists = {"neg_category_ids": list(absent), "not_exhaustive_category_ids": list(incomplete)}
    return {"id": image_id, "file_name": f"{image_id}.jpg", "height": SIDE, "width": SIDE} | lists


def polygon(box):
    """A rectangle, or half of one where x is odd, so that masks differ from boxes."""
    x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, *(() if x % 2 else (x, y + h))]


def truth(box, category_id=4, image_id=1, **keys):
    return {"image_id": image_id, "category_id": category_id, "bbox": list(box), "area": box[2] * box[3]} | keys


def found(box, score=0.9, category_id=4, image_id=1):
    return {"image_id": image_id, "category_id": category_id, "bbox": list(box), "score": score}


@pytest.fixture
def annotate(tmp_path):
    """Writes a json of these images and annotations and gives its path."""

    def write(annotations, images=None, categories=CATEGORIES):
        numbered = [{"id": number} | annotation for number, annotation in enumerate(annotations, 1)]
        data = {"images": images or [image()], "categories": categories, "annotations": numbered}
        path = tmp_path / "lvis.json"
        path.write_text(json.dumps(data))
        return path

    return write


BOX, ELSEWHERE = [10, 10, 40, 40], [100, 100, 40, 40]


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_nobody_looked_for_is_not_counted(annotate, backend):
    # Without the lists, the better scored false detections halve the precision: AP 0.5.
    results = [found(BOX, 0.5), found(ELSEWHERE, 0.9)]
    second = found(BOX, 0.9, image_id=2)
    for absent, incomplete, expected in (((), (), 0.5), ((), (4,), 1.0)):
        path = annotate([truth(BOX)], [image(1, absent, incomplete), image(2)])
        outcome = evaluate_detections([*results, second], path, backend=backend)
        assert outcome.bbox["AP"] == pytest.approx(expected, abs=1e-6), "image 2 was not searched for owls"
    path = annotate([truth(BOX)], [image(1, (), (4,)), image(2, absent=[4])])
    outcome = evaluate_detections([*results, second], path, backend=backend)
    assert outcome.bbox["AP"] == pytest.approx(0.5, abs=1e-6), "image 2 was, and has none"


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_group_of_categories_has_its_mean(annotate, backend):
    path = annotate([truth(BOX, 4), truth(BOX, 9), truth(BOX, 12), truth(BOX, 20)])
    outcome = evaluate_detections([found(BOX, category_id=9), found(BOX, category_id=12)], path, backend=backend)
    figures = {name: outcome.bbox[name] for name in ("AP", "APr", "APc", "APf", "AR300")}
    assert figures == pytest.approx({"AP": 0.5, "APr": 0, "APc": 0.5, "APf": 1, "AR300": 0.5}, abs=1e-6)
    assert tuple(outcome.bbox) == METRICS
    assert [row["bbox_AP"] for row in outcome.per_class] == pytest.approx([0, 1, 1, 0], abs=1e-6)
    assert outcome.to_json()["bbox"]["APr"] == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_three_hundred_detections_of_an_image_count(annotate, backend):
    path = annotate([truth(BOX)], [image(absent=[9])])
    better = [found(ELSEWHERE, 0.9, category_id=9)] * 299
    assert evaluate_detections([*better, found(BOX, 0.5)], path, backend=backend).bbox["AR300"] == pytest.approx(1)
    better.append(better[0])
    assert evaluate_detections([*better, found(BOX, 0.5)], path, backend=backend).bbox["AR300"] == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_crowds_count_as_objects_and_are_named(annotate, backend):
    path = annotate([truth(BOX, iscrowd=1)])
    outcome = evaluate_detections([found(BOX)], path, backend=backend)
    assert outcome.bbox["AP"] == pytest.approx(1, abs=1e-6)
    assert any("1 crowds" in note for note in outcome.notes)


def made_up():
    """(LVIS json, detections with boxes and masks): arithmetic in place of chance, so that no library can change it."""
    number = iter(range(10**6))

    def pick(below):
        return (next(number) * 7919 + 104729) % 10007 % below

    images, annotations, results = [], [], []
    for image_id in range(1, 13):
        present = set()
        for _ in range(pick(6)):
            box = [pick(150), pick(150), *((8, 25, 60, 140)[pick(4)] for _ in range(2))]
            category_id = CATEGORIES[pick(4)]["id"]
            present.add(category_id)
            record = truth(box, category_id, image_id, id=len(annotations) + 1, segmentation=[polygon(box)])
            annotations.append(record)
            for _ in range(pick(3)):
                shifted = [max(0, side + pick(9) - 4) + (place > 1) for place, side in enumerate(box)]
                results.append(found(shifted, (1 + pick(20)) / 20, category_id, image_id))
        for _ in range(pick(25)):
            box = [pick(150), pick(150), *((8, 25, 60, 140)[pick(4)] for _ in range(2))]
            results.append(found(box, (1 + pick(20)) / 20, CATEGORIES[pick(4)]["id"], image_id))
        others = [category["id"] for category in CATEGORIES if category["id"] not in present]
        images.append(image(image_id, others[: pick(3)], sorted(present)[: pick(2)]))
    return {"images": images, "categories": CATEGORIES, "annotations": annotations}, results


@pytest.mark.parametrize("backend", BACKENDS)
def test_figures_are_those_of_lvis_api(annotate, backend):
    data, results = made_up()
    results = [result | {"segmentation": rle_of(result["bbox"])} for result in results]
    outcome = evaluate_detections(results, annotate(data["annotations"], data["images"]), backend=backend)
    for kind in ("bbox", "segm"):
        assert getattr(outcome, kind) == pytest.approx(LVIS_API[kind], abs=1e-6)


def rle_of(box):
    rle = coco_mask.frPyObjects([polygon(box)], SIDE, SIDE)[0]
    return {"size": [SIDE, SIDE], "counts": rle["counts"].decode()}


def test_without_frequencies_the_groups_have_no_figures(annotate):
    categories = [{"id": category["id"], "name": category["name"]} for category in CATEGORIES]
    outcome = evaluate_detections([found(BOX)], annotate([truth(BOX)], categories=categories))
    assert outcome.bbox["AP"] == pytest.approx(1, abs=1e-6) and outcome.bbox["APr"] is None
    assert any("No APr" in note for note in outcome.notes)


@pytest.mark.parametrize("wrong", [{}, {"neg_category_ids": [4]}, {"neg_category_ids": "4"}])
def test_an_image_without_the_lists_is_refused_with_a_remedy(annotate, wrong):
    bare = {"id": 2, "file_name": "2.jpg", "height": SIDE, "width": SIDE}
    with pytest.raises(UserError, match="image 2 has no list of category ids as n.*COCO's protocol"):
        evaluate_detections([], annotate([truth(BOX)], [image(), bare | wrong]))
    lists = "neg_category_ids", "not_exhaustive_category_ids"
    one = {name: value for name, value in image().items() if name not in lists}
    outcome = evaluate_detections([found(BOX)], annotate([truth(BOX)], [one, bare]))  # the remedy
    assert "AR100" in outcome.bbox and "APr" not in outcome.bbox and outcome.notes == []


def test_table_and_logs_have_the_groups(annotate):
    outcome = evaluate_detections([found(BOX)], annotate([truth(BOX), truth(BOX, 9)]))
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(outcome.table())
    cells = [line.split("│") for line in console.export_text().splitlines() if "│" in line]
    rows = {name.strip(): box.strip() for _, name, box, *_ in cells}
    assert (rows["APr"], rows["APc"], rows["APf"], rows["AR300"]) == ("1.000", "0.000", "–", "0.500")
    logged = dict(evaluate_model._metrics_to_log(outcome))
    assert logged["bbox_APr"] == pytest.approx(1, abs=1e-6) and logged["bbox_APc"] == 0 and logged["bbox_APf"] is None


@pytest.mark.parametrize(("most", "is_lvis", "noted"), [(100, True, True), (300, True, False), (100, False, False)])
def test_a_model_that_gives_fewer_detections_says_so(annotate, most, is_lvis, noted):
    images = [image()] if is_lvis else [{"id": 1, "file_name": "1.jpg", "height": SIDE, "width": SIDE}]
    head = types.SimpleNamespace(detections=DetectionConfig(max_per_image=most))
    model = types.SimpleNamespace(heads=[types.SimpleNamespace(), head])
    notes = evaluate_model._notes_on_detection_limit(model, read_instance_ground_truth(annotate([], images)))
    assert bool(notes) == noted and ("max_per_image=300" in "".join(notes)) == noted
