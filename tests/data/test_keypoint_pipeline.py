"""Keypoints in batches. Most datasets here are without masks, whose drawing takes most of the time to build them."""

import numpy as np
import pytest
from made_up import FACE, annotation
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import AugmentConfig, ResizeConfig
from mrcnn_tf.data.order import count_labelled_keypoints, select_training_images
from mrcnn_tf.data.pipeline import coco_dataset
from mrcnn_tf.datasets.read_coco import load_index

STILL = AugmentConfig(horizontal_flip=0.0)
KEYS = {"image", "image_size", "original_size", "boxes", "classes", "crowd", "image_id"}


def seen(dataset):
    return sorted({number for batch in dataset for number in batch["image_id"].numpy().tolist()})


def test_a_batch_by_hand(faces):
    faces.add_image(1, 40, 30)
    faces.add_image(2, 40, 30)
    faces.annotations = [
        annotation(1, area=1.0, keypoints=FACE),  # the smallest of six, without room
        annotation(2, keypoints=FACE),
        annotation(3, category_id=9),
        annotation(4, category_id=3, keypoints=[1, 2, 2, 39, 29, 1]),
        annotation(5, keypoints=[0] * 9),
        annotation(6, category_id=3, keypoints=[0, 0, 2, 0, 0, 0]),
    ]
    config = faces.config(images_per_batch=2, resize=ResizeConfig(60, 100), keypoint_offset=0.5)
    (batch,) = coco_dataset(config, training=False)
    assert set(batch) == KEYS | {"masks", "keypoints"}
    assert batch["keypoints"].shape == (2, 5, 3, 3) and batch["keypoints"].dtype == np.float32
    assert batch["classes"][0].numpy().tolist() == [2, 3, 1, 2, 1]
    assert batch["keypoints"][0].numpy().tolist() == [
        [[11, 13, 2], [15, 17, 1], [0, 0, 0]],
        [[0, 0, 0]] * 3,
        [[3, 5, 2], [79, 59, 1], [0, 0, 0]],
        [[0, 0, 0]] * 3,
        [[1, 1, 2], [0, 0, 0], [0, 0, 0]],
    ]
    assert not batch["keypoints"][1].numpy().any()
    config.keypoint_offset, config.masks = None, False
    (batch,) = coco_dataset(config, training=False)
    assert batch["keypoints"][0, 0].numpy().tolist() == [[10, 12, 2], [14, 16, 1], [0, 0, 0]]


def test_without_keypoint_names_there_is_no_such_key(folder):
    folder.add_image(1)
    folder.annotations = [annotation(1, keypoints=FACE)]
    assert set(coco_dataset(folder.config(masks=False), training=True).element_spec) == KEYS


def test_marks_in_the_image_move_with_their_keypoints(faces):
    """Red is the nose; what the file calls the left eye is green, the right eye blue; mirrored they change names."""
    pixels = np.zeros((30, 40, 3), np.uint8)
    for channel, (x, y) in enumerate([(20, 9), (9, 21), (33, 25)]):
        pixels[y, x, channel] = 255
    for number in range(24):
        faces.add_image(number, 40, 30)
        Image.fromarray(pixels).save(faces.path / "images" / f"{number}.png")
        faces.annotations += [
            annotation(2 * number, number, keypoints=[20, 9, 2, 9, 21, 2, 33, 25, 1]),
            annotation(2 * number + 1, number, category_id=3, keypoints=[9, 21, 2, 33, 25, 2]),
        ]
    augment = AugmentConfig(0.5, 0.5, True)
    config = faces.config(augment=augment, resize=ResizeConfig(90, 200), keypoint_offset=0.5, masks=False)
    dataset = coco_dataset(config, training=True)
    assert dataset.element_spec["keypoints"].shape == (1, 5, 3, 3)
    positions = set()
    for batch in dataset:
        nose, left, right = batch["keypoints"][0, 0].numpy()
        image = batch["image"][0].numpy()
        colours = [image[int(y), int(x)].argmax() for x, y, _ in (nose, left, right)]
        peaks = [image[int(y), int(x)].max() for x, y, _ in (nose, left, right)]
        assert min(peaks) == 255
        # Seen along the way from the left to the right eye, the nose is on one side, unless the image is mirrored.
        (along_x, along_y), (nose_x, nose_y) = right[:2] - left[:2], nose[:2] - left[:2]
        assert along_x * nose_y - along_y * nose_x < 0 and colours in ([0, 1, 2], [0, 2, 1])
        assert [left[2], right[2]] == ([2, 1] if colours[1] == 1 else [1, 2])
        stick = batch["keypoints"][0, 1].numpy()
        np.testing.assert_array_equal(stick[:2, :2], [left[:2], right[:2]])
        positions.add(tuple(nose[:2]))
    assert len(positions) > 4  # of 8; 24 draws


