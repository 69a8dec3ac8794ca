"""The served graph against the Keras model, with good and bad images, here and in a plain TensorFlow process."""

import io
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tiny import tiny_config

from mrcnn_tf import MaskRCNN
from mrcnn_tf.datasets.image_files import read_image
from mrcnn_tf.ops.native.library import load_custom_ops
from mrcnn_tf.serving.served_graph import ServedGraph, prepare_images

WITHOUT_US = """import runpy, sys
sys.modules["mrcnn_tf"] = None
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")"""
PLAIN_PROCESS = pathlib.Path(__file__).with_name("plain_process.py")
SIZES = ((64, 48), (40, 90), (100, 100), (1, 1), (64, 48), (30, 20), (128, 64), (50, 51))


def encoded(image, kind="PNG", **kwargs):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **kwargs)
    return file.getvalue()


def make_images(sizes, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


def numpy(outputs):
    return {name: values.numpy() for name, values in outputs.items()}


def assert_row_equals(outputs, row, detections):
    """That a row of the outputs is what the Keras model found."""
    count = len(detections)
    assert outputs["ok"][row] and outputs["num_detections"][row] == count > 0
    assert tuple(outputs["image_size"][row]) == detections.image_size
    np.testing.assert_array_equal(outputs["classes"][row, :count], detections.classes)
    np.testing.assert_allclose(outputs["boxes"][row, :count], detections.boxes, atol=1e-3)
    np.testing.assert_allclose(outputs["scores"][row, :count], detections.scores, atol=1e-5)
    np.testing.assert_allclose(outputs["masks"][row, :count], detections.mask_probabilities, atol=1e-4)
    for name in ("classes", "boxes", "scores", "masks"):
        assert not outputs[name][row, count:].any()


def assert_row_failed(outputs, row):
    assert not outputs["ok"][row]
    for name in set(outputs) - {"ok"}:
        assert not outputs[name][row].any(), name


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    return MaskRCNN.from_settings(tiny_config())


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "1"
    ServedGraph(model).save(folder)
    return folder


@pytest.fixture(scope="module")
def served(folder):
    loaded = tf.saved_model.load(str(folder))
    return lambda files: numpy(loaded.signatures["serving_default"](image_bytes=tf.constant(files, tf.string)))


@pytest.fixture(scope="module")
def served_pixels(folder):
    loaded = tf.saved_model.load(str(folder))
    return lambda images: numpy(loaded.signatures["image"](image=tf.constant(images)))


@pytest.fixture(scope="module")
def references(model):
    return model.detect(make_images(SIZES))


def test_signatures(folder):
    functions = tf.saved_model.load(str(folder)).signatures
    assert set(functions) == {"serving_default", "image"}
    inputs = {name: function.structured_input_signature[1] for name, function in functions.items()}
    assert inputs["serving_default"] == {"image_bytes": tf.TensorSpec([None], tf.string, "image_bytes")}
    assert inputs["image"] == {"image": tf.TensorSpec([None, None, None, 3], tf.uint8, "image")}
    for function in functions.values():
        found = {name: (spec.dtype, spec.shape.as_list()) for name, spec in function.structured_outputs.items()}
        assert found == {
            "boxes": (tf.float32, [None, 10, 4]),
            "scores": (tf.float32, [None, 10]),
            "classes": (tf.int32, [None, 10]),
            "num_detections": (tf.int32, [None]),
            "masks": (tf.float32, [None, 10, 28, 28]),
            "image_size": (tf.int32, [None, 2]),
            "ok": (tf.bool, [None]),
        }


@pytest.mark.parametrize("batch", (1, 3, 8))
def test_files_give_what_keras_finds(served, references, batch):
    files = [encoded(image) for image in make_images(SIZES)]
    for first in range(0, len(files), batch):
        outputs = served(files[first : first + batch])
        for row, reference in enumerate(references[first : first + batch]):
            assert_row_equals(outputs, row, reference)


def test_pixels_give_what_keras_finds(served_pixels, references):
    images = make_images(SIZES)
    outputs = served_pixels(np.stack([images[0], images[4]]))
    assert_row_equals(outputs, 0, references[0])
    assert_row_equals(outputs, 1, references[4])


def test_boxes_are_in_pixels_of_the_upright_jpeg(model, served, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    path.write_bytes(encoded(make_images([(60, 100)])[0], "JPEG", exif=exif, quality=90))
    outputs = served([path.read_bytes()])
    assert outputs["image_size"].tolist() == [[100, 60]]
    assert_row_equals(outputs, 0, model.detect(read_image(path)))


def test_bad_files_fail_alone(served, references):
    image = make_images(SIZES)[0]
    good, jpeg = encoded(image), encoded(image, "JPEG")
    corrupt = bytearray(good)
    corrupt[len(good) // 2] ^= 0xFF
    bad = [b"", b"This is text.", encoded(image, "GIF"), jpeg[: len(jpeg) // 2], bytes(corrupt), jpeg[:3], good[:30]]
    outputs = served([bad[0], good, *bad[1:], good])
    for row in (0, *range(2, len(bad) + 1)):
        assert_row_failed(outputs, row)
    for row in (1, len(bad) + 1):
        assert_row_equals(outputs, row, references[0])
    outputs = served(bad)
    for row in range(len(bad)):
        assert_row_failed(outputs, row)


def test_an_empty_batch_gives_empty_outputs(served, served_pixels):
    for outputs in (served([]), served_pixels(np.zeros((0, 64, 48, 3), np.uint8))):
        assert outputs["boxes"].shape == (0, 10, 4) and outputs["masks"].shape == (0, 10, 28, 28)
        assert all(len(values) == 0 for values in outputs.values())


def test_images_without_pixels(served_pixels):
    outputs = served_pixels(np.zeros((2, 0, 5, 3), np.uint8))
    for row in range(2):
        assert_row_failed(outputs, row)


def test_wrong_types_and_shapes_are_refused(served, served_pixels):
    for wrong in (np.zeros((1, 8, 8, 3), np.float32), np.zeros((1, 8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.uint8)):
        with pytest.raises((TypeError, ValueError, tf.errors.InvalidArgumentError)):
            served_pixels(wrong)
    with pytest.raises((TypeError, ValueError, tf.errors.InvalidArgumentError)):
        served([["a"], ["b"]])


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Runs a folder's model on files in a plain process: the operations it doesn't know, and the outputs."""

    def run(folder, files):
        work = tmp_path_factory.mktemp("plain")
        np.savez(work / "inputs.npz", files=np.array(files, object))
        command = [sys.executable, "-c", WITHOUT_US, PLAIN_PROCESS, folder, work / "inputs.npz", work / "outputs.npz"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        path = work / "outputs.npz"
        return done.stdout.split(), dict(np.load(path, allow_pickle=True)) if path.exists() else None

    return run


def test_it_runs_where_there_is_only_tensorflow(folder, plain, references):
    images = make_images(SIZES)[:3]
    unknown, outputs = plain(folder, [*[encoded(image) for image in images], b"text"])
    assert unknown == []
    session = {name[len("session_") :]: values for name, values in outputs.items() if name.startswith("session_")}
    eager = {name: values for name, values in outputs.items() if not name.startswith("session_")}
    assert set(session) == set(eager) == {"boxes", "scores", "classes", "num_detections", "masks", "image_size", "ok"}
    for found in (session, eager):
        for row in range(3):
            assert_row_equals(found, row, references[row])
        assert_row_failed(found, 3)


def test_custom_operations_are_in_the_graph_only_where_asked_for(model, plain, references, tmp_path):
    if load_custom_ops() is None:
        pytest.skip("There is no compiler for the custom operations.")
    ServedGraph(model, custom_ops=True).save(tmp_path / "1")
    unknown, outputs = plain(tmp_path / "1", [b"text"])
    assert "MrcnnTf>RoiAlign" in unknown and outputs is None
    function = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"]
    outputs = numpy(function(image_bytes=tf.constant([encoded(image) for image in make_images(SIZES)[:2]])))
    for row in range(2):
        assert_row_equals(outputs, row, references[row])


def test_keypoints_are_served():
    keras.utils.set_random_seed(2)
    model, images = MaskRCNN.from_settings(tiny_config("keypoints")), make_images(SIZES[:1])
    outputs = numpy(ServedGraph(model).signatures["image"](image=tf.constant(images[0][None])))
    reference = model.detect(images[0])
    assert outputs["keypoints"].shape == (1, 10, 3, 3)
    np.testing.assert_allclose(
        outputs["keypoints"][0, : len(reference), :, :2], reference.keypoints[..., :2], atol=1e-3
    )


def test_run_lengths_are_the_detections_masks():
    keras.utils.set_random_seed(3)
    model, images = MaskRCNN.from_settings(tiny_config("c4")), make_images(SIZES[:1])
    graph = ServedGraph(model, masks="rle")
    outputs = numpy(graph.signatures["serving_default"](image_bytes=tf.constant([encoded(images[0]), b"text"])))
    assert "masks" not in outputs and outputs["masks_rle_bytes"].shape == (2, 10)
    results = model.detect(images[0]).to_coco(0)
    found = [counts.decode() for counts in outputs["masks_rle_bytes"][0, : len(results)]]
    same = [mine == result["segmentation"]["counts"] for mine, result in zip(found, results, strict=True)]
    assert np.mean(same) >= 0.8  # a pixel at the threshold may turn with the last digit
    assert set(outputs["masks_rle_bytes"][1]) == {b""}


def test_a_fixed_canvas_compiled_and_not(model):
    files = [encoded(image) for image in make_images(SIZES)[:3]]
    plain, compiled = (ServedGraph(model, input_size=(64, 96), xla=xla) for xla in (False, True))
    found = numpy(plain.signatures["serving_default"](image_bytes=tf.constant(files)))
    for row, image in enumerate(make_images(SIZES)[:3]):
        expected = numpy(model(model.preprocess.letterbox(tf.constant(image), 64, 96), training=False))
        assert found["num_detections"][row] == expected["num_detections"][0] > 0
        np.testing.assert_allclose(found["boxes"][row], expected["boxes"][0], atol=1e-3)
        np.testing.assert_allclose(found["scores"][row], expected["scores"][0], atol=1e-5)
    answer = numpy(compiled.signatures["serving_default"](image_bytes=tf.constant([*files, b"text"])))
    np.testing.assert_allclose(answer["boxes"][:3], found["boxes"], atol=1e-3)
    np.testing.assert_allclose(answer["scores"][:3], found["scores"], atol=1e-5)
    assert_row_failed(answer, 3)


def parse_numbers(text):
    """The numbers in a text, one below the other; fails for what is no number."""
    return {"numbers": tf.strings.to_number(tf.strings.split(text, ","))[:, None]}


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
def prepared(texts):
    return prepare_images(texts, parse_numbers, {"numbers": tf.fill([1, 1], -1.0)})


def test_images_that_fail_are_the_default_and_the_order_stays():
    found = prepared(["1,2,3", "x", "4", "", "5,6"])
    expected = [[1, 2, 3], [-1, 0, 0], [4, 0, 0], [-1, 0, 0], [5, 6, 0]]
    np.testing.assert_array_equal(found["numbers"][..., 0], expected)
    assert found["ok"].numpy().tolist() == [True, False, True, False, True]


def test_all_images_may_fail():
    found = prepared(["x", "y"])
    assert found["numbers"].numpy().tolist() == [[[-1.0]], [[-1.0]]] and not found["ok"].numpy().any()


def test_no_images_are_one_default():
    found = prepared(tf.constant([], tf.string))
    assert found["numbers"].shape == (1, 1, 1) and found["ok"].numpy().tolist() == [False]


@pytest.mark.parametrize("count", (1, 7, 33))
def test_any_number_of_images(count):
    found = prepared([str(number) for number in range(count)])
    assert found["numbers"].numpy().ravel().tolist() == list(range(count))
