"""Panoptic jsons and label maps: every kind of problem is found, alone, in a dataset that was sound."""

import json
import os

import numpy as np
import pytest
from PIL import Image
from sound_dataset import HEIGHT, WIDTH, counts
from sound_panoptic import CELL, GRASS, SKY, SKY_ID, PanopticDataset, colours
from typer.testing import CliRunner

from mrcnn_tf.cli import app
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.doctor import repair, validate
from mrcnn_tf.datasets.doctor.findings import PROBLEM_KINDS

COMPARED = {"other_isthing"}
OF_LABELS = {"unknown_label"}
STUFF = "model.stuff=[{id: 21, name: sky}, {id: 200, name: grass}]"


@pytest.fixture
def scene(tmp_path):
    return PanopticDataset(tmp_path)


def check(scene, after=None, **options):
    """The Report; `after` spoils files once all is written."""
    paths = scene.write()
    if after:
        after(scene)
    return validate(*paths, maps=scene.folder, **options)


def drop(record, key):
    del record[key]


def paint(scene, value):
    """Four pixels that were void."""
    scene.maps[2][47, 3:7] = value


def save(scene, image):
    image.save(scene.file())


def cut(scene):
    scene.file().write_bytes(scene.file().read_bytes()[:-30])


def no_stuff(scene):
    """Cells on nothing."""
    scene.categories[:] = scene.categories[:1]
    for number, annotation in zip(scene.maps, scene.annotations, strict=True):
        annotation["segments_info"] = annotation["segments_info"][2:]
        scene.maps[number][(scene.maps[number] < 5000) | (scene.maps[number] > 6000)] = 0


def no_things(scene):
    scene.categories[:] = scene.categories[1:]
    for number, annotation in zip(scene.maps, scene.annotations, strict=True):
        annotation["segments_info"] = annotation["segments_info"][:2]
        annotation["segments_info"][0]["area"] = 1920
        cells = (scene.maps[number] >= 5000) & (scene.maps[number] < 6000)
        scene.maps[number][cells] = SKY_ID


# What is done before the dataset is written: kind, how, how many such problems, a part of the first sentence.
JSON = [
    (
        "map_annotation",
        lambda s: drop(s.annotations[1], "segments_info"),
        1,
        "annotation of image 2 in {} has no segme",
    ),
    ("map_annotation", lambda s: drop(s.annotations[1], "file_name"), 1, "(image_id 2) lacks"),
    (
        "second_map",
        lambda s: s.annotations.append(s.annotations[0]),
        1,
        "The annotation of image 1 in {} isn't the first",
    ),
    ("unmapped_image", lambda s: s.annotations.pop(), 1, "Image 2 in {} has no annotation with a map"),
    (
        "unknown_image",
        lambda s: s.annotations.append({**s.annotations[0], "image_id": 7}),
        1,
        "of image 7 in {} belongs",
    ),
    ("segment_fields", lambda s: s.segments[3].update(id=0), 1, "Segment 0 of image 2 in {} has no usable id"),
    (
        "segment_fields",
        lambda s: s.segments[3].update(category_id="sky"),
        1,
        "Segment 5001 of image 2 in {} has no whole",
    ),
    (
        "duplicate_segment",
        lambda s: s.segments.append(s.segments[4]),
        1,
        "Segment 5002 of image 2 in {} isn't the first",
    ),
    (
        "segment_category",
        lambda s: s.segments[4].update(category_id=77),
        1,
        "Segment 5002 of image 2 in {} has category 77",
    ),
    (
        "segment_category",
        lambda s: s.segments[0].update(category_id=77),
        1,
        "Segment 255 of image 2 in {} has category 77",
    ),
    (
        "empty_segment",
        lambda s: s.segments.append({**s.segments[4], "id": 6}),
        1,
        "Segment 6 of image 2 in {} has no pixel",
    ),
    (
        "segment_outside",
        lambda s: s.segments[4].update(bbox=[70, 5, 8, 10]),
        1,
        "Segment 5002 of image 2 in {} has a bbox w",
    ),
    ("segment_outside", lambda s: s.segments[4].update(bbox=[9, 5, 0, 0]), 1, "has a bbox without a positive width"),
    (
        "segment_box",
        lambda s: s.segments[4].update(bbox=[22, 5, 8, 12]),
        1,
        "has the bbox [22.0, 5.0, 8.0, 12.0], and its p",
    ),
    (
        "segment_area",
        lambda s: s.segments[0].update(area=1920),
        1,
        "Segment 255 of image 2 in {} has the area 1920.0, and i",
    ),
    ("missing_bbox", lambda s: drop(s.segments[5], "bbox"), 1, "Segment 5003 of image 2 in {} has no bbox"),
    ("missing_area", lambda s: drop(s.segments[5], "area"), 1, "Segment 5003 of image 2 in {} has no area"),
    (
        "missing_isthing",
        lambda s: drop(s.categories[1], "isthing"),
        1,
        "Category 21 ('sky') in {} has no isthing of 0 or 1",
    ),
    ("no_stuff", no_stuff, 1, "{} has no category with isthing 0"),
    ("no_things", no_things, 1, "{} has no category with isthing 1"),
    (
        "unknown_segment",
        lambda s: paint(s, 77),
        1,
        "map 2.png has the colour (77, 0, 0), segment 77, which the json does",
    ),
    ("swapped_colours", lambda s: s.maps.update({2: swapped(s.maps[2])}), 1, "map 2.png has red and blue exchanged"),
]
# What is done to the files.
FILES = [
    ("missing_map", lambda s: s.file().unlink(), 1, "Image 2 in {} has a map, "),
    ("unreadable_map", lambda s: s.file().write_text("not an image"), 1, "that isn't a readable image"),
    ("truncated_map", cut, 1, "that is cut off or damaged"),
    ("map_format", lambda s: save(s, Image.new("L", (WIDTH, HEIGHT))), 1, "that is a PNG of mode L"),
    ("map_format", lambda s: save(s, Image.new("P", (WIDTH, HEIGHT))), 1, "that is a PNG of mode P"),
    ("map_size", lambda s: save(s, Image.new("RGB", (WIDTH, 40))), 1, "that is 64 x 40 pixels and not 64 x 48 like"),
]
# Findings that a fault brings along: what isn't used leaves others without use.
ALONG = {
    "map_annotation": {"unmapped_image", "rare_class"},
    "segment_fields": {"unknown_segment"},
    "segment_outside": {"segment_box"},
    **dict.fromkeys(
        [*[case[0] for case in FILES], "unmapped_image", "swapped_colours", "missing_isthing"], {"rare_class"}
    ),
}