def test_a_missing_side_matters_only_to_mirroring(faces):
    faces.categories[0]["keypoints"] = ["nose", "left_eye", "chin"]
    faces.add_image(1)
    faces.annotations = [annotation(1, keypoints=FACE)]
    with pytest.raises(UserError, match="'left_eye' has no 'right_eye'"):
        coco_dataset(faces.config(), training=True)
    turning = faces.config(augment=AugmentConfig(0.0, 0.0, True), masks=False)
    assert len(coco_dataset(turning, training=True)) == 1
    assert len(coco_dataset(faces.config(masks=False), training=False)) == 1


def test_images_with_too_few_keypoints_are_left_out_of_training(faces):
    for number in range(1, 6):
        faces.add_image(number)
    faces.annotations = [
        annotation(1, 1, keypoints=FACE),
        annotation(2, 2, keypoints=FACE),
        annotation(3, 2, category_id=3, keypoints=[1, 1, 1, 0, 0, 0]),
        annotation(4, 3, category_id=9),
        annotation(5, 5, keypoints=FACE),
        annotation(6, 5, keypoints=FACE, iscrowd=1),
    ]
    config = faces.config(min_keypoints=2, augment=STILL, masks=False)
    index = load_index(config)
    assert count_labelled_keypoints(index).tolist() == [2, 3, 0, 0, 2]
    for least, rows in {0: [0, 1, 2, 3, 4], 1: [0, 1, 4], 2: [0, 1, 4], 3: [1]}.items():
        assert select_training_images(index, faces.config(min_keypoints=least)).tolist() == rows
    dataset = coco_dataset(config, training=True)
    assert len(dataset) == 3 and seen(dataset) == [1, 2, 5]
    assert len(coco_dataset(config, training=False)) == 5
    config.min_keypoints = 4
    with pytest.raises(
        UserError, match="No image of .*a.json has 4 labelled keypoints: lower data.train.min_keypoints"
    ):
        coco_dataset(config, training=True)


def test_what_is_left_out_neednt_fit_and_batches_are_made_of_the_rest(faces, capsys):
    faces.add_image(1, 40, 30)
    faces.add_image(2, 100, 30)
    faces.annotations = [annotation(1, keypoints=FACE), annotation(2, 2, category_id=9)]
    config = faces.config(pad_to=[32, 64], resize=ResizeConfig(30, 200), images_per_batch=2, masks=False)
    with pytest.raises(UserError, match="Image 2 of .* doesn't fit"):
        coco_dataset(config, training=True)
    config.min_keypoints = 1
    (batch,) = coco_dataset(config, training=True)
    assert batch["image_id"].numpy().tolist() == [1, 1]
    assert "has 1 usable images" in " ".join(capsys.readouterr().err.split())


def test_one_of_several_sizes_is_drawn_for_each_training_image(faces):
    for number in range(90):
        faces.add_image(number, 40, 30)
        faces.annotations.append(annotation(number, number, keypoints=FACE))
    augment = AugmentConfig(0.5, min_sizes=[30, 60, 90])
    config = faces.config(augment=augment, resize=ResizeConfig(45, 100), masks=False)
    dataset, draws = coco_dataset(config, training=True), []
    for batch in dataset:
        size = batch["image_size"][0].numpy().tolist()
        nose = batch["keypoints"][0, 0, 0].numpy().tolist()
        scale = (size[0] / 30, size[1] / 40)
        mirrored = nose[0] > size[1] / 2
        assert nose == pytest.approx([(35 if mirrored else 5) * scale[1], 6 * scale[0], 2])
        draws.append((size[0], mirrored))
    sizes = [size for size, _ in draws]
    # 30 x 40 to 90 x 120 is too long for 100: 75 x 100 remain.
    assert set(sizes) == {30, 60, 75} and min(sizes.count(size) for size in set(sizes)) > 15  # of 30, deviation 4.5
    assert len(set(draws)) == 6  # each size mirrored and not
    assert [batch["image_size"][0, 0].numpy() for batch in dataset] != sizes
    assert [batch["image_size"][0, 0].numpy() for batch in coco_dataset(config, training=True)] == sizes
    batch = next(iter(coco_dataset(config, training=False)))
    assert batch["image_size"].numpy().tolist() == [[45, 60]]


def test_the_largest_of_the_sizes_has_to_fit(faces):
    faces.add_image(1, 40, 30)
    faces.annotations = [annotation(1, keypoints=FACE)]
    settings = {"resize": ResizeConfig(30, 100), "pad_to": [64, 96], "masks": False}
    assert len(coco_dataset(faces.config(augment=AugmentConfig(min_sizes=[60, 30]), **settings), training=True)) == 1
    large = faces.config(augment=AugmentConfig(min_sizes=[30, 70, 60]), **settings)
    with pytest.raises(UserError, match="becomes 93 x 70 pixels"):
        coco_dataset(large, training=True)
    assert len(coco_dataset(large, training=False)) == 1
