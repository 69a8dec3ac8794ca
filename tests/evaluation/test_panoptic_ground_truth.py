"""COCO's panoptic json and PNGs: what is read, and one sentence for each thing wrong."""

import zipfile

import numpy as np
import pytest
from made_up_segments import STUFF, THINGS, category_records, scene, write_maps
from PIL import Image

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.evaluation.panoptic_ground_truth import read_panoptic_ground_truth
from mrcnn_tf.evaluation.panoptic_metrics import PanopticQuality

LARGE = 256**3 - 1
MAP = np.array([[0, 7, 7], [LARGE, LARGE, 300]], np.int32)
SEGMENTS = [
    {"id": 300, "category_id": 92, "iscrowd": 0, "area": 99},
    {"id": 7, "category_id": 3, "iscrowd": 1},
    {"id": LARGE, "category_id": 200},
]


@pytest.fixture
def written(tmp_path):
    """A function that writes one image, 5, with changes; gives the paths of the json and the folder."""

    def write(segment_map=MAP, segments=SEGMENTS, **keys):
        return write_maps(tmp_path, "truth", {5: (segment_map, segments)}, **keys)

    return write


def test_maps_and_segments_are_read_as_written(written):
    truth = read_panoptic_ground_truth(*written())
    segment_map = truth.segment_map(5)
    np.testing.assert_array_equal(segment_map, MAP)
    assert segment_map.dtype == np.int32
    read = [[segment[key] for key in ("id", "category_id", "iscrowd")] for segment in truth.segments(5)]
    assert read == [[300, 92, 0], [7, 3, 1], [LARGE, 200, 0]]
    assert list(truth.annotation_indices) == [5] and (truth.things, truth.stuff, truth.skipped) == (THINGS, STUFF, [])


def test_truth_against_itself_scores_one(tmp_path):
    made = {image_id: scene(np.random.default_rng(image_id))[:2] for image_id in (11, 4)}
    truth = read_panoptic_ground_truth(*write_maps(tmp_path, "truth", made))
    assert list(truth.annotation_indices) == [11, 4]
    quality = PanopticQuality(truth.things, truth.stuff)
    for image_id in truth.annotation_indices:
        found = [segment for segment in truth.segments(image_id) if not segment["iscrowd"]]
        found_map = truth.segment_map(image_id)
        found_map[~np.isin(found_map, [segment["id"] for segment in found])] = 0
        quality.add(image_id, truth.segment_map(image_id), truth.segments(image_id), found_map, found)
    results = quality.results(truth.skipped)
    assert (results.images, results.all) == (2, {"PQ": 1.0, "SQ": 1.0, "RQ": 1.0, "n": 5})


def test_alpha_does_not_count(written):
    path, folder = written()
    file = folder / "5.png"
    Image.open(file).convert("RGBA").save(file)
    np.testing.assert_array_equal(read_panoptic_ground_truth(path, folder).segment_map(5), MAP)


def test_an_image_without_annotation_is_left_out(written):
    images = [{"id": 5, "height": 2, "width": 3}, {"id": 6, "height": 9, "width": 9}]
    truth = read_panoptic_ground_truth(*written(images=images))
    assert list(truth.annotation_indices) == [5]
    assert len(truth.skipped) == 1 and "truth.json: image 6 is left out" in truth.skipped[0]


def changed(index, **keys):
    """The segments with one of them changed."""
    return [segment | keys if place == index else segment for place, segment in enumerate(SEGMENTS)]


@pytest.mark.parametrize(
    ("segments", "sentence"),
    [
        (changed(1, category_id=55), "Segment 7 of image 5 in .*truth.json is of category 55, which isn't among"),
        (changed(1, category_id=None), "Segment 7 of image 5 in .*truth.json has no whole number as category_id"),
        (changed(1, id=300), "Segment 300 of image 5 in .*truth.json isn't the first"),
        (changed(1, id=0), "Segment 0 of image 5 in .*truth.json .* from 1 to 16777215"),
        (changed(1, id=256**3), "Segment 16777216 of image 5 in .*truth.json"),
        (changed(1, id="a"), "Segment a of image 5 in .*truth.json has no usable id"),
        ("none", "image 5 in .*truth.json has no segments_info"),
    ],
    ids=["category", "no_category", "twice", "void_id", "large_id", "text_id", "no_list"],
)
def test_a_wrong_segment_in_the_json(written, segments, sentence):
    with pytest.raises(UserError, match=sentence):
        read_panoptic_ground_truth(*written(segments=segments))


