"""The programs in docs/serving.md do what they say when they are copied."""

import contextlib
import io
import json
import pathlib
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.request

import numpy as np
import pytest
from PIL import Image
from served_stand_in import LABELS, save_image

from mrcnn_tf.ops.masks import paste_masks

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "serving.md"
RED = 153  # 0.6 of 255, the score of what the stand-in finds


def block(words, language="python"):
    """The one program in the document that holds these words."""
    found = [text for text in re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL) if words in text]
    (text,) = found
    return text


def replaced(text, changes):
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, str(new))
    return text


@pytest.fixture
def picture(tmp_path):
    save_image(tmp_path / "street.jpg", 40, 64, RED)  # one colour, which JPEG keeps within a level or two
    return tmp_path / "street.jpg"


def printed(text):
    """What a program prints; and its variables."""
    variables, output = {}, io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(text, str(DOCUMENT), "exec"), variables)
    return output.getvalue(), variables


def test_rest(server, picture):
    text = replaced(
        block("urllib.request.urlopen"),
        {
            "http://localhost:8501": server.rest,
            "export/mask_rcnn/1": server.models["mask_rcnn"] / "7",
            "street.jpg": picture,
        },
    )
    output, _ = printed(text)
    assert "height and width: [40, 64] decoded: True" in output
    name, score, *box = output.splitlines()[1].split(maxsplit=2)
    assert name == "wide" and float(score) == pytest.approx(0.6, abs=0.01)
    assert json.loads(box[0]) == [2, 2, 62, 38]


def test_grpc(server, picture):
    text = replaced(
        block("PredictionServiceStub"),
        {"localhost:8500": server.grpc.removeprefix("grpc://"), "street.jpg": picture},
    )
    output, variables = printed(text)
    assert len(output.splitlines()) == 1 and output.startswith("1 0.")
    np.testing.assert_allclose(variables["outputs"]["boxes"][0, 0], [2, 2, 62, 38], atol=1e-3)


@pytest.mark.skipif(not shutil.which("curl"), reason="There is no curl here.")
def test_curl(server, picture):
    text = replaced(block("curl", "bash"), {"http://localhost:8501": server.rest, "street.jpg": picture})
    done = subprocess.run(["bash", "-c", text], capture_output=True, check=True)
    assert json.loads(done.stdout)["predictions"][0]["num_detections"] == 1


def test_pasting():
    _, variables = printed(block("def paste"))
    generator = np.random.default_rng(0)
    for box in ([3.25, 2, 40.5, 33.75], [-4, 10.5, 20, 70], [0, 0, 64, 48], [10, 10, 11.5, 12]):
        mask = generator.random((14, 14), np.float32)
        expected = paste_masks(mask[None], np.array([box]), 48, 64, "detectron2")[0]
        given = variables["paste"](mask, box, 48, 64)
        assert given.shape == (48, 64) and (given != expected).sum() <= 1  # a tie within float32's rounding


def test_segments():
    _, variables = printed(block("def segments"))
    ids, file = np.array([[0, 2, 258], [1, 1, 258]]), io.BytesIO()
    Image.fromarray(np.stack([ids & 255, ids >> 8, ids * 0], -1).astype(np.uint8)).save(file, "PNG")
    outputs = {
        "scores": np.array([[0, 0, 0], [0.9, 0.75, 0]], np.float32),
        "segments_png_bytes": np.array([b"", file.getvalue()], object),
        "num_segments": np.array([0, 2]),
        "segment_classes": np.array([[0, 0, 0], [2, 1, 0]]),
        "segment_instances": np.array([[0, 0, 0], [1, -1, 0]]),
        "segment_areas": np.array([[0, 0, 0], [2, 1, 0]]),
    }
    labels = {"categories": LABELS["categories"], "stuff": [{"class": 1, "id": 9, "name": "sky"}]}
    found, table = variables["segments"](outputs, 1, labels)
    np.testing.assert_array_equal(found, ids)
    assert table == [(1, "tall", 0.75, 2), (2, "sky", None, 1)]


def test_a_server_in_python(server, picture):
    with socket.socket() as one:
        one.bind(("localhost", 0))
        port = one.getsockname()[1]
    changes = {"export/mask_rcnn/1": server.models["mask_rcnn"] / "7", "8080": port}
    text = replaced(block("ThreadingHTTPServer"), changes)
    text = text.replace("class Handler(", "class Handler(Quiet, ")
    threading.Thread(target=exec, args=(text, {"Quiet": _Quiet}), daemon=True).start()
    end = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://localhost:{port}", picture.read_bytes(), timeout=30) as answer:
                found = json.load(answer)
            break
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.1)
    assert (found["num_detections"], found["image_size"], found["boxes"][0]) == (1, [40, 64], [2, 2, 62, 38])


class _Quiet:
    def log_message(self, *arguments):
        pass
