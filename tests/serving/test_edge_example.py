"""docs/edge_example.py in a process without TensorFlow and this package, and the pixels of the picture it writes."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from serving import tflite_stand_in as stand_in

pytest.importorskip("ai_edge_litert")

EXAMPLE = pathlib.Path(__file__).parents[2] / "docs" / "edge_example.py"
BLOCKED = ("mrcnn_tf", "tensorflow", "keras", "pycocotools", "matplotlib", "cv2")
LAUNCH = (
    "import runpy, sys\n"
    f"for name in {BLOCKED}: sys.modules[name] = None\n"
    "del sys.argv[0]\n"
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return stand_in.write(tmp_path_factory.mktemp("example") / "model.tflite")


def run(*arguments):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", LAUNCH, EXAMPLE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("size", [(700, 400), (330, 660)], ids=["landscape", "portrait"])
def test_the_picture_shows_masks_boxes_and_names(model, tmp_path, size):
    width, height = size
    Image.new("RGB", size, (200, 0, 0)).save(tmp_path / "in.png")
    done = run(model, tmp_path / "in.png", tmp_path / "out.png", "--min-score", "0.5")
    assert done.returncode == 0, done.stderr
    # 200 / 255, as large as the image; the cat scores 0.
    assert done.stdout == f"sea lion 0.78 [0.0, 0.0, {width}.0, {height}.0]\n"
    picture = np.asarray(Image.open(tmp_path / "out.png")).astype(int)
    assert picture.shape == (height, width, 3)
    middle = picture[height // 2]
    tinted = [200 - 0.45 * 200, 0.45 * 158, 0.45 * 215]
    assert np.abs(middle[5 : width // 2 - 8] - tinted).max() <= 1  # the mask's left half
    assert (middle[width // 2 + 8 : -5] == [200, 0, 0]).all()
    assert (picture[[-1, -1], [0, -1]] == [0, 158, 215]).all()  # the box
    label = picture[:10, :40]
    assert (label == [0, 158, 215]).all(axis=2).mean() > 0.3 and (label.sum(axis=2) < 60).any()  # dark letters on it


@pytest.mark.parametrize("side, zoom", [(640, 1), (160, 4)])
def test_nothing_found_leaves_the_image_as_it_is(model, tmp_path, side, zoom):
    pixels = np.full((40, side, 3), 90, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    done = run(model, tmp_path / "in.png", tmp_path / "out.png")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    picture = np.asarray(Image.open(tmp_path / "out.png"))
    assert picture.shape == (40 * zoom, side * zoom, 3) and (picture == 90).all()


@pytest.mark.parametrize(
    "box", [(-7, -5, 21, 11), (30, 20, 60, 50), (2, 3, 12, 15), (39, 29, 40, 30), (50, 40, 60, 45)]
)
def test_a_mask_is_stretched_over_its_box(box):
    spec = importlib.util.spec_from_file_location("edge_example", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    canvas = np.zeros((30, 40, 3), np.float32)
    checks = np.indices((2, 2)).sum(axis=0) % 2
    mask = np.kron(checks, np.ones((14, 14))).astype(np.float32)  # four quarters, the lower left and upper right set
    example.blend(canvas, np.array(box), mask, (255, 255, 255))
    x, y = np.meshgrid(np.arange(40) + 0.5, np.arange(30) + 0.5)
    across, down = (x - box[0]) / (box[2] - box[0]), (y - box[1]) / (box[3] - box[1])
    inside = (across > 0) & (across < 1) & (down > 0) & (down < 1)
    expected = inside & ((across > 0.5) != (down > 0.5))
    margin = 1 / 14  # of the box, along the quarters' borders and the box's own
    near = (np.abs(across * 2 - np.round(across * 2)) < margin * 2) | (
        np.abs(down * 2 - np.round(down * 2)) < margin * 2
    )
    found = canvas[..., 0] > 0
    assert not found[~inside].any()
    assert (found == expected)[~near & inside].all()
