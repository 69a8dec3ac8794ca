"""Label maps of several kinds."""

import json

import numpy as np
import pytest
from convert_samples import kinds, pixels, save_image
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.convert.dataset import ClassNames, read_names
from mrcnn_tf.datasets.convert.inputs import recognise_format
from mrcnn_tf.datasets.convert.label_map_folders import read_label_maps
from mrcnn_tf.datasets.convert.mask_folders import read_mask_folders


@pytest.fixture
def folders(tmp_path):
    """Images a.jpg and deep/b.png of 12 x 8, and a folder of maps."""
    save_image(tmp_path / "images/a.jpg", 12, 8)
    save_image(tmp_path / "images/deep/b.png", 12, 8)
    (tmp_path / "maps/deep").mkdir(parents=True)
    return tmp_path


def save_map(path, values, dtype=np.uint8, size=(8, 12)):
    """A map with {value: (slice, slice)}."""
    labels = np.zeros(size, dtype)
    for value, place in values.items():
        labels[place] = value
    Image.fromarray(labels).save(path)
    return labels


def test_each_number_is_an_object(folders):
    labels = save_map(folders / "maps/a.png", {1: np.s_[1:3, 1:4], 700: np.s_[4:8, 6:9], 701: np.s_[5, 7]}, np.uint16)
    save_map(folders / "maps/deep/b_mask.png", {})
    dataset = read_label_maps(folders / "maps", folders / "images", class_name="Zelle")
    coco = dataset.to_coco()
    assert [image["file_name"] for image in coco["images"]] == ["a.jpg", "deep/b.png"]
    assert coco["categories"] == [{"id": 1, "name": "Zelle"}]
    for annotation, value in zip(coco["annotations"], (1, 700, 701), strict=True):
        assert np.array_equal(pixels(annotation, coco["images"][0]), labels == value)
    assert [annotation["bbox"] for annotation in coco["annotations"]] == [[1, 1, 3, 2], [6, 4, 3, 4], [7, 5, 1, 1]]
    assert [annotation["area"] for annotation in coco["annotations"]] == [6, 11, 1]
    assert kinds(dataset) == []


def test_numbers_of_classes_and_their_parts(folders):
    labels = save_map(
        folders / "maps/a.png", {1: np.s_[0:2, 0:2], 2: np.s_[0:2, 5:7], 9: np.s_[7, 0], 255: np.s_[7, 5]}
    )
    labels[4:6, 9:11] = 1
    Image.fromarray(labels).save(folders / "maps/a.png")
    (folders / "names.json").write_text(json.dumps({"1": "cat", "2": "dog"}))
    names = read_names(folders / "names.json", first=1)
    dataset = read_label_maps(folders / "maps", folders / "images", names, ignore=[255], split_parts=True)
    coco = dataset.to_coco()
    assert [(annotation["category_id"], annotation["bbox"]) for annotation in coco["annotations"]] == [
        (1, [0, 0, 2, 2]),
        (2, [5, 0, 2, 2]),
        (1, [9, 4, 2, 2]),
    ]
    assert kinds(dataset) == ["unknown_class", "unlabelled_image"]


def test_classes_times_a_divisor(folders):
    values = {24: np.s_[0, 0], 26000: np.s_[1:3, 1:4], 26001: np.s_[4:8, 6:9], 24000: np.s_[3, 3], 33000: np.s_[7, 1]}
    save_map(folders / "maps/a_ids.png", values, np.uint16)
    save_map(folders / "maps/a_classes.png", {})
    names = ClassNames([(1, "person"), (2, "car")], {24: "person", 26: "car"})
    dataset = read_label_maps(folders / "maps", folders / "images", names, class_divisor=1000, ending="_ids")
    coco = dataset.to_coco()
    assert [annotation["category_id"] for annotation in coco["annotations"]] == [1, 2, 2]
    assert kinds(dataset) == ["below_divisor", "unknown_class", "unlabelled_image"]
    with pytest.raises(UserError, match="no map whose name ends with _id: correct --ending or leave it out"):
        read_label_maps(folders / "maps", folders / "images", names, class_divisor=1000, ending="_id")


def read_things(folders, source="", images="images", **options):
    return read_label_maps(folders / source, folders / images, class_name="thing", **options)


