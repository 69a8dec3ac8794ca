"""Maps of classes and segments that a server gave become those of `Detections`."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from served_stand_in import LABELS, output

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.ops.panoptic_maps import resize_labels
from mrcnn_tf.serving.export_labels import read_labels
from mrcnn_tf.serving.outputs import make_detections
from mrcnn_tf.serving.server_client import _to_array

SIZE = (20, 30)
MAP = output("semantic_png_bytes", dtype="string", per_detection=False)
STUFF = {
    "stuff": [{"class": 1, "id": 200, "name": "sky"}, {"class": 2, "id": 140, "name": "sea"}],
    "panoptic": {"score_threshold": 0.3, "overlap": 0.5, "stuff_area": 10},
    "outputs": [*LABELS["outputs"], MAP],
}
FACTS = read_labels({**LABELS, **STUFF})


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def colours(ids):
    return np.stack([ids & 255, ids >> 8, ids * 0], -1).astype(np.uint8)


def semantic():
    """Sky above sea, and a thing in the upper left corner."""
    found = np.ones(SIZE, np.uint8)
    found[12:], found[:6, :8] = 2, 0
    return found


def segments():
    """Segment 1 the second detection, 2 the sky, 3 the sea; a corner is void."""
    found = np.full(SIZE, 2)
    found[12:], found[:6, :8], found[-1, -1] = 3, 1, 0
    return found


def outputs(ids=None, **changes):
    """Two detections and a row of padding; three segments and two rows of it."""
    ids = segments() if ids is None else ids
    found = {
        "boxes": np.array([[15, 2, 25, 9], [0, 0, 8, 6], [0, 0, 0, 0]], np.float32),
        "scores": np.array([0.75, 0.5, 0], np.float32),
        "classes": np.array([2, 1, 0], np.int32),
        "num_detections": np.int32(2),
        "masks": np.ones((3, 8, 8), np.float32),
        "semantic_png_bytes": png(semantic()),
        "segments_png_bytes": png(colours(ids)),
        "num_segments": np.int32(3),
        "segment_classes": np.array([1, 1, 2, 0, 0], np.int32),
        "segment_instances": np.array([1, -1, -1, 0, 0], np.int32),
        "segment_areas": np.array([48, 30 * 12 - 48, 30 * 8 - 1, 0, 0], np.int32),
    }
    return found | changes


def check_segments(found):
    np.testing.assert_array_equal(found.semantic, semantic())
    np.testing.assert_array_equal(found.panoptic.segment_map, segments())
    thing, sky, sea = found.panoptic.segments
    assert (thing.id, thing.is_thing, thing.category.name, thing.score, thing.instance) == (1, True, "wide", 0.5, 1)
    assert (thing.area, thing.bbox) == (48, [0, 0, 8, 6])
    assert (sky.id, sky.is_thing, sky.category.id, sky.score, sky.instance) == (2, False, 200, None, None)
    assert (sea.id, sea.category.id, sea.area, sea.bbox) == (3, 140, 239, [0, 12, 30, 8])


def test_maps_are_those_that_were_served():
    check_segments(make_detections(outputs(), FACTS, SIZE))


def test_with_masks_in_run_lengths():
    given = outputs()
    del given["masks"]
    counts = coco_mask.encode(np.zeros(SIZE, np.uint8, order="F"))["counts"]
    given["masks_rle_bytes"] = np.array([counts, counts, b""], object)
    check_segments(make_detections(given, FACTS, SIZE))


def test_a_map_without_segments_is_fused_here():
    given = {name: value for name, value in outputs().items() if "segment" not in name}
    found = make_detections(given | {"semantic": semantic()}, FACTS, SIZE).panoptic
    # By the rules of the labels: both detections score enough, the sky is what they leave of it.
    assert [(one.category.name, one.instance) for one in found.segments] == [
        ("tall", 0),
        ("wide", 1),
        ("sky", None),
        ("sea", None),
    ]
    assert found.segments[3].area == 240
    without = {name: value for name, value in given.items() if name != "masks"}
    found = make_detections(without, dataclasses.replace(FACTS, fusion=None), SIZE)
    assert found.panoptic is None and found.semantic.shape == SIZE


def test_a_semantic_head_by_itself():
    ids = np.where(semantic() > 0, semantic(), 0).astype(int)
    given = {name: value for name, value in outputs(ids).items() if "_" in name and name != "num_detections"}
    given |= {
        "num_segments": 2,
        "segment_classes": [1, 2],
        "segment_instances": [-1, -1],
        "segment_areas": [312, 240],
    }
    for categories in (LABELS["categories"], []):
        facts = read_labels({**LABELS, **STUFF, "categories": categories, "outputs": [MAP]})
        assert facts.gives("semantic_logits") and not facts.gives("boxes")
        found = make_detections(given, facts, SIZE)
        assert len(found) == 0 and found.masks is None
        assert [(one.category.name, one.area) for one in found.panoptic.segments] == [("sky", 312), ("sea", 240)]
    with pytest.raises(UserError, match="lack boxes, scores, classes, num_detections"):
        make_detections({"image_size": SIZE}, FACTS, SIZE)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"semantic_png_bytes": b""}, "isn't a PNG"),
        ({"semantic_png_bytes": png(semantic())[:-30]}, "isn't a PNG"),
        ({"semantic_png_bytes": png(semantic()[1:])}, r"L \(19, 30\) pixels for an image of \(20, 30\)"),
        ({"semantic_png_bytes": png(colours(segments()))}, r"RGB \(20, 30\) pixels"),
        ({"semantic_png_bytes": png(semantic() + 1)}, "class 3 where 2 classes of stuff are listed"),
        ({"segments_png_bytes": png(colours(segments() * 300))}, "aren't those of the map"),
        ({"num_segments": 2}, "aren't those of the map"),
        ({"num_segments": 4}, "aren't those of the map"),
        ({"segment_areas": [47, 312, 239]}, "aren't those of the map"),
        ({"segment_classes": [1, 1, 3]}, "aren't among 2 detections"),
        ({"segment_classes": [1, 0, 2]}, "aren't among 2 detections"),
        ({"segment_instances": [2, -1, -1]}, "aren't among 2 detections"),
    ],
    ids=[
        "empty", "cut", "size", "colours", "class", "ids", "fewer", "more", "areas", "stuff", "none", "instance",
    ],
)  # fmt: skip
def test_maps_of_something_else_are_refused(changes, words):
    with pytest.raises(UserError, match=f"don't fit its labels.*{words}.*labels.json from the same export"):
        make_detections(outputs(**changes), FACTS, SIZE)


def test_a_missing_part_is_named():
    given = outputs()
    del given["segment_areas"]
    with pytest.raises(UserError, match="segment_areas"):
        make_detections(given, FACTS, SIZE)


def test_labels_with_and_without_stuff():
    with pytest.raises(UserError, match="0 classes of stuff are listed"):
        make_detections(outputs(), read_labels(LABELS), SIZE)
    boxes = {name: value for name, value in outputs().items() if "segment" not in name and "png" not in name}
    with pytest.raises(UserError, match="no map of the stuff that is listed"):
        make_detections(boxes, FACTS, SIZE)
    found = make_detections(boxes, read_labels(LABELS), SIZE)  # of an export that knew nothing of stuff
    assert found.semantic is None and found.panoptic is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stuff": [{"class": 2, "id": 1, "name": "sky"}]}, "1, 2, 3"),
        ({"stuff": [{"class": 1, "name": "sky"}]}, "lacks a whole number as id"),
        ({"panoptic": {"threshold": 1}}, "threshold"),
        ({"panoptic": ["overlap"]}, "labels.json"),
        ({"stuff": [], "categories": []}, "empty"),
    ],
    ids=["classes", "id", "rule", "rules", "nothing"],
)
def test_facts_that_are_not_ours(changes, words):
    with pytest.raises(UserError, match=words):
        read_labels({**LABELS, **STUFF, **changes})


def test_stuff_follows_the_classes_not_the_ids():
    assert [one.name for one in FACTS.stuff] == ["sky", "sea"] and FACTS.fusion.stuff_area == 10
    assert read_labels({**LABELS, **STUFF, "stuff": STUFF["stuff"][::-1]}).stuff == FACTS.stuff


def test_labels_at_another_size():
    found = np.array([[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(resize_labels(found, (4, 3)), found.repeat(2, 0))
    # The middles of two columns lie at 0.75 and 2.25, those of four at 0.375, 1.125, 1.875 and 2.625.
    np.testing.assert_array_equal(resize_labels(found, (1, 2)), [[4, 6]])
    np.testing.assert_array_equal(resize_labels(found, (2, 4)), [[1, 2, 2, 3], [4, 5, 5, 6]])


def test_bytes_of_one_image_in_rest():
    assert _to_array({"b64": "AAEC"}) == b"\x00\x01\x02" and _to_array({"b64": ""}) == b""
