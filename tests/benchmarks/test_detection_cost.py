"""What the measured parts of the package give at small sizes, and the operations that are counted. Nothing is timed."""

import dataclasses
import json
import math
import pathlib

import numpy as np
import pytest

from benchmarks import detection_cost, roofline, training_cost
from benchmarks.cases import FAMILY
from benchmarks.comparison import PARTS, WHAT
from benchmarks.roofline import inference_operations, resnet_operations
from mrcnn_tf.cli import benchmark_measurements
from mrcnn_tf.cli.benchmark_measurements import benchmark_config
from mrcnn_tf.cli.benchmark_processes import LeftOut, Process
from mrcnn_tf.common.categories import Category
from mrcnn_tf.config.settings import SemanticHeadConfig
from mrcnn_tf.model.backbones.resnet import ResNet
from mrcnn_tf.model.mask_rcnn import MaskRCNN

SMALL = [
    "model.fpn.channels=32",
    "model.box_head.channels=32",
    "model.mask_head={channels: 16, convs: 1}",
    "model.rois.batch_per_image=8",
    "model.rpn.post_nms_train=20",
    "model.rpn.post_nms_test=20",
    "model.detections.max_per_image=5",
]
PANOPTIC = [*SMALL, "model.semantic_head.channels=32"]
MODEL = {"config": "nuclei_r18_fpn", "overrides": SMALL, "height": 64, "width": 96, "precision": "float32"}


def names_of(task):
    found = task.run()
    assert all(math.isfinite(seconds) and seconds > 0 for seconds in found.values())
    return set(found)


def test_roi_align_is_timed_both_ways():
    task = roofline.time_roi_align("gather", 8, 12, rois=4, channels=8)
    assert names_of(task) == {name for measurement, name in WHAT if measurement == "roi_align"}


def test_an_implementation_that_is_not_there_is_left_out_by_its_reason():
    process = Process("benchmarks.roofline", {"implementation": "magic", "height": 8, "width": 8})
    with pytest.raises(LeftOut, match="no RoIAlign implementation 'magic'"):
        process.start()


def test_the_roofline_counts_two_operations_for_each_multiply_add():
    task = roofline.roofline(side=16, height=4, width=6, channels=8)
    assert names_of(task) == task.facts["operations"].keys()
    assert task.facts["operations"]["product_float32"] == 8192
    assert task.facts["operations"]["convolution_float32"] == 2 * 9 * 8 * 8 * 24


def test_detection_and_its_parts_are_timed_under_the_names_of_the_report():
    task = measurements.inference(**MODEL)
    assert names_of(task) == {"detect", "detect_full"}
    assert task.facts["detections"] == 5
    assert names_of(detection_cost.breakdown(**MODEL | {"overrides": PANOPTIC})) == {*PARTS, "whole"} - {
        "keypoint_features",
        "keypoint_head",
        "keypoints",
    }


def test_a_semantic_head_is_timed_by_itself():
    model = MODEL | {"overrides": [*PANOPTIC, "model.box_head=null", "model.mask_head=null"]}
    names = {"resize", "normalize", "backbone", "fpn", "semantic_head", "whole"}
    assert names_of(detection_cost.breakdown(**model)) == names


def test_what_a_semantic_head_adds_is_timed_beside_the_model_without_it():
    task = detection_cost.panoptic(**MODEL | {"overrides": PANOPTIC}, count=7)
    times = task.run()
    assert set(times) == {"detect", "detect_semantic", "map", "segments", "fusion", "detect_panoptic"}
    added = times["detect_panoptic"] - times["detect_semantic"]
    assert added == pytest.approx(times["map"] + times["segments"])
    assert task.facts["segments"] >= 1


def test_keypoints_are_found_in_a_config_that_leaves_the_categories_open():
    overrides = [*SMALL, "model.backbone.depth=18", "model.mask_head=null", "model.keypoint_head.channels=16"]
    task = measurements.inference(**MODEL | {"config": FAMILY["Keypoint R50-FPN"].config, "overrides": overrides})
    assert names_of(task) == {"detect"}
    assert 0 < task.facts["detections"] <= 5


@pytest.mark.parametrize("name", FAMILY)
def test_the_familys_configs_give_what_the_report_says_of_them(name):
    config = benchmark_config(FAMILY[name].config, [], 64, 96).model
    assert ("keypoints" in FAMILY[name].gives) == bool(config.keypoint_head)
    side = 2 * config.mask_head.pool_size if config.mask_head else None
    assert FAMILY[name].gives.partition(" masks")[0] == (f"boxes, {side}x{side}" if side else FAMILY[name].gives)
    assert (config.features, config.backbone.depth) == (name[-3:].strip("-0"), 50)
    assert config.rpn.post_nms_test == 1000 and config.detections.max_per_image == 100
    # Persons with their keypoints, or as many classes as the peers have.
    assert [len(category.keypoints) for category in config.categories] == ([17] if config.keypoint_head else [0] * 80)


