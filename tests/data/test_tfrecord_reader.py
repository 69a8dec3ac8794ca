import dataclasses
import gzip
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from made_up import annotation
from recorded import varied

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import DataConfig
from mrcnn_tf.data import tfrecord_reader
from mrcnn_tf.data.loader import SampleLoader
from mrcnn_tf.data.tfrecord_reader import load_record_index, read_record
from mrcnn_tf.data.tfrecord_writer import write_records
from mrcnn_tf.datasets.read_coco import load_index

HEADER, FOOTER = 12, 4

# Their own tool, with masks and without processes, over its flags.
WRITE = """
import sys
from absl import flags
from official.vision.data import create_coco_tf_record as tool
flags.FLAGS(["tool", "--num_processes=0"])
annotations, images, prefix = sys.argv[1:]
tool._create_tf_record_from_coco_annotations(
    annotations, [images], prefix, 2, object_annotations_file=annotations, include_masks=True)
"""


@pytest.fixture
def written(folder):
    """(config, pattern) of a varied dataset as json and as records in three files, 3, 3 and 2 of 8."""
    config = varied(folder).config(max_instances=10)
    write_records(config.annotations, config.images, folder.path / "records", shards=3)
    return config, str(folder.path / "records" / "train-*.tfrecord")


def kinds(index):
    return sorted(problem.kind for problem in index.problems)


def shard(pattern, number):
    return pattern.replace("*", f"0000{number}-of-00003")


def offsets(path):
    """Where the records of a file begin, and its size."""
    found = [0]
    for record in tf.data.TFRecordDataset(path):
        found.append(found[-1] + HEADER + len(record.numpy()) + FOOTER)
    return found


def change(path, place):
    """Flips the bits of one byte of a file."""
    data = bytearray(pathlib.Path(path).read_bytes())
    data[place] ^= 0xFF
    pathlib.Path(path).write_bytes(data)


def features_of(path):
    """tf.train.Examples of a file."""
    return [tf.train.Example.FromString(record.numpy()) for record in tf.data.TFRecordDataset(path)]


def rewrite(path, examples):
    with tf.io.TFRecordWriter(path) as writer:
        for example in examples:
            writer.write(example if isinstance(example, bytes) else example.SerializeToString())


def by_image(index):
    """{image id: its row}."""
    return {name: row for row, name in enumerate(index.image_ids.tolist())}


def assert_same_samples(config, json_index, record_index, encoded_anew=()):
    """Both give the same pixels and objects to the bit, image by image; but Pillow rounds JPEGs otherwise than
    TensorFlow, so images `encoded_anew` only nearly."""
    # No box is longer than the crop, or the json's path would cut it from the polygon and the other from pixels.
    config = dataclasses.replace(config, mask_size=224)
    loaders = [SampleLoader(index, config) for index in (json_index, record_index)]
    rows = [by_image(index) for index in (json_index, record_index)]
    assert sorted(rows[0]) == sorted(rows[1])
    for name in rows[0]:
        one, other = (loader.load(tf.constant(row[name], tf.int64)) for loader, row in zip(loaders, rows, strict=True))
        for field, left, right in zip(one._fields, one, other, strict=True):
            tolerance = 8 if field == "image" and name in encoded_anew else 0
            np.testing.assert_allclose(np.float64(left), np.float64(right), 0, tolerance, err_msg=f"{field} of {name}")
        assert one.masks.shape[0] == 0 or one.masks.numpy().any()


def test_records_say_what_the_json_says(written):
    config, pattern = written
    expected, index = load_index(config), load_record_index(pattern, config)
    assert index.problems == [] and index.categories == expected.categories
    assert index.image_ids.tolist() == [11, 14, 17, 12, 15, 18, 13, 16]  # images i, i + 3, i + 6 share a file
    assert (index.record_offsets >= 0).all() and not index.runs.size and not index.points.size
    rows, places = by_image(expected), index.annotation_ids.tolist()
    for row, name in enumerate(index.image_ids.tolist()):
        theirs = slice(*expected.instance_offsets[rows[name] : rows[name] + 2])
        ours = slice(*index.instance_offsets[row : row + 2])
        for field in ("classes", "category_ids", "boxes", "areas", "crowd"):
            np.testing.assert_array_equal(getattr(index, field)[ours], getattr(expected, field)[theirs], err_msg=field)
        assert places[ours] == list(range(ours.stop - ours.start))
        for field in ("heights", "widths"):
            assert getattr(index, field)[row] == getattr(expected, field)[rows[name]]
    assert index.keypoints.shape == expected.keypoints.shape and index.orientations.tolist() == [1] * 8


