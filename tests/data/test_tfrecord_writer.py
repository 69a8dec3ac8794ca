import itertools
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pycocotools import mask as coco_mask
from recorded import varied

from mrcnn_tf import cli
from mrcnn_tf.common.categories import Category, read_record_categories
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.data import tfrecord_writer
from mrcnn_tf.data.tfrecord_writer import write_records

# The Model Garden brings Keras 2, so it works in a process of its own.
DECODE = """
import pickle, sys
import tensorflow as tf
from official.vision.dataloaders.tf_example_decoder import TfExampleDecoder
decoder = TfExampleDecoder(include_mask=True)
decoded = [{key: value.numpy() for key, value in decoder.decode(record).items()}
           for record in tf.data.TFRecordDataset(sys.argv[2:])]
pickle.dump(decoded, open(sys.argv[1], "wb"))
"""


@pytest.fixture
def dataset(folder):
    """(json, images, out) of a varied dataset."""
    config = varied(folder).config()
    return config.annotations, config.images, folder.path / "records"


def coco_masks(record, image):
    """pycocotools' [H, W] of an annotation of the json."""
    segmentation, size = record["segmentation"], (image["height"], image["width"])
    rle = coco_mask.frPyObjects(segmentation, *size)
    return coco_mask.decode(coco_mask.merge(rle) if isinstance(segmentation, list) else rle)


def test_the_model_gardens_decoder_reads_what_the_json_says(dataset, tmp_path):
    pytest.importorskip("official")
    made = write_records(*dataset, shards=3)
    assert (made.images, made.objects, made.written) == (8, 21, 3)
    decoded = tmp_path / "decoded.pickle"
    subprocess.run([sys.executable, "-c", DECODE, decoded, *made.files], check=True)
    records = {int(record["source_id"]): record for record in np.load(decoded, allow_pickle=True)}
    document = json.loads(pathlib.Path(dataset[0]).read_text())
    assert sorted(records) == [image["id"] for image in document["images"]]
    for image in document["images"]:
        record = records[image["id"]]
        objects = [one for one in document["annotations"] if one["image_id"] == image["id"]]
        height, width = image["height"], image["width"]
        assert (record["height"], record["width"]) == (height, width) and record["image"].shape == (height, width, 3)
        boxes = np.array([one["bbox"] for one in objects]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        swapped = record["groundtruth_boxes"][:, [1, 0, 3, 2]] * (width, height, width, height)
        np.testing.assert_allclose(swapped, boxes, atol=1e-4)
        assert record["groundtruth_classes"].tolist() == [one["category_id"] for one in objects]
        assert record["groundtruth_is_crowd"].tolist() == [bool(one["iscrowd"]) for one in objects]
        np.testing.assert_allclose(record["groundtruth_area"], [one["area"] for one in objects], rtol=1e-6)
        masks = [coco_masks(one, image) for one in objects]
        np.testing.assert_array_equal(record["groundtruth_instance_masks"], np.reshape(masks, (-1, height, width)))


def test_a_turned_image_is_stored_upright_and_others_as_they_are(dataset):
    features = {}
    for record in tf.data.TFRecordDataset([str(file) for file in write_records(*dataset).files]):
        one = tf.train.Example.FromString(record.numpy()).features.feature
        name = one["image/filename"].bytes_list.value[0].decode()
        features[name] = (one["image/encoded"].bytes_list.value[0], one["image/format"].bytes_list.value[0])
    for name, form in (("11.png", b"png"), ("12.jpg", b"jpeg"), ("15.jpg", b"jpeg"), ("grey.png", b"png")):
        assert features[name] == ((pathlib.Path(dataset[1]) / name).read_bytes(), form)
    stored = np.asarray(Image.open(pathlib.Path(dataset[1]) / "13.jpg"))
    np.testing.assert_array_equal(tf.io.decode_png(features["13.jpg"][0]), np.rot90(stored, -1))
    stored = np.asarray(Image.open(pathlib.Path(dataset[1]) / "14.jpg"))
    np.testing.assert_array_equal(tf.io.decode_png(features["14.jpg"][0]), np.rot90(stored, 2))


def test_coordinates_that_are_ties_in_decimals_are_pycocotools_masks(folder):
    folder.add_image(1, 60, 50)
    rings = [[[10.7, 5.3, 40.7, 5.1, 40.3, 30.9, 10.1, 30.7]], [[3.1, 4.3, 33.7, 8.9, 20.3, 44.7]]]
    for number, ring in enumerate(rings):
        box = [3, 4, 40, 41]
        folder.annotations.append(
            {"id": number, "image_id": 1, "category_id": 7, "bbox": box, "area": 9, "iscrowd": 0, "segmentation": ring}
        )
    config = folder.config()
    made = write_records(config.annotations, config.images, folder.path / "records")
    record = next(iter(tf.data.TFRecordDataset(str(made.files[0])))).numpy()
    pngs = tf.train.Example.FromString(record).features.feature["image/object/mask"].bytes_list.value
    for png, ring in zip(pngs, rings, strict=True):
        expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(ring, 50, 60)))
        np.testing.assert_array_equal(tf.io.decode_png(png)[:, :, 0], expected)


