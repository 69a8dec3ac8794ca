"""Keypoints of converted objects: labelme's points in a group, their names and order, and back from COCO."""

import json

import numpy as np
import pytest
from convert_samples import assert_same_objects, kinds, labelme_shape, rle, save_image, save_labelme

from mrcnn_tf.common.categories import read_categories
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.convert.coco import read_coco
from mrcnn_tf.datasets.convert.dataset import ClassNames, Dataset, read_names
from mrcnn_tf.datasets.convert.labelme import read_labelme, write_labelme

TRIANGLE = [[1, 1], [15, 1], [15, 8]]


def read(folder, shapes, names=None):
    save_image(folder / "a.png", 40, 30)
    save_labelme(folder / "a.json", shapes, "a.png", 40, 30)
    return read_labelme(folder, names=names)


@pytest.mark.parametrize(
    ("kind", "points"),
    [("polygon", TRIANGLE), ("rectangle", [[1, 1], [9, 9]]), ("rectangle", [[1, 1], [9, 1], [9, 9], [1, 9]])],
)
def test_points_of_an_objects_group_are_its_keypoints(tmp_path, kind, points):
    shapes = [
        labelme_shape("point", [[3.5, 4]], " nose ", group=1),
        labelme_shape(kind, points, "person", group=1),
        labelme_shape("point", [[5, 6]], "left eye", group=1, flags={"occluded": True}),
        labelme_shape("point", [["7", 8]], 3, group="1", difficult=True),  # as X-AnyLabeling says occluded
        labelme_shape(kind, points, "person", group=2),
        labelme_shape("point", [[9, 9]], "tail", group=2, flags=None, difficult=False),
        labelme_shape(kind, points, "ball"),
    ]
    dataset = read(tmp_path, shapes)
    coco = dataset.to_coco()
    names = ["nose", "left eye", "3", "tail"]
    assert coco["categories"] == [{"id": 1, "name": "person", "keypoints": names}, {"id": 2, "name": "ball"}]
    first, second, ball = coco["annotations"]
    assert first["keypoints"] == [3.5, 4.0, 2, 5.0, 6.0, 1, 7.0, 8.0, 1, 0, 0, 0] and first["num_keypoints"] == 3
    assert second["keypoints"] == [0] * 9 + [9.0, 9.0, 2] and second["num_keypoints"] == 1
    assert "keypoints" not in ball and kinds(dataset) == []


def test_points_of_no_or_of_several_objects_are_reported(tmp_path):
    shapes = [
        labelme_shape("polygon", TRIANGLE, "cat", group=1),
        labelme_shape("polygon", TRIANGLE, "dog", group=1),
        labelme_shape("point", [[3, 4]], "nose", group=1),
        labelme_shape("point", [[3, 4]], "nose"),
        labelme_shape("point", [[3, 4]], "nose", group=5),
        labelme_shape("polygon", TRIANGLE, "cat", group=2),
        labelme_shape("polygon", TRIANGLE, "cat", group=2),
        labelme_shape("point", [[3, 4]], "nose", group=2),
        labelme_shape("point", [[5, 6]], "nose", group=2),
        labelme_shape("point", [[5, 6]], " ", group=2),
        labelme_shape("point", [[5, float("nan")]], "ear", group=2),
        labelme_shape("point", [[5, 6], [7, 8]], "ear", group=2),
    ]
    dataset = read(tmp_path, shapes)
    coco = dataset.to_coco()
    assert [annotation.get("keypoints") for annotation in coco["annotations"]] == [[0, 0, 0], None, [3.0, 4.0, 2]]
    expected = ["bad_keypoint", "broken_shape", "point_shape", "point_shape", "repeated_point", "shared_point"]
    assert kinds(dataset) == [*expected, "unnamed_point"]
    shared = next(problem.message for problem in dataset.problems if problem.kind == "shared_point")
    assert "Shape 3 of" in shared and "cat and dog" in shared and "give each its own group_id" in shared


