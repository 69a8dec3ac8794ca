import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from made_up import runs_of
from pycocotools import mask as coco_mask

from mrcnn_tf.datasets import run_lengths

SIDES = st.integers(1, 12)
LABELS = arrays.arrays(np.int32, st.tuples(SIDES, SIDES), elements=st.sampled_from([0, 0, 1, 2, 700, 65535]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 10**6)), min_size=1, max_size=5))
def test_decodes_what_pycocotools_encodes(specifications):
    masks = []
    for height, width, seed in specifications:
        rng = np.random.default_rng(seed)
        masks.append(np.asfortranarray(rng.random((height, width)) < rng.random()).astype(np.uint8))
    runs, counts = run_lengths.decode_strings([coco_mask.encode(mask)["counts"] for mask in masks])
    expected = [runs_of(mask) for mask in masks]
    np.testing.assert_array_equal(counts, [len(one) for one in expected])
    np.testing.assert_array_equal(runs, np.concatenate(expected))
    np.testing.assert_array_equal(run_lengths.areas_of_runs(runs, counts), [mask.sum() for mask in masks])


def test_large_numbers_take_several_groups():
    mask = np.zeros((3000, 2000), np.uint8, order="F")
    mask[100:2900, 900:1100] = 1
    runs, _ = run_lengths.decode_strings([coco_mask.encode(mask)["counts"]])
    np.testing.assert_array_equal(runs, runs_of(mask))


def test_empty_and_cut_off_strings_dont_disturb_their_neighbours():
    mask = np.eye(9, dtype=np.uint8, order="F")
    good = coco_mask.encode(mask)["counts"]
    runs, counts = run_lengths.decode_strings([b"", good, good[:3] + b"o", good])
    np.testing.assert_array_equal(runs[: counts[1]], runs_of(mask))
    np.testing.assert_array_equal(runs[-counts[3] :], runs_of(mask))
    assert counts[0] == 0
    assert run_lengths.decode_strings([])[0].size == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 10**6))
def test_bounding_box_is_pycocotools(height, width, seed):
    mask = np.asfortranarray(np.random.default_rng(seed).random((height, width)) < 0.1).astype(np.uint8)
    x, y, w, h = coco_mask.toBbox(coco_mask.encode(mask))
    assert run_lengths.box_of_runs(runs_of(mask), height) == (x, y, x + w, y + h)


@settings(max_examples=100, deadline=None)
@given(LABELS)
def test_every_value_of_a_map_as_pycocotools_encodes_it(labels):
    expected = {}
    for value in sorted(set(labels.ravel().tolist()) - {0}):
        rle = coco_mask.encode(np.asfortranarray(labels == value, np.uint8))
        expected[value] = {"size": list(rle["size"]), "counts": rle["counts"].decode()}
    assert run_lengths.encode_labels(labels) == expected
    assert list(run_lengths.encode_labels(labels)) == list(expected)


def test_polygons_are_joined_and_lists_of_runs_are_read():
    polygon = [1.0, 1.0, 3.0, 1.0, 3.0, 3.0, 1.0, 3.0]
    assert run_lengths.mask_area([polygon, polygon], 5, 6) == 4
    assert run_lengths.as_pixels({"size": [2, 2], "counts": [1, 2, 1]}, 2, 2).tolist() == [[False, True], [True, False]]
    with pytest.raises(ValueError, match="size"):
        run_lengths.as_pixels({"size": [2, 2], "counts": [1, 2, 1]}, 2, 3)


@given(arrays.arrays(bool, (5, 4)), st.integers(-7, 12), st.integers(-7, 12))
def test_a_crop_is_encoded_as_pycocotools_encodes_the_whole(crop, left, top):
    whole = np.zeros((40, 40), bool)
    whole[15 + top : 20 + top, 15 + left : 19 + left] = crop
    expected = coco_mask.encode(np.asfortranarray(whole[15:24, 15:22], np.uint8))
    found = run_lengths.encode_crop(crop, left, top, 9, 7)
    assert found == {"size": [9, 7], "counts": expected["counts"].decode()}