def test_the_manifest_carries_the_categories(dataset):
    write_records(*dataset, name="some")
    expected = [
        Category(3, "Würfel"),
        Category(7, "face", ["nose", "left_eye", "right_eye"], [[1, 2]]),
    ]
    assert read_record_categories(dataset[2] / "some-*.tfrecord") == expected
    (dataset[2] / "some.json").rename(dataset[2] / "other.json")
    with pytest.raises(UserError, match="set model.categories"):
        read_record_categories(str(dataset[2] / "some-*.tfrecord"))
    with pytest.raises(UserError, match="no file .*none"):
        read_record_categories(str(dataset[2] / "none-*.tfrecord"))


def test_manifests_that_differ_in_categories_are_not_mixed(dataset, folder):
    write_records(*dataset)
    folder.categories[1]["name"] = "cube"
    config = folder.config()
    write_records(config.annotations, config.images, dataset[2], name="more")
    with pytest.raises(UserError, match="more.json and .*train.json have other categories"):
        read_record_categories(dataset[2] / "*.tfrecord")


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


def test_a_stopped_conversion_goes_on_with_the_first_unfinished_shard(dataset, monkeypatch, tmp_path):
    whole = write_records(*dataset[:2], tmp_path / "whole", shards=4)
    example, calls = tfrecord_writer.make_features, []

    def dying(job):
        calls.append(job.name)
        if len(calls) == 6:  # the second image of the third shard
            raise Killed
        return example(job)

    monkeypatch.setattr(tfrecord_writer, "make_features", dying)
    with pytest.raises(Killed):
        write_records(*dataset, shards=4)
    monkeypatch.setattr(tfrecord_writer, "make_features", example)
    done = sorted(dataset[2].glob("*.tfrecord"))
    assert [file.name for file in done] == [f"train-0000{n}-of-00004.tfrecord" for n in (0, 1)]
    times = [file.stat().st_mtime_ns for file in done]
    (dataset[2] / ".train-00002-of-00004.12345.tfrecord").write_bytes(b"what a kill leaves")
    made = write_records(*dataset, shards=4)
    assert made.written == 2 and [file.stat().st_mtime_ns for file in done] == times
    assert [file.read_bytes() for file in made.files] == [file.read_bytes() for file in whole.files]
    assert sorted(file.name for file in dataset[2].iterdir()) == [*(file.name for file in made.files), "train.json"]


