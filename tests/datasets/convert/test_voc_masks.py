"""VOC's maps without xml, in the forms that labelme2voc, CVAT and Datumaro write, and which mask is whose."""

import json

import numpy as np
import pytest
from command import call
from convert_samples import kinds, objects, rle, save_image
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.convert.dataset import read_names
from mrcnn_tf.datasets.convert.voc import make_palette, read_voc
from mrcnn_tf.datasets.convert.voc_masks import match_masks

COLOURS = {0: (0, 0, 0), 1: (250, 50, 83), 2: (12, 180, 7), 255: (224, 224, 192)}  # of classes, as CVAT's users pick


@pytest.fixture
def labels():
    """(map of objects, map of classes): two cups, of which one is in two parts, a box, and borders."""
    numbers, classes = np.zeros([2, 12, 16], np.uint8)
    for number, category, rows, columns in (
        (1, 2, slice(1, 5), slice(1, 6)),
        (1, 2, slice(7, 9), slice(1, 3)),
        (2, 1, slice(1, 5), slice(6, 9)),
        (3, 2, slice(6, 11), slice(8, 14)),
        (255, 255, slice(5, 6), slice(1, 9)),
    ):
        numbers[rows, columns], classes[rows, columns] = number, category
    return numbers, classes


def save_map(path, values, how, colours=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if how == "npy":
        np.save(path.with_suffix(".npy"), values)
        return
    image = Image.fromarray(values.astype(np.uint8))
    if how == "colours":
        table = make_palette()
        for value, colour in (colours or {}).items():
            table[value] = colour
        image = Image.fromarray(table[values])
    elif how == "palette":
        image.putpalette(make_palette().tobytes())
    image.save(path)


def save_dataset(folder, labels, how="palette", names="_background_\nbox\ncup\n", stem="a", colours=None):
    save_image(folder / f"JPEGImages/{stem}.jpg", 16, 12)
    for kind, values, own in zip(("SegmentationObject", "SegmentationClass"), labels, (None, colours), strict=True):
        if values is not None:
            save_map(folder / kind / f"{stem}.png", values, how, own)
    if names:
        (folder / "class_names.txt").write_text(names)
    return folder


def check_objects(dataset, labels):
    read = objects(dataset.to_coco())["a.jpg"]
    assert [name for name, _, _ in read] == ["cup", "box", "cup"]
    for (_, mask, _), number in zip(read, (1, 2, 3), strict=True):
        assert np.array_equal(mask, labels[0] == number)


@pytest.mark.parametrize("how", ["palette", "grey", "npy", "colours"])
def test_class_names_by_number(tmp_path, labels, how):
    """As labelme2voc has it."""
    dataset = read_voc(save_dataset(tmp_path, labels, how))
    check_objects(dataset, labels)
    assert kinds(dataset) == []


def test_numpy_arrays_come_first(tmp_path, labels):
    """In labelme2voc's PNGs, object 257 has the number 1; in its arrays, -1 is to be ignored and 255 an object."""
    save_dataset(tmp_path, labels)
    numbers = np.where(labels[0] == 3, 257, labels[0].astype(np.int32))
    classes = labels[1].astype(np.int32)
    classes[labels[0] == 255] = 1
    numbers[0], classes[0] = 0, -1
    for kind, values in (("SegmentationObject", numbers), ("SegmentationClass", classes)):
        save_map(tmp_path / f"{kind}Npy" / "a.png", values, "npy")
    read = objects(read_voc(tmp_path).to_coco())["a.jpg"]
    assert [name for name, _, _ in read] == ["cup", "box", "box", "cup"]
    assert np.array_equal(read[2][1], labels[0] == 255)
    (tmp_path / "SegmentationObjectNpy/a.npy").write_bytes(b"cut")
    with pytest.raises(UserError, match="a.npy can't be read"):
        read_voc(tmp_path).to_coco()


def test_labelmap_of_cvat(tmp_path, labels):
    """Objects have VOC's colours by number, classes those of labelmap.txt, whatever its order."""
    save_dataset(tmp_path, labels, "colours", None, colours=COLOURS)
    lines = ["# label:color_rgb:parts:actions", "background:0,0,0::", "cup:12,180,7::", "box:250,50,83::a,b"]
    (tmp_path / "labelmap.txt").write_text("\n".join(lines))
    dataset = read_voc(tmp_path)
    check_objects(dataset, labels)
    assert kinds(dataset) == []
    (tmp_path / "labelmap.txt").write_text("cup:12,180::")
    with pytest.raises(UserError, match="labelmap.txt has a colour that isn't red,green,blue"):
        read_voc(tmp_path)
    (tmp_path / "labelmap.txt").write_text("background:::\ncup:green::")
    with pytest.raises(UserError, match="Line 2 of .*labelmap.txt isn't `name:red,green,blue::`"):
        read_voc(tmp_path)


@pytest.mark.parametrize("how", ["palette", "grey", "colours"])
def test_lists_without_colours(tmp_path, labels, how):
    """Datumaro's labelmap.txt, where classes have VOC's colours in its order, and its json."""
    save_dataset(tmp_path, labels, how, None)
    (tmp_path / "labelmap.txt").write_text("background:::\nbox:::\ncup:::\n")
    check_objects(read_voc(tmp_path), labels)
    (tmp_path / "labelmap.txt").unlink()
    (tmp_path / "dataset_meta.json").write_text(json.dumps({"labels": ["background", "box", "cup"], "parts": {}}))
    check_objects(read_voc(tmp_path), labels)


def test_names_that_nothing_in_the_folder_gives(tmp_path, labels):
    save_dataset(tmp_path, labels, names=None)
    (tmp_path / "mine.txt").write_text("box\ncup\n")
    dataset = read_voc(tmp_path, names=read_names(tmp_path / "mine.txt", first=1))
    check_objects(dataset, labels)
    assert kinds(dataset) == []
    labels[1][labels[1] == 1] = 21
    dataset = read_voc(save_dataset(tmp_path, labels, names=None))
    assert [name for name, _, _ in objects(dataset.to_coco())["a.jpg"]] == ["bicycle", "bicycle"]
    assert kinds(dataset) == ["assumed_classes", "unknown_class"]
    assert "has the value 21 in" in dataset.problems[-1].message


def test_objects_of_several_classes_or_none(tmp_path, labels):
    labels[1][1, 1] = 1
    labels[1][labels[0] == 2] = 0
    dataset = read_voc(save_dataset(tmp_path, labels))
    read = objects(dataset.to_coco())["a.jpg"]
    assert [name for name, _, _ in read] == ["cup", "cup"]
    assert np.array_equal(read[0][1], labels[0] == 1)
    assert kinds(dataset) == ["mixed_class", "no_class"]
    assert "(cup 23, box 1) and became cup" in dataset.problems[0].message


def test_a_white_object_is_one_if_it_has_a_class(tmp_path, labels):
    labels[1][labels[0] == 255] = 1
    read = objects(read_voc(save_dataset(tmp_path, labels)).to_coco())["a.jpg"]
    assert [name for name, _, _ in read] == ["cup", "box", "cup", "box"]


def test_images_with_xml_and_with_masks_only(tmp_path, labels):
    save_dataset(tmp_path, labels)
    save_dataset(tmp_path, (labels[0], None), stem="b")
    save_dataset(tmp_path, (None, labels[1]), stem="c")
    save_image(tmp_path / "JPEGImages/d.jpg", 16, 12)
    (tmp_path / "Annotations").mkdir()
    box = "<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>5</xmax><ymax>6</ymax></bndbox>"
    xml = f"<annotation><object><name>dog</name>{box}</object></annotation>"
    (tmp_path / "Annotations/d.xml").write_text(xml)
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/default.txt").write_text("a\nd\ne\n")
    dataset = read_voc(tmp_path)
    assert {name: len(entries) for name, entries in objects(dataset.to_coco()).items()} == {"a.jpg": 3, "d.jpg": 1}
    assert kinds(dataset) == ["missing_annotation", "no_objects", "no_objects"]
    assert "neither Annotations/e.xml nor SegmentationObject/e.png" in dataset.problems[0].message


def test_an_xml_without_objects_beside_masks(tmp_path, labels):
    save_dataset(tmp_path, labels)
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations/a.xml").write_text("<annotation><filename>a.jpg</filename></annotation>")
    check_objects(read_voc(tmp_path), labels)


def test_classes_alone_are_parts_if_asked_for(tmp_path, labels):
    folder = save_dataset(tmp_path, (None, labels[1]))
    with pytest.raises(UserError, match="tell classes apart and not objects: give --split-parts"):
        read_voc(folder)
    read = objects(read_voc(folder, split_parts=True).to_coco())["a.jpg"]
    assert sorted((name, int(mask.sum())) for name, mask, _ in read) == [
        ("box", 12),
        ("cup", 4),
        ("cup", 20),
        ("cup", 30),
    ]


def test_objects_alone_have_a_command(tmp_path, labels):
    folder = save_dataset(tmp_path, (labels[0], None))
    with pytest.raises(UserError, match="the classes of its objects aren't known") as refusal:
        read_voc(folder)
    command = str(refusal.value).split("`")[1].replace("NAME", "cup").replace("OUT.json", str(tmp_path / "out.json"))
    assert "1 images, 3 objects, 1 classes (cup 3)" in call(*command.split()[1:])


@pytest.mark.parametrize("place", ["masks/a.png", "SegmentationObjects/a.png", "labels.png"])
def test_other_arrangements_hear_what_is_missing(tmp_path, labels, place):
    save_map(tmp_path / place, labels[0], "grey")
    with pytest.raises(UserError) as refusal:
        read_voc(tmp_path)
    assert "try `mrcnn-tf convert voc" not in str(refusal.value)
    (tmp_path / place).unlink()
    (tmp_path / "SegmentationObject").mkdir()
    with pytest.raises(UserError, match="give a folder with Annotations/NAME.xml, or SegmentationObject/NAME.png and"):
        read_voc(tmp_path)


def test_maps_are_no_photos(tmp_path, labels):
    """CVAT's export without images."""
    folder = save_dataset(tmp_path / "voc", labels)
    (folder / "JPEGImages").rename(tmp_path / "photos")
    with pytest.raises(UserError, match="give its folder by --images"):
        read_voc(folder).to_coco()
    check_objects(read_voc(folder, images=tmp_path / "photos"), labels)


def block(x1, y1, x2, y2):
    mask = np.zeros([100, 100], bool)
    mask[y1:y2, x1:x2] = True
    return rle(mask)


def test_a_hidden_object_is_known_by_its_place():
    boxes = {1: [10, 10, 90, 90], 2: [30, 10, 95, 95]}
    masks = {1: block(8, 10, 30, 90), 2: block(30, 10, 95, 95)}
    assert match_masks(masks, boxes) == {1: 1, 2: 2}
    # Also where another number fits nothing.
    assert match_masks(masks | {3: block(0, 0, 3, 3)}, boxes) == {1: 1, 2: 2}


def test_places_do_not_count_where_boxes_say_otherwise():
    """A cup on a table, whose numbers are exchanged: the cup's mask lies in the table's box."""
    boxes = {1: [0, 0, 100, 80], 2: [40, 30, 50, 40]}
    assert match_masks({1: block(40, 30, 50, 40), 2: block(0, 0, 100, 80)}, boxes) == {1: 2, 2: 1}


def test_a_place_without_a_box_counts_all_the_same():
    """Object 1 of the xml can't be used; the mask of object 2, half hidden, keeps its number."""
    assert match_masks({2: block(10, 10, 20, 60)}, {2: [10, 10, 60, 60]}) == {2: 2}
