import numpy as np
import pytest
from made_up import FACE, annotation

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets import read_coco
from mrcnn_tf.datasets.read_coco import load_index

NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture
def faces(folder):
    """Category 7 has three keypoints and 3 two; 9 has none."""
    folder.categories = [
        {"id": 7, "name": "face", "keypoints": ["nose", "left_eye", "right_eye"], "skeleton": [[1, 2]]},
        {"id": 3, "name": "stick", "keypoints": ["end", "other end"]},
        {"id": 9, "name": "ball"},
    ]
    folder.add_image(1)
    return folder


def test_tables_are_ragged(faces):
    faces.add_image(2)
    faces.annotations = [
        annotation(1, 2, keypoints=FACE),
        annotation(2, 1, category_id=3, keypoints=[1, 2, 2, 3, 4, 2]),
        annotation(3, 1, keypoints=[0] * 9),
        annotation(4, 1, category_id=9),
        annotation(5, 2, category_id=3, iscrowd=1),
        annotation(6, 2, category_id=9, keypoints="nobody asks"),
        annotation(7, 2, keypoints=[9, 9, 0, 9, 9, 2, NAN, 9, 0]),
    ]
    index = load_index(faces.config(max_instances=9))
    assert index.problems == []
    assert index.annotation_ids.tolist() == [2, 3, 4, 1, 5, 6, 7]
    assert index.keypoint_offsets.tolist() == [0, 2, 2, 2, 5, 5, 5, 8]
    sticks, face, last = [[1, 2, 2], [3, 4, 2]], [[5, 6, 2], [7, 8, 1], [0, 0, 0]], [[0, 0, 0], [9, 9, 2], [0, 0, 0]]
    assert index.keypoints.tolist() == sticks + face + last
    assert index.keypoints.dtype == np.float32
    stick, face, ball = index.categories
    assert (stick.skeleton, face.skeleton, ball.keypoints) == ([], [[1, 2]], [])


BAD = [
    ("missing_keypoints", ..., "has category 7 but no keypoints and is used without them"),
    ("missing_keypoints", None, "has category 7 but no keypoints"),
    ("missing_keypoints", [], "has category 7 but no keypoints"),
    ("bad_keypoints", ["a"] * 9, "has keypoints that aren't a list of numbers and count as unlabelled"),
    ("bad_keypoints", "123456789", "has keypoints that aren't a list of numbers"),
    ("bad_keypoints", {"nose": [5, 6, 2]}, "has keypoints that aren't a list of numbers"),
    ("bad_keypoints", 5, "has keypoints that aren't a list of numbers"),
    ("bad_keypoints", [[5, 6, 2], [7, 8, 2], [9, 9, 2]], "has keypoints that aren't a list of numbers"),
    ("bad_keypoints", [10**400, *FACE[1:]], "has keypoints that aren't a list of numbers"),
    ("keypoint_count", FACE[:6], "has keypoints of 6 numbers, not the 9 of category 7, and they count as unlabelled"),
    ("keypoint_count", FACE[:8], "has keypoints of 8 numbers, not the 9 of category 7"),
    ("keypoint_count", [0] * 51, "has keypoints of 51 numbers, not the 9 of category 7"),
    ("nan_coordinate", [NAN, *FACE[1:]], "has a keypoint with NaN or infinity, so all of its keypoints"),
    ("nan_coordinate", [*FACE[:4], INFINITY, *FACE[5:]], "has a keypoint with NaN or infinity"),
    ("nan_coordinate", [*FACE[:2], NAN, *FACE[3:]], "has a keypoint with NaN or infinity"),
    ("keypoint_visibility", [*FACE[:2], 3, *FACE[3:]], "has a keypoint of visibility 3, so all of its keypoints"),
    ("keypoint_visibility", [*FACE[:2], 0.5, *FACE[3:]], "has a keypoint of visibility 0.5, so"),
    ("keypoint_visibility", [*FACE[:8], -1], "has a keypoint of visibility -1, so"),
]


@pytest.mark.parametrize(("kind", "keypoints", "words"), BAD)
def test_bad_keypoints_cost_no_box_or_mask(faces, capsys, kind, keypoints, words):
    faces.annotations = [annotation(1, keypoints=FACE), annotation(2, keypoints=keypoints)]
    faces.annotations.append(annotation(3, keypoints=FACE))
    index = load_index(faces.config())
    assert index.annotation_ids.tolist() == [1, 2, 3] and index.ring_offsets.tolist() == [0, 1, 2, 3]
    assert index.keypoint_offsets.tolist() == [0, 3, 3, 6]
    assert index.keypoints.reshape(2, 9).tolist() == [FACE, FACE]
    (problem,) = index.problems
    assert (problem.kind, problem.record) == (kind, 2)
    assert problem.message.startswith(f"Annotation 2 in {faces.path}/a.json {words}")
    assert problem.message.count(": ") == 1 and problem.message.endswith(".")
    assert f"1 x {kind}" in capsys.readouterr().err


