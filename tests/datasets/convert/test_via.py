"""VIA's files, versions 1 and 2, against annotations worked out by hand."""

import csv
import json
import os
import tracemalloc

import numpy as np
import pytest
from convert_samples import kinds, save_image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.convert.coco import read_coco
from mrcnn_tf.datasets.convert.inputs import recognise_format
from mrcnn_tf.datasets.convert.via import read_via
from mrcnn_tf.datasets.doctor import validate

POLYGON = {"name": "polygon", "all_points_x": [1, 5, 5], "all_points_y": [1, 1, 4]}
RECT = {"name": "rect", "x": 2, "y": 3, "width": 4, "height": 5}


def region(shape, **attributes):
    return {"shape_attributes": shape, "region_attributes": attributes}


def save_via(path, regions, name="a.png", project=None, version=2):
    if version == 1:
        regions = {str(number): region for number, region in enumerate(regions)}
    entry = {"filename": name, "size": 123, "regions": regions, "file_attributes": {}}
    if version == 1:
        entry |= {"fileref": "", "base64_img_data": ""}
    content = {f"{name}123": entry}
    if project is not None:
        content = {
            "_via_settings": {"core": {"default_filepath": ""}, "project": {"name": "x"}},
            "_via_img_metadata": content,
            "_via_attributes": {"region": project, "file": {}},
            "_via_data_format_version": "2.0.10",
            "_via_image_id_list": [f"{name}123"],
        }
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


@pytest.fixture
def image(tmp_path):
    return save_image(tmp_path / "a.png", 20, 10)


