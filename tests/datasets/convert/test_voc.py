"""Pascal VOC's folders against annotations worked out by hand."""

import numpy as np
import pytest
from convert_samples import kinds, pixels, save_image
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.convert.voc import make_palette, read_voc
from mrcnn_tf.datasets.convert.voc_masks import box_iou


def save_xml(folder, stem, objects, width=20, height=10, filename=None):
    """Annotations/stem.xml with objects (name, xmin, ymin, xmax, ymax)."""
    records = "".join(
        f"<object><name>{name}</name><pose>Left</pose><truncated>0</truncated><difficult>1</difficult><bndbox>"
        f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>"
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>"
        for name, x1, y1, x2, y2 in objects
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    text = f"<annotation><filename>{filename or stem + '.png'}</filename>{size}{records}</annotation>"
    (folder / "Annotations").mkdir(parents=True, exist_ok=True)
    (folder / "Annotations" / f"{stem}.xml").write_text(text, encoding="utf-8")


def save_pixels(folder, stem, labels, colours=False):
    (folder / "SegmentationObject").mkdir(exist_ok=True)
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette(make_palette().tobytes())
    (image.convert("RGB") if colours else image).save(folder / "SegmentationObject" / f"{stem}.png")


def test_boxes_count_pixels_from_one(tmp_path):
    save_image(tmp_path / "JPEGImages/a.png", 20, 10)
    save_xml(tmp_path, "a", [("cat", 3, 2, 6, 9), ("dog", 1, 1, 20, 10)])
    coco = read_voc(tmp_path).to_coco()
    assert coco["images"] == [{"id": 1, "file_name": "a.png", "width": 20, "height": 10}]
    assert [annotation["bbox"] for annotation in coco["annotations"]] == [[2, 1, 4, 8], [0, 0, 20, 10]]
    assert [annotation["segmentation"] for annotation in coco["annotations"]] == [[], []]
    assert [annotation["area"] for annotation in coco["annotations"]] == [32, 200]
    zero = read_voc(tmp_path, zero_based=True).to_coco()
    assert [annotation["bbox"] for annotation in zero["annotations"]] == [[3, 2, 3, 7], [1, 1, 19, 9]]


@pytest.mark.parametrize("colours", [False, True])
def test_masks_go_by_number_or_by_box(tmp_path, colours):
    """The PNG's first two objects are in the order of the xml, the others aren't, and one fits no box."""
    save_image(tmp_path / "JPEGImages/a.png", 20, 10)
    labels = np.zeros([10, 20], np.uint8)
    labels[1:9, 2:6] = 1
    labels[1:9, 7:9] = 2
    labels[0, :] = 255
    labels[1:3, 10:12] = 4
    labels[5:8, 12:15] = 3
    labels[9, 18:20] = 9
    save_pixels(tmp_path, "a", labels, colours)
    boxes = [
        ("cat", 3, 2, 6, 9),
        ("dog", 8, 2, 9, 9),
        ("cat", 11, 2, 12, 3),
        ("cow", 13, 6, 15, 8),
        ("ant", 17, 1, 19, 4),
    ]
    save_xml(tmp_path, "a", boxes)
    dataset = read_voc(tmp_path)
    coco = dataset.to_coco()
    masks = [
        pixels(annotation, coco["images"][0]) if annotation["segmentation"] else None
        for annotation in coco["annotations"]
    ]
    for mask, number in zip(masks, (1, 2, 4, 3), strict=False):
        assert np.array_equal(mask, labels == number)
    assert masks[4] is None
    assert kinds(dataset) == ["mask_without_object", "no_mask"]
    assert dataset.problems[-1].message.endswith("a.xml and was left out: add the object to the xml.")


def test_an_object_half_hidden_keeps_its_mask(tmp_path):
    """As CVAT writes it: the whole object's box, and its visible pixels. The first object of the xml has no box."""
    save_image(tmp_path / "JPEGImages/a.png", 20, 10)
    labels = np.zeros([10, 20], np.uint8)
    labels[1:9, 1:4] = 2
    labels[1:10, 4:15] = 3
    labels[0, 19] = 4
    save_pixels(tmp_path, "a", labels)
    boxes = [("ant", 1, 1, "", ""), ("person", 2, 2, 11, 9), ("car", 5, 2, 15, 10), ("cow", 1, 5, 3, 8)]
    save_xml(tmp_path, "a", boxes)
    dataset = read_voc(tmp_path)
    coco = dataset.to_coco()
    for annotation, number in zip(coco["annotations"], (2, 3), strict=False):
        assert np.array_equal(pixels(annotation, coco["images"][0]), labels == number)
    assert coco["annotations"][2]["segmentation"] == []
    assert kinds(dataset) == ["bad_box", "mask_without_object", "no_mask"]
    assert dataset.problems[-1].message.endswith("was left out: correct the box of the xml's object 4.")


def test_iou_of_boxes():
    assert box_iou([0, 0, 4, 4], [2, 2, 6, 6]) == pytest.approx(4 / 28)
    assert box_iou([0, 0, 1, 1], [2, 2, 3, 3]) == 0
    assert box_iou([0, 0, 0, 0], [0, 0, 0, 0]) == 0


def test_the_palette_is_vocs():
    """The first colours as the development kit documents them."""
    assert make_palette()[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert make_palette()[15].tolist() == [192, 128, 128]
    assert make_palette()[255].tolist() == [224, 224, 192]


def test_splits(tmp_path):
    for stem in "abc":
        save_image(tmp_path / f"JPEGImages/{stem}.png", 20, 10)
        save_xml(tmp_path, stem, [("cat", 3, 2, 6, 9)])
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/val.txt").write_text("c\na  1\ngone -1\n")
    dataset = read_voc(tmp_path, split="val")
    assert [one["file_name"] for one in dataset.to_coco()["images"]] == ["a.png", "c.png"]
    assert kinds(dataset) == ["missing_annotation"]
    with pytest.raises(UserError, match="has no split 'test': it has val"):
        read_voc(tmp_path, split="test")


def test_what_cannot_be_used_is_counted(tmp_path):
    for stem in ("good", "cut", "size", "plain", "png"):
        save_image(tmp_path / f"JPEGImages/{stem}.png", 20, 10)
    boxes = [("cat", 3, 2, 6, 9), ("", 3, 2, 6, 9), ("x", 3, 2, 3, ""), ("x", "nan", 2, 3, 4), ("x", 30, 2, 35, 4)]
    save_xml(tmp_path, "good", boxes, filename="C:\\pictures\\good.png")
    save_xml(tmp_path, "size", boxes, 21, 10)
    save_xml(tmp_path, "gone", boxes)
    save_xml(tmp_path, "png", boxes[:1])
    save_pixels(tmp_path, "png", np.zeros([5, 5]))
    (tmp_path / "Annotations/cut.xml").write_text("<annotation>\n<object>\n", encoding="utf-8")
    (tmp_path / "Annotations/plain.xml").write_text("<plist/>", encoding="utf-8")
    dataset = read_voc(tmp_path)
    coco = dataset.to_coco()
    assert [image["file_name"] for image in coco["images"]] == ["good.png", "png.png"]
    assert len(coco["annotations"]) == 2
    assert kinds(dataset) == [
        "bad_box",
        "bad_box",
        "broken_file",
        "broken_file",
        "missing_image",
        "no_class",
        "other_size",
        "other_size",
        "outside",
    ]
    assert any("cut.xml isn't valid xml (line 3)" in problem.message for problem in dataset.problems)


def test_a_folder_of_xml_files_beside_images(tmp_path):
    """As labelImg leaves it."""
    save_image(tmp_path / "a.jpg", 20, 10)
    save_xml(tmp_path, "a", [("cat", 3, 2, 6, 9)], 0, 0, filename="a")
    (tmp_path / "Annotations/a.xml").rename(tmp_path / "a.xml")
    (tmp_path / "Annotations").rmdir()
    coco = read_voc(tmp_path).to_coco()
    assert coco["images"] == [{"id": 1, "file_name": "a.jpg", "width": 20, "height": 10}]
