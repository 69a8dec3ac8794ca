"""COCO -> each format -> COCO: the same images, classes and masks, pixel for pixel where the format can hold them."""

import json

import numpy as np
import pytest
from convert_samples import assert_same_objects, kinds, objects, save_coco

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.convert.coco import read_coco
from mrcnn_tf.datasets.convert.dataset import read_names
from mrcnn_tf.datasets.convert.label_map_folders import read_label_maps, write_label_maps
from mrcnn_tf.datasets.convert.labelme import read_labelme, write_labelme
from mrcnn_tf.datasets.convert.mask_folders import read_mask_folders, write_mask_folders
from mrcnn_tf.datasets.convert.via import read_via, write_via
from mrcnn_tf.datasets.convert.voc import read_voc, write_voc
from mrcnn_tf.datasets.convert.yolo import read_yolo, write_yolo


@pytest.mark.parametrize("copy_images", [False, True])
def test_labelme(tmp_path, copy_images):
    path, images, content = save_coco(tmp_path, overlapping=True, boxes=False)
    out = tmp_path / "label me"
    write_labelme(read_coco(path), out, images, copy_images)
    read = read_labelme(out, None if copy_images else tmp_path)
    back = read.to_coco()
    if not copy_images:
        for image in back["images"]:
            image["file_name"] = image["file_name"].removeprefix("images/")
    assert_same_objects(content, back)
    assert kinds(read) == []
    polygons = [
        annotation["segmentation"]
        for annotation in content["annotations"]
        if isinstance(annotation["segmentation"], list)
    ]
    assert [
        annotation["segmentation"] for annotation in back["annotations"] if isinstance(annotation["segmentation"], list)
    ] == polygons


def test_labelme_keeps_crowds_and_makes_rectangles_of_boxes(tmp_path):
    path, images, content = save_coco(tmp_path)
    content["annotations"][2]["iscrowd"] = 1
    path.write_text(json.dumps(content), encoding="utf-8")
    write_labelme(read_coco(path), tmp_path / "out", images, copy_images=True)
    back = read_labelme(tmp_path / "out").to_coco()
    assert [annotation["iscrowd"] for annotation in back["annotations"]] == [0, 0, 1, 0, 0]
    assert back["annotations"][4]["segmentation"] == [[10.0, 1.0, 22.0, 1.0, 22.0, 7.0, 10.0, 7.0]]


def test_via(tmp_path):
    path, images, content = save_coco(tmp_path, overlapping=True, boxes=False)
    out = tmp_path / "via.json"
    write_via(read_coco(path), out, images)
    read = read_via(out, images)
    assert_same_objects(content, read.to_coco())
    assert kinds(read) == []
    for key, entry in json.loads(out.read_text(encoding="utf-8")).items():
        assert key == f"{entry['filename']}{entry['size']}"
        assert entry["size"] == (images / entry["filename"]).stat().st_size


def test_yolo(tmp_path):
    path, images, content = save_coco(tmp_path, overlapping=True, boxes=False)
    out = tmp_path / "yolo"
    write_yolo(read_coco(path), out, images, copy_images=True)
    read = read_yolo(out, out / "images")
    assert_same_objects(content, read.to_coco())
    assert kinds(read) == []
    assert [category["name"] for category in read.to_coco()["categories"]] == ["Zelle groß", "猫"]


def test_yolos_labels_of_images_in_a_folder_called_images(tmp_path):
    """Ultralytics looks for labels/ in place of the last images/ of a path."""
    path, images, content = save_coco(tmp_path, boxes=False, flat=True)
    (tmp_path / "train").mkdir()
    images.rename(tmp_path / "train/images")
    for image in content["images"]:
        image["file_name"] = f"train/images/{image['file_name']}"
    path.write_text(json.dumps(content), encoding="utf-8")
    write_yolo(read_coco(path), tmp_path / "out", tmp_path, copy_images=True)
    for image in content["images"]:
        assert (tmp_path / "out/images/train/labels" / f"{image['file_name'][13:-4]}.txt").is_file()
    read = read_yolo(tmp_path / "out", tmp_path / "out/images")
    assert_same_objects(content, read.to_coco())
    assert kinds(read) == []


def test_yolo_has_outlines_or_boxes(tmp_path):
    """Ultralytics drops all outlines of a set in which some lines are boxes."""
    path, images, content = save_coco(tmp_path)
    coco = read_coco(path)
    write_yolo(coco, tmp_path / "outlines", images, copy_images=True)
    assert kinds(coco) == ["no_mask"]
    assert len(read_yolo(tmp_path / "outlines").to_coco()["annotations"]) == 4
    content["annotations"] = content["annotations"][-1:]
    path.write_text(json.dumps(content), encoding="utf-8")
    coco = read_coco(path)
    write_yolo(coco, tmp_path / "boxes", images, copy_images=True)
    assert kinds(coco) == []
    assert_same_objects(content, read_yolo(tmp_path / "boxes", tmp_path / "boxes/images").to_coco())


