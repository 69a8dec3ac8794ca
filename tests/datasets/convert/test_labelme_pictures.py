"""Which picture a labelme json was drawn on: a file, by whatever name, or what is inside the json."""

import base64
import io
import json

import numpy as np
import pytest
from convert_samples import kinds, labelme_shape, save_image, save_labelme
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.convert.labelme import read_labelme

OBJECTS = [labelme_shape("polygon", [[1, 1], [15, 1], [15, 8]])]


def picture(width=20, height=10, file_format="PNG", orientation=1):
    """The bytes of an image file."""
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    pixels = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    Image.fromarray(pixels).save(file, file_format, **({"exif": exif} if orientation != 1 else {}))
    return file.getvalue()


def save(path, image_path, data=None, size=(20, 10), shapes=OBJECTS):
    """A labelme json that holds the bytes of a picture."""
    save_labelme(path, shapes, image_path, *size)
    content = json.loads(path.read_text(encoding="utf-8"))
    content["imageData"] = None if data is None else base64.b64encode(data).decode()
    path.write_text(json.dumps(content), encoding="utf-8")


def read(folder, **more):
    dataset = read_labelme(folder, extracted=folder.parent / "out_images", **more)
    (image,) = dataset.to_coco()["images"]
    return dataset, image


@pytest.mark.parametrize(
    "name", ["a.json", "..\\photos\\b.jpg", "/home/me/b.jpg", "A.PNG", "a.bmp", "a", "", None, 5, "nowhere/b.tif"]
)
@pytest.mark.parametrize("embedded", [False, True])
def test_a_wrong_imagepath_leaves_the_image_of_the_jsons_name(tmp_path, name, embedded):
    save_image(tmp_path / "set/a.png", 20, 10)
    save_image(tmp_path / "set/other.png", 20, 10)
    save(tmp_path / "set/a.json", name, picture() if embedded else None)
    dataset, image = read(tmp_path / "set")
    assert image["file_name"] == "a.png" and dataset.image_folder is None
    assert kinds(dataset) == ["unlabelled_image"]  # other.png
    assert not (tmp_path / "out_images").exists()


def test_the_image_beside_the_json_comes_before_others_of_its_name(tmp_path):
    for name in ("x/a.png", "y/a.png", "a.png"):
        save_image(tmp_path / "set" / name, 20, 10)
    save(tmp_path / "set/y/a.json", "gone.png")
    assert read(tmp_path / "set")[1]["file_name"] == "y/a.png"


@pytest.mark.parametrize(("file_format", "suffix"), [("PNG", "png"), ("JPEG", "jpg"), ("BMP", "bmp")])
def test_a_picture_that_only_its_json_has_is_written_out(tmp_path, file_format, suffix):
    data = picture(file_format=file_format)
    (tmp_path / "set/deep").mkdir(parents=True)
    save(tmp_path / "set/deep/a.json", "..\\photos\\shelf.jpg", data)
    before = sorted(tmp_path.rglob("*"))
    dataset, image = read(tmp_path / "set")
    assert image == {"id": 1, "file_name": f"deep/a.{suffix}", "width": 20, "height": 10}
    assert dataset.image_folder == tmp_path / "out_images"
    assert (dataset.image_folder / image["file_name"]).read_bytes() == data
    assert len(dataset.to_coco()["annotations"]) == 1 and kinds(dataset) == []
    written = {dataset.image_folder, dataset.image_folder / "deep", dataset.image_folder / f"deep/a.{suffix}"}
    assert set(tmp_path.rglob("*")) == {*before, *written}


