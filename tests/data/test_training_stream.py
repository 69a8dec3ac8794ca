"""`TrainingData`: streams that go on anywhere, are shared, fail with a sentence, and keep to their memory."""

import dataclasses
import os
import resource

import numpy as np
import pytest
import tensorflow as tf
from made_up import FACE, annotation

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import AugmentConfig, ResizeConfig
from mrcnn_tf.data import pipeline
from mrcnn_tf.data.order import Share
from mrcnn_tf.data.pipeline import TrainingData, coco_dataset

DRAWN = AugmentConfig(horizontal_flip=0.5, rotation=20.0, min_sizes=[30, 40], copy_paste=0.7)


@pytest.fixture
def config(faces):
    """Ten images of two orientations with keypoints and masks, four a step, some augmentations on."""
    for number in range(10):
        faces.add_image(number, *((40, 30) if number < 7 else (30, 40)))
        faces.annotations.append(annotation(number, number, keypoints=FACE))
    return faces.config(images_per_batch=4, augment=DRAWN)


def assert_equal(one, other):
    assert set(one) == set(other)
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], name)


def valid_part(batch, row):
    """An image's contents without the padding, which depends on its batch."""
    parts = {name: values[row].numpy() for name, values in batch.items()}
    height, width = parts["image_size"]
    return parts | {"image": parts["image"][:height, :width]}


def test_a_stream_from_a_step_is_the_tail_of_the_whole_to_the_bit(config):
    data = TrainingData(config)
    assert data.images == 10 and data.steps_per_pass == 2
    whole = list(data.stream().take(7))
    assert data.stream().cardinality() == tf.data.INFINITE_CARDINALITY
    tail = list(TrainingData(config).stream(3).take(4))
    for one, other in zip(whole[3:], tail, strict=True):
        assert_equal(one, other)
    passes = [np.concatenate([batch["image_id"] for batch in whole[at : at + 2]]).tolist() for at in (0, 2, 4)]
    assert all(len(set(one)) == 8 for one in passes) and passes[0] != passes[1] != passes[2]


def test_an_image_is_augmented_anew_in_each_pass(config):
    config = dataclasses.replace(config, images_per_batch=1, augment=AugmentConfig(rotation=45.0))
    boxes = {}
    for batch in TrainingData(config).stream().take(30):
        boxes.setdefault(int(batch["image_id"][0]), set()).add(tuple(batch["boxes"][0, 0].numpy().tolist()))
    assert [len(drawn) for drawn in boxes.values()] == [3] * 10


def test_a_later_step_loads_nothing_that_lies_before(config, faces):
    data = TrainingData(dataclasses.replace(config, images_per_batch=1, augment=AugmentConfig(), masks=False))
    last = [int(batch["image_id"][0]) for batch in data.stream().take(10)][-1]
    for number in set(range(10)) - {last}:
        os.remove(faces.path / "images" / f"{number}.png")
    assert int(next(iter(data.stream(9)))["image_id"][0]) == last
    with pytest.raises(tf.errors.NotFoundError):
        next(iter(data.stream(8)))


@pytest.mark.parametrize(("workers", "batches"), [(2, 1), (1, 4), (2, 2)])
def test_shares_make_up_the_whole_to_the_bit(config, workers, batches):
    config = dataclasses.replace(config, augment=AugmentConfig(0.5, 0.5, True, min_sizes=[30, 40], brightness=0.2))
    data = TrainingData(config)
    whole = list(data.stream(1).take(3))
    streams = [iter(data.stream(1, Share(worker, workers, batches))) for worker in range(workers)]
    for batch in whole:
        parts = [next(stream) for stream in streams for _ in range(batches)]
        rows = [valid_part(part, row) for part in parts for row in range(part["image_id"].shape[0])]
        assert len(rows) == 4
        for row, part in enumerate(rows):
            assert_equal(valid_part(batch, row), part)


def test_a_step_that_cant_be_shared(config):
    with pytest.raises(UserError, match="train.images_per_batch is 4, which 3 workers can't share equally"):
        TrainingData(config).stream(0, Share(0, 3, 1))


def spoil(path, how):
    if how == "deleted":
        os.remove(path)
        return "isn't there any more"
    size = {"empty": 0, "truncated": os.path.getsize(path) // 2}[how]
    with open(path, "r+b") as file:
        file.truncate(size)
    return "can't be read any more, as it is cut off, damaged or out of reach"


@pytest.mark.parametrize(
    ("how", "copy_paste"), [("deleted", 0.0), ("empty", 0.0), ("truncated", 0.0), ("truncated", 1.0)]
)
def test_a_file_that_gets_lost_in_mid_run_is_named(faces, how, copy_paste):
    for number in range(4):
        faces.add_image(number, name=f"{number}.jpg", width=400, height=300)
        faces.annotations.append(annotation(number, number, keypoints=FACE))
    augment = AugmentConfig(copy_paste=copy_paste)
    data = TrainingData(faces.config(images_per_batch=2, augment=augment, masks=copy_paste > 0))
    batches = iter(data.stream())
    next(batches)
    wrong = spoil(faces.path / "images" / "2.jpg", how)
    with pytest.raises(tf.errors.OpError) as raised:
        for _ in range(20):
            next(batches)
    for step in (1, 10**6):
        error = data.input_error(raised.value, step)
        assert isinstance(error, UserError)
        path = faces.path / "images" / "2.jpg"
        assert str(error) == f"The image file {path} {wrong}: put it back as it was and go on with --resume."


def test_errors_that_arent_the_datas(config, faces):
    data = TrainingData(config)
    with pytest.raises(tf.errors.OpError) as raised:
        tf.gather(tf.zeros([2]), 5)
    assert data.input_error(raised.value) is None
    passing = tf.errors.UnavailableError(None, None, "Iterator::GetNext: connection lost\n more")
    assert str(data.input_error(passing, 3)) == (
        "The data couldn't be read (Iterator::GetNext: connection lost), though now it can: go on with --resume."
    )


def test_the_culprit_is_found_wherever_it_is(faces, monkeypatch):
    """Among the images of other steps, if the step that failed isn't the one that was said."""
    for number in range(40):
        faces.add_image(number)
        faces.annotations.append(annotation(number, number, keypoints=FACE))
    monkeypatch.setattr(pipeline, "STEPS_AHEAD", 1)
    data = TrainingData(faces.config(images_per_batch=1, masks=False))
    later = [int(batch["image_id"][0]) for batch in data.stream().take(20)][-1]
    spoil(faces.path / "images" / f"{later}.png", "empty")
    with pytest.raises(tf.errors.OpError) as raised:
        list(data.stream().take(20))
    assert f"/{later}.png can't be read any more" in str(data.input_error(raised.value, 3))


def test_memory_stays_the_same_over_passes(faces):
    """What an image leaves behind, such as its pixels or a cached function, would add up to more than the bound."""
    size, images = 600, 6
    for number in range(images):
        faces.add_image(number, name=f"{number}.jpg", width=size, height=size)
        faces.annotations.append(annotation(number, number, keypoints=FACE))
    dataset = coco_dataset(faces.config(images_per_batch=2, resize=ResizeConfig(size, size)), training=True)

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    for _ in dataset.repeat(5):
        pass
    before = resident()
    for _ in range(2):
        for _ in dataset.repeat(10):
            pass
    pixels = 20 * images * size * size * 3  # of the files, as bytes
    assert resident() - before < pixels / 2
