"""Models without masks from the json to the picture: trained a step, evaluated and drawn on data that has no masks."""

import json

import numpy as np
import pytest
import yaml
from made_up import annotation
from PIL import Image

from mrcnn_tf.cli import demo
from mrcnn_tf.cli.predict import predict_files
from mrcnn_tf.config.load import load_config
from mrcnn_tf.explain import show_batch
from mrcnn_tf.results.draw import draw_ground_truth

SMALL = {
    "features": "C5",
    "resize": {"min_size": 64, "max_size": 64},
    "backbone": {"depth": 10, "norm": "gn", "freeze_at": 0},
    "rpn": {
        "channels": 16,
        "batch_per_image": 16,
        "pre_nms_train": 30,
        "pre_nms_test": 20,
        "post_nms_train": 15,
        "post_nms_test": 10,
    },
    "rois": {"batch_per_image": 8},
    "box_head": {"channels": 12},
    "mask_head": None,
    "detections": {"max_per_image": 5, "score_threshold": 0.01},
}
pytestmark = pytest.mark.usefixtures("eagerly")
HEADS = {"boxes": None, "keypoints": {"convs": 1, "channels": 8}}
LOSSES = {"loss", "loss_rpn_objectness", "loss_rpn_box", "loss_class", "loss_box"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Of indices alone: in an empty cache our own operations would be compiled anew."""
    monkeypatch.setattr("mrcnn_tf.datasets.coco_index.cache_folder", lambda: str(tmp_path / "cache"))


@pytest.fixture
def arrows(folder):
    """Two images with three annotations that have boxes and keypoints and no segmentation."""
    folder.categories = [{"id": 7, "name": "arrow", "keypoints": ["tip", "tail"], "skeleton": [[1, 2]]}]
    folder.add_image(1, 64, 48)
    folder.add_image(2, 64, 64)
    folder.annotations = [
        annotation(1, segmentation=..., bbox=[4, 4, 30, 20], keypoints=[6, 6, 2, 30, 20, 1]),
        annotation(2, segmentation=..., bbox=[30, 20, 30, 25], keypoints=[32, 40, 2, 0, 0, 0]),
        annotation(3, 2, segmentation=..., bbox=[10, 12, 40, 40], keypoints=[12, 50, 2, 48, 14, 2]),
    ]
    folder.config()
    return folder


def configured(folder, head):
    data = {"annotations": str(folder.path / "a.json"), "images": str(folder.path / "images"), "max_instances": 4}
    train = {"images_per_batch": 2, "steps": 1, "learning_rate": 0.001, "learning_rate_batch": 2}
    tree = {"model": SMALL | {"keypoint_head": HEADS[head]}, "data": {"train": data, "val": data}, "train": train}
    (folder.path / "small.yaml").write_text(yaml.safe_dump(tree))
    return load_config(folder.path / "small.yaml")


@pytest.fixture
def annotated(monkeypatch):
    """What is drawn as ground truth: (boxes, masks, keypoints) of each picture, plain lists or None."""
    drawn = []

    def draw(image, boxes, names, masks=None, keypoints=None, **others):
        drawn.append((boxes.tolist(), masks, None if keypoints is None else keypoints.tolist()))
        return draw_ground_truth(image, boxes, names, masks, keypoints=keypoints, **others)

    monkeypatch.setattr(show_batch, "draw_ground_truth", draw)
    return drawn


@pytest.mark.filterwarnings("ignore:Even though the `tf.config")  # that it leaves the data's functions alone
@pytest.mark.parametrize("head", HEADS)
def test_a_step_an_evaluation_and_pictures(arrows, annotated, head):
    out, with_keypoints = arrows.path / "out", head == "keypoints"
    run, pictures = demo.run_demo(configured(arrows, head), out, verbose=0)
    (epoch,), results = run.history, run.results
    losses = {name for name in epoch if name.startswith("loss")}
    assert losses == LOSSES | set(["loss_keypoint"] * with_keypoints)
    assert all(np.isfinite(value) for value in epoch.values())
    assert results.images == 2 and results.skipped == [] and results.bbox is not None and results.segm is None
    assert (results.keypoints is not None) == with_keypoints

    annotated = annotated[-2:]  # by the demo, after training's own
    assert [picture[0] for picture in annotated] == [[[4, 4, 34, 24], [30, 20, 60, 45]], [[10, 12, 50, 52]]]
    assert [picture[1] for picture in annotated] == [None, None]
    keypoints = [None, None]
    if with_keypoints:  # half a pixel on
        keypoints = [
            [[[6.5, 6.5, 2], [30.5, 20.5, 1]], [[32.5, 40.5, 2], [0] * 3]],
            [[[12.5, 50.5, 2], [48.5, 14.5, 2]]],
        ]
    assert [picture[2] for picture in annotated] == keypoints
    assert all(np.asarray(Image.open(path)).std() > 30 for path in pictures) and len(pictures) == 2

    ((_, number),), unreadable = predict_files(run.model, [arrows.path / "images" / "1.png"], out, min_score=0.0)
    rows = json.loads((out / "1.json").read_text())["detections"]
    assert number == len(rows) > 0 and unreadable == [] and (out / "1.png").is_file()
    keys = {"category_id", "category", "bbox", "score"} | set(["keypoints", "keypoint_names"] * with_keypoints)
    assert all(set(row) == keys for row in rows)
