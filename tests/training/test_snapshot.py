"""The state of a model in training, out and in, and the configs that a run may go on with."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny import tiny_batch, tiny_config

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import Config
from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.training.checkpoints import read_checkpoint, write_checkpoint
from mrcnn_tf.training.optimizer import SGD
from mrcnn_tf.training.snapshot import (
    RestoreLosses,
    check_same_config,
    config_differences,
    describe_version_change,
    library_versions,
    restore,
    snapshot,
)


def tiny_model(scaled=False, average=None, kind="frozen_bn"):
    model = MaskRCNN.from_settings(tiny_config(kind))
    optimizer = SGD(0.01, average=average)
    model.compile(keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer)
    return model


def train(model, steps, callbacks=()):
    batches = [tiny_batch(seed=seed) for seed in steps]
    columns = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
    data = tf.data.Dataset.from_tensor_slices(columns)
    model.fit(data, steps_per_epoch=len(batches), verbose=0, callbacks=list(callbacks))


def assert_same(arrays, others):
    assert list(arrays) == list(others)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, others[name], err_msg=name)


@pytest.fixture(scope="module")
def trained():
    """A model after two steps with loss scaling and averages, and its state then."""
    model = tiny_model(scaled=True, average=0.9)
    train(model, [0, 1])
    return model, snapshot(model)


def test_a_snapshot_holds_all_there_is(trained):
    model, arrays = trained
    kinds = {name.split("/")[0] for name in arrays}
    assert {"model", "optimizer", "losses"} <= kinds
    held = {name: array for name, array in arrays.items() if name.startswith("optimizer/")}
    assert len(held) == len(model.optimizer.variables)
    assert any("dynamic_scale" in name for name in held) and any("average" in name for name in held)
    assert sum(name.startswith("model/") for name in arrays) == len(model.weights)
    assert arrays["losses/loss/count"] == 2
    assert not any("images_per_second" in name or "input_wait" in name for name in arrays)  # the wall clock


def test_it_is_a_copy(trained):
    model, arrays = trained
    name, weight = "model/backbone/stem/kernel", model.weights[0]
    kept = arrays[name].copy()
    weight.assign_add(tf.ones_like(weight))
    np.testing.assert_array_equal(arrays[name], kept)
    restore(model, arrays)


def test_another_model_takes_it_over(trained, tmp_path):
    """Through a file, into a model of another name and other random weights."""
    model, arrays = trained
    write_checkpoint(tmp_path / "a.npz", arrays, {})
    other = tiny_model(scaled=True, average=0.9)
    assert other.name != model.name
    before = snapshot(other)
    assert list(before) == list(arrays)
    assert any((before[name] != array).any() for name, array in arrays.items())
    restore(other, read_checkpoint(tmp_path / "a.npz")[0])
    assert_same(snapshot(other), arrays)
    assert int(other.optimizer.iterations) == 2


def test_memory_of_an_earlier_one_is_used_again(trained):
    model, arrays = trained
    spare = {name: np.full_like(array, 1) for name, array in arrays.items()}
    again = snapshot(model, spare)
    assert all(np.shares_memory(again[name], array) for name, array in spare.items())
    assert_same(again, arrays)
    assert_same(snapshot(model, {"model/backbone/stem/kernel": np.zeros(2)}), arrays)


def test_what_does_not_fit_is_refused_before_anything_changes(trained):
    model, arrays = trained
    name = "model/rpn/head/conv1/kernel"
    name = name if name in arrays else next(key for key in arrays if key.startswith("model/rpn"))
    changed = {key: array + 1 if array.dtype.kind == "f" else array for key, array in arrays.items()}
    bad = {
        "has no model/rpn": {key: array for key, array in changed.items() if key != name},
        "of shape": changed | {name: np.zeros([2, 2], np.float32)},
        "float64": changed | {name: changed[name].astype(np.float64)},
        "has model/extra, which the model lacks": changed | {"model/extra": np.zeros(1)},
    }
    for said, broken in bad.items():
        with pytest.raises(UserError, match=said) as caught:
            restore(model, broken, "The checkpoint of step 2")
        assert str(caught.value).startswith("The checkpoint of step 2") and "resume with the config" in str(
            caught.value
        )
    assert_same(snapshot(model), arrays)


def test_an_optimizer_without_loss_scale_is_another(trained):
    with pytest.raises(UserError, match="optimizer/0000|optimizer/0001|optimizer/0002"):
        restore(tiny_model(), trained[1])


def test_the_losses_of_an_epoch_go_on(trained):
    """Keras clears them when `fit` begins; restored after that, they average over the whole epoch."""
    model, arrays = trained
    restore(model, arrays)
    restored = RestoreLosses(arrays)
    train(model, [2], [restored])
    assert snapshot(model)["losses/loss/count"] == 3
    train(model, [2], [restored])  # the next epoch begins at nothing
    assert snapshot(model)["losses/loss/count"] == 1


def test_mirrored_state_comes_once_and_goes_to_all_replicas(tmp_path):
    script = str(pathlib.Path(__file__).parent / "mirrored_snapshot.py")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, script, str(tmp_path / "a.npz")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    alone = tiny_model(average=0.9, kind="frozen_bn")
    arrays, _ = read_checkpoint(tmp_path / "a.npz")
    assert list(snapshot(alone)) == list(arrays)  # one device can go on from two, and the other way round
    restore(alone, arrays)


def tree(**train):
    config = dataclasses.asdict(Config())
    config["train"] |= train
    return config


def test_a_config_is_the_same_after_json():
    assert config_differences(json.loads(json.dumps(tree())), tree(decay_steps=(60000, 80000))) == []


def test_each_difference_is_a_line():
    new = tree(learning_rate=0.01, steps=10)
    new["data"]["train"]["annotations"] = "moved.json"
    new["model"]["mask_head"] = None
    new["data"]["train"]["sources"] = [{"weight": 1.0}]
    old = tree()
    old["data"]["train"]["sources"] = [{"weight": 2.0}]
    lines = config_differences(old, new)
    assert "train.learning_rate: 0.02 -> 0.01" in lines and "train.steps: 90000 -> 10" in lines
    assert 'data.train.annotations: "" -> "moved.json"' in lines
    assert "data.train.sources[0].weight: 2.0 -> 1.0" in lines
    assert any(line.startswith("model.mask_head: {") and line.endswith("... -> null") for line in lines)
    assert len(lines) == 5


def test_settings_of_one_side_show():
    old, new = tree(), tree(later=1)
    assert config_differences(old, new) == ["train.later: (not set) -> 1"]
    assert config_differences(new, old) == ["train.later: 1 -> (not set)"]


@pytest.mark.parametrize("name", ["log_steps", "checkpoint_steps", "keep_checkpoints", "patience"])
def test_settings_that_change_no_result_may_change(name):
    assert check_same_config({"config": tree()}, tree(**{name: 3})) == []


def test_another_config_needs_force():
    facts = {"config": tree()}
    new = tree(learning_rate=0.01, momentum=0.8, weight_decay=0.0, steps=5, seed=9)
    with pytest.raises(UserError, match=r"learning_rate: 0.02 -> 0.01.*and 1 more.*--force"):
        check_same_config(facts, new)
    assert len(check_same_config(facts, new, force=True)) == 5
    assert check_same_config(facts, tree()) == []


def test_another_version_is_a_note():
    assert describe_version_change({"version": library_versions()}) is None
    assert "keras 3.0 (now" in describe_version_change({"version": library_versions() | {"keras": "3.0"}})
    assert "mrcnn_tf ? (now" in describe_version_change({})
