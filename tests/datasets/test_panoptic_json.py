import json
import math
import re

import numpy as np
import pytest
from PIL import Image

from mrcnn_tf.common.categories import read_panoptic_categories
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.panoptic_json import NO_CATEGORY, read_panoptic

CATEGORIES = [
    {"id": 90, "name": "sky", "isthing": 0, "supercategory": "outdoors"},
    {"id": 3, "name": "cat", "isthing": 1},
    {"id": 7, "name": "grass", "isthing": 0},
    {"id": 1, "name": "dog", "isthing": 1},
]


def segment(number, category=3, **changes):
    """A sound segment, then `changes`; a value of ... removes the key."""
    record = {"id": number, "category_id": category, "area": 20, "bbox": [1, 2, 5, 4], "iscrowd": 0} | changes
    return {key: value for key, value in record.items() if value is not ...}


def write(path, annotations, categories=CATEGORIES, images=({"id": 1, "file_name": "1.jpg"},)):
    path.write_text(json.dumps({"images": list(images), "annotations": annotations, "categories": categories}))
    return path


def annotation(image, *segments, **changes):
    record = {"image_id": image, "file_name": f"{image}.png", "segments_info": list(segments)} | changes
    return {key: value for key, value in record.items() if value is not ...}


def test_what_is_read(tmp_path):
    annotations = [
        annotation(8, segment(70000, 90), segment(5, iscrowd=1, area=2.5)),
        annotation(4),
        annotation(6, segment(5, 1, bbox=..., area=...), segment(1 << 23)),
    ]
    found = read_panoptic(write(tmp_path / "a.json", annotations))
    assert [(one.id, one.name) for one in found.things] == [(1, "dog"), (3, "cat")]
    assert [(one.id, one.name) for one in found.stuff] == [(7, "grass"), (90, "sky")]
    assert [image.source for image in found.images] == [{"id": 1, "file_name": "1.jpg"}]
    assert found.path == str(tmp_path / "a.json")
    assert found.image_ids.tolist() == [8, 4, 6] and found.map_names == ["8.png", "4.png", "6.png"]
    assert found.segment_offsets.tolist() == [0, 2, 2, 4] and found.segment_ids.tolist() == [70000, 5, 5, 1 << 23]
    assert found.category_ids.tolist() == [90, 3, 1, 3] and found.crowd.tolist() == [False, True, False, False]
    assert found.areas[[0, 1, 3]].tolist() == [20, 2.5, 20] and math.isnan(found.areas[2])
    assert found.boxes[[0, 3]].tolist() == [[1, 2, 5, 4]] * 2 and np.isnan(found.boxes[2]).all()
    assert found.problems == []
    assert found.segments_info(0)[1] == {"id": 5, "category_id": 3, "iscrowd": 1, "area": 2.5, "bbox": [1, 2, 5, 4]}
    assert found.segments_info(1) == []


def test_categories_alone(tmp_path):
    things, stuff = read_panoptic_categories(write(tmp_path / "a.json", []))
    assert [one.id for one in things] == [1, 3] and [one.id for one in stuff] == [7, 90]
    true = [{"id": 1, "name": "a", "isthing": True}, {"id": 2, "name": "b", "isthing": False}]
    things, stuff = read_panoptic_categories(write(tmp_path / "b.json", [], true))
    assert [one.id for one in things] == [1] and [one.id for one in stuff] == [2]
    assert read_panoptic_categories(write(tmp_path / "c.json", [], true[1:]))[0] == []


@pytest.mark.parametrize(
    ("categories", "words"),
    [
        ([{"id": 5, "name": "person"}], r"Category 5 \('person'\) in .*a.json has no isthing .*data.\*.annotations"),
        ([{"id": 5, "name": "x", "isthing": 2}], "no isthing of 0 or 1"),
        ([{"id": 5, "name": "x", "isthing": None}], "no isthing of 0 or 1"),
        ([{"id": 5, "name": "x", "isthing": 1}] * 2, "Category id 5 is used twice"),
        ([{"id": "five", "name": "x", "isthing": 1}], "lacks a whole number as id"),
        ([], "is empty"),
    ],
    ids=range(6),
)
def test_bad_categories(tmp_path, categories, words):
    path = write(tmp_path / "a.json", [], categories)
    for read in (read_panoptic, read_panoptic_categories):
        with pytest.raises(UserError, match=words):
            read(path)


