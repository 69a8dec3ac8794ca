"""Where VOC's files are and which splits they are of, and what an xml says about its image."""

import pytest
from convert_samples import kinds, save_image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.convert.voc import find_photos, read_voc

BOX = "<bndbox><xmin>3</xmin><ymin>2</ymin><xmax>6.5</xmax><ymax>9</ymax></bndbox>"


def save_xml(path, head="", label="cat"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation>{head}<object><name>{label}</name>{BOX}</object></annotation>", encoding="utf-8")


def file_names(dataset):
    return [image["file_name"] for image in dataset.to_coco()["images"]]


@pytest.mark.parametrize("layout", ["{split}", "{split}/Annotations", "Annotations/{split}", "annotations/{split}"])
def test_folders_of_splits_are_never_joined(tmp_path, layout):
    """Roboflow's folders, and others', with images of the same name."""
    photos = "JPEGImages/{split}" if layout == "Annotations/{split}" else "{split}"
    for split, width in (("train", 20), ("valid", 30)):
        save_image(tmp_path / photos.format(split=split) / "a.jpg", width, 10)
        size = f"<size><width>{width}</width><height>10</height></size>"
        save_xml(tmp_path / layout.format(split=split) / "a.xml", f"<filename>a.jpg</filename>{size}")
    with pytest.raises(UserError, match="has the splits train, val: convert one at a time by --split train"):
        read_voc(tmp_path)
    for split, width, place in (("train", 20, "train"), ("val", 30, "valid"), ("valid", 30, "valid")):
        dataset = read_voc(tmp_path, split=split)
        coco = dataset.to_coco()
        assert kinds(dataset) == []
        assert [(image["file_name"], image["width"]) for image in coco["images"]] == [(f"{place}/a.jpg", width)]
        assert (find_photos(tmp_path) / f"{place}/a.jpg").is_file()
    with pytest.raises(UserError, match="has no split 'test': it has train, val"):
        read_voc(tmp_path, split="test")


def test_one_folder_of_a_split(tmp_path):
    for split in ("train", "test"):
        save_image(tmp_path / split / "a.jpg", 20, 10)
        save_xml(tmp_path / split / "a.xml")
    assert file_names(read_voc(tmp_path / "train")) == ["a.jpg"]


def test_lists_that_are_joined_are_noted(tmp_path):
    for stem in "ab":
        save_image(tmp_path / f"JPEGImages/{stem}.png", 20, 10)
        save_xml(tmp_path / f"Annotations/{stem}.xml")
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    for name, stem in (("Train", "a"), ("val", "b"), ("cat_val", "gone -1")):
        (tmp_path / f"ImageSets/Main/{name}.txt").write_text(f"{stem}\n")
    dataset = read_voc(tmp_path)
    assert file_names(dataset) == ["a.png", "b.png"]
    assert kinds(dataset) == ["splits_joined"]
    assert file_names(read_voc(tmp_path, split="train")) == ["a.png"]


def test_lists_of_file_names(tmp_path):
    for name in ("a.1.png", "b.tif", "c.png"):
        save_image(tmp_path / "JPEGImages" / name, 20, 10)
        save_xml((tmp_path / "Annotations" / name).with_suffix(".xml"))
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/all.txt").write_text("a.1.png\nb.tif\n")
    assert file_names(read_voc(tmp_path, split="all")) == ["a.1.png", "b.tif"]


def test_several_years_are_one_dataset(tmp_path):
    for year in ("VOC2007", "VOC2012"):
        save_image(tmp_path / year / f"JPEGImages/{year}.png", 20, 10)
        save_xml(tmp_path / year / f"Annotations/{year}.xml")
    expected = [f"{year}/JPEGImages/{year}.png" for year in ("VOC2007", "VOC2012")]
    assert file_names(read_voc(tmp_path)) == expected
    assert file_names(read_voc(tmp_path / "VOC2007/Annotations")) == ["VOC2007.png"]
    assert find_photos(tmp_path / "VOC2007/Annotations") == tmp_path / "VOC2007/JPEGImages"


@pytest.mark.parametrize(
    "head",
    [
        "",
        "<filename/><path></path>",
        "<filename>a.png</filename>",
        "<filename>a</filename>",
        "<filename>C:\\work\\A.JPG</filename>",
        "<path>D:\\old place\\a.jpg</path>",
        "<filename>renamed.jpg</filename><path>/home/x/renamed.jpg</path>",
    ],
)
def test_names_of_the_image(tmp_path, head):
    save_image(tmp_path / "JPEGImages/a.jpg", 20, 10)
    save_xml(tmp_path / "Annotations/a.xml", head)
    dataset = read_voc(tmp_path)
    assert file_names(dataset) == ["a.jpg"]
    assert kinds(dataset) == []


def test_an_xml_of_another_name_names_its_image(tmp_path):
    save_image(tmp_path / "b.jpg", 20, 10)
    save_xml(tmp_path / "0001.xml", "<path>D:\\old place\\b.jpg</path>")
    assert file_names(read_voc(tmp_path)) == ["b.jpg"]


def test_an_xml_that_names_anothers_image(tmp_path):
    for stem in "ab":
        save_image(tmp_path / f"{stem}.jpg", 20, 10)
        save_xml(tmp_path / f"{stem}.xml", "<filename>a.jpg</filename>")
    dataset = read_voc(tmp_path)
    assert file_names(dataset) == ["a.jpg", "b.jpg"]
    assert kinds(dataset) == ["other_name"]


@pytest.mark.parametrize("size", ["", "0 0", "-1 -1", "None None", "nan 10", "20 ", "20.0 10.0"])
def test_sizes_that_say_nothing(tmp_path, size):
    save_image(tmp_path / "a.jpg", 20, 10)
    width, _, height = size.partition(" ")
    save_xml(tmp_path / "a.xml", size and f"<size><width>{width}</width><height>{height}</height></size>")
    coco = read_voc(tmp_path).to_coco()
    assert coco["images"] == [{"id": 1, "file_name": "a.jpg", "width": 20, "height": 10}]
    assert coco["annotations"][0]["bbox"] == [2, 1, 4.5, 8]


def test_xml_of_another_format_has_a_command(tmp_path):
    (tmp_path / "annotations.xml").write_text("<annotations><version>1.1</version></annotations>")
    with pytest.raises(UserError, match="its top is <annotations>: try `mrcnn-tf convert cvat .*annotations.xml`"):
        read_voc(tmp_path).to_coco()
