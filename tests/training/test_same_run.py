"""Whether a checkpoint belongs to a run."""

import dataclasses
import json

import pytest

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import Config
from mrcnn_tf.training.snapshot import check_same_config, config_differences, describe_version_change, library_versions


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