def test_the_remedy_for_a_point_of_no_object(tmp_path):
    shapes = [labelme_shape("polygon", TRIANGLE, "cat"), labelme_shape("point", [[3, 4]], "nose")]
    dataset = read(tmp_path, shapes)
    assert "give it the group_id of its object" in dataset.problems[0].message
    for shape in shapes:
        shape["group_id"] = 0
    dataset = read(tmp_path, shapes)
    assert kinds(dataset) == [] and dataset.to_coco()["annotations"][0]["keypoints"] == [3.0, 4.0, 2]


def test_a_coco_json_as_names_fixes_the_keypoints(tmp_path):
    skeleton = [[1, 3], [2, 3]]
    category = {"id": 7, "name": "cat", "keypoints": ["tail", "nose", "ear"], "skeleton": skeleton}
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": [category, {"id": 9, "name": "dog"}]}))
    shapes = [
        labelme_shape("polygon", TRIANGLE, "cat", group=1),
        labelme_shape("point", [[3, 4]], "nose", group=1),
        labelme_shape("point", [[5, 6]], "paw", group=1),
        labelme_shape("polygon", TRIANGLE, "dog", group=2),
        labelme_shape("point", [[5, 6]], "nose", group=2),
    ]
    dataset = read(tmp_path / "set", shapes, read_names(path))
    coco = dataset.to_coco()
    assert coco["categories"] == [category, {"id": 9, "name": "dog"}]
    assert coco["annotations"][0]["keypoints"] == [0, 0, 0, 3.0, 4.0, 2, 0, 0, 0]
    assert kinds(dataset) == ["unknown_keypoint", "unknown_keypoint"]
    category["keypoints"].append("paw")
    path.write_text(json.dumps({"categories": [category, {"id": 9, "name": "dog", "keypoints": ["nose"]}]}))
    assert kinds(read(tmp_path / "set", shapes, read_names(path))) == []


@pytest.mark.parametrize("keypoints", ["nose", ["nose", "nose"], [1, 2], [["a"]]])
def test_bad_keypoints_in_names(tmp_path, keypoints):
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"categories": [{"id": 1, "name": "cat", "keypoints": keypoints}]}))
    with pytest.raises(UserError, match="train.json has categories .* with bad keypoints .*: correct them"):
        read_names(path)


def test_names_without_keypoints_collect_them(tmp_path):
    (tmp_path / "classes.txt").write_text("cat\n")
    shapes = [labelme_shape("polygon", TRIANGLE, "cat", group=1), labelme_shape("point", [[3, 4]], "nose", group=1)]
    coco = read(tmp_path / "set", shapes, read_names(tmp_path / "classes.txt")).to_coco()
    assert coco["categories"] == [{"id": 1, "name": "cat", "keypoints": ["nose"]}]


