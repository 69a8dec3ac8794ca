"""One json in every form that other programs write, read alike by all that read it."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import DataConfig
from mrcnn_tf.datasets.coco_records import number_of_text, parse_annotation, parse_image
from mrcnn_tf.datasets.coco_segmentations import as_coco_rle, parse_segmentation
from mrcnn_tf.datasets.convert.coco import read_coco
from mrcnn_tf.datasets.doctor import repair, validate
from mrcnn_tf.datasets.read_coco import load_index
from mrcnn_tf.datasets.run_lengths import as_text
from mrcnn_tf.evaluation.instance_ground_truth import read_instance_ground_truth

WIDTH, HEIGHT = 40, 30
RING = [4.0, 6.5, 20.25, 6.5, 20.25, 18.0, 4.0, 18.0]
MASK = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([RING], HEIGHT, WIDTH)))
RLE = coco_mask.encode(np.asfortranarray(MASK))
TEXT = RLE["counts"].decode()
RUNS = np.diff(np.r_[0, np.flatnonzero(np.diff(MASK.ravel(order="F"))) + 1, MASK.size]).tolist()
SIZE = [HEIGHT, WIDTH]


def encode(mask):
    """An RLE with text."""
    return as_text(coco_mask.encode(np.asfortranarray(mask, np.uint8)))


# What "segmentation" may be, all of them the same mask.
SEGMENTATIONS = {
    "polygons": [RING],
    "bare polygon": RING,
    "numbers as text": [[str(number) for number in RING]],
    "points": [[RING[i : i + 2] for i in range(0, 8, 2)]],
    "bare points": [RING[i : i + 2] for i in range(0, 8, 2)],
    "list as text": json.dumps([RING]),
    "beside a polygon of two points": [RING, [1, 2, 3, 4]],
    "kwcoco": {"exterior": [RING[i : i + 2] for i in range(0, 8, 2)], "interiors": []},
    "kwcoco in a list": [{"exterior": [RING[i : i + 2] for i in range(0, 8, 2)]}],
    "runs": {"size": SIZE, "counts": RUNS},
    "runs as floats": {"size": [float(HEIGHT), float(WIDTH)], "counts": [float(run) for run in RUNS]},
    "runs as text": {"size": [str(HEIGHT), str(WIDTH)], "counts": [str(run) for run in RUNS]},
    "compressed": {"size": SIZE, "counts": TEXT},
    "bytes' text": {"size": SIZE, "counts": str(RLE["counts"])},
    "in a list of one": [{"size": SIZE, "counts": TEXT}],
    "runs in a list of one": [{"size": SIZE, "counts": RUNS}],
    "two halves": [encode(MASK * (np.arange(WIDTH) < 9)), encode(MASK * (np.arange(WIDTH) >= 9))],
}
IDS = {
    "whole numbers": (7, 5, 3),
    "floats": (9.001002844e11, 5.0, 3.0),
    "text": ("7", "5", "3"),
    "padded text": ("0007", "000000005", "03"),
    "image by its name": (7, "town_000000_000019", 3),
    "annotation by its name": ("f3a9-7", 5, 3),
    "no annotation id": (None, 5, 3),
    "beyond 64 bits": (10**30, 10**25, 3),
}
AREAS = {"number": 184.0, "text": "184", "listed": [184.0], "null": None, "words": "large", "absent": ...}
BOX = [4, 6.5, 16.25, 11.5]
BOXES = {"numbers": BOX, "text": [str(side) for side in BOX], "list as text": json.dumps(BOX)}
CROWDS = {
    0: (0, False, 0.0, "0", "false", "no", "", None, [0], [], {}, float("nan"), ...),
    1: (1, True, 1.0, "1", "true", "yes", [1]),
}
UNKNOWN_SIDES = [(None, None), (0, 0), (-1, -1), ("30", "40"), (30.5, 40), (..., ...), (30, None)]


def document(ids=IDS["whole numbers"], image=(), **fields):
    number, image_id, category = ids
    record = {"id": number, "image_id": image_id, "category_id": category, "bbox": BOXES["numbers"], "area": 184.0}
    record |= {"iscrowd": 0, "segmentation": [RING]} | fields
    picture = {"id": image_id, "file_name": "a.png", "height": HEIGHT, "width": WIDTH} | dict(image)
    kept = {key: value for key, value in record.items() if value is not ...}
    if number is None:
        del kept["id"]
    return {
        "images": [{key: value for key, value in picture.items() if value is not ...}],
        "annotations": [kept],
        "categories": [{"id": category, "name": "box"}],
    }


@pytest.fixture
def write(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / "a.png")

    def to_file(content):
        (tmp_path / "a.json").write_text(json.dumps(content))
        return str(tmp_path / "a.json"), str(tmp_path / "images")

    return to_file


def answers(path, images):
    """What training, evaluation, convert and validate make of the only object: crowd, box and mask."""
    index = load_index(DataConfig(annotations=path, images=images))
    truth = read_instance_ground_truth(path, images=images)
    coco = read_coco(path, images)
    facts = validate(path, images).to_json()["datasets"][0]["facts"]
    (annotation,), (converted,) = truth.annotations, coco.images[0].annotations
    assert index.image_ids.tolist() == [truth.images[0]["id"]] == [annotation["image_id"]]
    assert index.category_ids.tolist() == [annotation["category_id"]] == [converted.category_id] == [3]
    assert (facts["usable_images"], facts["usable_annotations"]) == (1, 1)
    corners = index.boxes[0].tolist()
    crowds = {bool(index.crowd[0]), bool(annotation["iscrowd"]), converted.crowd, bool(facts["crowds"])}
    boxes = [annotation["bbox"], converted.box, [*corners[:2], corners[2] - corners[0], corners[3] - corners[1]]]
    drawn = coco_mask.decode(coco_mask.frPyObjects(_segmentation(index), HEIGHT, WIDTH))
    masks = [np.atleast_3d(drawn).max(axis=2), coco_mask.decode(annotation["segmentation"])]
    if isinstance(converted.segmentation, list):
        masks.append(coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(converted.segmentation, HEIGHT, WIDTH))))
    else:
        masks.append(coco_mask.decode(converted.segmentation))
    return crowds, boxes, masks


def _segmentation(index):
    if index.runs.size:
        return {"size": SIZE, "counts": index.runs.tolist()}
    bounds = zip(index.point_offsets, index.point_offsets[1:], strict=False)
    return [index.points[first:last].astype(np.float64).ravel().tolist() for first, last in bounds]


def check_alike(crowds, boxes, masks, crowd=False):
    assert crowds == {crowd}
    for box in boxes:
        assert box == pytest.approx(BOXES["numbers"], abs=1e-4)
    for mask in masks:
        np.testing.assert_array_equal(mask, MASK)


@pytest.mark.parametrize("name", SEGMENTATIONS)
def test_segmentations_in_all_forms_are_the_same_mask(write, name):
    check_alike(*answers(*write(document(segmentation=SEGMENTATIONS[name]))))


@pytest.mark.parametrize("name", IDS)
def test_ids_in_all_forms_name_the_same_image(write, name):
    check_alike(*answers(*write(document(IDS[name]))))


@pytest.mark.parametrize("area", AREAS.values(), ids=AREAS)
def test_no_area_costs_an_object(write, area):
    path, images = write(document(area=area))
    check_alike(*answers(path, images))
    expected = 184.0 if area not in (None, "large", ...) else None
    index = load_index(DataConfig(annotations=path, images=images))
    assert index.areas[0] == (expected or pytest.approx(16.25 * 11.5))
    assert read_instance_ground_truth(path).annotations[0]["area"] == (expected or MASK.sum())


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_boxes_as_text(write, box):
    check_alike(*answers(*write(document(bbox=box))))


@pytest.mark.parametrize("box", [[1, 2, 3], "all", ["a", 1, 2, 3], {"x": 1}, ...])
def test_without_a_bbox_that_is_one_the_masks_is_taken(write, box):
    path, images = write(document(bbox=box))
    _, boxes, _ = answers(path, images)
    around = coco_mask.toBbox(RLE).tolist()
    for own, tolerance in zip(boxes, (0, 0, 1), strict=True):  # training takes the points', the others the pixels'
        assert own == pytest.approx(around, abs=tolerance + 1e-6)
    findings = {finding.kind for finding in validate(path, images).findings}
    assert ("missing_box" if box is ... else "bad_box") in findings


@pytest.mark.parametrize(("crowd", "value"), [(crowd, value) for crowd, values in CROWDS.items() for value in values])
def test_iscrowd_in_all_forms(write, crowd, value):
    check_alike(*answers(*write(document(iscrowd=value))), crowd=bool(crowd))


@pytest.mark.parametrize(("height", "width"), UNKNOWN_SIDES)
def test_sizes_that_say_unknown_are_the_files(write, height, width):
    path, images = write(document(image={"height": height, "width": width}))
    check_alike(*answers(path, images))
    assert {finding.kind for finding in validate(path, images).findings} >= {"missing_size"}
    with pytest.raises(UserError, match='no "height" and "width"'):
        read_instance_ground_truth(path)


def test_what_was_read_from_another_form_is_said_and_can_be_written_anew(write, tmp_path):
    path, images = write(document(("7", 5.0, "3"), bbox=BOXES["text"], segmentation=RING, area=[184.0]))
    report = validate(path, images)
    notes = {finding.kind: finding.problems[0].message for finding in report.findings}
    assert "id and image_id and category_id and bbox and area and segmentation" in notes["loose_annotation"]
    repair(report, tmp_path / "mended")
    mended = json.loads((tmp_path / "mended" / "a.json").read_text())
    assert mended["annotations"][0] == document()["annotations"][0] and mended["images"][0]["id"] == 5


def test_text_ids_stand_for_one_number_everywhere():
    name = "town_000000_000019"
    assert parse_image({"id": name}).id == parse_annotation({"image_id": name}).image_id == number_of_text(name)
    assert parse_image({"id": "000000000139"}).id == 139 and parse_image({"id": "1_0"}).id == number_of_text("1_0")
    assert 0 <= number_of_text(name) < 2**63 and parse_image({"id": " "}).id is parse_image({"id": []}).id is None


@pytest.mark.parametrize(
    "value",
    [
        *({"size": SIZE}, {"size": [1], "counts": [1]}, {"size": SIZE, "counts": [1.5, 3]}, 7, "abc", [["a"] * 6]),
        {"size": [-1, WIDTH], "counts": RUNS},
        [{"size": SIZE, "counts": RUNS}, {"size": SIZE, "counts": [5]}],  # pycocotools would read on in other memory
        [RING, [1, 1, float("nan"), 2, 3, 3]],
        [[4, 6, 1e10, 6, 20, 18]],  # pycocotools would ask for gigabytes
    ],
)
def test_no_segmentation_is_made_of_what_is_none(write, value):
    assert parse_segmentation(value).fault and not parse_segmentation(value).rings
    path, images = write(document(segmentation=value))
    assert load_index(DataConfig(annotations=path, images=images, masks=False)).classes.size == 1
    assert load_index(DataConfig(annotations=path, images=images)).classes.size == 0
    facts = validate(path, images).to_json()["datasets"][0]["facts"]
    assert (facts["annotations"], facts["usable_annotations"]) == (1, 0)
    assert read_instance_ground_truth(path).annotations[0]["segmentation"] is None


@pytest.mark.parametrize(
    ("record", "names"),
    [
        ({"file_name": "a.png"}, ["a.png"]),
        ({"file_name": 12}, ["12"]),
        ({"coco_url": "http://images/val2017/0001.jpg"}, ["val2017/0001.jpg", "0001.jpg"]),
        ({"file_name": "COCO_1.jpg", "coco_url": "x://a/1%20b.jpg?x=1"}, ["COCO_1.jpg", "a/1 b.jpg", "1 b.jpg"]),
        ({"file_name": ""}, []),
        ({"file_name": "."}, []),
        ({"file_name": "a\0.png"}, []),
        ({"file_name": "\ud800.png"}, []),
        ({"file_name": "http://"}, []),
    ],
)
def test_names_of_files(record, names):
    assert parse_image(record).names == names


def test_kwcocos_holes_are_holes():
    square = [[2, 2], [12, 2], [12, 12], [2, 12]]
    hole = [[5, 5], [9, 5], [9, 9], [5, 9]]
    (ring,) = parse_segmentation({"exterior": square, "interiors": [hole]}).rings
    drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([ring.tolist()], 20, 20)))
    expected = np.zeros((20, 20), np.uint8)
    expected[2:12, 2:12] = 1
    expected[5:9, 5:9] = 0
    np.testing.assert_array_equal(drawn, expected)
    assert as_coco_rle(parse_segmentation({"size": SIZE, "counts": RUNS}).rle)["counts"] == RLE["counts"]


@pytest.mark.parametrize(
    ("image", "what"),
    [
        ({"id": ...}, "Image None in .* lacks an id and was skipped: add it"),
        ({"id": 1.5}, "has id 1.5, which is no whole number or text, and was skipped: correct it"),
        ({"file_name": ...}, "lacks a file_name and"),
        ({"file_name": ["a.png"]}, "has file_name .'a.png'., which names no file, and"),
    ],
)
def test_images_that_cant_be_used_say_why(write, image, what):
    path, images = write(document(image=image))
    with pytest.raises(UserError, match=what):
        load_index(DataConfig(annotations=path, images=images))
    assert validate(path, images).findings[0].kind == "image_fields"


@pytest.mark.parametrize("record", ["text", None, [1]])
def test_what_is_no_record_is_left_out_and_removed(write, tmp_path, record):
    content = document()
    for section in ("images", "annotations"):
        content[section].append(record)
    path, images = write(content)
    assert load_index(DataConfig(annotations=path, images=images)).annotation_ids.tolist() == [7]
    assert len(read_instance_ground_truth(path, images=images).annotations) == 1
    repair(validate(path, images), tmp_path / "mended")
    assert json.loads((tmp_path / "mended" / "a.json").read_text()) == document()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"images": [], "annotations": [], "images": [], "categories": []}', '"images" twice.*: join both lists'),
        ('{"images": [' + "[" * 100000, "lists in lists thousands deep near line 1"),
        ('{"images": [{"id": ' + "7" * 5000 + "}]}", "a number of thousands of digits near line 1"),
    ],
)
def test_jsons_that_cant_be_read_are_refused_alike(write, tmp_path, text, what):
    _, images = write({})
    path = tmp_path / "a.json"
    path.write_text(text)
    for read in (
        lambda: load_index(DataConfig(annotations=str(path), images=images)),
        lambda: read_instance_ground_truth(path, images=images),
        lambda: read_coco(path, images),
        lambda: validate(path, images),
    ):
        with pytest.raises(UserError, match=what):
            read()


def test_an_id_of_thousands_of_digits_is_a_name(write):
    check_alike(*answers(*write(document((7, "9" * 5000, 3)))))


@pytest.mark.parametrize(
    ("kind", "ring"),
    [("outside_mask", [50, 6, 60, 6, 60, 18, 50, 18]), ("flat_mask", [4, 6, 20, 6, 8, 6])],
)
def test_masks_that_show_nothing_are_neither_trained_on_nor_passed(write, kind, ring):
    path, images = write(document(segmentation=[ring]))
    index = load_index(DataConfig(annotations=path, images=images))
    assert index.classes.size == 0 and [problem.kind for problem in index.problems] == [kind]
    report = validate(path, images)
    assert report.to_json()["datasets"][0]["facts"]["usable_annotations"] == 0
    assert kind in {finding.kind for finding in report.findings}


def test_lobes_that_cancel_out_have_no_area_and_are_no_line(write):
    path, images = write(document(segmentation=[[4, 6, 20, 18, 20, 6, 4, 18]]))
    assert load_index(DataConfig(annotations=path, images=images)).classes.size == 1


def test_repeated_categories_are_refused_by_all(write):
    content = document()
    content["categories"].append({"id": "3", "name": "other"})
    path, images = write(content)
    for read in (
        lambda: load_index(DataConfig(annotations=path, images=images)),
        lambda: read_instance_ground_truth(path, images=images),
        lambda: read_coco(path, images),
    ):
        with pytest.raises(UserError, match="Category id 3 is used twice"):
            read()


def test_a_malformed_category_takes_no_annotations_with_it(write):
    content = document()
    content["categories"] = [{"id": 3, "name": None}]
    kinds = {finding.kind for finding in validate(*write(content)).findings}
    assert "bad_category" in kinds and not kinds & {"unknown_category", "no_categories", "empty_class"}


@pytest.mark.parametrize("name", ["/nowhere/a.png", "C:\\pictures\\a.png", "../images/a.png", "A.PNG"])
def test_convert_finds_images_as_training_does(write, name):
    path, images = write(document(image={"file_name": name}))
    check_alike(*answers(path, images))
    assert read_coco(path, images).images[0].file_name == "a.png"


def test_keypoints_in_all_forms(write, tmp_path):
    numbers = [5.0, 7.0, 2.0, 0.0, 0.0, 0.0]
    for keypoints in (numbers, ["5", "7", "2", "0", "0", "0"], [5, 7, 2, float("nan"), float("nan"), 0], str(numbers)):
        content = document(keypoints=keypoints, num_keypoints=1)
        content["categories"][0]["keypoints"] = ["left", "right"]
        path, images = write(content)
        index = load_index(DataConfig(annotations=path, images=images))
        assert index.keypoints.ravel().tolist() == numbers
        assert read_instance_ground_truth(path, images=images).annotations[0]["keypoints"] == numbers
        assert read_coco(path, images).images[0].annotations[0].keypoints == [(5, 7, 2), (0, 0, 0)]
        if isinstance(keypoints[1], str):
            repair(validate(path, images), tmp_path / "mended")
            assert json.loads((tmp_path / "mended" / "a.json").read_text())["annotations"][0]["keypoints"] == numbers