def swapped(ids):
    return ids % 256 * 65536 + ids // 256 % 256 * 256 + ids // 65536


def numbered(cases):
    return [f"{place}-{case[0]}" for place, case in enumerate(cases)]


def test_a_sound_scene_is_called_sound(scene):
    report = check(scene)
    assert report.findings == []
    facts = report.to_json()["datasets"][0]["facts"]
    assert facts["classes"] == {"9 cell": 12, "21 sky": 2, "200 grass": 2}
    assert [facts[key] for key in ("images", "segments", "usable_segments", "things", "most_objects")] == [
        2,
        16,
        16,
        12,
        6,
    ]


def test_there_is_a_case_for_every_kind_of_maps():
    of_maps = {name for name, kind in PROBLEM_KINDS.items() if kind.section == "maps"}
    assert {case[0] for case in JSON + FILES} - {"unknown_image"} == of_maps - COMPARED - OF_LABELS


@pytest.mark.parametrize(("kind", "spoil", "count", "words"), JSON, ids=numbered(JSON))
def test_what_is_wrong_with_the_json_is_found(scene, kind, spoil, count, words):
    spoil(scene)
    verify(scene, check(scene), kind, count, words)


@pytest.mark.parametrize(("kind", "spoil", "count", "words"), FILES, ids=numbered(FILES))
def test_what_is_wrong_with_a_map_is_found(scene, kind, spoil, count, words):
    verify(scene, check(scene, after=spoil), kind, count, words)


def verify(scene, report, kind, count, words):
    kinds = counts(report)
    assert kinds.pop(kind, 0) == count
    assert set(kinds) <= ALONG.get(kind, set())
    (finding,) = [finding for finding in report.findings if finding.kind == kind]
    assert words.format(scene.json) in finding.problems[0].message
    assert finding.fix == "" and finding.title