@pytest.mark.parametrize(("version", "project"), [(1, None), (2, None), (2, {})])
def test_versions_and_projects_give_the_same(tmp_path, image, version, project):
    regions = [region(POLYGON, kind="cat"), region(RECT, kind="dog ")]
    path = save_via(tmp_path / "via.json", regions, version=version, project=project)
    coco = read_via(path).to_coco()
    assert coco["images"] == [{"id": 1, "file_name": "a.png", "width": 20, "height": 10}]
    assert [annotation["segmentation"] for annotation in coco["annotations"]] == [
        [[1.0, 1.0, 5.0, 1.0, 5.0, 4.0]],
        [[2.0, 3.0, 6.0, 3.0, 6.0, 8.0, 2.0, 8.0]],
    ]
    assert [annotation["bbox"] for annotation in coco["annotations"]] == [[1.0, 1.0, 4.0, 3.0], [2.0, 3.0, 4.0, 5.0]]
    assert [annotation["category_id"] for annotation in coco["annotations"]] == [1, 2]
    assert coco["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]


def test_csv_gives_the_same(tmp_path, image):
    save_image(tmp_path / "b.png", 7, 6)
    polygon = json.dumps(POLYGON).replace('"', '""')
    rect = json.dumps(RECT).replace('"', '""')
    (tmp_path / "via.csv").write_text(
        "#filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n"
        f'a.png,123,"{{}}",2,0,"{polygon}","{{""kind"":""cat""}}"\n'
        f'a.png,123,"{{}}",2,1,"{rect}","{{""kind"":""dog""}}"\n'
        'b.png,55,"{}",0,0,"{}","{}"\n',
        encoding="utf-8",
    )
    coco = read_via(tmp_path / "via.csv").to_coco()
    assert [image["file_name"] for image in coco["images"]] == ["a.png", "b.png"]
    save_via(tmp_path / "via.json", [region(POLYGON, kind="cat"), region(RECT, kind="dog")])
    assert coco["annotations"] == read_via(tmp_path / "via.json").to_coco()["annotations"]
    # The lines of an image may lie apart, and a spreadsheet separates by semicolons.
    lines = (tmp_path / "via.csv").read_text().splitlines()
    (tmp_path / "via.csv").write_text("\n".join([lines[0], lines[1], lines[3], lines[2]]))
    assert read_via(tmp_path / "via.csv").to_coco() == coco
    with open(tmp_path / "via.csv", newline="") as file:
        rows = list(csv.reader(file))
    with open(tmp_path / "via.csv", "w", newline="") as file:
        csv.writer(file, delimiter=";").writerows(rows)
    assert read_via(tmp_path / "via.csv").to_coco() == coco


def test_cells_of_a_csv(tmp_path, image):
    """One that isn't json costs its region alone, and a class may be written as it is."""
    long = POLYGON | {"all_points_x": [1.25] * 30000 + [1, 5, 5], "all_points_y": [1.25] * 30000 + [1, 1, 4]}
    rows = [
        ["filename", "file_size", "region_shape_attributes", "region_attributes"],
        ["a.png", 1, json.dumps(POLYGON), "cat"],
        ["a.png", 1, "{broken", "cat"],
        ["a.png", 1, json.dumps(long), "dog"],
    ]
    with open(tmp_path / "via.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    dataset = read_via(tmp_path / "via.csv")
    assert [one["area"] for one in dataset.to_coco()["annotations"]] == [6, 6]
    assert [one["name"] for one in dataset.to_coco()["categories"]] == ["cat", "dog"]
    assert kinds(dataset) == ["broken_shape"]


def test_circles_and_turned_ellipses(tmp_path):
    save_image(tmp_path / "a.png", 300, 200)
    circle = {"name": "circle", "cx": 60, "cy": 70, "r": 40}
    ellipse = {"name": "ellipse", "cx": 180, "cy": 100, "rx": 80, "ry": 20, "theta": 0.5}
    path = save_via(tmp_path / "via.json", [region(circle, kind="x"), region(ellipse, kind="x")])
    first, second = read_via(path).to_coco()["annotations"]
    assert first["bbox"] == pytest.approx([20, 30, 80, 80], abs=0.1)
    half = np.hypot(80 * np.cos(0.5), 20 * np.sin(0.5)), np.hypot(80 * np.sin(0.5), 20 * np.cos(0.5))
    assert second["bbox"] == pytest.approx([180 - half[0], 100 - half[1], 2 * half[0], 2 * half[1]], abs=0.1)
    # A turn by a positive angle goes from x towards y, which is down: the right end lies below the centre.
    points = np.reshape(second["segmentation"][0], (-1, 2))
    assert points[points[:, 0].argmax(), 1] > 110
    assert first["area"] == pytest.approx(np.pi * 40**2, rel=0.003)
    assert second["area"] == pytest.approx(np.pi * 80 * 20, rel=0.003)


def arc(share, radius=40, points=40):
    """A polyline along that share of a circle."""
    angles = np.linspace(0, 2 * np.pi * share, points)
    x, y = (100 + radius * np.cos(angles)).tolist(), (100 + radius * np.sin(angles)).tolist()
    return {"name": "polyline", "all_points_x": x, "all_points_y": y}


def test_polylines_are_outlines_if_their_ends_nearly_meet(tmp_path):
    """As seen from their length: half a circle's ends are 2 radii apart and its length is pi radii."""
    save_image(tmp_path / "a.png", 400, 400)
    whole = {"name": "polyline", "all_points_x": [9, 99, 99, 9, 9], "all_points_y": [9, 9, 99, 99, 9]}
    closed = [arc(0.95), arc(0.95, 4), arc(0.93, 95), whole]
    line = {"name": "polyline", "all_points_x": [1, 390, 391], "all_points_y": [1, 2, 3]}
    tiny = {"name": "polyline", "all_points_x": [5, 8, 8], "all_points_y": [5, 5, 8]}  # an L of six pixels
    two_points = {"name": "polyline", "all_points_x": [5, 90, 5], "all_points_y": [5, 90, 5]}
    unclosed = [arc(0.5), arc(0.75), arc(0.87), line, tiny, two_points]
    path = save_via(tmp_path / "via.json", [region(outline, kind="x") for outline in closed + unclosed])
    dataset = read_via(path)
    assert [annotation["area"] for annotation in dataset.to_coco()["annotations"]] == pytest.approx(
        [np.pi * 40**2, np.pi * 4**2, np.pi * 95**2, 90**2], rel=0.05
    )
    # The fourth one's ends are where they should be, so nothing was done to it.
    assert kinds(dataset) == ["closed_polyline"] * 3 + ["open_polyline_shape"] * 6
    message = dataset.problems[0].message
    gap, length = 2 * 40 * np.sin(0.05 * np.pi), 0.95 * 2 * np.pi * 40
    assert f"ends are {gap:.1f} pixels apart, {gap / length:.1%} of its length, and was closed" in message


def test_shapes_that_cannot_be_read(tmp_path, image):
    broken = [
        {"name": "point", "cx": 3, "cy": 3},
        {"name": "rect"},
        {"name": "polygon", "all_points_x": "155", "all_points_y": "114"},  # digits are no points
        {"name": "polygon", "all_points_x": [1, 5, 5], "all_points_y": [1, 1]},
        {"name": "polygon", "all_points_x": [1, "x", 5], "all_points_y": [1, 1, 4]},
        {"name": "polyline", "all_points_x": [], "all_points_y": []},
        {"name": "circle", "cx": None, "cy": 1, "r": 1},
        None,
        "not json",
    ]
    path = save_via(tmp_path / "via.json", [region(shape, kind="x") for shape in [POLYGON, *broken]] + ["text", None])
    dataset = read_via(path)
    assert len(dataset.to_coco()["annotations"]) == 1
    assert kinds(dataset) == ["broken_shape"] * 10 + ["point_shape"]


def test_entries_that_cannot_be_read(tmp_path, image):
    path = save_via(tmp_path / "via.json", [region(POLYGON, kind="x")], project={})
    content = json.loads(path.read_text())
    content["_via_img_metadata"] |= {
        "b": {"size": 3, "regions": [region(POLYGON, kind="x")]},
        "c": {"filename": "a.png", "regions": "none"},
        "d": 3,
    }
    path.write_text(json.dumps(content))
    dataset = read_via(path)
    assert len(dataset.to_coco()["annotations"]) == 1
    assert kinds(dataset) == ["broken_entry"] * 3


def test_numbers_and_attributes_as_text(tmp_path, image):
    texts = POLYGON | {"all_points_x": ["1", "5", "5"], "all_points_y": ["1", "1", "4"]}
    regions = [
        {"shape_attributes": texts, "region_attributes": "cat"},
        {"shape_attributes": RECT | {"width": "4"}, "region_attributes": "dog"},
    ]
    dataset = read_via(save_via(tmp_path / "via.json", regions))
    plain = read_via(save_via(tmp_path / "plain.json", [region(POLYGON, kind="cat"), region(RECT, kind="dog")]))
    assert dataset.to_coco() == plain.to_coco()


@pytest.mark.parametrize(
    "name", ["https://there/x/a%20b.png?raw=1", "photos/of me/a b.png", "C:\\photos\\a b.png", "/home/me/a b.png"]
)
def test_names_of_other_places(tmp_path, name):
    save_image(tmp_path / "a b.png", 20, 10)
    path = save_via(tmp_path / "via.json", [region(POLYGON, kind="x")], name)
    assert [one["file_name"] for one in read_via(path).to_coco()["images"]] == ["a b.png"]


@pytest.mark.parametrize("is_first", [False, True])
def test_attributes_are_described_before_or_after_the_regions(tmp_path, image, is_first):
    project = {"animal": {"type": "dropdown", "options": {"1": "cat"}}}
    path = save_via(tmp_path / "via.json", [region(POLYGON, animal="1")], project=project)
    content = json.loads(path.read_text())
    order = ["_via_attributes", "_via_img_metadata"] if is_first else ["_via_img_metadata", "_via_attributes"]
    path.write_text(json.dumps({name: content[name] for name in order}))
    assert read_via(path).to_coco()["categories"] == [{"id": 1, "name": "cat"}]


def test_memory_is_that_of_the_coordinates_as_text(tmp_path, image, monkeypatch):
    """Not of the json's tree of numbers, which takes seven times as much as the file."""
    monkeypatch.setattr("mrcnn_tf.common.json_stream.CHUNK", 1 << 14)
    angles = np.linspace(0, 6, 3000)
    x, y = (1400 + 400 * np.cos(angles)).astype(int).tolist(), (5 + 4 * np.sin(angles)).astype(int).tolist()
    shape = {"name": "polygon", "all_points_x": x, "all_points_y": y}
    save_image(tmp_path / "wide.jpg", 1900, 10)
    entries = {}
    for number in range(25):
        os.link(tmp_path / "wide.jpg", tmp_path / f"{number}.png")
        entries[str(number)] = {"filename": f"{number}.png", "regions": [region(shape, kind="x")] * 2}
    path = tmp_path / "via.json"
    path.write_text(json.dumps({"_via_img_metadata": entries}, separators=(",", ":")))
    tracemalloc.start()
    read_via(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * path.stat().st_size
    tracemalloc.start()
    json.loads(path.read_text())
    assert tracemalloc.get_traced_memory()[1] > 3 * path.stat().st_size
    tracemalloc.stop()


def test_options_go_by_their_description_and_checkboxes_by_what_is_checked(tmp_path, image):
    project = {"animal": {"type": "checkbox", "options": {"1": "cat", "2": "", "3": "cow"}}}
    regions = [region(POLYGON, animal=value) for value in ({"1": True}, {"2": True}, {"1": True, "3": True}, {}, "3")]
    dataset = read_via(save_via(tmp_path / "via.json", regions, project=project))
    assert [category["name"] for category in dataset.to_coco()["categories"]] == ["cat", "2", "cow"]
    assert kinds(dataset) == ["no_class", "several_classes"]


def test_the_class_among_several_attributes(tmp_path, image):
    path = save_via(tmp_path / "via.json", [region(POLYGON, Class="cat", quality="good"), region(RECT, quality="bad")])
    dataset = read_via(path)
    assert dataset.to_coco()["categories"] == [{"id": 1, "name": "cat"}]
    assert kinds(dataset) == ["no_class"]
    chosen = read_via(path, class_attribute="quality").to_coco()
    assert [category["name"] for category in chosen["categories"]] == ["good", "bad"]
    with pytest.raises(UserError, match="No region of .* has the attribute 'colour': the file has 'Class', 'quality'"):
        read_via(path, class_attribute="colour")


def test_ambiguous_attributes_ask(tmp_path, image):
    path = save_via(tmp_path / "via.json", [region(POLYGON, size="big", colour="red")])
    with pytest.raises(UserError, match="'size' .such as 'big'., 'colour' .such as 'red'.: say .* --class-attribute"):
        read_via(path)


def test_regions_without_attributes_ask_for_a_name(tmp_path, image):
    """As in the balloon dataset with which many began."""
    path = save_via(tmp_path / "via.json", [region(POLYGON)], version=1)
    with pytest.raises(UserError, match="--class-name NAME"):
        read_via(path)
    assert read_via(path, class_name="balloon").to_coco()["categories"] == [{"id": 1, "name": "balloon"}]


@pytest.mark.parametrize(("points", "size"), [([1, 30, 30], (40, 20)), ([1, 18, 18], (20, 40))])
def test_exif_follows_the_coordinates(tmp_path, points, size):
    """VIA says no size: coordinates that only fit the file as stored are of that frame."""
    save_image(tmp_path / "a.jpg", 40, 20, orientation=6)
    shape = {"name": "polygon", "all_points_x": points, "all_points_y": [1, 1, 18]}
    (picture,) = read_via(save_via(tmp_path / "via.json", [region(shape, kind="x")], "a.jpg")).to_coco()["images"]
    assert (picture["width"], picture["height"]) == size


def test_missing_images_and_images_without_regions(tmp_path, image):
    path = save_via(tmp_path / "via.json", [region(POLYGON, kind="x")])
    content = json.loads(path.read_text())
    save_image(tmp_path / "deep/b ü.png", 7, 6)
    content["b"] = {"filename": "http://there/b ü.png", "size": -1, "regions": [], "file_attributes": {}}
    content["c"] = {"filename": "c.png", "size": -1, "regions": [], "file_attributes": {}}
    path.write_text(json.dumps(content), encoding="utf-8")
    dataset = read_via(path)
    assert [one["file_name"] for one in dataset.to_coco()["images"]] == ["a.png", "deep/b ü.png"]
    assert kinds(dataset) == ["missing_image"]


def test_what_via_3_exports_can_be_trained_on(tmp_path, image):
    """The remedy for its projects. Its COCO json has sizes of -1, and a polygon as one list of numbers."""
    path = tmp_path / "via3.json"
    path.write_text(json.dumps({"project": {}, "metadata": {"a": {"vid": "1"}}, "view": {"1": {"fid_list": ["1"]}}}))
    with pytest.raises(UserError, match="export it as COCO there, .* check that by `mrcnn-tf validate`"):
        read_via(path)
    record = {"id": 0, "image_id": 1, "category_id": 0, "bbox": [1, 1, 4, 3], "area": 12, "iscrowd": False}
    images = [{"id": 1, "file_name": "a.png", "coco_url": "a.png", "width": -1, "height": -1}]
    annotations = [
        record | {"segmentation": [1, 1, 5, 1, 5, 4]},
        record | {"id": 1, "segmentation": [[1, 1, 5, 1, 5, 4]]},
    ]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 0, "name": "cat"}]}
    path.write_text(json.dumps(content))
    assert not validate(path, tmp_path).has_errors()
    coco = read_coco(path, tmp_path)
    assert [one.segmentation for one in coco.images[0].annotations] == [[[1, 1, 5, 1, 5, 4]]] * 2


