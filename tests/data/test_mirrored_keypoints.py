import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import AugmentConfig
from mrcnn_tf.data.geometric import mirror_permutation, mirror_permutations

PAIRS = ["eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"]
COCO = ["nose", *(f"{side}_{part}" for part in PAIRS for side in ("left", "right"))]


def test_cocos_own_flip_map():
    assert mirror_permutation(COCO) == [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("eye_left", "eye_right"),
        ("l_eye", "r_eye"),
        ("eye_l", "eye_r"),
        ("leftEye", "rightEye"),
        ("eyeLeft", "eyeRight"),
        ("LeftUpLeg", "RightUpLeg"),
        ("LShoulder", "RShoulder"),
        ("LEar", "REar"),
        ("lThumb", "rThumb"),
        ("eyeL", "eyeR"),
        ("Left Eye", "Right Eye"),
        ("LEFT_EYE", "RIGHT_EYE"),
        ("hand.L", "hand.R"),
        ("front-left-paw", "front-right-paw"),
        ("L_F_Paw", "R_F_Paw"),
        ("eye (l)", "eye (r)"),
        ("left", "right"),
        ("L", "R"),
        ("lefteye", "righteye"),
        ("eyeleft", "eyeright"),
        ("EYELEFT", "EYERIGHT"),
        ("lshoulder", "rshoulder"),
        ("LKNE", "RKNE"),
        ("L1", "R1"),
    ],
)
def test_usual_forms_pair_up(left, right):
    assert mirror_permutation([right, "nose", left]) == [2, 1, 0]


def test_words_that_only_look_like_sides_stay():
    names = ["upright", "bright", "UPRIGHT", "L4", "L5", "rump", "lip", "Rear", "neck", "light", "left", "right"]
    assert mirror_permutation(names) == [*range(10), 11, 10]


@pytest.mark.parametrize(
    ("lonely", "missing"),
    [("left_eye", "right_eye"), ("eyeR", "eyeL"), ("RKnee", "LKnee"), ("l", "r"), ("Left Ear", "Right Ear")],
)
def test_a_side_without_its_other_side(lonely, missing):
    remedy = "set augment.horizontal_flip=0 and augment.vertical_flip=0 or rename it"
    with pytest.raises(UserError, match=f"^Keypoint '{lonely}' has no '{missing}' to .*: {remedy}.$"):
        mirror_permutation(["nose", lonely])


PARTS = ["l", "r", "L", "R", "left", "Right", "EYE", "eye", "_", "1"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(st.sampled_from(PARTS), min_size=1, max_size=3), max_size=6))
def test_mirroring_twice_changes_nothing(words):
    names = list(dict.fromkeys("".join(parts) for parts in words))
    try:
        mirrored = mirror_permutation(names)
    except UserError:
        return
    assert [mirrored[place] for place in mirrored] == list(range(len(names)))


def test_each_class_has_a_row_of_its_own():
    person = Category(1, "person", ["nose", "left_eye", "right_eye"])
    plane = Category(2, "plane", ["l_wing", "r_wing"])
    table = mirror_permutations([person, Category(3, "ball"), plane], AugmentConfig(0.0, 0.5))
    np.testing.assert_array_equal(table, [[0, 1, 2], [0, 2, 1], [0, 1, 2], [1, 0, 2]])
    assert table.dtype == np.int32


def test_names_need_no_sides_where_nothing_is_mirrored():
    categories = [Category(1, "person", ["nose", "left_eye"])]
    with pytest.raises(UserError, match="right_eye"):
        mirror_permutations(categories, AugmentConfig(0.5, 0.0))
    np.testing.assert_array_equal(mirror_permutations(categories, AugmentConfig(0.0, 0.0, True)), [[0, 1], [0, 1]])
