import json
import os

import numpy as np
import pytest
from made_up import SQUARE, annotation
from make_coco import make_coco
from PIL import Image
from pycocotools import mask as coco_mask

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import DataConfig
from mrcnn_tf.datasets import read_coco
from mrcnn_tf.datasets.read_coco import load_index


def kinds(index):
    return sorted(problem.kind for problem in index.problems)


def test_records_are_sorted_by_image_and_categories_become_contiguous(folder):
    for number in (20, 10, 30):
        folder.add_image(number)
    folder.annotations = [
        annotation(1, 10, segmentation=[*SQUARE, [20.0, 20.0, 25.0, 20.0, 25.0, 25.0]]),
        annotation(2, 20, category_id=3, iscrowd=1, segmentation={"size": [30, 40], "counts": [600, 90, 510]}),
        annotation(3, 10, category_id=3),
    ]
    index = load_index(folder.config())
    assert [(one.id, one.name) for one in index.categories] == [(3, "dot"), (7, "cell")]
    assert index.image_ids.tolist() == [20, 10, 30]
    assert index.instance_offsets.tolist() == [0, 1, 3, 3]
    assert index.annotation_ids.tolist() == [2, 1, 3]
    assert index.classes.tolist() == [1, 2, 1] and index.category_ids.tolist() == [3, 7, 3]
    assert index.crowd.tolist() == [True, False, False]
    assert index.boxes[1].tolist() == [2.0, 3.0, 12.0, 13.0] and index.areas.tolist() == [100.0] * 3
    assert index.ring_offsets.tolist() == [0, 0, 2, 3] and index.point_offsets.tolist() == [0, 4, 7, 11]
    assert index.points[4].tolist() == [20.0, 20.0]
    assert index.run_offsets.tolist() == [0, 3, 3, 3] and index.runs.tolist() == [600, 90, 510]
    assert index.problems == []


def test_compressed_and_plain_runs_are_the_same(folder, monkeypatch):
    monkeypatch.setattr("mrcnn_tf.datasets.annotation_columns.MASKS_AT_ONCE", 2)
    folder.add_image(1)
    mask = np.zeros((30, 40), np.uint8, order="F")
    mask[5:9, 10:20] = 1
    text = {"size": [30, 40], "counts": coco_mask.encode(mask)["counts"].decode()}
    changes = np.flatnonzero(np.diff(mask.flatten("F"))) + 1
    plain = {"size": [30, 40], "counts": np.diff(np.r_[0, changes, 1200]).tolist()}
    for number in range(10):
        folder.annotations.append(annotation(number, segmentation=plain if number % 2 else text))
    index = load_index(folder.config(max_instances=100))
    runs = np.split(index.runs, index.run_offsets[1:-1])
    assert len(runs) == 10 and all(one.tolist() == plain["counts"] for one in runs)


BAD = {
    "unknown_image": {"image_id": 99},
    "unknown_category": {"category_id": 1},
    "degenerate_box": {"bbox": [5, 5, 0, 10]},
    "outside_box": {"bbox": [41, 5, 10, 10]},
    "nan_coordinate": {"bbox": [1, 2, float("nan"), 3]},
    "empty_segmentation": {"segmentation": []},
    "bad_polygon": {"segmentation": [[1.0, 2.0, 3.0, 4.0, 5.0, "six"]]},
    "rle_size": {"segmentation": {"size": [40, 30], "counts": [600, 90, 510]}},
    "bad_rle": {"segmentation": {"size": [30, 40]}},
    "annotation_fields": {"category_id": None},
    "duplicate_annotation": {"id": 1},
}
MORE_BAD = [
    ("nan_coordinate", {"segmentation": [[0, 0, 5, float("inf"), 5, 5]]}),
    ("empty_segmentation", {"segmentation": ...}),
    ("empty_segmentation", {"segmentation": {"size": [30, 40], "counts": [1200]}}),
    ("rle_size", {"segmentation": {"size": [30, 40], "counts": [600, 90, 511]}}),
    ("rle_size", {"segmentation": {"size": [30, 40], "counts": [600, -90, 690]}}),
    ("rle_size", {"segmentation": {"size": [30, 40], "counts": "not an RLE"}}),
    ("bad_rle", {"segmentation": {"size": [30], "counts": [1200]}}),
    ("degenerate_box", {"bbox": [5, 5, 10, -3]}),
    ("annotation_fields", {"category_id": "cell"}),
]