def save_keypoints(folder):
    """A COCO json with keypoints of each visibility, of objects with outlines, run lengths, parts and a box alone."""
    mask = np.zeros((30, 40), bool)
    mask[3:20, 5:30] = True
    square = [2.0, 2.0, 12.0, 2.0, 12.0, 12.0, 2.0, 12.0]
    segmentations = [[square], rle(mask), [square, [20.0, 2.0, 30.0, 2.0, 30.0, 9.0]], [square], [square]]
    keypoints = [[1, 2, 2, 3.5, 4.25, 1, 0, 0, 0], [0, 0, 0, 5, 6, 2, 7, 8, 1], [9, 9, 2] * 3, [0] * 9, None]
    annotations = []
    for number, (segmentation, points) in enumerate(zip(segmentations, keypoints, strict=True), 1):
        record = {"id": number, "image_id": 1, "category_id": 3 if points else 5, "iscrowd": 0, "area": 100}
        record |= {"segmentation": segmentation, "bbox": [2.0, 2.0, 10.0, 10.0]}
        more = {"keypoints": points, "num_keypoints": sum(v > 0 for v in points[2::3])} if points else {}
        annotations.append(record | more)
    face = {"id": 3, "name": "face", "keypoints": ["nose", "left eye", "right eye"], "skeleton": [[1, 2], [1, 3]]}
    content = {"images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}], "annotations": annotations}
    content["categories"] = [face, {"id": 5, "name": "ball"}]
    save_image(folder / "images/a.png", 40, 30)
    path = folder / "coco.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path, content


def test_coco_to_labelme_and_back(tmp_path):
    path, content = save_keypoints(tmp_path)
    coco = read_coco(path)
    write_labelme(coco, tmp_path / "out", tmp_path / "images", copy_images=True)
    dataset = read_labelme(tmp_path / "out", names=read_names(path))
    back = dataset.to_coco()
    assert coco.problems == [] and kinds(dataset) == []
    assert back["categories"] == content["categories"]
    assert_same_objects(content, back)
    for name in ("keypoints", "num_keypoints"):
        assert [entry.get(name) for entry in back["annotations"]] == [
            entry.get(name) for entry in content["annotations"]
        ]
    # Without the names, they are in the order of their first appearance.
    assert read_labelme(tmp_path / "out").to_coco()["categories"][0]["keypoints"] == ["nose", "left eye", "right eye"]


def test_what_convert_writes_trains(tmp_path):
    path, content = save_keypoints(tmp_path)
    write_labelme(read_coco(path), tmp_path / "out", tmp_path / "images", copy_images=True)
    read_labelme(tmp_path / "out").write(tmp_path / "back.json")
    face, ball = read_categories(tmp_path / "back.json")
    assert face.keypoints == ["nose", "left eye", "right eye"] and ball.keypoints == []
    assert json.loads((tmp_path / "back.json").read_text())["annotations"][0]["keypoints"] == [
        *(1, 2, 2, 3.5, 4.25, 1, 0, 0, 0)
    ]


@pytest.mark.parametrize(
    ("keypoints", "words"),
    [
        ([1, 2, 2], "3 numbers of keypoints for 3 names"),
        (["a"] * 9, "aren't a list of numbers"),
        ([1, 2, 3, 1, 2, 2, 1, 2, 2], "visibility isn't 0, 1 or 2"),
        ([float("nan"), 2, 2] * 3, "NaN or infinity"),
    ],
)
def test_bad_keypoints_cost_no_outline(tmp_path, keypoints, words):
    path, content = save_keypoints(tmp_path)
    content["annotations"][0]["keypoints"] = keypoints
    path.write_text(json.dumps(content), encoding="utf-8")
    coco = read_coco(path)
    assert kinds(coco) == ["bad_keypoints"] and words in coco.problems[0].message
    assert len(coco.images[0].annotations) == 5 and coco.images[0].annotations[0].keypoints == []


def test_a_reader_of_ones_own_gives_keypoints(tmp_path):
    dataset = Dataset("mine", ClassNames([(1, "cat"), (2, "dog")]))
    image = dataset.add_image("a.png", 40, 30, "mine")
    parts = [[1, 1, 15, 1, 15, 8]]
    dataset.add_object(image, "cat", "mine", "1", parts=parts, keypoints={"b": (1, 2, 2), "a": (9, 9, 0)})
    dataset.add_object(
        image, "cat", "mine", "2", parts=parts, keypoints={"c": (3, 4, 1)}, edges=[("c", "a"), ("c", "x")]
    )
    dataset.add_object(image, "dog", "mine", "3", parts=parts)
    coco = dataset.to_coco()
    assert coco["categories"][0] == {"id": 1, "name": "cat", "keypoints": ["b", "a", "c"], "skeleton": [[3, 2]]}
    expected = [[1.0, 2.0, 2, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 3.0, 4.0, 1], None]
    assert [entry.get("keypoints") for entry in coco["annotations"]] == expected