def test_a_map_damaged_within_in_a_set_too_large_to_decode_twice(scene, monkeypatch):
    monkeypatch.setattr("mrcnn_tf.datasets.image_files.FULL_CHECK_BYTES", 0)

    def damage(scene):
        data = bytearray(scene.file().read_bytes())
        data[len(data) // 2] ^= 0xFF
        scene.file().write_bytes(data)

    report = check(scene, after=damage)
    assert set(counts(report)) == {"unreadable_map", "rare_class"}
    problem = report.findings[0].problems[0]
    assert problem.record == 2 and f"The map {scene.file()} can't be read" in problem.message


def test_images_are_looked_at_as_everywhere(scene):
    scene.records[1]["width"] = 60
    assert set(counts(check(scene))) == {"image_size", "rare_class"}


def test_things_without_a_segment_and_too_many_in_an_image(scene):
    scene.categories.append({"id": 10, "name": "worm", "isthing": 1})
    scene.categories.append({"id": 300, "name": "sea", "isthing": 0})
    report = check(scene, overrides=["data.train.max_instances=5"])
    assert counts(report) == {"empty_class": 2, "too_many_instances": 2}
    (empty,) = [finding for finding in report.findings if finding.kind == "empty_class"]
    assert [problem.record for problem in empty.problems] == [10, 300]


def test_training_and_validation_set_are_compared(scene, tmp_path):
    val = PanopticDataset(tmp_path, "val", seed=1)
    val.categories[1]["isthing"] = 1
    (val.images / "1.png").write_bytes((scene.images / "2.png").read_bytes())
    report = check(scene, val=val.write(), val_maps=val.folder)
    assert counts(report) == {"leaked_image": 1, "other_isthing": 1, "rare_class": 1}
    (problem,) = [finding for finding in report.comparison if finding.kind == "other_isthing"][0].problems
    assert problem.message == f"Category 21 ('sky') is a thing in {val.json} and stuff in {scene.json}."


def test_the_command(scene, tmp_path):
    def run(*arguments):
        return CliRunner(env={"COLUMNS": "80", "TERM": "dumb"}).invoke(app, ["validate", *map(str, arguments)])

    paths = scene.write()
    result = run(*paths, "--maps", scene.folder)
    assert result.exit_code == 0 and "2 images, 16 segments (12 of things)" in result.stdout
    paint(scene, 77)
    scene.write()
    result = run(*paths, "--maps", scene.folder, "--out", tmp_path / "out")
    assert result.exit_code == 1 and "[unknown_segment]" in result.stdout and "--fix" not in result.stdout
    (problem,) = json.loads((tmp_path / "out" / "problems.json").read_text())["problems"]
    assert problem["record"] == "2/77" and problem["file"] == str(scene.file())
    for arguments, words in (
        (paths, f"{scene.json} is a panoptic json: name the folder of its PNGs with --maps."),
        (
            (*paths, "--maps", scene.folder, "--val", scene.json, scene.images),
            f"{scene.json} is a panoptic json: name the folder of its PNGs with --val-maps.",
        ),
        ((*paths, "--maps", "nowhere"), "There is no folder nowhere"),
        ((*paths, "--maps", scene.folder, "--fix", "--out", tmp_path / "out"), "leave out --fix"),
        ((*paths, "--maps", scene.folder, "--val-maps", scene.folder), "name that json with --val"),
    ):
        error = run(*arguments).exception
        assert isinstance(error, UserError) and words in str(error)


def test_a_panoptic_json_is_not_mended(scene, tmp_path):
    with pytest.raises(UserError, match=r"train.json is a panoptic json, which no repair knows"):
        repair(check(scene), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def labelled(scene):
    """The same scene as a json of instances with label maps, and a function that saves one and checks."""
    for annotation in scene.annotations:
        ids = scene.maps[annotation["image_id"]]
        values = np.zeros(ids.shape, np.uint8)
        for segment in annotation["segments_info"]:
            values[ids == segment["id"]] = segment["category_id"]
        Image.fromarray(values).save(scene.folder / f"{annotation['image_id']}.png")
    things = [
        {**segment, "id": 10 * annotation["image_id"] + place, "image_id": annotation["image_id"]}
        for annotation in scene.annotations
        for place, segment in enumerate(annotation["segments_info"])
        if segment["category_id"] == CELL
    ]
    for thing in things:
        x, y, width, height = thing["bbox"]
        thing["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    categories = [{"id": CELL, "name": "cell"}]
    scene.json.write_text(json.dumps({"images": scene.records, "annotations": things, "categories": categories}))

    def check_labels(values=None, overrides=(STUFF,)):
        if values is not None:
            Image.fromarray(values).save(scene.folder / "2.png")
        return validate(scene.json, scene.images, maps=scene.folder, overrides=list(overrides))

    return scene, check_labels


def test_label_maps_beside_instances(labelled):
    scene, check_labels = labelled
    assert check_labels().findings == []
    values = np.array(Image.open(scene.folder / "2.png"))
    values[0, :4], values[1] = [3, 4, 3, 3], 255
    report = check_labels(values)
    assert counts(report) == {"unknown_label": 1}
    (problem,) = report.findings[0].problems
    assert problem.record == 2 and f"{scene.folder}/2.png has pixels of the value 3, 4, which is" in problem.message
    assert counts(check_labels(values[:40])) == {"map_size": 1}
    assert counts(check_labels(colours(values.astype(int)))) == {"map_format": 1}
    os.unlink(scene.folder / "2.png")
    assert counts(check_labels()) == {"missing_map": 1}


def test_classes_of_label_maps(labelled):
    scene, check_labels = labelled
    more = STUFF.replace("]", ", {id: 7, name: sea}]")
    report = check_labels(overrides=[more])
    assert counts(report) == {"empty_class": 1} and "('sea')" in report.findings[0].problems[0].message
    with pytest.raises(
        UserError, match=r'Nothing names the classes of the label maps in .*: give them as "model.stuff='
    ):
        check_labels(overrides=[])
    assert {SKY, GRASS} <= set(np.unique(np.array(Image.open(scene.folder / "1.png"))).tolist())