@pytest.mark.parametrize(("kind", "changes"), [*BAD.items(), *MORE_BAD])
def test_a_bad_annotation_is_skipped_and_named(folder, capsys, kind, changes):
    folder.add_image(1)
    folder.annotations = [annotation(1), annotation(2, **changes), annotation(3)]
    index = load_index(folder.config())
    assert index.annotation_ids.tolist() == [1, 3]
    (problem,) = index.problems
    assert problem.kind == kind
    name = changes.get("id", 2)
    assert problem.record == name
    assert f"Annotation {name} in {folder.path}/a.json" in problem.message and ": " in problem.message
    assert f"1 x {kind}" in capsys.readouterr().err


def test_what_is_mended_is_counted_too(folder):
    folder.add_image(1)
    folder.annotations = [
        annotation(1, bbox=[-5, 3, 10, 10]),
        annotation(2, bbox=...),
        annotation(3, bbox=..., segmentation={"size": [30, 40], "counts": [60, 5, 1135]}),
        annotation(4, segmentation=[*SQUARE, [1.0, 1.0, 2.0, 2.0]]),
        annotation(5, bbox=[2.0, 3.0, 38.05, 10.0]),  # rounding, not worth a word
        annotation(6, area=...),
        annotation(7, bbox=["a", 1, 2, 3], area="large"),
    ]
    index = load_index(folder.config(max_instances=7))
    assert kinds(index) == ["bad_area", "bad_box", "bad_polygon", "clipped_box", "missing_box", "missing_box"]
    expected = [[0, 3, 5, 13], [2, 3, 12, 13], [2, 0, 3, 5], [2, 3, 12, 13], [2, 3, 40, 13], *[[2, 3, 12, 13]] * 2]
    assert index.boxes.tolist() == expected
    assert index.areas[5:].tolist() == [100.0, 100.0]


def test_bad_images_take_their_annotations_with_them(folder):
    for number in range(1, 8):
        folder.add_image(number)
    os.remove(folder.path / "images" / "2.png")
    (folder.path / "images" / "3.png").write_bytes(b"x")
    folder.images[3]["width"] = 41
    folder.images[4]["id"] = 1
    del folder.images[5]["file_name"]
    folder.images.append("not a record")
    folder.annotations = [annotation(10 + number, number) for number in (1, 2, 3, 4, 7)] + ["x"]
    index = load_index(folder.config())
    assert index.image_ids.tolist() == [1, 7] and index.annotation_ids.tolist() == [11, 17]
    assert kinds(index) == sorted(
        ["missing_image", "unreadable_image", "image_size", "duplicate_image", "image_fields", "image_fields"]
        + ["annotation_fields"]
        + ["skipped_image"] * 3
    )


def test_sizes_missing_from_the_json_come_from_the_file(folder):
    folder.add_image(1)
    del folder.images[0]["width"], folder.images[0]["height"]
    index = load_index(folder.config())
    assert (index.heights.tolist(), index.widths.tolist()) == ([30], [40])


@pytest.mark.parametrize(("size", "orientation"), [((30, 40), 6), ((40, 30), 1)])
def test_exif_is_applied_unless_the_json_describes_the_stored_pixels(folder, size, orientation):
    exif = Image.Exif()
    exif[0x0112] = 6
    folder.add_image(1, 40, 30, name="a.jpg", exif=exif)
    folder.images[0]["width"], folder.images[0]["height"] = size
    index = load_index(folder.config())
    assert (index.widths[0], index.heights[0]) == size and index.orientations[0] == orientation


def test_given_categories_decide(folder):
    folder.add_image(1)
    folder.annotations = [annotation(1), annotation(2, category_id=3)]
    index = load_index(folder.config(categories=[Category(7, "cell"), Category(90, "other")]))
    assert index.classes.tolist() == [1] and kinds(index) == ["unknown_category"]


