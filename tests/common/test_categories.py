"""Categories of COCO jsons: sorted, checked, and the heatmap channels of their keypoints."""

import json

import numpy as np
import pytest

from mrcnn_tf.common.categories import Category, keypoint_channels, max_keypoints, read_categories
from mrcnn_tf.common.errors import UserError

DOCUMENT = {
    "info": {"note": 'a "quoted" ] bracket'},
    "annotations": [],
    "categories": [{"id": 5, "name": "b"}, {"id": 2, "name": "a"}],
}


def test_categories_are_sorted_and_found_with_and_without_a_short_cut(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(DOCUMENT))
    assert [(category.id, category.name) for category in read_categories(path)] == [(2, "a"), (5, "b")]
    path.write_text(json.dumps({"info": {"categories": [{"id": 1, "name": "wrong"}]}, **DOCUMENT}))
    assert [(category.id, category.name) for category in read_categories(path)] == [(2, "a"), (5, "b")]


@pytest.mark.parametrize(
    ("categories", "words"),
    [
        ([], "is empty"),
        ([{"id": 1}], "lacks"),
        ([{"id": "one", "name": "a"}], "lacks"),
        ([{"id": 1, "name": ["a"]}], "lacks"),
        ([{"id": 1, "name": "a"}, {"id": "1", "name": "b"}], "twice"),
        ([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "twice"),
        ({"id": 1}, "is a dict"),
    ],
)
def test_useless_categories(tmp_path, categories, words):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"categories": categories}))
    with pytest.raises(UserError, match=words):
        read_categories(path)


def test_keypoints_and_skeleton_are_read(tmp_path):
    path = tmp_path / "a.json"
    hand = {"id": 2, "name": "hand", "keypoints": ["palm", "thumb"], "skeleton": [[1, 2]]}
    bare = {"id": 3, "name": "foot", "keypoints": None, "skeleton": []}
    path.write_text(json.dumps({"categories": [bare, hand]}))
    assert read_categories(path) == [Category(2, "hand", ["palm", "thumb"], [[1, 2]]), Category(3, "foot")]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"keypoints": "palm"}, "has keypoints that aren't a list of names: give each keypoint a name"),
        ({"keypoints": ["palm", 2]}, "aren't a list of names"),
        ({"keypoints": ["palm", ""]}, "aren't a list of names"),
        ({"keypoints": {"palm": 1}}, "aren't a list of names"),
        ({"keypoints": ["palm", "thumb", "palm"]}, "two keypoints called 'palm': give each"),
        ({"skeleton": [[1, 2], [0, 1]]}, r"has \[0, 1\] in its skeleton: join two .* 1 to 2"),
        ({"skeleton": [[1, 3]]}, r"has \[1, 3\] in its skeleton"),
        ({"skeleton": [[1, 2, 2]]}, r"has \[1, 2, 2\] in its skeleton"),
        ({"skeleton": [["palm", "thumb"]]}, "in its skeleton"),
        ({"skeleton": [1, 2]}, "has 1 in its skeleton"),
        ({"skeleton": "lines"}, "has 'lines' in its skeleton"),
        ({"keypoints": [], "skeleton": [[1, 2]]}, "in its skeleton: name its keypoints first"),
    ],
)
def test_malformed_keypoints(tmp_path, changes, words):
    path = tmp_path / "a.json"
    hand = {"id": 2, "name": "hand", "keypoints": ["palm", "thumb"], "skeleton": [[1, 2]], **changes}
    path.write_text(json.dumps({"categories": [hand]}))
    with pytest.raises(UserError, match=f"^Category 'hand' in {path} has .*{words.removeprefix('has ')}"):
        read_categories(path)


def test_channels_are_shared_by_classes_of_the_same_keypoints():
    cat, dog = Category(1, "cat", ["nose", "tail"]), Category(5, "dog", ["nose", "tail"])
    car, ball = Category(2, "car", ["front", "back", "nose"]), Category(3, "ball")
    names, table = keypoint_channels([ball, cat, car, dog, Category(9, "dog backwards", ["tail", "nose"])])
    assert names == ["nose", "tail", "front", "back", "nose", "tail", "nose"]
    expected = [[-1, -1, -1], [-1, -1, -1], [0, 1, -1], [2, 3, 4], [0, 1, -1], [5, 6, -1]]
    np.testing.assert_array_equal(table, expected)
    assert table.dtype == np.int32
    assert max_keypoints([ball, cat, car]) == 3 and max_keypoints([ball]) == max_keypoints([]) == 0


def test_no_class_has_keypoints():
    names, table = keypoint_channels([Category(1, "ball"), Category(2, "dot")])
    assert names == [] and table.shape == (3, 0)
