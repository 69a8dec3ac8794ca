import copy
import json

import numpy as np
import pytest
from sound_dataset import BOXES, HEIGHT, WIDTH, Dataset, counts, outline
from spoilers import CASES, SPOILERS, change, change_image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.doctor import repair, validate
from mrcnn_tf.datasets.doctor.findings import PROBLEM_KINDS

# Nothing in the file tells what is missing.
HOPELESS = ("no_images", "no_annotations", "no_categories", "all_crowd")
# The file may turn up: the image and its objects stay as they are.
WAITING = ("missing_image", "image_fields", "skipped_image")

# Mended without loss: the copy is what the dataset was before it was spoilt.
RESTORED = {
    "misnamed_image": 0,
    "image_size": 0,
    "missing_size": 0,
    "duplicate_object": 0,
    "degenerate_box": 0,
    "outside_box": 0,
    "missing_box": 0,
    "bad_box": 0,
    "bad_polygon": 0,
    "flat_polygon": 0,
    "box_mask": 0,
    "area_mask": 0,
    "shared_file": 0,
    "normalised_polygons": 0,
    "swapped_polygons": 0,
    "normalised_boxes": 0,
    "corner_boxes": 0,
    "swapped_boxes": 0,
    "centre_boxes": 0,
}


def mend(dataset, tmp_path):
    report = dataset.check()
    fixed = repair(report, tmp_path / "mended")
    document = json.loads((tmp_path / "mended" / "train.json").read_text())
    log = [json.loads(line) for line in (tmp_path / "mended" / "fixes.jsonl").read_text().splitlines()]
    return fixed, document, log


@pytest.mark.parametrize(("kind", "spoil", "count"), CASES)
def test_a_mended_copy_has_no_errors(dataset, tmp_path, kind, spoil, count):
    spoil(dataset)
    before = dataset.write()[0], dataset.json.read_text()
    fixed, document, log = mend(dataset, tmp_path)
    assert dataset.json.read_text() == before[1]
    if kind in HOPELESS:
        return
    if kind in WAITING and fixed.report.has_errors():
        assert document["annotations"] == dataset.annotations and len(document["images"]) == 3
        return
    again = validate(tmp_path / "mended" / "train.json", dataset.images)
    assert not again.has_errors() and again.counts == fixed.report.counts
    if PROBLEM_KINDS[kind].fix and kind != "background_category":  # which has annotations here
        assert kind not in counts(again)
        assert kind in {entry["kind"] for entry in log}
    assert document["own"] == ["kept", 1] and document["info"] == {"description": "made up", "année": 2024}
    assert all(annotation["note"] == "mine" for annotation in document["annotations"] if annotation["id"] < 13)


@pytest.mark.parametrize("kind", RESTORED)
def test_what_can_be_told_is_restored(dataset, tmp_path, kind):
    sound = dataset.copy_of_document()
    SPOILERS[kind][RESTORED[kind]][0](dataset)
    _, document, _ = mend(dataset, tmp_path)
    if kind == "misnamed_image":  # the file has been moved for good
        sound["images"][1]["file_name"] = "deeper/" + sound["images"][1]["file_name"].upper()
    for section in ("images", "annotations", "categories"):
        for record, expected in zip(document[section], sound[section], strict=True):
            assert record == pytest.approx(expected) if section == "categories" else close(record, expected)


