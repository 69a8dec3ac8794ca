"""Saved models with parts whose classes aren't imported, and files that hold something else."""

import keras
import numpy as np
import pytest
from tiny import tiny_config

from mrcnn_tf import load_model
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.parts import Head

CLASSES = keras.saving.get_custom_objects()


@keras.saving.register_keras_serializable("mine")
class Idle(Head):
    """A head that gives nothing."""


@pytest.fixture
def file(tmp_path):
    """A saved model with a head of the class `Idle`."""
    made = MaskRCNN.from_settings(tiny_config())
    parts = {"features": made.features, "rpn": made.rpn, "heads": [*made.heads, Idle(name="idle")]}
    MaskRCNN(**parts, categories=made.categories).save(tmp_path / "mine.keras")
    return tmp_path / "mine.keras"


def test_a_class_that_is_not_imported_is_named_with_its_module(file, monkeypatch):
    with monkeypatch.context() as context:
        context.delitem(CLASSES, "mine>Idle")
        with pytest.raises(UserError, match=r"the class Idle from (\w+\.)*test_keras_file, .*--import (\w+\.)*test_ke"):
            load_model(file)
    assert [head.name for head in load_model(file).heads] == ["box_head", "mask_head", "idle"]


def test_a_class_of_a_script_has_no_module_to_import(file, monkeypatch):
    monkeypatch.setattr(Idle, "__module__", "__main__")
    load_model(file).save(file)
    monkeypatch.delitem(CLASSES, "mine>Idle")
    with pytest.raises(UserError, match="class Idle, which isn't defined: run the code"):
        load_model(file)


def test_another_model_is_refused(tmp_path):
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(tmp_path / "other.keras")
    with pytest.raises(UserError, match="holds a Sequential"):
        load_model(tmp_path / "other.keras")


def test_what_is_loaded_detects_the_same(file):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    first, second = load_model(file), load_model(file)
    np.testing.assert_array_equal(first.detect(image).boxes, second.detect(image).boxes)
