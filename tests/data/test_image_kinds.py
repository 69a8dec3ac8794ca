"""What training reads of each kind of image file is what the file stands for, and what validate lets through."""

import numpy as np
import pytest
import tensorflow as tf
from image_kinds import PICTURE, READ, REFUSED, encoded
from made_up import annotation

from mrcnn_tf.config.settings import DataConfig
from mrcnn_tf.data.loader import SampleLoader
from mrcnn_tf.data.tfrecord_reader import load_record_index
from mrcnn_tf.data.tfrecord_writer import write_records
from mrcnn_tf.datasets.doctor import validate
from mrcnn_tf.datasets.read_coco import load_index


def add_files(folder, files):
    """Adds images of 32 x 24 pixels, or turned, and an object of each; {image id: kind}."""
    for number, (kind, data) in enumerate(files.items(), 1):
        (folder.path / "images" / kind).write_bytes(data)
        folder.images.append({"id": number, "file_name": kind})
        folder.annotations.append(annotation(number, number))
    return dict(enumerate(files, 1))


def load_all(index, config):
    """{image id: pixels}, read as training does: in a graph, several at once."""
    loader = SampleLoader(index, config)
    numbers = tf.data.Dataset.range(index.image_ids.size)
    loaded = numbers.map(lambda number: (loader.image_id(number), loader.load(number).image), num_parallel_calls=4)
    return {int(number): image for number, image in loaded.as_numpy_iterator()}


def test_training_reads_every_kind(folder):
    kinds = add_files(folder, {kind: data for kind, (data, _) in READ.items()})
    config = folder.config()
    index = load_index(config)
    assert not index.problems and index.by_pillow.any() and not index.by_pillow.all()
    images = load_all(index, config)
    assert len(images) == len(READ)
    for number, kind in kinds.items():
        np.testing.assert_array_equal(images[number], READ[kind][1], err_msg=kind)


def test_training_and_validate_refuse_the_same_files(folder):
    sound = {"sound.png": encoded(PICTURE, "PNG")}
    kinds = add_files(folder, sound | {kind: data for kind, (data, _) in REFUSED.items()})
    config = folder.config()
    index = load_index(config)
    assert index.image_ids.tolist() == [1]
    trained = {(problem.kind, problem.record) for problem in index.problems if problem.kind != "skipped_image"}
    assert trained == {(REFUSED[kind][1][0], number) for number, kind in kinds.items() if number > 1}
    report = validate(config.annotations, config.images)
    counts = {finding.kind: finding.count for finding in report.findings if finding.severity == "error"}
    expected = [kind for kind, _ in trained]
    assert counts == {kind: expected.count(kind) for kind in expected} | {"skipped_image": len(REFUSED)}


def graph_of(index, config):
    load = tf.function(SampleLoader(index, config).load).get_concrete_function(tf.constant(0, tf.int64))
    return str(load.graph.as_graph_def())


def test_python_is_not_asked_for_jpegs_and_pngs(folder):
    folder.add_image(1)
    folder.add_image(2, name="2.jpg")
    folder.annotations = [annotation(1)]
    config = folder.config()
    assert "PyFunc" not in graph_of(load_index(config), config)
    folder.add_image(3, name="3.tif")
    config = folder.config()
    assert "PyFunc" in graph_of(load_index(config), config)


@pytest.mark.parametrize(
    "change", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-900])]
)
def test_a_file_that_has_changed_is_named(folder, change):
    add_files(folder, {kind: READ[kind][0] for kind in ("TIFF", "WebP")})
    config = folder.config()
    index = load_index(config)
    change(folder.path / "images" / "TIFF")
    loader = SampleLoader(index, config)
    assert "TIFF" in loader.find_fault(tf.constant(0, tf.int64)) and loader.find_fault(tf.constant(1, tf.int64)) is None
    with pytest.raises(tf.errors.OpError):
        load_all(index, config)


def test_records_hold_jpegs_and_pngs(folder):
    kinds = add_files(folder, {kind: data for kind, (data, _) in READ.items()})
    config = folder.config()
    written = write_records(config.annotations, config.images, folder.path / "out", shards=1, progress=False)
    for example in tf.data.TFRecordDataset([str(file) for file in written.files]):
        features = tf.train.Example.FromString(example.numpy()).features.feature
        encoded_image = features["image/encoded"].bytes_list.value[0]
        assert features["image/format"].bytes_list.value[0] == b"png" and encoded_image.startswith(b"\x89PNG")
    config = DataConfig(records=str(folder.path / "out/train-*.tfrecord"), mask_size=28)
    index = load_record_index(config.records, config)
    assert not index.by_pillow.any()
    for number, image in load_all(index, config).items():
        np.testing.assert_array_equal(image, READ[kinds[number]][1], err_msg=kinds[number])


def test_records_of_others_may_hold_any_kind(folder, monkeypatch):
    kinds = add_files(folder, {kind: data for kind, (data, _) in READ.items()})
    config = folder.config()
    monkeypatch.setattr("mrcnn_tf.data.tfrecord_example._read_upright", _as_it_is)
    write_records(config.annotations, config.images, folder.path / "out", shards=1, progress=False)
    config = DataConfig(records=str(folder.path / "out/train-*.tfrecord"), mask_size=28)
    index = load_record_index(config.records, config)
    assert index.by_pillow.any() and not index.problems
    for number, image in load_all(index, config).items():
        np.testing.assert_array_equal(image, READ[kinds[number]][1], err_msg=kinds[number])


def _as_it_is(job):
    with open(job.path, "rb") as file:
        return file.read(), "other"
