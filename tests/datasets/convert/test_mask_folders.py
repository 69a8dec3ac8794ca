"""Folders of binary masks in the layouts that people have."""

import numpy as np
import pytest
from convert_samples import kinds, pixels, save_image
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.convert.mask_folders import read_mask_folders


def save_mask(path, place=np.s_[1:3, 1:4], size=(8, 12), value=255, mode="L"):
    """A mask that is white at `place`; gives bool [H, W]."""
    mask = np.zeros(size, bool)
    mask[place] = True
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * value).convert(mode).save(path)
    return mask


def objects_of(dataset):
    """(file name, class, box) of each object."""
    coco = dataset.to_coco()
    files = {image["id"]: image["file_name"] for image in coco["images"]}
    names = {category["id"]: category["name"] for category in coco["categories"]}
    return [
        (files[annotation["image_id"]], names[annotation["category_id"]], annotation["bbox"])
        for annotation in coco["annotations"]
    ]


def test_data_science_bowl(tmp_path):
    save_image(tmp_path / "id1/images/id1.png", 12, 8)
    save_image(tmp_path / "id2/images/id2.png", 12, 8)
    mask = save_mask(tmp_path / "id1/masks/0a.png")
    save_mask(tmp_path / "id1/masks/0b.png", np.s_[5:8, 6:9], mode="RGBA")
    save_mask(tmp_path / "id2/masks/0c.png", np.s_[0:1, 0:2], value=1)
    (tmp_path / "id2/masks/.0c.png").write_text("hidden")
    dataset = read_mask_folders(tmp_path, class_name="nucleus")
    assert objects_of(dataset) == [
        ("id1/images/id1.png", "nucleus", [1, 1, 3, 2]),
        ("id1/images/id1.png", "nucleus", [6, 5, 3, 3]),
        ("id2/images/id2.png", "nucleus", [0, 0, 2, 1]),
    ]
    coco = dataset.to_coco()
    assert np.array_equal(pixels(coco["annotations"][0], coco["images"][0]), mask)
    assert kinds(dataset) == []


@pytest.mark.parametrize("kind", ["two levels", "16 bits", "palette", "jpeg"])
def test_what_is_white_is_brightness_and_not_a_number(tmp_path, kind):
    """16-bit masks of 0 and 1 have nothing in their upper byte, and in a palette white may be number 0."""
    save_image(tmp_path / "images/a.png", 12, 8)
    mask = np.zeros([8, 12], bool)
    mask[:, 8:] = True  # a block of JPEG
    picture = Image.fromarray(np.uint16(mask) if kind == "16 bits" else mask)
    if kind == "palette":
        picture = Image.fromarray(np.uint8(~mask)).convert("P")
        picture.putpalette([255, 255, 255, 0, 0, 0])
    elif kind == "jpeg":
        picture = Image.fromarray(np.uint8(mask * 255)).convert("RGB")
    file = tmp_path / f"masks/a.{'jpg' if kind == 'jpeg' else 'png'}"
    file.parent.mkdir()
    picture.save(file)
    coco = read_mask_folders(tmp_path, class_name="x").to_coco()
    assert np.array_equal(pixels(coco["annotations"][0], coco["images"][0]), mask)


def test_two_folders_by_name_and_by_class(tmp_path):
    for name in ("a.jpg", "a_1.jpg", "b c.jpg"):
        save_image(tmp_path / "images" / name, 12, 8)
    save_mask(tmp_path / "masks/cat/a_1.png", np.s_[0, 0:1])  # of a_1, which is longer than a
    save_mask(tmp_path / "masks/cat/a-2.png", np.s_[0, 0:2])
    save_mask(tmp_path / "masks/hund/b c/1.png", np.s_[0, 0:3])
    save_mask(tmp_path / "masks/b c/hund/2.png", np.s_[0, 0:4])
    assert sorted(objects_of(read_mask_folders(tmp_path))) == [
        ("images/a.jpg", "cat", [0, 0, 2, 1]),
        ("images/a_1.jpg", "cat", [0, 0, 1, 1]),
        ("images/b c.jpg", "hund", [0, 0, 3, 1]),
        ("images/b c.jpg", "hund", [0, 0, 4, 1]),
    ]


def test_masks_beside_their_image(tmp_path):
    save_image(tmp_path / "one/photo.jpg", 12, 8)
    save_mask(tmp_path / "one/mask_0.png")
    save_image(tmp_path / "many/x.jpg", 12, 8)
    save_image(tmp_path / "many/y.jpg", 12, 8)
    save_mask(tmp_path / "many/y_mask_1.png")
    save_mask(tmp_path / "many/x_mask.png")
    save_mask(tmp_path / "many/z_mask.png")
    dataset = read_mask_folders(tmp_path, class_name="x")
    assert [name for name, _, _ in objects_of(dataset)] == ["many/x.jpg", "many/y.jpg", "one/photo.jpg"]
    assert kinds(dataset) == ["missing_image"]


def test_masks_in_another_folder(tmp_path):
    save_image(tmp_path / "pictures/a.jpg", 12, 8)
    save_image(tmp_path / "pictures/b.jpg", 12, 8)
    save_mask(tmp_path / "drawn/a_1.png")
    dataset = read_mask_folders(tmp_path / "drawn", tmp_path / "pictures", class_name="x")
    assert objects_of(dataset) == [("a.jpg", "x", [1, 1, 3, 2])]
    assert kinds(dataset) == ["unlabelled_image"]


def test_one_mask_of_several_objects(tmp_path):
    save_image(tmp_path / "images/a.png", 12, 8)
    mask = save_mask(tmp_path / "masks/a.png")
    mask[5:7, 6:8] = True
    Image.fromarray(mask).save(tmp_path / "masks/a.png")
    assert len(objects_of(read_mask_folders(tmp_path, class_name="x"))) == 1
    boxes = [box for _, _, box in objects_of(read_mask_folders(tmp_path, class_name="x", split_parts=True))]
    assert boxes == [[1, 1, 3, 2], [6, 5, 2, 2]]


def test_black_masks_other_sizes_and_damage(tmp_path):
    for name in ("black", "good", "size", "cut", "none"):
        save_image(tmp_path / f"images/{name}.png", 12, 8)
        save_mask(tmp_path / f"masks/{name}.png")
    save_mask(tmp_path / "masks/black.png", np.s_[0:0, 0:0])
    save_mask(tmp_path / "masks/size.png", size=(8, 13))
    (tmp_path / "masks/cut.png").write_bytes((tmp_path / "masks/cut.png").read_bytes()[:40])
    (tmp_path / "masks/none.png").unlink()
    dataset = read_mask_folders(tmp_path, class_name="x")
    assert [image["file_name"] for image in dataset.to_coco()["images"]] == ["images/black.png", "images/good.png"]
    assert [name for name, _, _ in objects_of(dataset)] == ["images/good.png"]
    assert kinds(dataset) == ["other_size", "unlabelled_image", "unreadable_mask"]


def test_what_is_missing_is_asked_for(tmp_path):
    save_image(tmp_path / "images/a.png", 12, 8)
    with pytest.raises(UserError, match="holds nothing of the kind|looks like"):
        read_mask_folders(tmp_path)
    save_mask(tmp_path / "masks/a.png")
    with pytest.raises(UserError, match="--class-name NAME"):
        read_mask_folders(tmp_path)
