"""What is said at the start of a run."""

import copy
import dataclasses

import keras
import pytest
from tiny import tiny_config

from mrcnn_tf.common.categories import Category
from mrcnn_tf.config.settings import Config, SemanticHeadConfig
from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.model.necks import FPN
from mrcnn_tf.training import plan
from mrcnn_tf.training.optimizer import SGD
from mrcnn_tf.training.plan import (
    ACTIVATION_FACTOR,
    SEMANTIC_LOGITS_FACTOR,
    WORKSPACE_BYTES,
    TimeLeft,
    activation_bytes,
    format_duration,
    plan_lines,
    state_bytes,
)


def model_of(average=None, **backbone):
    config = tiny_config("gn")
    config.backbone = dataclasses.replace(config.backbone, depth=18, **backbone)
    model = MaskRCNN.from_settings(config)
    model.compile(SGD(0.01, average=average))
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture(scope="module")
def model():
    return model_of()


def test_the_state_is_weights_gradients_and_slots(model):
    numbers = sum(weight.numpy().size for weight in model.weights)
    trained = sum(weight.numpy().size for weight in model.trainable_variables)
    assert state_bytes(model) == pytest.approx(4 * (numbers + 2 * trained), abs=64)  # and a few counters
    frozen = model_of(freeze_at=5)
    trained = sum(weight.numpy().size for weight in frozen.trainable_variables)
    assert state_bytes(frozen) == pytest.approx(4 * (numbers + 2 * trained), abs=64)
    assert state_bytes(model_of(average=0.9)) == pytest.approx(4 * (2 * numbers + 2 * numbers), rel=1e-3)


def test_activations_of_an_image_by_hand(model):
    """ResNet-18, GroupNorm, 32-channel pyramid, 16 RoIs of 7 x 7 and 4 positives of 14 x 14."""
    pixels = 128 * 64
    stem = 64 * pixels // 4
    blocks = 4 * 64 * pixels // 16 + 5 * 128 * pixels // 64 + 5 * 256 * pixels // 256 + 5 * 512 * pixels // 1024
    pyramid = 2 * 32 * (pixels // 16 + pixels // 64 + pixels // 256 + pixels // 1024)
    cells = pixels / 16 + pixels / 64 + pixels / 256 + pixels / 1024 + pixels / 4096
    kernels = [variable.shape for variable in model.rpn.trainable_variables if len(variable.shape) == 4]
    proposals = sum(shape[-1] for shape in kernels) * cells
    rois = 32 * (16 * 7 * 7 + 4 * 14 * 14)
    masks = 2 * 16 * 4 * 14 * 14 + 16 * 4 * 28 * 28
    elements = stem + blocks + pyramid + proposals + rois + masks
    found = (activation_bytes(model, 128, 64, 3) - WORKSPACE_BYTES) / (ACTIVATION_FACTOR * 4 * 3)
    assert found == pytest.approx(elements, rel=0.02)


def test_activations_of_a_semantic_head_by_hand(model):
    """32-channel pyramid, 64 channels, 3 classes: seven convolutions, the classifier at strides 4 and 8, all pixels."""
    config = copy.deepcopy(model.settings)
    config.stuff, config.semantic_head = [Category(5, "sky"), Category(6, "sea")], SemanticHeadConfig(channels=64)
    pixels = 128 * 64
    levels = [(16,), (64,), (256, 64), (1024, 256, 64)]  # cells of P2 to P5 and of what each is enlarged to
    head = 64 * sum(pixels / cell for level in levels for cell in level) + 3 * (pixels / 16 + pixels / 64)
    both = activation_bytes(MaskRCNN.from_settings(config), 128, 64, 2)
    expected = 2 * 4 * (ACTIVATION_FACTOR * head + SEMANTIC_LOGITS_FACTOR * 3 * pixels)
    assert both - activation_bytes(model, 128, 64, 2) == pytest.approx(expected, rel=1e-3)
    config.box_head = config.mask_head = None
    assert (
        2 * WORKSPACE_BYTES > activation_bytes(MaskRCNN.from_settings(config), 128, 64, 2) > WORKSPACE_BYTES + expected
    )


def test_a_backbone_that_does_not_say_it_leaves_the_memory_open(model):
    class Strange(keras.layers.Layer):
        strides = model.features.backbone.strides

        def call(self, images):
            return model.features.backbone(images)

    strange = MaskRCNN(FPN(Strange(), 32), model.rpn, model.heads, categories=model.categories)
    strange.compile(SGD(0.01))
    strange.optimizer.build(strange.trainable_variables)
    assert activation_bytes(strange, 128, 64, 2) is None
    config = Config(model=model.settings)
    assert plan_lines(strange, config, None)[2].endswith(
        "GB for weights, gradients and momentum, and what the images take."
    )


def test_frozen_stages_hold_nothing(model):
    assert activation_bytes(model_of(freeze_at=2), 128, 64, 1) < activation_bytes(model, 128, 64, 1)


def test_the_plan_is_in_plain_words(model):
    config = Config(model=model.settings)
    config.train.steps, config.train.images_per_batch, config.train.accumulate = 90, 16, 2
    lines = plan_lines(model, config, 480, replicas=2)
    assert lines[0] == (
        "Training: 90 steps of 480 images, 3.0 times through them; 16 images a step = 2 devices x 2 parts one after "
        "another x 4 images."
    )
    assert lines[1].startswith("Model: ") and lines[1].endswith("computed in float32.")
    assert lines[2].startswith("Memory of a device: about ") and "4 images of up to 128x64 pixels" in lines[2]
    assert "it goes on after step 30" in plan_lines(model, config, None, step=30)[0]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (99, "99 s"), (240, "4 min"), (3600 * 3 + 1200, "3 h 20 min"), (86400 * 2 + 3600 * 3.2, "2 d 3 h")],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


def test_time_left_is_the_median_of_the_third_to_the_tenth_step(monkeypatch):
    clock, said = [0.0], []
    monkeypatch.setattr(plan.time, "perf_counter", lambda: clock[0])
    left = TimeLeft(1000, step=100, print_line=said.append)
    for took in [60.0, 9.0, 2.0, 2.0, 2.0, 8.0, 2.0, 2.0, 2.0, 2.0, 50.0]:
        clock[0] += took
        left.on_train_batch_end(0)
    assert said == ["\nStep 110: 2.00 s a step; the other 890 will take about 30 min, evaluation not counted."]


def test_a_run_of_a_few_steps_says_nothing():
    for steps, lines in ((2, 0), (10, 0), (12, 1)):
        said = []
        left = TimeLeft(steps, print_line=said.append)
        for _ in range(steps):
            left.on_train_batch_end(0)
        assert len(said) == lines
