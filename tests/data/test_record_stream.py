"""Training on TFRecords: what batches hold is what the json and the image files give."""

import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf
from recorded import varied

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import AugmentConfig, SourceConfig
from mrcnn_tf.data.loader import SampleLoader
from mrcnn_tf.data.pipeline import TrainingData
from mrcnn_tf.data.sources import load_sources
from mrcnn_tf.data.tfrecord_writer import write_records


@pytest.fixture
def both(folder):
    """One dataset as (a json's config, its records' config): 8 images in 2 files."""
    config = varied(folder).config(images_per_batch=2, augment=AugmentConfig(0.5))
    write_records(config.annotations, config.images, folder.path / "records", shards=2, progress=False)
    records = str(folder.path / "records" / "train-*.tfrecord")
    return config, dataclasses.replace(config, annotations="", images="", records=records)


def test_an_image_is_the_same_from_a_record_and_from_its_file(both):
    files, records = (load_sources(config) for config in both)
    assert records.name == both[1].records and sorted(records.index.image_ids) == list(range(11, 19))
    ours, theirs = SampleLoader(files.index, both[0]), SampleLoader(records.index, both[1])
    for number, name in enumerate(records.index.image_ids):
        sample, other = theirs.load(number), ours.load(int(np.flatnonzero(files.index.image_ids == name)[0]))
        # What EXIF turns is stored upright, compressed once more.
        atol = 10 if name in (13, 14) else 0
        np.testing.assert_allclose(np.int32(sample.image), np.int32(other.image), rtol=0, atol=atol)
        np.testing.assert_array_equal(sample.classes, other.classes)
        np.testing.assert_allclose(sample.boxes, other.boxes, atol=1e-4)
        np.testing.assert_allclose(sample.keypoints, other.keypoints, atol=1e-4)
        # Of runs, those of crowds, the crops are the same; a polygon is drawn in a crop's own cells.
        np.testing.assert_array_equal(sample.masks[sample.crowd], other.masks[other.crowd])
        away = np.abs(np.int32(sample.masks) - np.int32(other.masks)).mean(axis=(1, 2)) / 255
        assert (away < 0.06).all()


def test_records_and_files_are_mixed_in_one_stream(both):
    files, records = both
    sources = [SourceConfig(files.annotations, files.images), SourceConfig(records=records.records)]
    config = dataclasses.replace(files, annotations="", images="", sources=sources, images_per_batch=16)
    mixed = TrainingData(config)
    assert mixed.images == 16 and mixed.steps_per_pass == 1
    (batch,) = mixed.one_pass()
    ids = batch["image_id"].numpy()
    assert sorted(ids.tolist()) == sorted(2 * list(range(11, 19)))
    for name in range(11, 19):
        one, other = np.flatnonzero(ids == name)
        for key in ("classes", "original_size"):
            np.testing.assert_array_equal(batch[key][one], batch[key][other], key)
    assert (batch["masks"].numpy().any(axis=(1, 2, 3)) == (ids != 17)).all()


def test_a_record_that_gets_damaged_in_mid_run_is_named(both):
    data = TrainingData(dataclasses.replace(both[1], masks=False))
    index = load_sources(dataclasses.replace(both[1], masks=False)).index
    batches = iter(data.stream())
    next(batches)
    file, offset = index.image_files[-1].decode(), int(index.record_offsets[-1])
    with open(file, "r+b") as damaged:
        damaged.seek(offset + 100)
        damaged.write(b"\xff\x00\xff\x00")
    with pytest.raises(tf.errors.OpError) as raised:
        for _ in range(20):
            next(batches)
    error = data.input_error(raised.value, 1)
    assert isinstance(error, UserError)
    assert str(error).startswith(
        f"The record at byte {offset} of {file} can't be read any more, as it is cut off, dama"
    )
    os.remove(file)
    with pytest.raises(tf.errors.OpError) as raised:
        list(data.stream().take(8))
    assert f" of {file} isn't there any more: put it back" in str(data.input_error(raised.value))
