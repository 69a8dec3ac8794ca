"""Label maps to run lengths, and connected parts, against pycocotools and SciPy."""

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mrcnn_tf.datasets import run_lengths
from mrcnn_tf.datasets.convert.geometry import connected_parts

SIDES = st.integers(1, 12)
LABELS = arrays.arrays(np.int32, st.tuples(SIDES, SIDES), elements=st.sampled_from([0, 0, 1, 2, 700, 65535]))


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(LABELS)
def test_every_value_of_a_map_as_pycocotools_encodes_it(labels):
    expected = {}
    for value in sorted(set(labels.ravel().tolist()) - {0}):
        rle = coco_mask.encode(np.asfortranarray(labels == value, np.uint8))
        expected[value] = {"size": list(rle["size"]), "counts": rle["counts"].decode()}
    assert run_lengths.encode_labels(labels) == expected
    assert list(run_lengths.encode_labels(labels)) == list(expected)


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(LABELS)
def test_connected_parts_are_scipys(labels):
    ndimage = pytest.importorskip("scipy.ndimage")
    expected = set()
    for value in set(labels.ravel().tolist()) - {0}:
        parts, count = ndimage.label(labels == value, structure=np.ones([3, 3]))
        expected |= {(parts == number).tobytes() for number in range(1, count + 1)}
    found = connected_parts(labels)
    assert {(found == number).tobytes() for number in range(1, found.max() + 1)} == expected
    assert ((found == 0) == (labels == 0)).all()


def test_parts_are_numbered_from_the_top_left():
    labels = np.array([[0, 1, 0, 2], [1, 0, 0, 2], [0, 0, 0, 0], [1, 0, 2, 2]])
    assert connected_parts(labels).tolist() == [[0, 1, 0, 2], [1, 0, 0, 2], [0, 0, 0, 0], [3, 0, 4, 4]]


def test_polygons_are_joined_and_lists_of_runs_are_read():
    polygon = [1.0, 1.0, 3.0, 1.0, 3.0, 3.0, 1.0, 3.0]
    assert run_lengths.mask_area([polygon, polygon], 5, 6) == 4
    assert run_lengths.as_pixels({"size": [2, 2], "counts": [1, 2, 1]}, 2, 2).tolist() == [[False, True], [True, False]]
    with pytest.raises(ValueError, match="size"):
        run_lengths.as_pixels({"size": [2, 2], "counts": [1, 2, 1]}, 2, 3)