def test_samples_from_records_are_those_from_the_json(written):
    config, pattern = written
    assert_same_samples(config, load_index(config), load_record_index(pattern, config), encoded_anew=[13, 14])


def test_records_made_by_the_model_garden_are_read(folder):
    pytest.importorskip("official")
    config = varied(folder).config(max_instances=10)
    prefix = str(folder.path / "theirs")
    subprocess.run([sys.executable, "-c", WRITE, config.annotations, config.images, prefix], check=True)
    json_index = load_index(config)
    # They write no keypoints and no list of categories.
    with pytest.raises(UserError, match="set model.categories"):
        load_record_index(f"{prefix}-*.tfrecord", config)
    config = dataclasses.replace(config, categories=json_index.categories, keypoints=False)
    index = load_record_index(f"{prefix}-*.tfrecord", config)
    assert kinds(index) == [] and index.classes.size == 21
    assert_same_samples(config, load_index(config), index)


def test_read_record_reads_at_random_and_in_parallel(written):
    config, pattern = written
    index = load_record_index(pattern, config)
    order = np.random.default_rng(0).permutation(np.tile(np.arange(8), 6))
    rows = tf.data.Dataset.from_tensor_slices((index.image_files[order], index.record_offsets[order]))
    read = list(rows.map(read_record, num_parallel_calls=4, deterministic=True))
    examples = {row: None for row in range(8)}
    for path in sorted(set(index.image_files.tolist())):
        for offset, example in zip(offsets(path), features_of(path), strict=False):
            row = np.flatnonzero((index.image_files == path) & (index.record_offsets == offset))
            examples[int(row[0])] = example.features.feature
    for row, (image, pngs) in zip(order.tolist(), read, strict=True):
        assert image.numpy() == examples[row]["image/encoded"].bytes_list.value[0]
        assert pngs.numpy().tolist() == list(examples[row]["image/object/mask"].bytes_list.value)


@pytest.mark.parametrize("record", [0, 1, 2])
def test_a_record_with_a_wrong_checksum_is_named_and_left_out(written, record):
    config, pattern = written
    path = shard(pattern, 1)
    start = offsets(path)[record]
    change(path, start + HEADER + 50)
    index = load_record_index(pattern, config)
    left = [name for number, name in enumerate([12, 15, 18]) if number != record]
    assert index.image_ids.tolist() == [11, 14, 17, *left, 13, 16]
    assert kinds(index) == ["corrupted_record"]
    (problem,) = index.problems
    assert (problem.record, problem.file) == (record, path)
    assert problem.message.startswith(f"Record {record} of {path} (byte {start}) doesn't match its checksum")
    for row in range(index.image_ids.size):  # the others are still found where they are
        SampleLoader(index, config).load(tf.constant(row, tf.int64))


def test_a_damaged_length_hides_the_rest_of_its_file_only(written):
    config, pattern = written
    path = shard(pattern, 0)
    change(path, offsets(path)[1] + 2)
    index = load_record_index(pattern, config)
    assert index.image_ids.tolist() == [11, 12, 15, 18, 13, 16] and kinds(index) == ["corrupted_record"]
    assert "Record 1 of" in index.problems[0].message and "rest of the file" in index.problems[0].message


@pytest.mark.parametrize("left", [3, 12, 200])
def test_a_file_that_is_cut_off(written, left):
    config, pattern = written
    path = shard(pattern, 2)
    place = offsets(path)[1]
    os.truncate(path, place + left)
    index = load_record_index(pattern, config)
    assert index.image_ids.tolist() == [11, 14, 17, 12, 15, 18, 13]
    assert [problem.record for problem in index.problems] == [1]
    assert f"(byte {place}) is cut off by the end of the file" in index.problems[0].message


def test_a_change_is_seen_and_otherwise_the_index_is_kept(written, monkeypatch):
    config, pattern = written
    first = load_record_index(pattern, config)
    with monkeypatch.context() as patch:
        patch.setattr(tfrecord_reader, "scan_records", None)
        again = load_record_index(pattern, config)
    np.testing.assert_array_equal(again.record_offsets, first.record_offsets)
    path = shard(pattern, 0)
    place = offsets(path)[0] + HEADER + 3
    state = os.stat(path)
    change(path, place)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert kinds(load_record_index(pattern, config)) == ["corrupted_record"]