@pytest.mark.parametrize(
    ("bad", "kind", "words"),
    [
        (annotation(1, segments_info=...), "map_annotation", "The annotation of image 1 in {} has no segments_info"),
        (annotation(1, segments_info={}), "map_annotation", "has no segments_info and was skipped: give its list"),
        (annotation(1, file_name=...), "map_annotation", r"An annotation in {} \(image_id 1\) lacks .* a file_name"),
        (annotation([1]), "map_annotation", r"\(image_id \[1\]\) lacks an image_id"),
        (["x"], "map_annotation", r"\(image_id None\)"),
        (annotation(2, segment(8)), "second_map", "image 2 in {} isn't the first and was skipped"),
    ],
    ids=range(6),
)
def test_a_bad_annotation_is_left_out_and_named(tmp_path, bad, kind, words):
    path = write(tmp_path / "a.json", [annotation(2, segment(9)), bad])
    found = read_panoptic(path)
    assert found.image_ids.tolist() == [2] and found.segment_ids.tolist() == [9]
    (problem,) = found.problems
    assert problem.kind == kind and problem.file == str(path)
    assert re.search(words.format(path), problem.message)


@pytest.mark.parametrize(
    ("bad", "kind", "words"),
    [
        (segment(0), "segment_fields", "Segment 0 of image 1 in {} has no usable id and was skipped: .* 1 to 16777215"),
        (segment(1 << 24), "segment_fields", "Segment 16777216 of image 1"),
        (segment("a"), "segment_fields", "Segment a of image 1 .* no usable id"),
        ("x", "segment_fields", "Segment None of image 1"),
        (segment(9, 7), "duplicate_segment", "Segment 9 of image 1 in {} isn't the first"),
    ],
    ids=range(5),
)
def test_a_bad_segment_is_left_out_and_named(tmp_path, bad, kind, words):
    path = write(tmp_path / "a.json", [annotation(1, segment(9), bad, segment(10))])
    found = read_panoptic(path)
    assert found.segment_ids.tolist() == [9, 10] and found.category_ids.tolist() == [3, 3]
    (problem,) = found.problems
    assert problem.kind == kind
    assert re.search(words.format(path), problem.message)


def test_ids_that_are_names_and_numbers_in_other_forms(tmp_path):
    segments = [segment("5", "3", iscrowd="0", area="20", bbox=["1", 2, 5, 4]), segment(7.0, 90.0)]
    images = [{"id": "town_1"}, {"id": "town_2", "file_name": "2.jpg"}]
    categories = [record | {"id": str(record["id"]), "isthing": str(record["isthing"])} for record in CATEGORIES]
    path = write(tmp_path / "a.json", [annotation("town_2", *segments), annotation("town_1")], categories, images)
    found = read_panoptic(path)
    assert found.problems == [] and found.segment_ids.tolist() == [5, 7] and found.category_ids.tolist() == [3, 90]
    assert found.boxes[0].tolist() == [1, 2, 5, 4] and found.areas[0] == 20 and not found.crowd.any()
    numbers = {image.source["id"]: image.id for image in found.images}
    assert found.image_ids.tolist() == [numbers["town_2"], numbers["town_1"]] != [0, 0]
    assert [found.name_of_image(number) for number in found.image_ids.tolist()] == ["town_2", "town_1"]


def test_a_segment_without_category_keeps_its_id(tmp_path):
    found = read_panoptic(write(tmp_path / "a.json", [annotation(1, segment(9, "cat"))]))
    assert found.segment_ids.tolist() == [9] and found.category_ids.tolist() == [NO_CATEGORY]
    assert [problem.message for problem in found.problems] == [
        f"Segment 9 of image 1 in {tmp_path}/a.json has no whole number as category_id and its pixels are ignored: "
        "give the id of one of the categories."
    ]


@pytest.mark.parametrize("box", [[1, 2, 3], "1 2 3 4", [1, 2, None, 4], [1, 2, float("nan"), 4]], ids=range(4))
def test_a_box_that_is_none_counts_as_missing(tmp_path, box):
    found = read_panoptic(write(tmp_path / "a.json", [annotation(1, segment(9, bbox=box, area="much"))]))
    assert np.isnan(found.boxes).all() and np.isnan(found.areas).all() and not found.problems


def test_what_is_no_panoptic_json(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    (tmp_path / "a.json").write_text(json.dumps({"images": [], "categories": CATEGORIES}))
    for name, words in (("a.png", "UTF-8|json"), ("a.json", '"annotations"'), ("absent.json", "There is no file")):
        with pytest.raises(UserError, match=words):
            read_panoptic(tmp_path / name)
