"""labelme's files against a COCO json worked out by hand."""

import base64
import io

import numpy as np
import pytest
from convert_samples import kinds, labelme_shape, pixels, save_image, save_labelme
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.convert.dataset import ClassNames
from mrcnn_tf.datasets.convert.labelme import read_labelme


def png(mask):
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_polygon_rectangle_and_groups(tmp_path):
    save_image(tmp_path / "b.png", 20, 10)
    save_image(tmp_path / "a.png", 30, 15)
    shapes = [
        labelme_shape("polygon", [[1, 1], [5, 1], [5, 4]]),
        labelme_shape("polygon", [[2, 2], [4, 2], [4, 5]], "dog", group=3),
        labelme_shape("rectangle", [[9, 8], [6, 2]], "dog", group=3),
        labelme_shape("polygon", [[11, 2], [14, 2], [14, 5], [11, 5]], "cat", group=3),
    ]
    save_labelme(tmp_path / "b.json", shapes, "b.png", 20, 10)
    save_labelme(tmp_path / "a.json", [], "a.png", 30, 15)
    assert read_labelme(tmp_path).to_coco() == {
        "images": [
            {"id": 1, "file_name": "a.png", "width": 30, "height": 15},
            {"id": 2, "file_name": "b.png", "width": 20, "height": 10},
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": 2,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [1.0, 1.0, 4.0, 3.0],
                "area": 6,
                "segmentation": [[1.0, 1.0, 5.0, 1.0, 5.0, 4.0]],
            },
            {
                "id": 2,
                "image_id": 2,
                "category_id": 2,
                "iscrowd": 0,
                "bbox": [2.0, 2.0, 7.0, 6.0],
                "area": 21,
                "segmentation": [[2.0, 2.0, 4.0, 2.0, 4.0, 5.0], [6.0, 2.0, 9.0, 2.0, 9.0, 8.0, 6.0, 8.0]],
            },
            {
                "id": 3,
                "image_id": 2,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [11.0, 2.0, 3.0, 3.0],
                "area": 9,
                "segmentation": [[11.0, 2.0, 14.0, 2.0, 14.0, 5.0, 11.0, 5.0]],
            },
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


def test_mask_shapes_with_holes_and_beyond_the_image(tmp_path):
    save_image(tmp_path / "a.png", 12, 9)
    hole = np.ones([4, 5], bool)
    hole[1:3, 2] = False
    over = np.ones([3, 3], bool)
    shapes = [
        labelme_shape("mask", [[2, 3], [6, 6]], mask=png(hole)),
        labelme_shape("mask", [[10, 7], [12, 9]], "dog", mask=png(over)),
    ]
    save_labelme(tmp_path / "a.json", shapes, "a.png", 12, 9)
    coco = read_labelme(tmp_path).to_coco()
    expected = np.zeros([2, 9, 12], bool)
    expected[0, 3:7, 2:7] = hole
    expected[1, 7:9, 10:12] = True
    for annotation, mask in zip(coco["annotations"], expected, strict=True):
        assert np.array_equal(pixels(annotation, coco["images"][0]), mask)
        assert annotation["area"] == mask.sum()
    assert [annotation["bbox"] for annotation in coco["annotations"]] == [[2.0, 3.0, 5.0, 4.0], [10.0, 7.0, 2.0, 2.0]]


def test_a_circle_has_its_area(tmp_path):
    save_image(tmp_path / "a.png", 200, 200)
    save_labelme(tmp_path / "a.json", [labelme_shape("circle", [[100, 90], [130, 130]])], "a.png", 200, 200)
    (annotation,) = read_labelme(tmp_path).to_coco()["annotations"]
    assert annotation["area"] == pytest.approx(np.pi * 50**2, rel=0.002)
    assert annotation["bbox"] == pytest.approx([50, 40, 100, 100], abs=0.1)


def test_what_has_no_area_is_counted(tmp_path):
    save_image(tmp_path / "a.png", 20, 10)
    good = labelme_shape("polygon", [[1, 1], [5, 1], [5, 4]])
    shapes = [
        good,
        labelme_shape("point", [[1, 1]], group=1),
        labelme_shape("points", [[1, 1], [2, 2]]),
        labelme_shape("line", [[1, 1], [2, 2]]),
        labelme_shape("linestrip", [[1, 1], [2, 2], [3, 1]]),
        labelme_shape("polygon", [[1, 1], [5, 1]]),
        labelme_shape("polygon", [[100, 100], [105, 100], [105, 104]]),
        labelme_shape("polygon", [[1, 1], [5, 1], [5, "x"]]),
        labelme_shape("mask", [[2, 3], [6, 6]], mask="no base64"),
        labelme_shape("polygon", [[1, 1], [5, 1], [5, 4]], " "),
        labelme_shape("polygon", [[1, 1], [5, 1], [5, 4]], "_background_"),
        "text",
    ]
    save_labelme(tmp_path / "a.json", shapes, "a.png", 20, 10)
    dataset = read_labelme(tmp_path)
    assert len(dataset.to_coco()["annotations"]) == 1
    assert kinds(dataset) == [
        "background_shape",
        "broken_shape",
        "broken_shape",
        "broken_shape",
        "line_shape",
        "linestrip_shape",
        "no_class",
        "outside",
        "point_shape",
        "points_shape",
        "too_few_points",
    ]
    assert "Shape 4 of" in next(problem.message for problem in dataset.problems if problem.kind == "line_shape")


def test_labels_that_a_list_lacks(tmp_path):
    save_image(tmp_path / "a.png", 20, 10)
    shapes = [labelme_shape("polygon", [[1, 1], [5, 1], [5, 4]], label) for label in ("dog", "cat", "cow")]
    save_labelme(tmp_path / "a.json", shapes, "a.png", 20, 10)
    dataset = read_labelme(tmp_path, names=ClassNames([(4, "cat"), (9, "dog")]))
    coco = dataset.to_coco()
    assert [annotation["category_id"] for annotation in coco["annotations"]] == [9, 4]
    assert coco["categories"] == [{"id": 4, "name": "cat"}, {"id": 9, "name": "dog"}]
    assert kinds(dataset) == ["unknown_class"]


@pytest.mark.parametrize("seen", [True, False])
def test_exif_keeps_the_frame_that_was_labelled(tmp_path, seen):
    save_image(tmp_path / "a.jpg", 40, 20, orientation=6)
    width, height = (20, 40) if seen else (40, 20)
    save_labelme(tmp_path / "a.json", [labelme_shape("rectangle", [[1, 1], [18, 15]])], "a.jpg", width, height)
    (image,) = read_labelme(tmp_path).to_coco()["images"]
    assert (image["width"], image["height"]) == (width, height)


def test_without_a_size_the_image_counts_as_seen(tmp_path):
    save_image(tmp_path / "a.jpg", 40, 20, orientation=6)
    rectangle = [labelme_shape("rectangle", [[1, 1], [18, 35]])]
    save_labelme(tmp_path / "a.json", rectangle, "a.jpg", None, None)
    (image,) = read_labelme(tmp_path).to_coco()["images"]
    assert (image["width"], image["height"]) == (20, 40)


def test_files_that_cannot_be_used_are_counted(tmp_path):
    good = [labelme_shape("polygon", [[1, 1], [5, 1], [5, 4]])]
    for name in ("good", "resized", "twice", "unlabelled", "half"):
        save_image(tmp_path / f"{name}.png", 20, 10)
    (tmp_path / "half.png").write_bytes((tmp_path / "half.png").read_bytes()[:20])
    save_labelme(tmp_path / "good.json", good, "good.png", 20, 10)
    save_labelme(tmp_path / "resized.json", good, "resized.png", 40, 20)
    save_labelme(tmp_path / "gone.json", good, "gone.png", 40, 20)
    save_labelme(tmp_path / "half.json", good, "half.png", 20, 10)
    save_labelme(tmp_path / "twice1.json", good, "twice.png", 20, 10)
    save_labelme(tmp_path / "twice2.json", good, "twice.png", 20, 10)
    (tmp_path / "cut.json").write_text('{"shapes": [\n{"label":', encoding="utf-8")
    (tmp_path / "other.json").write_text("[]", encoding="utf-8")
    dataset = read_labelme(tmp_path)
    assert [image["file_name"] for image in dataset.to_coco()["images"]] == ["good.png", "twice.png"]
    assert kinds(dataset) == [
        "broken_file",
        "image_twice",
        "missing_image",
        "other_json",
        "other_size",
        "unlabelled_image",
        "unreadable_image",
    ]
    assert "cut.json isn't valid json" in next(
        problem.message for problem in dataset.problems if problem.kind == "broken_file"
    )
    assert "line 2" in next(problem.message for problem in dataset.problems if problem.kind == "broken_file")


def test_images_elsewhere(tmp_path):
    """Paths of the computer that labelled, Windows' slashes, odd names and a folder of images apart from the jsons."""
    good = [labelme_shape("polygon", [[1, 1], [5, 1], [5, 4]], "猫")]
    for name in ("über uns/日本 1.png", "b.png", "c.png"):
        save_image(tmp_path / "images" / name, 20, 10)
    save_labelme(tmp_path / "labels/a.json", good, "..\\images\\über uns\\日本 1.png", 20, 10)
    save_labelme(tmp_path / "labels/b.json", good, "C:\\Users\\me\\b.png", 20, 10)
    save_labelme(tmp_path / "labels/deep/c.json", good, "c.png", 20, 10)
    dataset = read_labelme(tmp_path / "labels", tmp_path / "images")
    coco = dataset.to_coco()
    assert [image["file_name"] for image in coco["images"]] == ["b.png", "c.png", "über uns/日本 1.png"]
    assert coco["categories"] == [{"id": 1, "name": "猫"}]
    assert kinds(dataset) == []


def test_images_of_the_same_name_are_told_apart_by_their_folders(tmp_path):
    good = [labelme_shape("polygon", [[1, 1], [5, 1], [5, 4]])]
    for name in ("images/train/1.png", "images/val/1.png"):
        save_image(tmp_path / name, 20, 10)
    save_labelme(tmp_path / "labels/1.json", good, "D:\\data\\Val\\1.png", 20, 10)
    save_labelme(tmp_path / "labels/2.json", good, "/home/me/train/1.png", 20, 10)
    save_labelme(tmp_path / "labels/3.json", good, "1.png", 20, 10)
    dataset = read_labelme(tmp_path / "labels", tmp_path / "images")
    assert [image["file_name"] for image in dataset.to_coco()["images"]] == ["train/1.png", "val/1.png"]
    assert kinds(dataset) == ["missing_image"]


def test_images_outside_the_folder_ask_for_one(tmp_path):
    save_image(tmp_path / "images/a.png", 20, 10)
    save_labelme(tmp_path / "labels/a.json", [], "../images/a.png", 20, 10)
    with pytest.raises(UserError, match="give --images a folder that holds all images"):
        read_labelme(tmp_path / "labels")


def test_a_set_without_objects_or_images(tmp_path):
    save_image(tmp_path / "a.png", 20, 10)
    save_labelme(tmp_path / "a.json", [labelme_shape("point", [[1, 1]])], "a.png", 20, 10)
    with pytest.raises(UserError, match="1 images and not a single object.* Shape 1 of .* is a point"):
        read_labelme(tmp_path).to_coco()
    (tmp_path / "a.png").unlink()
    with pytest.raises(UserError, match="gives no image.*a.png, which isn't there"):
        read_labelme(tmp_path).to_coco()