def save_poses(folder, segmentation=(), second=("eye", "fin")):
    """A json of two classes whose objects have keypoints; gives (its path, folder of images, content)."""
    path, images, content = save_coco(folder, boxes=False, flat=True)
    common = {"segmentation": list(segmentation), "bbox": [2.0, 3.0, 8.0, 6.0], "area": 48, "iscrowd": 0}
    content["categories"][0]["keypoints"], content["categories"][1]["keypoints"] = ["nose", "tail"], list(second)
    keypoints = [[3, 4, 2, 9.5, 8, 1], [0, 0, 0, 4, 4, 2], [0, 0, 0, 0, 0, 0]]
    content["annotations"] = [
        common | {"id": index + 1, "image_id": 5, "category_id": category, "keypoints": values}
        for index, (category, values) in enumerate(zip((3, 7, 3), keypoints, strict=True))
    ]
    path.write_text(json.dumps(content), encoding="utf-8")
    return path, images, content


def test_yolo_pose(tmp_path):
    path, images, content = save_poses(tmp_path)
    coco = read_coco(path)
    write_yolo(coco, tmp_path / "pose", images, copy_images=True)
    assert kinds(coco) == [] and coco.keeps_keypoints
    back = read_yolo(tmp_path / "pose").to_coco()
    assert [one["keypoints"] for one in back["annotations"]] == [one["keypoints"] for one in content["annotations"]]
    assert [one["keypoints"] for one in back["categories"]] == [["nose", "tail"], ["eye", "fin"]]
    assert [one["bbox"] for one in back["annotations"]] == [[2, 3, 8, 6]] * 3


@pytest.mark.parametrize(("segmentation", "second"), [([[2, 3, 10, 3, 10, 9]], ("eye", "fin")), ((), ("eye",))])
def test_yolo_has_no_place_for_other_keypoints(tmp_path, segmentation, second):
    """Beside outlines Ultralytics reads none, and all classes of a set have as many."""
    path, images, content = save_poses(tmp_path, segmentation, second)
    content["annotations"][1]["keypoints"] = content["annotations"][1]["keypoints"][-3 * len(second) :]
    path.write_text(json.dumps(content))
    coco = read_coco(path)
    write_yolo(coco, tmp_path / "out", images, copy_images=True)
    assert not coco.keeps_keypoints
    assert "kpt_shape" not in (tmp_path / "out/data.yaml").read_text()
    assert len(read_yolo(tmp_path / "out").to_coco()["annotations"]) == 3


def save_repeated(folder):
    """A json whose two classes have one name, as in Roboflow's exports; gives its path and the folder of images."""
    path, images, content = save_coco(folder, boxes=False, flat=True)
    for category in content["categories"]:
        category["name"] = "facade"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path, images


def test_yolo_and_label_maps_keep_classes_of_one_name_apart(tmp_path):
    path, images = save_repeated(tmp_path)
    coco = read_coco(path)
    write_yolo(coco, tmp_path / "yolo", images, copy_images=True)
    write_label_maps(coco, tmp_path / "maps")
    assert kinds(coco) == []
    names = read_names(tmp_path / "maps/names.json")
    yolo, maps = read_yolo(tmp_path / "yolo"), read_label_maps(tmp_path / "maps", images, names, class_divisor=1000)
    for read in (yolo, maps):
        back = read.to_coco()
        assert back["categories"] == [{"id": 1, "name": "facade"}, {"id": 2, "name": "facade"}]
        assert sorted(one["category_id"] for one in back["annotations"]) == [1, 1, 2, 2]
        assert kinds(read) == ["repeated_name"]


@pytest.mark.parametrize("write", [write_labelme, write_voc, write_mask_folders, write_via])
def test_formats_without_numbers_report_classes_of_one_name(tmp_path, write):
    path, images = save_repeated(tmp_path)
    coco = read_coco(path)
    write(coco, tmp_path / "out", images)
    assert kinds(coco) == ["repeated_name"]
    assert "Categories 3 and 7 in" in coco.problems[0].message


def test_voc(tmp_path):
    path, images, content = save_coco(tmp_path, flat=True)
    out = tmp_path / "voc"
    write_voc(read_coco(path), out, images, copy_images=True)
    names = read_names(path)
    read = read_voc(out, names=names)
    assert_same_objects(content, read.to_coco())
    assert kinds(read) == ["no_mask"]  # the box that had none
    assert read.to_coco()["categories"] == content["categories"]
    assert {image["file_name"] for image in read_voc(out, split="train").to_coco()["images"]} == set(objects(content))