def _set(example, name, kind, values):
    feature = example.features.feature[name]
    getattr(feature, f"{kind}_list").value[:] = values


def _drop(example, name):
    del example.features.feature[name]


BAD_RECORDS = [
    ("record_fields", lambda one: _drop(one, "image/encoded")),
    ("unreadable_image", lambda one: _set(one, "image/encoded", "bytes", [b"no image"])),
    ("image_size", lambda one: _set(one, "image/height", "int64", [31])),
    ("record_fields", lambda one: _drop(one, "image/object/bbox/ymax")),
    ("record_fields", lambda one: _set(one, "image/object/area", "float", [1.0])),
    ("record_fields", lambda one: _set(one, "image/object/keypoint/x", "float", [1.0] * 8)),
    ("duplicate_image", lambda one: _set(one, "image/source_id", "bytes", [b"11"])),
]


@pytest.mark.parametrize("kind, spoil", BAD_RECORDS)
def test_a_record_that_cant_be_used_is_left_out(written, kind, spoil):
    config, pattern = written
    examples = features_of(shard(pattern, 1))
    spoil(examples[0])
    rewrite(shard(pattern, 1), examples)
    index = load_record_index(pattern, config)
    assert kinds(index) == [kind] and index.image_ids.tolist() == [11, 14, 17, 15, 18, 13, 16]
    assert f"Record 0 of {shard(pattern, 1)}" in index.problems[0].message


def test_a_record_that_is_no_example(written):
    config, pattern = written
    rewrite(shard(pattern, 2), [b"\xff\xff\xff not a message", *features_of(shard(pattern, 2))])
    index = load_record_index(pattern, config)
    assert kinds(index) == ["undecodable_record"] and index.image_ids.size == 8


BAD_OBJECTS = [
    ("unknown_category", lambda one: _set(one, "image/object/class/label", "int64", [7, 99, 7])),
    ("outside_box", lambda one: _set(one, "image/object/bbox/xmin", "float", [0.1, 1.2, 0.1])),
    ("degenerate_box", lambda one: _set(one, "image/object/bbox/xmax", "float", [0.9, 0.0, 0.9])),
    ("nan_coordinate", lambda one: _set(one, "image/object/bbox/xmax", "float", [0.9, np.nan, 0.9])),
    ("empty_segmentation", lambda one: one.features.feature["image/object/mask"].bytes_list.value.__setitem__(1, b"")),
]


@pytest.mark.parametrize("kind, spoil", BAD_OBJECTS)
def test_an_object_that_cant_be_used_is_named_by_its_place(written, kind, spoil):
    config, pattern = written
    examples = features_of(shard(pattern, 1))
    if kind == "outside_box":
        _set(examples[0], "image/object/bbox/xmax", "float", [0.9, 1.4, 0.9])
    spoil(examples[0])
    rewrite(shard(pattern, 1), examples)
    index = load_record_index(pattern, dataclasses.replace(config, keypoints=False))
    row = by_image(index)[12]
    assert kinds(index) == [kind] and index.problems[0].record == "0/1"
    assert index.problems[0].message.startswith(f"Object 1 of record 0 of {shard(pattern, 1)} ")
    assert index.annotation_ids[slice(*index.instance_offsets[row : row + 2])].tolist() == [0, 2]


def test_without_masks_none_are_asked_for(written):
    config, pattern = written
    for number in range(3):
        examples = features_of(shard(pattern, number))
        for example in examples:
            _drop(example, "image/object/mask")
        rewrite(shard(pattern, number), examples)
    index = load_record_index(pattern, dataclasses.replace(config, masks=False))
    assert index.problems == [] and index.classes.size == 21
    index = load_record_index(pattern, config)
    assert kinds(index) == ["empty_segmentation"] * 21 and index.image_ids.size == 8