def test_keypoints_outside_the_image_become_unlabelled_one_by_one(faces):
    at_the_edge = [-1, -0.5, 2, 41, 31, 1, 40, 30, 2]
    faces.annotations = [
        annotation(1, keypoints=[5, 6, 2, 41.5, 8, 1, -1.5, 3, 2]),
        annotation(2, keypoints=at_the_edge),
        annotation(3, category_id=3, keypoints=[5, -2, 1, 5, 32, 2]),
        annotation(4, keypoints=[99, 99, 0, 1, 1, 2, 0, 0, 0]),
    ]
    index = load_index(faces.config())
    assert index.keypoint_offsets.tolist() == [0, 3, 6, 6, 9]
    np.testing.assert_array_equal(index.keypoints[:3], [[5, 6, 2], [0, 0, 0], [0, 0, 0]])
    assert index.keypoints[3:6].flatten().tolist() == at_the_edge
    np.testing.assert_array_equal(index.keypoints[6:], [[0, 0, 0], [1, 1, 2], [0, 0, 0]])
    words = (
        "has keypoints outside image 1, which count as unlabelled ({}): correct them or the image's width and height"
    )
    start = f"in {faces.path}/a.json"
    assert [problem.message for problem in index.problems] == [
        f"Annotation 1 {start} {words.format('left_eye, right_eye')}.",
        f"Annotation 3 {start} {words.format('end, other end')}.",
    ]
    assert {problem.kind for problem in index.problems} == {"outside_keypoint"}


def test_an_annotation_that_is_skipped_is_named_once(faces):
    faces.annotations = [annotation(1, keypoints=FACE), annotation(2, bbox=[5, 5, 0, 0], keypoints=[1, 2, 3])]
    index = load_index(faces.config())
    assert [problem.kind for problem in index.problems] == ["degenerate_box"]
    assert index.keypoint_offsets.tolist() == [0, 3]


def test_without_names_keypoints_are_nobodys_business(folder):
    folder.add_image(1)
    folder.annotations = [annotation(1, keypoints=FACE), annotation(2, keypoints=["x"]), annotation(3)]
    index = load_index(folder.config())
    assert index.problems == [] and index.keypoints.shape == (0, 3) and index.keypoint_offsets.tolist() == [0] * 4


def test_the_configs_names_count(faces):
    faces.annotations = [annotation(1, keypoints=FACE), annotation(2, category_id=9, keypoints=[1, 2, 2])]
    names = ["nose", "left_eye", "right_eye"]
    index = load_index(faces.config(categories=[Category(9, "ball", ["middle"]), Category(7, "face", names)]))
    assert index.keypoint_offsets.tolist() == [0, 3, 4] and index.problems == []  # the json has no names for balls
    index = load_index(faces.config(categories=[Category(9, "ball"), Category(7, "face")]))
    assert index.keypoint_offsets.tolist() == [0, 0, 0] and index.problems == []  # a model without keypoints
    for other in (names[::-1], names[:2]):
        with pytest.raises(UserError, match="'face' has the keypoints .* in .*a.json and .* in the config: give both"):
            load_index(faces.config(categories=[Category(7, "face", other)]))


def test_the_cache_keeps_keypoints_and_knows_their_names(faces, monkeypatch):
    faces.annotations = [annotation(1, category_id=9, keypoints=[5, 6, 2]), annotation(2, keypoints=FACE)]
    config = faces.config()
    first = load_index(config)
    with monkeypatch.context() as patch:
        patch.setattr(read_coco, "_compile", lambda config: pytest.fail("compiled again"))
        second = load_index(config)
    np.testing.assert_array_equal(second.keypoints, first.keypoints)
    np.testing.assert_array_equal(second.keypoint_offsets, first.keypoint_offsets)
    assert second.keypoints.dtype == np.float32 and second.categories == first.categories
    for names, count in (([], 0), (["middle"], 1)):
        config.categories = [Category(9, "ball", names)]
        assert len(load_index(config).keypoints) == count


def test_the_room_that_keypoints_take(faces):
    faces.annotations = [annotation(number, keypoints=FACE if number % 4 == 0 else [0] * 9) for number in range(100)]
    faces.annotations += [annotation(100 + number, category_id=9) for number in range(100)]
    index = load_index(faces.config(max_instances=200))
    assert index.keypoints.nbytes == 25 * 3 * 12 and index.problems == []