def remedy(raised, words):
    """What a refusal says to give, after the words."""
    return str(raised.value).split(words)[1].removesuffix(".")


def test_of_two_maps_of_an_image_none_is_chosen_in_silence(tmp_path):
    """As in VOC's folders: two objects of one class are one number in SegmentationClass."""
    save_image(tmp_path / "JPEGImages/a.jpg", 12, 8)
    for name, second in (("SegmentationClass", 1), ("SegmentationObject", 2)):
        (tmp_path / name).mkdir()
        save_map(tmp_path / name / "a.png", {1: np.s_[1:3, 1:4], second: np.s_[5:7, 6:9]})
    with pytest.raises(UserError) as raised:
        read_things(tmp_path, images="JPEGImages")
    first, second = tmp_path / "SegmentationClass/a.png", tmp_path / "SegmentationObject/a.png"
    assert f"{first} and {second} may both be the map of {tmp_path / 'JPEGImages/a.jpg'}: give" in str(raised.value)
    dataset = read_things(tmp_path, remedy(raised, "such as "), "JPEGImages")
    assert len(dataset.to_coco()["annotations"]) == 2 and kinds(dataset) == []


def test_two_endings_in_one_folder(folders):
    save_map(folders / "maps/a_label.png", {1: np.s_[1:3, 1:8]})
    save_map(folders / "maps/a_instance.png", {1: np.s_[1:3, 1:4], 2: np.s_[1:3, 4:8]})
    with pytest.raises(UserError, match="a_instance.png and .*a_label.png may both be the map of") as raised:
        read_things(folders, "maps")
    dataset = read_things(folders, "maps", ending=remedy(raised, "--ending "))
    assert len(dataset.to_coco()["annotations"]) == 1
    (folders / "maps/a_instance.png").unlink()
    save_map(folders / "maps/a_label.tif", {1: np.s_[1:3, 1:4], 2: np.s_[1:3, 4:8]})
    with pytest.raises(UserError, match="a_label.png and .*a_label.tif .*: keep one of them there"):
        read_things(folders, "maps")


def test_folders_that_agree_decide(tmp_path):
    """Names that occur in several folders; also with another folder between, and a map too many."""
    for number, place in enumerate(("x", "y"), 1):
        save_image(tmp_path / place / "photos/1.jpg", 12, 8)
        (tmp_path / place / "maps").mkdir()
        save_map(tmp_path / place / "maps/1.png", {number: np.s_[:number, 0]})
    dataset = read_things(tmp_path, images="")
    coco = dataset.to_coco()
    assert [image["file_name"] for image in coco["images"]] == ["x/photos/1.jpg", "y/photos/1.jpg"]
    assert [annotation["area"] for annotation in coco["annotations"]] == [1, 2]
    save_image(tmp_path / "photos/1.jpg", 12, 8)
    (tmp_path / "maps/drafts").mkdir(parents=True)
    save_map(tmp_path / "maps/1.png", {1: np.s_[0, 0]})
    save_map(tmp_path / "maps/drafts/1_mask.png", {1: np.s_[:4, 0]})
    dataset = read_things(tmp_path, "maps", "photos")
    assert [(annotation["image_id"], annotation["area"]) for annotation in dataset.to_coco()["annotations"]] == [(1, 1)]
    assert kinds(dataset) == ["map_twice"]


def test_a_map_of_two_images(folders):
    save_map(folders / "maps/c.png", {1: np.s_[0, 0]})
    for place in ("x", "y"):
        save_image(folders / "images" / place / "c.jpg", 12, 8)
    with pytest.raises(UserError, match="c.png may be the map of .*x/c.jpg and of .*y/c.jpg: put maps into folders"):
        read_things(folders, "maps")
    (folders / "maps/x").mkdir()
    (folders / "maps/c.png").rename(folders / "maps/x/c.png")
    coco = read_things(folders, "maps").to_coco()
    assert [image["file_name"] for image in coco["images"]] == ["x/c.jpg"]