def test_optional_features_may_be_missing(written):
    config, pattern = written
    examples = features_of(shard(pattern, 0))
    for name in ("area", "is_crowd", "class/text"):
        _drop(examples[0], f"image/object/{name}")
    _set(examples[0], "image/height", "int64", [-1])
    _drop(examples[0], "image/width")
    _set(examples[0], "image/source_id", "bytes", [b"train/000011"])
    _set(examples[1], "image/source_id", "bytes", [b""])
    rewrite(shard(pattern, 0), examples)
    expected, index = load_index(config), load_record_index(pattern, config)
    assert index.problems == [] and (index.heights[0], index.widths[0]) == (37, 53)
    assert not index.crowd[:3].any()
    sides = index.boxes[:3, 2:] - index.boxes[:3, :2]
    np.testing.assert_allclose(index.areas[:3], sides.prod(axis=1), rtol=1e-5)
    # Ids that aren't numbers are hashes, the same in each run, and not alike.
    assert len(set(index.image_ids.tolist())) == expected.image_ids.size and (index.image_ids >= 0).all()
    assert not {11, 14} & set(index.image_ids[:3].tolist())


def test_a_record_of_an_image_that_exif_turns_is_read_as_the_json_would_be(written):
    # As the Model Garden writes it: the file's bytes, the size that the json gives.
    config, pattern = written
    turned = pathlib.Path(config.images, "13.jpg").read_bytes()
    examples = features_of(shard(pattern, 2))
    assert examples[0].features.feature["image/filename"].bytes_list.value[0] == b"13.jpg"
    _set(examples[0], "image/encoded", "bytes", [turned])
    rewrite(shard(pattern, 2), examples)
    index = load_record_index(pattern, config)
    assert index.orientations[by_image(index)[13]] == 6
    assert_same_samples(config, load_index(config), index, encoded_anew=[14])


def test_what_makes_records_useless(written, tmp_path):
    config, pattern = written
    with pytest.raises(UserError, match="no file 'nowhere-.*'"):
        load_record_index("nowhere-*", config)
    packed = tmp_path / "packed.tfrecord"
    packed.write_bytes(gzip.compress(pathlib.Path(shard(pattern, 0)).read_bytes()))
    chosen = dataclasses.replace(config, categories=[Category(7, "face"), Category(3, "cube")])
    with pytest.raises(UserError, match="packed.tfrecord is compressed.*gunzip"):
        load_record_index(packed, chosen)
    empty = tmp_path / "empty.tfrecord"
    empty.write_bytes(b"")
    with pytest.raises(UserError, match="No image of .*empty.tfrecord can be used"):
        load_record_index(empty, chosen)


def test_missing_shards_are_told(written):
    config, pattern = written
    os.remove(shard(pattern, 1))
    index = load_record_index(pattern, config)
    assert kinds(index) == ["missing_shards"] and index.image_ids.size == 5
    assert "Of the 3 files" in index.problems[0].message and "2 are there" in index.problems[0].message


def test_categories_of_fewer_keypoints_and_a_config_of_fewer_categories(faces):
    faces.add_image(1)
    faces.annotations = [
        annotation(1, keypoints=[1, 2, 2, 3, 4, 1, 5, 6, 2]),
        annotation(2, category_id=3, keypoints=[7, 8, 2, 9, 10, 1]),
        annotation(3, category_id=9),
    ]
    config = faces.config()
    write_records(config.annotations, config.images, faces.path / "records")
    pattern = str(faces.path / "records" / "*.tfrecord")
    expected, index = load_index(config), load_record_index(pattern, config)
    np.testing.assert_array_equal(index.keypoints, expected.keypoints)
    np.testing.assert_array_equal(index.keypoint_offsets, expected.keypoint_offsets)
    two = DataConfig(categories=[one for one in expected.categories if one.id != 7])
    index = load_record_index(pattern, two)
    assert index.category_ids.tolist() == [3, 9] and index.keypoints.tolist() == [[7, 8, 2], [9, 10, 1]]
    assert kinds(index) == ["unknown_category"]
    none = load_record_index(pattern, DataConfig(keypoints=False))
    assert not none.keypoints.size and all(not category.keypoints for category in none.categories)


def test_the_report_lists_what_was_left_out(written, capsys):
    config, pattern = written
    change(shard(pattern, 1), HEADER + 50)
    load_record_index(pattern, config)
    told = capsys.readouterr().err
    assert "1 x corrupted_record" in told
    (report,) = (path for path in os.scandir(os.environ["MRCNN_TF_CACHE"]) if path.name.endswith("problems.json"))
    with open(report) as file:
        assert json.load(file)["counts"] == {"corrupted_record": 1}
