"""VIA's files, versions 1 and 2, against annotations worked out by hand."""

import json

import numpy as np
import pytest
from convert_samples import kinds, save_image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.convert.via import read_via

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


def test_polylines_count_if_they_close(tmp_path, image):
    closed = {"name": "polyline", "all_points_x": [1, 9, 9, 2], "all_points_y": [1, 1, 8, 2]}
    unclosed = {"name": "polyline", "all_points_x": [1, 9, 9], "all_points_y": [1, 1, 8]}
    point = {"name": "point", "cx": 3, "cy": 3}
    path = save_via(
        tmp_path / "via.json", [region(outline, kind="x") for outline in (closed, unclosed, point, {"name": "rect"})]
    )
    dataset = read_via(path)
    assert len(dataset.to_coco()["annotations"]) == 1
    assert kinds(dataset) == ["broken_shape", "open_polyline_shape", "point_shape"]


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
    with pytest.raises(UserError, match="isn't UTF-8 text .line 1."):
        read_via(path)
    csv = tmp_path / "x.csv"
    csv.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no columns filename"):
        read_via(csv)
    csv.write_text('filename,region_shape_attributes,region_attributes\na.png,"{",{}\n')
    with pytest.raises(UserError, match="x.csv, line 2"):
        read_via(csv)