def save_roboflow(folder, suffix, rows="0, background\n1, cat\n2, dog"):
    """A split as Roboflow's "Semantic Segmentation Masks" have it, with two cats and a dog in the image x.rf.1."""
    save_image(folder / f"x.rf.1.{suffix}", 12, 8)
    labels = save_map(folder / "x.rf.1_mask.png", {1: np.s_[1:3, 1:4], 2: np.s_[4:8, 6:9]})
    labels[6:8, 0:2] = 1
    Image.fromarray(labels).save(folder / "x.rf.1_mask.png")
    (folder / "_classes.csv").write_text(f"Pixel Value, Class\n{rows}\n")
    return labels


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_roboflows_masks(tmp_path, suffix):
    labels = save_roboflow(tmp_path / "train", suffix)
    with pytest.raises(UserError, match="A number is a class by .*_classes.csv: give --split-parts"):
        read_label_maps(tmp_path / "train")
    dataset = read_label_maps(tmp_path / "train", split_parts=True)
    coco = dataset.to_coco()
    assert [image["file_name"] for image in coco["images"]] == [f"x.rf.1.{suffix}"] and kinds(dataset) == []
    assert coco["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert [annotation["category_id"] for annotation in coco["annotations"]] == [1, 2, 1]
    for number in (1, 2):
        own = [pixels(record, coco["images"][0]) for record in coco["annotations"] if record["category_id"] == number]
        np.testing.assert_array_equal(np.any(own, axis=0), labels == number)
    assert recognise_format(tmp_path / "train") == "label-maps"
    with pytest.raises(UserError, match="looks like another format: try `mrcnn-tf convert label-maps"):
        read_mask_folders(tmp_path / "train", class_name="thing")
    categories = [{"id": 7, "name": "dog"}, {"id": 8, "name": "cat"}]
    (tmp_path / "train.json").write_text(json.dumps({"categories": categories}))
    coco = read_label_maps(tmp_path / "train", names=read_names(tmp_path / "train.json"), split_parts=True).to_coco()
    assert [annotation["category_id"] for annotation in coco["annotations"]] == [8, 7, 8]


def test_numbers_below_0(folders):
    labels = np.zeros([8, 12], np.int32)
    labels[0, 0], labels[1:3, 1:4] = -1, 70000
    Image.fromarray(labels).save(folders / "maps/a.tif")
    dataset = read_things(folders, "maps")
    assert [record["area"] for record in dataset.to_coco()["annotations"]] == [6]
    assert kinds(dataset) == ["negative_number", "unlabelled_image"]
    assert kinds(read_things(folders, "maps", ignore=[-1])) == ["unlabelled_image"]


def test_roboflows_splits_never_end_in_one_json(tmp_path):
    for split in ("train", "valid"):
        save_roboflow(tmp_path / split, "jpg")
    with pytest.raises(UserError, match="sets that need a json each, train, valid: give one, such as") as raised:
        read_label_maps(tmp_path, split_parts=True)
    assert len(read_label_maps(remedy(raised, "such as "), split_parts=True).to_coco()["images"]) == 1


def test_a_class_that_roboflow_numbers_0(tmp_path):
    save_roboflow(tmp_path, "jpg", "0, sky\n1, cat\n2, dog")
    dataset = read_label_maps(tmp_path, split_parts=True)
    assert kinds(dataset) == ["background_class"] and len(dataset.to_coco()["annotations"]) == 3
    (tmp_path / "_classes.csv").write_text("cat\ndog\n")
    with pytest.raises(UserError, match="_classes.csv isn't a list of pixel values and classes: give .* --names"):
        read_label_maps(tmp_path, split_parts=True)


def test_what_cannot_be_used_is_counted(folders):
    save_map(folders / "maps/a.png", {1: np.s_[0, 0]}, size=(9, 12))
    save_map(folders / "maps/lonely.png", {1: np.s_[0, 0]})
    save_map(folders / "maps/b.png", {1: np.s_[0, 0]})
    dataset = read_label_maps(folders / "maps", folders / "images", class_name="x")
    assert [image["file_name"] for image in dataset.to_coco()["images"]] == ["deep/b.png"]
    assert kinds(dataset) == ["missing_image", "other_size"]


def test_what_is_missing_is_asked_for(folders):
    with pytest.raises(UserError, match="--images FOLDER"):
        read_label_maps(folders / "maps", None)
    with pytest.raises(UserError, match="--class-name NAME, or --names FILE"):
        read_label_maps(folders / "maps", folders / "images")
    (folders / "empty").mkdir()
    with pytest.raises(UserError, match="is empty"):
        read_label_maps(folders / "empty", folders / "images", class_name="x")