@pytest.mark.parametrize(
    ("segments", "sentence"),
    [
        (SEGMENTS[:2], r"5\.png has .* segment 16777215, which the json doesn't list: "),
        ([*SEGMENTS, {"id": 8, "category_id": 3}], r"5\.png has no pixel of segment 8: "),
    ],
    ids=["not_in_json", "not_in_png"],
)
def test_ids_that_differ_between_json_and_png(written, segments, sentence, monkeypatch):
    paths = written(segments=segments)
    with pytest.raises(UserError, match=sentence):
        read_panoptic_ground_truth(*paths)
    monkeypatch.setattr("mrcnn_tf.evaluation.panoptic_ground_truth.FULL_CHECK_BYTES", 0)  # a large set
    truth = read_panoptic_ground_truth(*paths)
    with pytest.raises(UserError, match=sentence):
        truth.segment_map(5)


def as_other(file, mode):
    Image.open(file).convert(mode).save(file)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda file: file.unlink(), r"5\.png, the map of image 5 in .*truth.json, isn't there"),
        (lambda file: file.write_bytes(file.read_bytes()[:-30]), r"5\.png, .* is cut off or damaged"),
        (lambda file: file.write_text("no image"), r"5\.png, .* isn't a readable image"),
        (lambda file: as_other(file, "L"), r"5\.png, .* is a PNG of mode L: .* RGB"),
        (lambda file: as_other(file, "P"), r"5\.png, .* is a PNG of mode P: .* RGB"),
        (lambda file: Image.new("RGB", (3, 2)).save(file, "JPEG"), r"5\.png, .* is a JPEG of mode RGB: .* PNG"),
        (lambda file: Image.new("RGB", (3, 4)).save(file), r"5\.png is 3 x 4 pixels and its image 3 x 2: "),
    ],
    ids=["missing", "cut_off", "no_image", "gray", "palette", "jpeg", "size"],
)
def test_a_wrong_png(written, spoil, sentence):
    path, folder = written()
    spoil(folder / "5.png")
    with pytest.raises(UserError, match=sentence):
        read_panoptic_ground_truth(path, folder)


def test_a_png_that_goes_while_it_is_needed(written):
    path, folder = written()
    truth = read_panoptic_ground_truth(path, folder)
    (folder / "5.png").unlink()
    with pytest.raises(UserError, match=r"no map .*5\.png"):
        truth.segment_map(5)


ANNOTATION = {"image_id": 5, "file_name": "5.png", "segments_info": SEGMENTS}


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"annotations": []}, "truth.json has no annotations"),
        ({"annotations": None}, '"annotations" in .*truth.json is a NoneType'),
        ({"annotations": [ANNOTATION, ANNOTATION]}, "The annotation of image 5 in .*truth.json isn't the first"),
        ({"annotations": [ANNOTATION | {"image_id": 8}]}, "image 8 in .*truth.json belongs to no image"),
        ({"annotations": [{"image_id": 5, "segments_info": []}]}, r"truth.json \(image_id 5\) lacks .* a file_name"),
        ({"images": [{"height": 2, "width": 3}]}, "annotation of image 5 in .*truth.json belongs to no image"),
        ({"images": [{"id": 5, "height": 2}]}, 'image 5 has no "height" and "width"'),
        ({"categories": [{"id": 3, "name": "cat"}]}, "Category 3 .*'cat'.* in .*truth.json has no isthing"),
        ({"categories": category_records() * 2}, "Category id 3 is used twice"),
    ],
    ids=["empty", "no_list", "twice", "no_image", "no_file", "no_id", "no_width", "kind", "same_category"],
)
def test_a_wrong_json(written, keys, sentence):
    with pytest.raises(UserError, match=sentence):
        read_panoptic_ground_truth(*written(**keys))


def test_paths_that_lead_nowhere(written, tmp_path):
    path, folder = written()
    with pytest.raises(UserError, match="no file .*none.json: set data.val.panoptic "):
        read_panoptic_ground_truth(tmp_path / "none.json", folder)
    with pytest.raises(UserError, match="no folder .*none: set data.val.panoptic_maps"):
        read_panoptic_ground_truth(path, tmp_path / "none")
    packed = tmp_path / "maps.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(folder / "5.png")
    with pytest.raises(UserError, match="maps.zip is a zip archive: unpack it and give the folder of PNGs in it"):
        read_panoptic_ground_truth(path, packed)
    (tmp_path / "text.json").write_text("not json")
    with pytest.raises(UserError, match="text.json isn't valid json"):
        read_panoptic_ground_truth(tmp_path / "text.json", folder)


def test_categories_of_a_model_are_looked_up_by_kind(written):
    truth = read_panoptic_ground_truth(*written())
    truth.check_categories(THINGS, STUFF)
    truth.check_categories(THINGS[:1], [])
    with pytest.raises(UserError, match=r"truth.json has no stuff category 3 \(cat\), which the model predicts"):
        truth.check_categories([], THINGS[:1])
    with pytest.raises(UserError, match=r"no thing category 8 \(cow\)"):
        truth.check_categories([Category(8, "cow")], [])
