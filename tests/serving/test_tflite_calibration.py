"""Calibration images reach the quantiser as the exported graph will see them."""

import types

import numpy as np
import pytest
import tensorflow as tf
from tiny import tiny_batch

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import ResizeConfig
from mrcnn_tf.model.preprocess import Preprocess
from mrcnn_tf.ops.resize import resize_image
from mrcnn_tf.serving.tflite_export import MAX_CALIBRATION_IMAGES, make_calibration_inputs

SIZE = (64, 96)


@pytest.fixture(scope="module")
def model():
    resize = ResizeConfig(min_size=800, max_size=1333, rule="torchvision")
    return types.SimpleNamespace(preprocess=Preprocess([0.0] * 3, [1.0] * 3, resize))


def pixels(height, width, seed=0):
    return np.random.default_rng(seed).integers(1, 256, (height, width, 3), np.uint8)


def check(sample, image, height, width):
    assert sample["image"].shape == (1, *SIZE, 3) and sample["image"].dtype == np.uint8
    assert sample["image_size"].tolist() == [[height, width]] and sample["image_size"].dtype == np.int32
    expected = np.zeros((*SIZE, 3))
    expected[:height, :width] = np.round(resize_image(image, (height, width), "torchvision"))
    np.testing.assert_array_equal(sample["image"][0], expected)


def test_images_are_fitted_into_the_input(model):
    images = [pixels(64, 96), pixels(30, 20), pixels(20, 300)]
    samples = make_calibration_inputs(model, images, SIZE)
    for sample, image, size in zip(samples, images, [(64, 96), (64, 42), (6, 96)], strict=True):
        check(sample, image, *size)


def test_batches_of_a_dataset_are_taken_apart(model):
    batch = tiny_batch(sizes=((64, 64), (64, 48)), canvas=(64, 64))
    batch["image"] = np.round(batch["image"])
    batch["image"][1, :, 48:] = 999  # padding is no part of the image
    dataset = tf.data.Dataset.from_tensor_slices(batch).batch(2)
    samples = make_calibration_inputs(model, dataset, SIZE)
    assert len(samples) == 2
    check(samples[0], batch["image"][0], 64, 64)
    check(samples[1], batch["image"][1, :, :48], 64, 48)


def test_no_more_than_a_hundred_are_read(model):
    read = []

    def endless():
        while True:
            read.append(len(read))
            yield pixels(2, 3)

    assert len(make_calibration_inputs(model, endless(), SIZE)) == MAX_CALIBRATION_IMAGES == len(read)


def test_no_image_is_not_enough(model):
    for nothing in ([], tf.data.Dataset.from_tensor_slices({"image": np.zeros((0, 4, 4, 3))})):
        with pytest.raises(UserError, match=r"not one calibration image: give some [^.]*\.$"):
            make_calibration_inputs(model, nothing, SIZE)


@pytest.mark.parametrize(
    "wrong", ["image.png", np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)], ids=["path", "gray", "float"]
)
def test_what_is_no_image_is_refused(model, wrong):
    with pytest.raises(UserError, match="takes a dataset of coco_dataset or uint8 images"):
        make_calibration_inputs(model, [wrong], SIZE)