def test_a_training_step_learns_from_the_seven_objects_and_all_pixels():
    task = measurements.training(**MODEL | {"overrides": PANOPTIC})
    assert names_of(task) == {"step"}
    assert task.facts["loss_mask"] > 0 and task.facts["loss_semantic"] > 0
    parts = [value for name, value in task.facts.items() if name != "loss"]
    assert task.facts["loss"] == pytest.approx(sum(parts), rel=1e-4)


def test_replicas_and_checkpoints_are_timed():
    size = {name: value for name, value in MODEL.items() if name != "precision"}
    assert names_of(training_cost.replicas(**size, replicas=1)) == {"step"}
    task = training_cost.checkpoints(**size)
    assert names_of(task) == {"steps", "steps_saving"}
    assert [path.name for path in pathlib.Path(task.folder.name).iterdir()] == ["step-00000001.npz"]
    assert task.facts["every"] == 500


def test_the_pipelines_images_have_seven_objects_at_training_size(tmp_path):
    task = measurements.pipeline(images=2, batch=1)
    assert names_of(task) == {"image"}
    tree = json.loads(pathlib.Path(measurements.make_dataset(tmp_path)).read_text())
    assert len(tree["images"]) == 16 and len(tree["annotations"]) == 16 * measurements.OBJECTS


def test_boxes_lie_inside_the_image_and_keep_to_their_range():
    boxes = measurements.random_boxes(500, 200, 300, 16, 112)
    assert (boxes >= 0).all() and (boxes[:, 2] <= 300.001).all() and (boxes[:, 3] <= 200.001).all()
    sides = boxes[:, 2:] - boxes[:, :2]
    area = np.sqrt(sides.prod(1))
    assert area.min() > 15.9 and area.max() < 112.1 and area.max() / area.min() > 5


@pytest.mark.parametrize(("depth", "published", "classifier"), [(18, 1.814e9, 512e3), (50, 4.089e9, 2.048e6)])
def test_operations_of_a_resnet_are_the_published_ones(depth, published, classifier):
    backbone = ResNet(depth)
    backbone.build((None, None, None, 3))
    # Multiply-adds at 224 x 224 in torchvision's table of models, less the classifier's.
    assert resnet_operations(backbone, 224, 224) / 2 == pytest.approx(published - classifier, rel=1e-3)


def test_operations_of_the_parts_are_those_of_a_count_by_hand(tiny_config):
    model = MaskRCNN(tiny_config)
    counted = inference_operations(model, 60, 90)  # on a canvas of 64 x 96
    assert counted["backbone"] == resnet_operations(model.backbone, 64, 96)
    cells = [16 * 24, 8 * 12, 4 * 6, 2 * 3, 1 * 2]
    laterals = sum(n * channels * 16 for n, channels in zip(cells, (64, 128, 256, 512), strict=False))
    assert counted["fpn"] == 2 * (laterals + sum(cells[:4]) * 9 * 16 * 16)
    assert counted["rpn"] == 2 * sum(cells) * (9 * 16 * 16 + 16 * 3 + 16 * 12)
    # Ten RoIs of 3 x 3 x 16 features, then 12, 12, and 3 classes and 2 boxes.
    assert counted["box_head"] == 10 * 2 * (144 * 12 + 12 * 12 + 12 * 3 + 12 * 8)
    # Five masks of 4 x 4 cells: two 3x3 convolutions, a deconvolution to twice the side, one class's kernel.
    assert counted["mask_head"] == 5 * 2 * 16 * (9 * 16 * 6 + 9 * 6 * 6 + 4 * 6 * 6 + 4 * 6)


def test_operations_of_a_semantic_head_are_those_of_a_count_by_hand(tiny_config):
    stuff = [Category(11, "sky"), Category(12, "sea")]
    config = dataclasses.replace(tiny_config, stuff=stuff, semantic_head=SemanticHeadConfig(channels=32))
    counted = inference_operations(MaskRCNN(config), 60, 90)  # on a canvas of 64 x 96
    cells = {4: 16 * 24, 8: 8 * 12, 16: 4 * 6, 32: 2 * 3}
    first = cells[4] + cells[8] + cells[16] + cells[32]  # of 16 channels; the others of 32
    others = cells[8] + cells[16] + cells[8]  # one of P4's, two of P5's
    classifier = (cells[4] + cells[8]) * 32 * 3
    assert counted["semantic_head"] == 2 * (first * 9 * 16 * 32 + others * 9 * 32 * 32 + classifier)
    alone = dataclasses.replace(config, box_head=None, mask_head=None)
    shared = ("backbone", "fpn", "semantic_head")
    assert inference_operations(MaskRCNN(alone), 60, 90) == {name: counted[name] for name in shared}
