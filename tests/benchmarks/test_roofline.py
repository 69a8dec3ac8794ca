"""The processor's limit, the operations that are counted, and RoIAlign alone, at small sizes. Nothing is timed."""

import dataclasses
import math

import pytest

from benchmarks import roofline
from benchmarks.comparison import TITLES
from benchmarks.processes import Process
from benchmarks.roofline import count_inference_operations, count_resnet_operations
from mrcnn_tf.cli.benchmark_processes import LeftOut
from mrcnn_tf.common.categories import Category
from mrcnn_tf.config.settings import SemanticHeadConfig
from mrcnn_tf.model.backbones.resnet import ResNet
from mrcnn_tf.model.mask_rcnn import MaskRCNN


def names_of(task):
    times = task.run()
    assert all(math.isfinite(seconds) and seconds > 0 for seconds in times.values())
    return set(times)


def test_roi_align_is_timed_both_ways():
    task = roofline.roi_align("gather", 8, 12, rois=4, channels=8)
    assert names_of(task) == {name for measurement, name in TITLES if measurement == "roi_align"}


def test_an_implementation_that_is_not_there_is_left_out_by_its_reason():
    process = Process("benchmarks.roofline", "roi_align", {"implementation": "magic", "height": 8, "width": 8})
    with pytest.raises(LeftOut, match="no RoIAlign implementation 'magic'"):
        process.start()


def test_the_roofline_counts_two_operations_for_each_multiply_add():
    task = roofline.roofline(side=16, rows=4, columns=6, channels=8)
    assert names_of(task) == task.facts["operations"].keys()
    assert task.facts["operations"]["product_float32"] == 8192
    assert task.facts["operations"]["convolution_float32"] == 2 * 9 * 8 * 8 * 24


def test_the_roofline_counts_the_operations_of_the_config_that_is_measured():
    overrides = ["model.fpn.channels=16", "model.box_head.channels=16", "model.mask_head={channels: 16, convs: 1}"]
    model = {"config": "nuclei_r18_fpn", "overrides": overrides, "height": 64, "width": 96}
    counted = roofline.roofline(model, side=16, rows=4, columns=6, channels=8).facts["image_operations"]
    assert set(counted) == {"backbone", "fpn", "rpn_head", "box_head", "mask_head"}
    assert counted["backbone"] == pytest.approx(2 * 1.814e9 * 64 * 96 / 224**2, rel=0.01)


@pytest.mark.parametrize(("depth", "published", "classifier"), [(18, 1.814e9, 512e3), (50, 4.089e9, 2.048e6)])
def test_operations_of_a_resnet_are_the_published_ones(depth, published, classifier):
    backbone = ResNet(depth)
    backbone.build((None, None, None, 3))
    # Multiply-adds at 224 x 224 in torchvision's table of models, less the classifier's.
    assert count_resnet_operations(backbone, 224, 224) / 2 == pytest.approx(published - classifier, rel=1e-3)


def test_operations_of_the_parts_are_those_of_a_count_by_hand(tiny_config):
    model = MaskRCNN.from_settings(tiny_config)
    counted = count_inference_operations(model, 60, 90)  # on a canvas of 64 x 96
    assert counted["backbone"] == count_resnet_operations(model.features.backbone, 64, 96)
    cells = [16 * 24, 8 * 12, 4 * 6, 2 * 3, 1 * 2]
    laterals = sum(n * channels * 16 for n, channels in zip(cells, (64, 128, 256, 512), strict=False))
    assert counted["fpn"] == 2 * (laterals + sum(cells[:4]) * 9 * 16 * 16)
    assert counted["rpn_head"] == 2 * sum(cells) * (9 * 16 * 16 + 16 * 3 + 16 * 12)
    # Ten RoIs of 3 x 3 x 16 features, then 12, 12, and 3 classes and 2 boxes.
    assert counted["box_head"] == 10 * 2 * (144 * 12 + 12 * 12 + 12 * 3 + 12 * 8)
    # Five masks of 4 x 4 cells: two 3x3 convolutions, a deconvolution to twice the side, one class's kernel.
    assert counted["mask_head"] == 5 * 2 * 16 * (9 * 16 * 6 + 9 * 6 * 6 + 4 * 6 * 6 + 4 * 6)


def test_operations_of_a_semantic_head_are_those_of_a_count_by_hand(tiny_config):
    stuff = [Category(11, "sky"), Category(12, "sea")]
    config = dataclasses.replace(tiny_config, stuff=stuff, semantic_head=SemanticHeadConfig(channels=32))
    counted = count_inference_operations(MaskRCNN.from_settings(config), 60, 90)  # on a canvas of 64 x 96
    cells = {4: 16 * 24, 8: 8 * 12, 16: 4 * 6, 32: 2 * 3}
    first = cells[4] + cells[8] + cells[16] + cells[32]  # of 16 channels; the others of 32
    others = cells[8] + cells[16] + cells[8]  # one of P4's, two of P5's
    classifier = (cells[4] + cells[8]) * 32 * 3
    assert counted["semantic_head"] == 2 * (first * 9 * 16 * 32 + others * 9 * 32 * 32 + classifier)
    alone = dataclasses.replace(config, box_head=None, mask_head=None)
    shared = ("backbone", "fpn", "semantic_head")
    assert count_inference_operations(MaskRCNN.from_settings(alone), 60, 90) == {name: counted[name] for name in shared}
