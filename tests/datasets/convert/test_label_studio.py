"""Label Studio's JSON and JSON-MIN: shapes worked out by hand, masks of its own encoder, tasks and places."""

import base64
import collections
import io
import json
import math

import numpy as np
import pytest
from command import call
from convert_samples import kinds, pixels, save_image
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.convert.inputs import recognise_format
from mrcnn_tf.datasets.convert.label_studio import read_label_studio
from mrcnn_tf.datasets.convert.label_studio_shapes import decode_brush
from mrcnn_tf.datasets.convert.mask_folders import read_mask_folders
from mrcnn_tf.datasets.convert.yolo import read_yolo
from mrcnn_tf.datasets.image_folder import ImageFolder

WIDTH, HEIGHT = 80, 40
POLYGON = {"points": [[10, 10], [50, 10], [50, 60]], "closed": True, "polygonlabels": ["car"]}
RECTANGLE = {"x": 25, "y": 50, "width": 50, "height": 25, "rotation": 0, "rectanglelabels": ["box"]}
# label_studio_sdk 2.1.2: brush.mask2rle of a mask [4, 5] with 255 in rows 1 and 2, columns 1 to 3, but for [2, 2].
BRUSH = [0, 0, 0, 80, 57, 27, 254, 23, 0, 183, 255, 56, 4, 127, 241, 128, 71, 255, 133, 192, 0]


def part(value, kind=None, key="a1", **more):
    kind = kind or next((name for name in value if name.endswith("labels")), "polygon")
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    return size | {"value": value, "id": key, "from_name": "t", "to_name": "image", "type": kind} | more


def annotation(*results, number=1, updated="2024-01-01T00:00:00Z", **marks):
    return {"id": number, "result": list(results), "was_cancelled": False, "updated_at": updated} | marks


def task(*annotations, place="/data/upload/1/8a3f1c2d-a.png", number=5):
    return {"id": number, "annotations": list(annotations), "data": {"text": "a car", "image": place}}


@pytest.fixture
def read(tmp_path):
    """Reads tasks, with one image a.png beside them; gives (the COCO json, the kinds of what was left out)."""
    save_image(tmp_path / "a.png", WIDTH, HEIGHT)

    def run(*tasks, images=None):
        path = tmp_path / "export.json"
        path.write_text(json.dumps(tasks), encoding="utf-8")
        dataset = read_label_studio(path, images)
        return dataset.to_coco(), collections.Counter(kinds(dataset))

    return run


