"""Open Images' masks, made up: a PNG for each object, of another size than its image."""

import numpy as np
import pytest
from convert_samples import kinds, pixels, save_image
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.convert.inputs import recognise_format
from mrcnn_tf.datasets.convert.open_images import read_open_images

COLUMNS = "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks"
CLASSES = 'LabelName,DisplayName\n/m/01yrx,Cat\n/m/0bt9lr,"Dog, small"\n'


def save_mask(path, place, size):
    """A PNG of one bit, white at a place given in fractions (x1, y1, x2, y2)."""
    height, width = size
    mask = np.zeros(size, bool)
    x1, y1, x2, y2 = place
    mask[round(y1 * height) : round(y2 * height), round(x1 * width) : round(x2 * width)] = True
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


@pytest.fixture
def dataset_folder(tmp_path):
    """Two objects of an image 40 x 20, masks of 60 x 30 and 20 x 10."""
    save_image(tmp_path / "data/00a1.jpg", 40, 20)
    save_mask(tmp_path / "masks-0/00a1_m01yrx_1.png", (0, 0, 0.5, 0.5), (30, 60))
    save_mask(tmp_path / "masks-0/00a1_m0bt9lr_2.png", (0.5, 0.2, 0.8, 1), (10, 20))
    rows = ["00a1_m01yrx_1.png,00a1,/m/01yrx,1,0,0.5,0,0.5,0.9,", "00a1_m0bt9lr_2.png,00a1,/m/0bt9lr,2,,,,,,"]
    (tmp_path / "train-annotations-object-segmentation.csv").write_text("\n".join([COLUMNS, *rows]) + "\n")
    (tmp_path / "oidv7-class-descriptions-boxable.csv").write_text(CLASSES)
    return tmp_path


def test_masks_get_the_size_of_their_image(dataset_folder):
    dataset = read_open_images(dataset_folder)
    coco = dataset.to_coco()
    assert coco["images"] == [{"id": 1, "file_name": "data/00a1.jpg", "width": 40, "height": 20}]
    assert coco["categories"] == [{"id": 1, "name": "Cat"}, {"id": 2, "name": "Dog, small"}]
    assert [record["bbox"] for record in coco["annotations"]] == [[0, 0, 20, 10], [20, 4, 12, 16]]
    assert [record["area"] for record in coco["annotations"]] == [200, 192]  # full rectangles
    assert kinds(dataset) == []
    assert recognise_format(dataset_folder) == "open-images"


def test_the_nearest_pixel_is_taken(dataset_folder):
    """At 1.6 times the image's size, a circle comes back within a pixel's half; Pillow's nearest is the same."""
    y, x = np.mgrid[:32, :64] + 0.5
    mask = (x / 1.6 - 20) ** 2 + (y / 1.6 - 10) ** 2 < 80
    Image.fromarray(mask).save(dataset_folder / "masks-0/00a1_m01yrx_1.png")
    coco = read_open_images(dataset_folder).to_coco()
    expected = np.asarray(Image.fromarray(mask).resize((40, 20), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(pixels(coco["annotations"][0], coco["images"][0]), expected)


def test_masks_of_an_image_as_it_is_stored(dataset_folder):
    save_image(dataset_folder / "data/00a1.jpg", 40, 20, orientation=6)
    image = read_open_images(dataset_folder).to_coco()["images"][0]
    assert (image["width"], image["height"]) == (40, 20)


def test_splits_need_a_json_each(dataset_folder):
    first = dataset_folder / "train-annotations-object-segmentation.csv"
    (dataset_folder / "test-annotations-object-segmentation.csv").write_text(first.read_text())
    with pytest.raises(UserError, match="has the splits test, train: convert one at a time by --split test"):
        read_open_images(dataset_folder)
    assert len(read_open_images(dataset_folder, split="train").to_coco()["annotations"]) == 2
    assert len(read_open_images(first).to_coco()["annotations"]) == 2
    assert recognise_format(first) == "open-images"
    with pytest.raises(UserError, match="has no split 'val': it has test, train"):
        read_open_images(dataset_folder, split="val")


def test_what_cannot_be_used_is_counted(dataset_folder):
    rows = [
        "gone.png,00a1,/m/01yrx,1,,,,,,",
        "00a1_m01yrx_1.png,00a1,/m/none,1,,,,,,",
        "square.png,00a1,/m/01yrx,1,,,,,,",
        "broken.png,00a1,/m/01yrx,1,,,,,,",
        "00a1_m01yrx_1.png,00b2,/m/01yrx,1,,,,,,",
    ]
    save_mask(dataset_folder / "masks-0/square.png", (0, 0, 1, 1), (30, 30))
    (dataset_folder / "masks-0/broken.png").write_bytes(b"no picture")
    with open(dataset_folder / "train-annotations-object-segmentation.csv", "a") as file:
        file.write("\n".join(rows))
    dataset = read_open_images(dataset_folder)
    assert kinds(dataset) == ["missing_image", "missing_mask", "other_size", "unknown_class", "unreadable_mask"]
    assert len(dataset.to_coco()["annotations"]) == 2


def test_without_names_of_classes(dataset_folder):
    (dataset_folder / "oidv7-class-descriptions-boxable.csv").unlink()
    with pytest.raises(UserError, match="has no class-descriptions csv, which names classes"):
        read_open_images(dataset_folder)
    with pytest.raises(UserError, match="holds nothing of the kind"):
        read_open_images(dataset_folder / "data")
    # Other tools write their own names for labels, and no header.
    (dataset_folder / "class-descriptions.csv").write_text("/m/01yrx,cat\nown,own name\n")
    path = dataset_folder / "train-annotations-object-segmentation.csv"
    path.write_text(path.read_text().replace("/m/0bt9lr", "own"))
    names = [record["name"] for record in read_open_images(dataset_folder).to_coco()["categories"]]
    assert names == ["cat", "own name"]
