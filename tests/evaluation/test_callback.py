"""CocoAP within model.fit: other callbacks find its figures."""

import keras
import numpy as np
import pytest

from mrcnn_tf.config.settings import DataConfig
from mrcnn_tf.evaluation.average_precision import KEYPOINT_METRICS
from mrcnn_tf.evaluation.average_precision import METRICS
from mrcnn_tf.evaluation.results import CocoResults


def fit(callbacks, epochs):
    model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model.fit(np.ones((4, 1)), np.ones((4, 1)), epochs=epochs, callbacks=callbacks, verbose=0).history


@pytest.fixture
def precisions(monkeypatch):
    """Evaluations give these mask APs, one after the other; box AP is half of it, small ones have no ground truth.

    Keypoints' AP, where asked for, is four fifths of it.
    """

    def give(*values, with_keypoints=False):
        remaining = list(values)

        def evaluate(model, data_config, progress):
            assert isinstance(model, keras.Model) and data_config.annotations == "val.json"
            segm = dict.fromkeys(METRICS, remaining.pop(0)) | {"APs": None}
            bbox = {name: value and value / 2 for name, value in segm.items()}
            keypoints = dict.fromkeys(KEYPOINT_METRICS, segm["AP"] * 0.8) if with_keypoints else None
            return CocoResults(1, bbox, segm, keypoints, [], []), []

        monkeypatch.setattr(evaluate, "evaluate", evaluate)
        return remaining

    return give


def coco_ap(**keys):
    return evaluate.CocoAP(DataConfig(annotations="val.json"), **keys)


def test_figures_join_the_logs(precisions, capsys):
    precisions(0.25, 0.5)
    evaluation = coco_ap()
    history = fit([evaluation], epochs=2)
    assert history["val_segm_AP"] == [0.25, 0.5]
    assert history["val_bbox_AP50"] == [0.125, 0.25]
    assert "val_segm_APs" not in history
    assert evaluation.results.segm["AP"] == 0.5
    lines = capsys.readouterr().out.split("\n")
    assert "Epoch 2: val_bbox_AP: 0.250, val_bbox_AP50: 0.250, val_segm_AP: 0.500, val_segm_AP50: 0.500" in lines


def test_figures_of_keypoints_join_them(precisions, capsys):
    precisions(0.25, with_keypoints=True)
    history = fit([coco_ap()], epochs=1)
    assert history["val_keypoints_AP"] == history["val_keypoints_AP75"] == [0.2]
    assert "val_keypoints_AR" not in history
    assert "val_keypoints_AP: 0.200, val_keypoints_AP50: 0.200" in capsys.readouterr().out


def test_the_best_epoch_is_saved(precisions, tmp_path):
    precisions(0.2, 0.6, 0.4)
    path = str(tmp_path / "epoch{epoch}.keras")
    saver = keras.callbacks.ModelCheckpoint(path, monitor="val_segm_AP", mode="max", save_best_only=True)
    fit([coco_ap(verbose=0), saver], epochs=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch1.keras", "epoch2.keras"]


def test_training_stops_when_the_figures_stop_rising(precisions):
    left = precisions(0.3, 0.2, 0.1, 0.9)
    stopper = keras.callbacks.EarlyStopping("val_bbox_AP", mode="max", patience=2)
    history = fit([coco_ap(verbose=0), stopper], epochs=4)
    assert len(history["loss"]) == 3
    assert left == [0.9]


def test_evaluates_each_nth_epoch_and_the_last(precisions, capsys):
    left = precisions(0.1, 0.2, 0.3)
    history = fit([coco_ap(every_epochs=2, prefix="test_", verbose=0)], epochs=5)
    assert history["test_segm_AP"] == [0.1, 0.2, 0.3]
    assert left == []
    assert capsys.readouterr().out == ""
