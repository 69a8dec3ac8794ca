"""`mrcnn-tf import-weights` as a user runs it."""

import json

import numpy as np
import pytest
import test_fit
import torch_writer
from test_cli import call, refused

from mrcnn_tf import load_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    model = test_fit.make()
    path = tmp_path_factory.mktemp("weights") / "checkpoint.pth"
    torch_writer.save_torch(path, test_fit.as_torchvision(model))
    return path, model


def test_a_checkpoint_becomes_a_model_and_a_table(checkpoint, tmp_path):
    path, source = checkpoint
    out = tmp_path / "new folder" / "model.keras"
    printed = call("import-weights", path, "model.resize.min_size=64", "--out", out)
    for words in ("torchvision", "backbone", "background dropped", "inputs channels last", "mrcnn-tf predict"):
        assert words in printed
    model = load_model(out)
    assert model.resize.min_size == 64
    for ours, theirs in zip(model.weights, source.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_table_as_json(checkpoint, tmp_path):
    report = json.loads(call("import-weights", checkpoint[0], "--out", tmp_path / "m.keras", "--json"))
    assert report["format"] == "torchvision" and report["loaded"] and not report["not_loaded"]


def test_a_mistake_is_one_sentence_and_writes_nothing(checkpoint, tmp_path, capsys):
    assert "--out MODEL.keras" in refused(capsys, "import-weights", checkpoint[0])
    broken = tmp_path / "broken.pth"
    broken.write_bytes(checkpoint[0].read_bytes()[:5000])
    assert "broken.pth" in refused(capsys, "import-weights", broken, "--out", tmp_path / "m.keras")
    assert not (tmp_path / "m.keras").exists()
