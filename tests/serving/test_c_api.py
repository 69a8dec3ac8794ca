"""The export in a process without Python: a C program on the loader that TensorFlow Serving uses."""

import os
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from mrcnn_tf.serving.export_check import SAVED_MODEL_TOLERANCES, check_detections
from mrcnn_tf.serving.export_labels import read_labels
from mrcnn_tf.serving.outputs import make_detections

SOURCE = pathlib.Path(__file__).with_name("load_saved_model.c")
LIBRARIES = ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2")
SIZES = ((64, 64), (48, 90), (71, 40))


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tf.sysconfig.get_lib()
    if not shutil.which("gcc") or not all(os.path.exists(f"{folder}/{name}") for name in LIBRARIES):
        pytest.skip("It takes gcc and a TensorFlow with its C++ library.")
    built = tmp_path_factory.mktemp("c") / "load_saved_model"
    links = [f"-L{folder}", *(f"-l:{name}" for name in LIBRARIES), f"-Wl,-rpath,{folder}"]
    command = ["gcc", "-Wall", "-Werror", "-o", built, SOURCE, "-isystem", tf.sysconfig.get_include(), *links]
    subprocess.run(command, check=True)
    return built


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Paths of images, their pixels, and a path of something else."""
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(5)
    paths, pixels = [], []
    for number, size in enumerate(SIZES):
        pixels.append(generator.integers(0, 256, (*size, 3), np.uint8))
        paths.append(folder / f"{number}.{'bmp' if number == 1 else 'png'}")
        Image.fromarray(pixels[-1]).save(paths[-1])
    (folder / "text.png").write_text("no image")
    return paths, pixels, folder / "text.png"


def signature(folder, name="serving_default"):
    """The tensors' names of a signature: of its only input, and of the outputs by their own names."""
    (graph,) = SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs
    found = graph.signature_def[name]
    ((_, tensor),) = found.inputs.items()
    return tensor.name, {output: info.name for output, info in found.outputs.items()}


def read_tensors(path, names):
    """The arrays that the program wrote."""
    data, place, arrays = path.read_bytes(), 0, {}

    def take(count, dtype):
        nonlocal place
        found = np.frombuffer(data, dtype, count, place)
        place += found.nbytes
        return found

    for name in names:
        code, rank = take(2, np.int32)
        shape, (size,) = take(rank, np.int64), take(1, np.int64)
        if code == tf.string.as_datatype_enum:
            strings = [take(take(1, np.int64)[0], np.uint8).tobytes() for _ in range(np.prod(shape))]
            arrays[name] = np.array(strings, object).reshape(shape)
        else:
            dtype = tf.as_dtype(int(code)).as_numpy_dtype
            arrays[name] = take(size // np.dtype(dtype).itemsize, dtype).reshape(shape)
    assert place == len(data)
    return arrays


def run(program, folder, paths, result):
    tensor, outputs = signature(folder)
    command = [program, folder, result, tensor, *outputs.values(), "--", *paths]
    done = subprocess.run(command, env={"TF_CPP_MIN_LOG_LEVEL": "2"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return read_tensors(result, outputs)


@pytest.mark.parametrize("masks", ["roi", "rle"])
def test_a_c_program_finds_what_the_model_finds(program, tiny_model, tiny_export, images, tmp_path, masks):
    folder, (paths, pixels, text) = tiny_export(masks), images
    outputs = run(program, folder, [paths[0], text, *paths[1:]], tmp_path / "result")
    assert outputs["ok"].tolist() == [True, False, True, True]
    assert outputs["image_size"].tolist() == [[64, 64], [0, 0], [48, 90], [71, 40]]
    assert outputs["num_detections"][1] == 0 and outputs["scores"].shape == (4, 10)
    facts, reference = read_labels(folder), tiny_model.detect(pixels)
    found = [
        make_detections({name: value[row] for name, value in outputs.items()}, facts, size)
        for row, size in zip((0, 2, 3), SIZES, strict=True)
    ]
    differences = check_detections(reference, found, SAVED_MODEL_TOLERANCES, tiny_model.settings.detections)
    assert differences.matched == differences.reference > len(SIZES)


def test_the_c_program_says_what_failed(program, tmp_path):
    command = [program, tmp_path, tmp_path / "result", "a:0", "b:0", "--"]
    done = subprocess.run(command, env={"TF_CPP_MIN_LOG_LEVEL": "2"}, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("load: ")