def test_crowded_images_are_reported(folder):
    folder.add_image(1)
    folder.annotations = [annotation(number) for number in range(7)]
    assert kinds(load_index(folder.config(max_instances=5))) == ["too_many_instances"]
    assert kinds(load_index(folder.config(max_instances=7))) == []


def test_the_full_report_is_written(folder, capsys):
    folder.add_image(1)
    folder.annotations = [annotation(1)] + [annotation(2 + number, image_id=5) for number in range(30)]
    load_index(folder.config())
    path = capsys.readouterr().err.split("all of them: ")[1].strip()
    with open(path) as file:
        report = json.load(file)
    assert report["counts"] == {"unknown_image": 30} and len(report["problems"]) == 30


def test_the_second_launch_reads_the_cache(folder, monkeypatch):
    folder.add_image(1)
    folder.annotations = [annotation(1), annotation(2, image_id=5)]
    config = folder.config()
    first = load_index(config)
    monkeypatch.setattr(read_coco, "_compile", lambda config: pytest.fail("compiled again"))
    second = load_index(config)
    for name, value in vars(first).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, getattr(second, name))
            assert value.dtype == getattr(second, name).dtype, name
        else:
            assert value == getattr(second, name), name


def test_a_change_of_json_file_or_image_is_noticed(folder):
    folder.add_image(1)
    folder.add_image(2)
    folder.annotations = [annotation(1), annotation(2, 2)]
    assert load_index(folder.config()).image_ids.size == 2
    kept = (folder.path / "images" / "2.png").read_bytes()
    os.remove(folder.path / "images" / "2.png")
    assert load_index(folder.config()).image_ids.size == 1
    (folder.path / "images" / "2.png").write_bytes(kept)
    assert load_index(folder.config()).image_ids.size == 2
    folder.annotations = folder.annotations[:1]
    assert load_index(folder.config()).annotation_ids.size == 1


def test_a_damaged_cache_is_made_again(folder):
    folder.add_image(1)
    folder.annotations = [annotation(1)]
    load_index(folder.config())
    (cached,) = (folder.path / "cache").glob("*.npz")
    cached.write_bytes(cached.read_bytes()[:200])
    assert load_index(folder.config()).annotation_ids.size == 1


def test_without_a_place_for_the_cache_it_still_works(folder, monkeypatch, capsys):
    (folder.path / "file").write_text("")
    monkeypatch.setenv("MRCNN_TF_CACHE", str(folder.path / "file"))
    folder.add_image(1)
    folder.annotations = [annotation(1), annotation(2, image_id=5)]
    assert load_index(folder.config()).annotation_ids.size == 1
    assert "MRCNN_TF_CACHE" in capsys.readouterr().err


def test_what_makes_a_dataset_useless(folder):
    config = folder.config()
    with pytest.raises(UserError, match="list of images is empty"):
        load_index(config)
    folder.add_image(1)
    os.remove(folder.path / "images" / "1.png")
    with pytest.raises(UserError, match="1.png.*isn't there"):
        load_index(folder.config())
    with pytest.raises(UserError, match="no file 'nowhere.json'"):
        load_index(DataConfig(annotations="nowhere.json", images=str(folder.path)))
    with pytest.raises(UserError, match="no folder 'nowhere'"):
        load_index(DataConfig(annotations=config.annotations, images="nowhere"))
    (folder.path / "a.json").write_text('{"images": [], "annotations": []}')
    with pytest.raises(UserError, match='no "categories"'):
        load_index(config)


def test_a_made_up_dataset_of_some_size(tmp_path):
    annotations, images = make_coco(tmp_path, images=300, annotations=2000)
    index = load_index(DataConfig(annotations=annotations, images=images))
    assert index.image_ids.size == 300 and index.classes.size >= 1990 and index.classes.max() == 80
    with open(annotations) as file:
        record = json.load(file)["annotations"][1234]
    row = int(np.flatnonzero(index.annotation_ids == record["id"])[0])
    ring = index.ring_offsets[row]
    points = index.points[index.point_offsets[ring] : index.point_offsets[ring + 1]]
    np.testing.assert_allclose(points.ravel(), record["segmentation"][0], rtol=1e-6)
    image = int(np.searchsorted(index.instance_offsets, row, side="right")) - 1
    assert index.image_ids[image] == record["image_id"]