def test_a_folder_with_one_file_of_via(tmp_path, image):
    """Which other commands name when they refuse it; another json may lie there, too."""
    save_via(tmp_path / "mine.json", [region(POLYGON, kind="cat")])
    (tmp_path / "settings.json").write_text("{}")
    assert recognise_format(tmp_path) == "via"
    assert len(read_via(tmp_path).to_coco()["annotations"]) == 1
    save_via(tmp_path / "val.json", [region(POLYGON, kind="cat")])
    with pytest.raises(UserError, match="has several files of VIA .mine.json, val.json.: give one"):
        read_via(tmp_path)


def test_files_that_are_not_via(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"a": \n\n[1, 2', encoding="utf-8")
    with pytest.raises(UserError, match="x.json isn't valid json .*line 3"):
        read_via(path)
    path.write_text('{"project": {}, "config": {}, "file": {}, "metadata": {}, "view": {}}')
    with pytest.raises(UserError, match="VIA 3"):
        read_via(path)
    path.write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(UserError, match="is COCO's already"):
        read_via(path)
    path.write_text('{"shapes": [], "imagePath": "x"}')
    with pytest.raises(UserError, match="try `mrcnn-tf convert labelme"):
        read_via(path)
    path.write_bytes(b'{"caf\xe9": 1}')
    with pytest.raises(UserError, match="isn't UTF-8 text: save it as UTF-8"):
        read_via(path)
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no columns filename"):
        read_via(tmp_path / "x.csv")