def test_percentages_become_pixels(read):
    coco, left_out = read(task(annotation(part(POLYGON), part(RECTANGLE, key="a2"))))
    assert coco["images"] == [{"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}]
    assert coco["annotations"][0]["segmentation"] == [[8.0, 4.0, 40.0, 4.0, 40.0, 24.0]]
    assert (coco["annotations"][1]["bbox"], coco["annotations"][1]["segmentation"]) == ([20.0, 20.0, 40.0, 10.0], [])
    assert [category["name"] for category in coco["categories"]] == ["car", "box"] and not left_out


def test_a_turned_rectangle_turns_clockwise_around_its_first_corner_in_pixels(read):
    coco, _ = read(task(annotation(part(RECTANGLE | {"rotation": 90, "width": 25}))))
    # 20 x 10 pixels from (20, 20): its top goes down, its left side to the left.
    assert coco["annotations"][0]["segmentation"] == [[20.0, 20.0, 20.0, 40.0, 10.0, 40.0, 10.0, 20.0]]


def test_an_ellipse_has_the_pixels_of_its_equation(read):
    value = {"x": 50, "y": 50, "radiusX": 25, "radiusY": 20, "rotation": 30, "ellipselabels": ["ball"]}
    coco, _ = read(task(annotation(part(value))))
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    turn = math.radians(30)
    along = (x - 40) * math.cos(turn) + (y - 20) * math.sin(turn)
    across = (y - 20) * math.cos(turn) - (x - 40) * math.sin(turn)
    expected = (along / 20) ** 2 + (across / 8) ** 2 < 1
    mask = pixels(coco["annotations"][0], coco["images"][0])
    assert (mask & expected).sum() / (mask | expected).sum() > 0.95  # 500 pixels, of which the edge is a fifth


def test_a_brush_of_the_sdk_is_decoded(read, tmp_path):
    expected = np.zeros((4, 5), bool)
    expected[1:3, 1:4] = True
    expected[2, 2] = False
    decoded = decode_brush(bytes(BRUSH), 80).reshape(4, 5, 4)
    assert np.array_equal(decoded, np.where(expected, 255, 0)[..., None].repeat(4, 2))
    save_image(tmp_path / "a.png", 5, 4)
    brush = part({"format": "rle", "rle": BRUSH, "brushlabels": ["blob"]}, original_width=5, original_height=4)
    coco, left_out = read(task(annotation(brush)))
    assert np.array_equal(pixels(coco["annotations"][0], coco["images"][0]), expected) and not left_out


def encode_brush(values, lists):
    """The format by hand, with runs of one value or, if `lists`, lists of values; 16 bits for each length."""
    bits = f"{len(values):032b}" + f"{7:05b}" + f"{15:04b}" * 4
    starts = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    if lists:
        bits += f"000{len(values) - 1:016b}" + "".join(f"{value:08b}" for value in values)
    for first, last in zip(starts[:-1], starts[1:], strict=True) if not lists else ():
        bits += f"101{last - first - 1:016b}{values[first]:08b}"
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


@pytest.mark.parametrize("lists", [False, True])
def test_runs_and_lists_are_decoded_and_broken_ones_refused(lists):
    values = np.random.default_rng(0).integers(0, 3, 400).repeat(3) * 100
    data = encode_brush(values, lists)
    assert np.array_equal(decode_brush(data, values.size), values)
    with pytest.raises(ValueError, match="cut off"):
        decode_brush(data[: len(data) // 2], values.size)
    with pytest.raises(ValueError, match="1200 values in place of 1600"):
        decode_brush(data, 1600)


def test_a_bitmask_is_what_is_not_transparent(read):
    mask = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    mask[5:9, 20:40, 3] = 255
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    coco, _ = read(task(annotation(part({"imageDataURL": url, "bitmasklabels": ["blob"]}))))
    assert np.array_equal(pixels(coco["annotations"][0], coco["images"][0]), mask[..., 3] > 0)


def test_keypoints_go_to_their_parent_or_where_a_relation_joins_them(read):
    nose = part({"x": 20, "y": 30, "width": 0.5, "keypointlabels": ["nose"]}, key="k1", parentID="a1")
    tail = part({"x": 30, "y": 50, "width": 0.5, "keypointlabels": ["tail"]}, key="k2")
    stray = part({"x": 1, "y": 1, "width": 0.5, "keypointlabels": ["nose"]}, key="k3")
    again = part({"x": 1, "y": 1, "width": 0.5, "keypointlabels": ["nose"]}, key="k4", parentID="a1")
    relation = {"type": "relation", "from_id": "a1", "to_id": "k2", "direction": "right"}
    coco, left_out = read(
        task(annotation(part(POLYGON), part(RECTANGLE, key="a2"), nose, tail, stray, again, relation))
    )
    assert coco["categories"][0]["keypoints"] == ["nose", "tail"]
    assert coco["annotations"][0]["keypoints"] == [16.0, 12.0, 2, 24.0, 20.0, 2]
    assert "keypoints" not in coco["annotations"][1]
    assert left_out == {"point_shape": 1, "repeated_point": 1}


def test_parts_of_one_id_are_one_region(read):
    shape = {"points": POLYGON["points"], "closed": True}
    apart = [part(shape, "polygon"), part(shape | {"labels": ["car"]}, "labels"), part({"text": ["x"]}, "textarea")]
    coco, left_out = read(task(annotation(*apart)))
    assert len(coco["annotations"]) == 1 and coco["categories"] == [{"id": 1, "name": "car"}] and not left_out
    chosen = part(shape | {"choices": ["bus"]}, "choices")
    coco, _ = read(task(annotation(part(shape, "polygon"), chosen)))
    assert coco["categories"] == [{"id": 1, "name": "bus"}]


def test_what_cannot_be_an_object_is_named(read):
    regions = [
        part(POLYGON, key="good"),
        part({"points": POLYGON["points"]}, "polygon", key="b"),
        part(POLYGON, key="c", image_rotation=90),
        part({"vertices": [], "vectorlabels": ["line"]}, key="d"),
        part({"rle": BRUSH, "brushlabels": ["x"]}, key="e"),
        part(POLYGON | {"polygonlabels": ["car", "bus"]}, key="f"),
        part(POLYGON | {"closed": False}, key="g"),
        {"type": "choices", "value": {"choices": ["day"]}, "from_name": "c", "to_name": "image", "id": "h"},
    ]
    coco, left_out = read(task(annotation(*regions)))
    assert len(coco["annotations"]) == 3
    expected = ("no_class", "turned_view", "unknown_shape", "broken_region", "several_classes", "closed_polygon")
    assert left_out == dict.fromkeys(expected, 1)


def test_the_latest_annotation_that_was_not_skipped_is_used(read):
    def label(name, **more):
        return annotation(part(RECTANGLE | {"rectanglelabels": [name]}), **more)

    old, new = label("old"), label("new", number=2, updated="2024-02-01T00:00:00Z")
    skipped = label("skipped", number=3, updated="2024-03-01T00:00:00Z", was_cancelled=True)
    coco, left_out = read(task(new, old, skipped))
    assert coco["categories"] == [{"id": 1, "name": "new"}] and left_out == {"other_annotation": 1}
    coco, left_out = read(task(new, old | {"ground_truth": True}))
    assert coco["categories"] == [{"id": 1, "name": "old"}] and left_out == {"other_annotation": 1}
    _, left_out = read(task(new), task(skipped, number=6), task(number=7))
    assert left_out == {"skipped_task": 1, "no_annotation": 1}


PLACES = [
    "/data/upload/1/8a3f1c2d-my%20car.png",
    "/data/local-files/?d=photos/my%20car.png",
    "/data/local-files/?d=photos\\my car.png",
    "s3://bucket/photos/my car.png",
    "https://example.org/photos/my%20car.png?X-Amz-Expires=9",
    "/tasks/1/presign/?fileuri=" + base64.urlsafe_b64encode(b"s3://bucket/photos/my car.png").decode(),
    "/storage-data/uploaded/?filepath=upload/1/8a3f1c2d-my car.png",
    "C:\\photos\\my car.png",
    "my car.png",
]


@pytest.mark.parametrize("name", ["my car.png", "8a3f1c2d-my car.png", "0badcafe__my car.png"])
@pytest.mark.parametrize("place", PLACES)
def test_images_are_found_at_each_kind_of_place(tmp_path, read, place, name):
    save_image(tmp_path / "pictures" / "photos" / name, WIDTH, HEIGHT)
    coco, left_out = read(task(annotation(part(POLYGON)), place=place), images=tmp_path / "pictures")
    assert coco["images"][0]["file_name"] == f"photos/{name}" and not left_out


def test_a_missing_image_says_where_it_should_be(read, tmp_path):
    good = task(annotation(part(POLYGON)))
    _, left_out = read(good, task(annotation(part(POLYGON)), place="s3://b/none.png", number=6))
    assert left_out == {"missing_image": 1}
    with pytest.raises(UserError, match="s3://b/none.png, which isn't in .* give its folder by --images"):
        read(task(annotation(part(POLYGON)), place="s3://b/none.png"))


def test_an_image_that_was_made_smaller_is_read_and_another_one_is_not(read):
    small = [part(POLYGON, original_width=10 * WIDTH, original_height=10 * HEIGHT)]
    coco, left_out = read(task(annotation(*small)))
    assert coco["annotations"][0]["bbox"] == [8.0, 4.0, 32.0, 20.0] and not left_out
    unknown = [part(POLYGON, original_width=None, original_height=None)]
    assert read(task(annotation(*unknown)))[0]["annotations"] == coco["annotations"]
    other = task(annotation(part(POLYGON, original_width=HEIGHT, original_height=WIDTH)))
    with pytest.raises(UserError, match="80 x 40 but was 40 x 80"):
        read(other)


def test_json_min_has_the_same_objects(tmp_path, read):
    full, _ = read(task(annotation(part(POLYGON), part(RECTANGLE, key="a2"))))
    size = {"original_width": WIDTH, "original_height": HEIGHT}
    record = {"image": "/data/upload/1/8a3f1c2d-a.png", "id": 5, "poly": [POLYGON | size], "rect": [RECTANGLE | size]}
    record |= {"annotator": 1, "annotation_id": 9, "updated_at": "2024-02-01T00:00:00Z", "lead_time": 3.5}
    assert read(record) == (full, {})
    older = record | {"annotation_id": 8, "updated_at": "2024-01-01T00:00:00Z", "poly": [], "rect": []}
    assert read(record, older) == (full, {"other_annotation": 1})
    assert read(older, record) == (full, {"other_annotation": 1})


def test_an_export_is_recognised_and_one_of_pngs_is_refused_with_a_remedy(tmp_path, read):
    read(task(annotation(part(POLYGON))))
    assert recognise_format(tmp_path / "export.json") == "label-studio"
    save_image(tmp_path / "pngs" / "task-1-annotation-2-by-1-tag-car-0.png", WIDTH, HEIGHT)
    with pytest.raises(UserError, match="export JSON instead, and give that to `mrcnn-tf convert label-studio`"):
        read_mask_folders(tmp_path / "pngs", tmp_path, class_name="car")
    (tmp_path / "other.json").write_text('{"shapes": []}')
    with pytest.raises(UserError, match="convert labelme"):
        read_label_studio(tmp_path / "other.json")


def test_its_yolo_export_goes_with_images_of_either_name(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "classes.txt").write_text("car\n")
    for name in ("8a3f1c2d-a", "0badcafe-my%20b", "deadbeef-c"):
        (tmp_path / "labels" / f"{name}.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.6\n")
    for name in ("a.png", "my b.png", "deadbeef-c.png"):
        save_image(tmp_path / "images" / name, WIDTH, HEIGHT)
    dataset = read_yolo(tmp_path)
    coco = dataset.to_coco()
    assert sorted(annotation["image_id"] for annotation in coco["annotations"]) == [1, 2, 3] and not kinds(dataset)


def test_its_coco_export_is_found_by_names_with_a_prefix(tmp_path):
    save_image(tmp_path / "pictures" / "my a.png", WIDTH, HEIGHT)
    for name in ("images/8a3f1c2d-my%20a.png", "images\\8a3f1c2d-my a.png", "/data/upload/1/0badcafe-my a.png"):
        assert ImageFolder(tmp_path / "pictures").find(name) == tmp_path / "pictures" / "my a.png"
    assert ImageFolder(tmp_path / "pictures").find("8a3f1c2-my a.png") is None, "it isn't eight characters"
    save_image(tmp_path / "pictures" / "deadbeef-my a.png", WIDTH, HEIGHT)
    assert ImageFolder(tmp_path / "pictures").find("0badcafe-my a.png") is None, "two may be meant"


def test_as_a_user_runs_it(tmp_path, read, capsys):
    read(task(annotation(part(POLYGON)), annotation(part(POLYGON), number=2)))
    out = tmp_path / "out.json"
    said = call("convert", "label-studio", tmp_path, "--out", out)
    assert f"1 images, 1 objects, 1 classes (car 1): {out}" in said
    assert "1 x other_annotation, e.g. Task 5 of" in capsys.readouterr().err
    assert len(json.loads(out.read_text())["annotations"]) == 1