def test_changed_inputs_are_named_and_forced(dataset, folder):
    first = write_records(*dataset, shards=2)
    with pytest.raises(UserError, match="number of shards is another.*--force"):
        write_records(*dataset, shards=3)
    folder.annotations.pop()
    config = folder.config()
    with pytest.raises(UserError, match="the json has changed.*--force"):
        write_records(*dataset, shards=2)
    assert all(file.exists() for file in first.files)
    forced = write_records(config.annotations, *dataset[1:], shards=3, force=True)
    assert forced.written == 3 and forced.objects == 20
    assert sorted(dataset[2].glob("*.tfrecord")) == forced.files
    with open(dataset[1] + "/11.png", "ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match="image files have changed"):
        write_records(*dataset, shards=3)


def test_another_json_of_the_manifests_name_is_never_replaced(dataset):
    dataset[2].mkdir()
    (dataset[2] / "train.json").write_text('{"images": []}')
    for force in (False, True):
        with pytest.raises(UserError, match="train.json is there and isn't a manifest"):
            write_records(*dataset, force=force)
    assert (dataset[2] / "train.json").read_text() == '{"images": []}'


def test_an_image_that_disappears_costs_nothing_that_is_finished(dataset, monkeypatch):
    example = tfrecord_writer.make_features

    def removing(job):
        (pathlib.Path(dataset[1]) / "18.jpg").unlink(missing_ok=True)
        return example(job)

    monkeypatch.setattr(tfrecord_writer, "make_features", removing)
    with pytest.raises(UserError, match="18.jpg can't be read any more .*finished shards are kept"):
        write_records(*dataset, shards=4)
    assert len(list(dataset[2].glob("train-*.tfrecord"))) == 3


def test_what_cant_be_written_is_one_sentence(dataset, folder):
    (folder.path / "file").write_text("")
    with pytest.raises(UserError, match="file can't be written to"):
        write_records(*dataset[:2], folder.path / "file")
    with pytest.raises(UserError, match="'a/b' can't begin the name"):
        write_records(*dataset, name="a/b")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    write_records(*dataset, shards=8)  # also fills the cache, which is larger
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (12000, hard))
        with pytest.raises(UserError, match="can't be written .*finished shards are kept"):
            write_records(*dataset, shards=1, name="more")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(dataset[2].glob("*more*.tfrecord"))


ORPHAN = """
import concurrent.futures, multiprocessing, os, signal, sys
from mrcnn_tf.data.tfrecord_example import start_worker
pool = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), start_worker)
with open(sys.argv[1], "w") as file:
    file.write(str(pool.submit(os.getpid).result()))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_worker_ends_with_a_parent_that_is_killed(tmp_path):
    ended = subprocess.run([sys.executable, "-c", ORPHAN, tmp_path / "worker"])
    worker = int((tmp_path / "worker").read_text())
    state, deadline = pathlib.Path("/proc", str(worker), "stat"), time.monotonic() + 20
    assert ended.returncode == -9

    def alive():
        try:
            return state.read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    while alive() and time.monotonic() < deadline:
        time.sleep(0.1)
    if alive():
        os.kill(worker, signal.SIGKILL)
        pytest.fail("the worker outlived its parent")


def command(*arguments):
    program = "from mrcnn_tf.cli import main; main()"
    words = [sys.executable, "-c", program, "convert", "tfrecord", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True)


def test_the_command_with_two_processes_writes_what_one_writes(dataset, tmp_path):
    expected = write_records(*dataset, shards=3)
    words = ["--annotations", dataset[0], "--images", dataset[1], "--out", tmp_path / "out", "--shards", 3]
    ended = command(*words, "--processes", 2, "--json")
    assert ended.returncode == 0, ended.stderr
    figures = json.loads(ended.stdout)
    assert (figures["written"], figures["images"], figures["objects"], figures["problems"]) == (3, 8, 21, 0)
    for file in expected.files:
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()


def test_the_commands_mistakes_are_sentences(dataset, monkeypatch, capsys):
    write_records(*dataset, shards=2)
    capsys.readouterr()
    words = {"--annotations": dataset[0], "--images": dataset[1], "--out": dataset[2], "--processes": 1}
    for change, sentence in (
        ({"--images": "nowhere"}, "There is no folder 'nowhere'"),
        ({"--annotations": "nowhere.json"}, "There is no file 'nowhere.json'"),
        ({"--shards": 3}, f"{dataset[2]} holds records called 'train' of another conversion"),
    ):
        pairs = itertools.chain(*(words | change).items())
        monkeypatch.setattr(sys, "argv", ["mrcnn-tf", "convert", "tfrecord", *map(str, pairs)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        told = capsys.readouterr().err
        assert end.value.code == 2 and told.startswith(f"mrcnn-tf: {sentence}") and told.count("\n") == 1