def test_voc_puts_smaller_objects_on_top(tmp_path):
    path, images, content = save_coco(tmp_path, overlapping=True, boxes=False, flat=True)
    coco = read_coco(path)
    write_voc(coco, tmp_path / "voc", images, copy_images=True)
    assert kinds(coco) == ["overlapped"]
    before = objects(content)["zwei.jpg"]
    after = objects(read_voc(tmp_path / "voc").to_coco())["zwei.jpg"]
    small, large = sorted((mask for name, mask, _ in before if name == "猫"), key=np.sum)
    masks = sorted((mask for name, mask, _ in after if name == "猫"), key=np.sum)
    assert {mask.tobytes() for mask in masks} == {small.tobytes(), (large & ~small).tobytes()}


def test_label_maps(tmp_path):
    path, images, content = save_coco(tmp_path, boxes=False)
    out = tmp_path / "maps"
    write_label_maps(read_coco(path), out)
    read = read_label_maps(out, images, read_names(out / "names.json"), class_divisor=1000)
    assert_same_objects(content, read.to_coco())
    assert kinds(read) == []


def test_mask_folders(tmp_path):
    path, images, content = save_coco(tmp_path, overlapping=True, boxes=False)
    out = tmp_path / "masks of it"
    write_mask_folders(read_coco(path), out, images, copy_images=True)
    read = read_mask_folders(out)
    back = read.to_coco()
    for image in back["images"]:
        folders, name = image["file_name"].rsplit("/", 1)
        image["file_name"] = "/".join([*folders.split("/")[:-2], name])
    content["images"] = content["images"][:2]  # the third has no object, hence no mask
    assert_same_objects(content, back)
    assert kinds(read) == ["unlabelled_image"]


@pytest.mark.parametrize("write", [write_yolo, write_voc, write_mask_folders, write_label_maps, write_via])
def test_crowds_are_left_out_and_counted(tmp_path, write):
    path, images, content = save_coco(tmp_path, boxes=False, flat=True)
    content["annotations"][0]["iscrowd"] = 1
    path.write_text(json.dumps(content), encoding="utf-8")
    coco = read_coco(path)
    write(coco, tmp_path / "out", *([images] if write is write_via else []))
    assert kinds(coco) == ["crowd"]
    assert sum(len(image.annotations) for image in coco.images) == 3


@pytest.mark.parametrize("write", [write_yolo, write_voc, write_mask_folders])
def test_nothing_is_left_of_a_failed_conversion(tmp_path, monkeypatch, write):
    path, images, _ = save_coco(tmp_path, flat=True)
    out = tmp_path / "out"
    monkeypatch.setattr(f"{write.__module__}.copy_image", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write(read_coco(path), out, images, copy_images=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coco.json", "images"]


def test_existing_files_are_never_replaced(tmp_path):
    path, images, _ = save_coco(tmp_path)
    with pytest.raises(UserError, match="exists already: name a new folder"):
        write_labelme(read_coco(path), images, images)


def test_images_that_would_share_a_file(tmp_path):
    path, images, content = save_coco(tmp_path)
    content["images"].append({"id": 99, "file_name": "a b.jpg", "width": 4, "height": 4})
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match=r"a b.jpg and a b.png would both become a b.txt: rename"):
        write_yolo(read_coco(path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../x.png", "/x.png", "a/../../x.png", ""])
def test_file_names_stay_in_the_folder(tmp_path, name):
    path, _, content = save_coco(tmp_path)
    content["images"][0]["file_name"] = name
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match="isn't a path below a folder" if name else "lacks an id or a file_name"):
        read_coco(path)


def test_bad_annotations_are_counted(tmp_path):
    path, _, content = save_coco(tmp_path, boxes=False)
    good = content["annotations"][0]
    content["annotations"] += [
        good | {"id": 100, "image_id": 12345},
        good | {"id": 101, "category_id": 12345},
        good | {"id": 102, "segmentation": {"size": [3, 3], "counts": [9]}},
        good | {"id": 103, "segmentation": [[1, 1, 1, 1, 1, 1]]},
        good | {"id": 104, "segmentation": [[1, 1, "x", 1, 1, 1]]},
        {"id": 105},
        "text",
    ]
    path.write_text(json.dumps(content), encoding="utf-8")
    coco = read_coco(path)
    assert sum(len(image.annotations) for image in coco.images) == 4
    expected = ["broken_annotation"] * 2 + ["empty_mask"] + ["unknown"] * 4
    assert kinds(coco) == expected