def test_one_folder_then_holds_all_images_and_nothing_is_overwritten(tmp_path):
    folder = tmp_path / "set"
    save_image(folder / "b.jpg", 20, 10)
    save(folder / "b.json", "b.jpg")
    save(folder / "a.json", "a.png", picture())
    extracted = folder / "out_images"
    for _ in range(2):  # what the first run wrote, here among the images, changes nothing
        dataset = read_labelme(folder, extracted=extracted)
        assert [image["file_name"] for image in dataset.to_coco()["images"]] == ["a.png", "b.jpg"]
        assert dataset.image_folder == extracted and kinds(dataset) == []
        assert (extracted / "b.jpg").read_bytes() == (folder / "b.jpg").read_bytes()
        assert (extracted / "a.png").read_bytes() == picture()
    (extracted / "a.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="a.png is there already and isn't the picture of .*a.json: move the folder"):
        read_labelme(folder, extracted=extracted)
    assert (extracted / "a.png").read_bytes() == b"mine"
    extracted.rename(tmp_path / "away")
    assert read_labelme(folder, extracted=extracted).image_folder == extracted


def test_a_file_of_another_size_than_imagedata_was_not_labelled(tmp_path):
    save_image(tmp_path / "set/a.png", 10, 5)
    save(tmp_path / "set/a.json", "a.png", picture())
    dataset, image = read(tmp_path / "set")
    assert (image["file_name"], image["width"], image["height"]) == ("a_imageData.png", 20, 10)
    assert kinds(dataset) == ["other_picture"]
    assert "a.png is 10 x 5, but" in dataset.problems[0].message and "of 20 x 10, which" in dataset.problems[0].message


def test_imagedata_stands_in_for_a_damaged_file(tmp_path):
    path = save_image(tmp_path / "set/a.png", 20, 10)
    path.write_bytes(path.read_bytes()[:30])
    save(tmp_path / "set/a.json", "a.png", picture())
    dataset, image = read(tmp_path / "set")
    assert image["file_name"] == "a_imageData.png" and kinds(dataset) == ["other_picture"]
    assert "a.png can't be read, but" in dataset.problems[0].message


@pytest.mark.parametrize(
    "size", [(None, None), (0, 0), (-1, -1), ("wide", "high"), (20, None), ("20", "10"), (20.0, 10.0)]
)
@pytest.mark.parametrize("embedded", [False, True])
def test_sizes_that_are_none_are_those_of_the_picture(tmp_path, size, embedded):
    (tmp_path / "set").mkdir()
    if not embedded:
        save_image(tmp_path / "set/a.png", 20, 10)
    save(tmp_path / "set/a.json", "a.png", picture() if embedded else None, size)
    dataset, image = read(tmp_path / "set")
    assert (image["width"], image["height"]) == (20, 10) and kinds(dataset) == []


@pytest.mark.parametrize("has_file", [False, True])
def test_a_wrong_size_gives_way_to_imagedata(tmp_path, has_file):
    (tmp_path / "set").mkdir()
    if has_file:
        save_image(tmp_path / "set/a.png", 20, 10)
    save(tmp_path / "set/a.json", "a.png", picture(), (40, 20))
    dataset, image = read(tmp_path / "set")
    assert (image["width"], image["height"]) == (20, 10) and kinds(dataset) == ["wrong_size"]
    assert (dataset.image_folder is None) == has_file


def test_a_wrong_size_without_imagedata_can_be_corrected(tmp_path):
    save_image(tmp_path / "set/a.png", 20, 10)
    save(tmp_path / "set/a.json", "a.png", size=(40, 20))
    with pytest.raises(UserError, match="correct imageWidth and imageHeight in the json"):
        read(tmp_path / "set")
    save(tmp_path / "set/a.json", "a.png", size=(20, 10))
    assert kinds(read(tmp_path / "set")[0]) == []


@pytest.mark.parametrize(("stated", "expected"), [((20, 10), (20, 10)), ((10, 20), (10, 20)), ((None, None), (10, 20))])
def test_exif_inside_a_json(tmp_path, stated, expected):
    (tmp_path / "set").mkdir()
    save(tmp_path / "set/a.json", "a.jpg", picture(file_format="JPEG", orientation=6), stated)
    dataset, image = read(tmp_path / "set")
    assert (image["width"], image["height"]) == expected and kinds(dataset) == []


@pytest.mark.parametrize("data", ["no picture", "%%%", base64.b64encode(picture()[:30]).decode(), 5, ["x"]])
def test_broken_imagedata(tmp_path, data):
    (tmp_path / "set").mkdir()
    save(tmp_path / "set/a.json", "a.png")
    content = json.loads((tmp_path / "set/a.json").read_text()) | {"imageData": data}
    (tmp_path / "set/a.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="The imageData of .*a.json .* and isn't used: put the image beside the json"):
        read(tmp_path / "set")
    save_image(tmp_path / "set/a.png", 20, 10)
    dataset, image = read(tmp_path / "set")
    assert image["file_name"] == "a.png" and kinds(dataset) == ["broken_image_data"]


def test_a_data_address_and_an_older_json(tmp_path):
    """labelme 2 had colours, no shape_type, no sizes and flags of null; web tools write data addresses."""
    (tmp_path / "set").mkdir()
    shape = {"label": "cat", "line_color": None, "fill_color": [1, 2, 3, 4], "points": [["1", 1], [15, "1.5"], [15, 8]]}
    content = {"shapes": [shape], "lineColor": [0, 255, 0, 128], "imagePath": "a.png", "flags": None}
    content["imageData"] = "data:image/png;base64," + base64.b64encode(picture()).decode()
    (tmp_path / "set/a.json").write_text(json.dumps(content))
    dataset, image = read(tmp_path / "set")
    assert kinds(dataset) == [] and (dataset.image_folder / "a.png").read_bytes() == picture()
    assert dataset.to_coco()["annotations"][0]["segmentation"] == [[1.0, 1.0, 15.0, 1.5, 15.0, 8.0]]


def test_without_a_folder_for_them_pictures_stay_in_their_jsons(tmp_path):
    (tmp_path / "set").mkdir()
    save(tmp_path / "set/a.json", "a.png", picture())
    with pytest.raises(UserError, match="is in the json alone, which was left out: write it to a file beside it"):
        read_labelme(tmp_path / "set").to_coco()
    (tmp_path / "set/a.png").write_bytes(picture())
    assert kinds(read_labelme(tmp_path / "set")) == []


def test_of_two_images_of_the_jsons_name_none_is_guessed(tmp_path):
    for name in ("a.png", "a.jpg"):
        save_image(tmp_path / "set" / name, 20, 10)
    save(tmp_path / "set/a.json", "gone.bmp")
    with pytest.raises(UserError, match="say in imagePath whether it is a.jpg or a.png"):
        read(tmp_path / "set")
    save(tmp_path / "set/a.json", "a.jpg")
    assert read(tmp_path / "set")[1]["file_name"] == "a.jpg"