def close(record, expected):
    """Whether two records are equal but for numbers rounded to hundredths."""
    if isinstance(expected, dict):
        return record.keys() == expected.keys() and all(close(record[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(record) == len(expected) and all(map(close, record, expected))
    return abs(record - expected) < 0.02 if isinstance(expected, float | int) else record == expected


def test_the_log_says_what_was_done(dataset, tmp_path):
    change(2, bbox=[20, 5, 18, 20])(dataset)
    change(3, category_id=77)(dataset)
    fixed, _, log = mend(dataset, tmp_path)
    removed, changed = sorted(log, key=lambda entry: entry["action"] == "changed")
    assert (removed["kind"], removed["id"], removed["from"]) == ("unknown_category", 3, dataset.annotations[2])
    expected = {"field": "bbox", "from": [20, 5, 18, 20], "to": list(BOXES[1]), "kind": "box_mask", "id": 2}
    assert {key: changed[key] for key in expected} == expected and changed["position"] == 1
    assert (fixed.changed, fixed.removed) == ({"box_mask": 1}, {"unknown_category": 1})


def test_ids_in_quotes_become_numbers_everywhere(dataset, tmp_path):
    sound = dataset.copy_of_document()
    for record in dataset.records:
        record["id"] = f"00{record['id']}"
    for record in dataset.annotations:
        record.update(id=str(record["id"]), image_id=float(record["image_id"]), category_id="3")
    dataset.categories[0]["id"] = "3"
    _, document, _ = mend(dataset, tmp_path)
    assert document["images"] == sound["images"] and document["annotations"] == sound["annotations"]


def test_ids_that_are_names_stay(dataset, tmp_path):
    for record in dataset.records:
        record["id"] = f"image {record['id']}"
    for record in dataset.annotations:
        record["image_id"] = f"image {record['image_id']}"
    assert dataset.check().findings == []
    change(2, area=40)(dataset)
    fixed, document, log = mend(dataset, tmp_path)
    assert [entry["id"] for entry in log] == [2] and not fixed.report.findings
    assert document["annotations"][0]["image_id"] == document["images"][0]["id"] == "image 1"


def test_nothing_is_removed_for_want_of_its_file(dataset, tmp_path):
    """Lossless but for what is mended anyway, whether no file is there or all have got lost."""
    change(2, area=40)(dataset)
    for path in dataset.images.iterdir():
        path.unlink()
    fixed, document, _ = mend(dataset, tmp_path)
    assert fixed.removed == {} and document["images"] == dataset.records
    assert len(document["annotations"]) == 12


def test_sizes_are_not_taken_from_files_that_annotations_do_not_fit(dataset, tmp_path):
    for record in dataset.records:
        record.update(width=2 * WIDTH, height=2 * HEIGHT)
    for record in dataset.annotations[::2]:
        box = [2 * number for number in record["bbox"]]
        record.update(bbox=box, segmentation=[outline(*box)])
    fixed, document, _ = mend(dataset, tmp_path)
    assert document["images"] == [] and fixed.removed == {"image_size": 3, "skipped_image": 12}


def test_several_things_at_once(dataset, tmp_path):
    change(1, id="5", bbox=[0, 0, "a", 1])(dataset)
    change(2, iscrowd="yes", segmentation=[[24, 5], [38, 5], [38, 25], [24, 25]])(dataset)
    change(6, image_id="2", bbox=[30, 5, 14, 20])(dataset)
    change_image(3, width=..., id="3")(dataset)
    fixed, document, _ = mend(dataset, tmp_path)
    assert not fixed.report.has_errors() and len(document["annotations"]) == 12
    assert len({record["id"] for record in document["annotations"]}) == 12
    assert document["annotations"][5]["bbox"] == list(BOXES[1]) and document["annotations"][1]["iscrowd"] == 1


def test_the_source_is_never_replaced(dataset, tmp_path):
    change(2, area=40)(dataset)
    report = dataset.check()
    before = dataset.json.read_text()
    with pytest.raises(UserError, match="would replace"):
        repair(report, tmp_path)
    assert dataset.json.read_text() == before and not (tmp_path / "fixes.jsonl").exists()


def test_errors_that_can_be_mended_say_so():
    errors = {name: kind for name, kind in PROBLEM_KINDS.items() if kind.severity == "error" and kind.section != "maps"}
    silent = {name for name, kind in errors.items() if not kind.fix}
    waiting = {"missing_image", "skipped_image"}
    assert silent == {"no_images", "no_annotations", "no_categories", "other_categories", "all_crowd"} | waiting


@pytest.mark.parametrize("seed", range(40))
def test_mixtures_are_mended(tmp_path, seed):
    rng = np.random.default_rng(seed)
    dataset = Dataset(tmp_path)
    for kind in rng.choice(list(SPOILERS), 4, replace=False).tolist():
        cases = SPOILERS[kind]
        try:
            cases[int(rng.integers(len(cases)))][0](dataset)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError, OSError):
            continue  # it can't be done to what the one before has left
    report = dataset.check()
    json.dumps(report.to_json())
    fixed = repair(report, tmp_path / "mended")
    left = {kind for kind in counts(fixed.report) if fixed.report.has_errors()}
    assert not left or left & {*HOPELESS, *WAITING}


VALUES = [None, True, "x", "3", -1, 0, 1.5, 1e400, 10**30, [], {}, [[]], [None], [[1, 2], [3, 4], [5, 6]], {"size": 3}]


@pytest.mark.parametrize("seed", range(60))
def test_any_value_in_any_field(tmp_path, seed):
    rng = np.random.default_rng(seed)
    dataset = Dataset(tmp_path)
    for _ in range(6):
        records = [dataset.records, dataset.annotations, dataset.categories][int(rng.integers(3))]
        record = records[int(rng.integers(len(records)))]
        fields = [*record, "keypoints", "num_keypoints"] if isinstance(record, dict) else []
        if not fields or rng.random() < 0.05:
            records[int(rng.integers(len(records)))] = copy.deepcopy(VALUES[int(rng.integers(len(VALUES)))])
            continue
        record[fields[int(rng.integers(len(fields)))]] = copy.deepcopy(VALUES[int(rng.integers(len(VALUES)))])
    report = dataset.check()
    json.dumps(report.to_json())
    fixed = repair(report, tmp_path / "mended")
    left = {kind for kind in counts(fixed.report) if fixed.report.has_errors()}
    assert not left or left & {*HOPELESS, *WAITING}
