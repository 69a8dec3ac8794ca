"""With another library's weights, losses and gradients of a step are that library's: see golden/record_training.py."""

import numpy as np
import parity
import pytest
import tensorflow as tf
import torch_writer
from golden import made_up

from mrcnn_tf.data.rasterize import Segmentations, crop_masks
from mrcnn_tf.model.mask_rcnn import MaskRCNN

NAMES = {  # theirs -> ours
    "torchvision": {
        "loss_objectness": "loss_rpn_objectness",
        "loss_rpn_box_reg": "loss_rpn_box",
        "loss_classifier": "loss_class",
        "loss_box_reg": "loss_box",
        "loss_mask": "loss_mask",
    },
    "detectron2": {
        "loss_rpn_cls": "loss_rpn_objectness",
        "loss_rpn_loc": "loss_rpn_box",
        "loss_cls": "loss_class",
        "loss_box_reg": "loss_box",
        "loss_mask": "loss_mask",
    },
}
CROP = 112  # cells a side of the masks that training reads, as by default
# torchvision's own gradients in float32 differ from those in float64 by up to 8e-4: a ReLU opens or doesn't.
GRADIENT_TOLERANCE = 3e-3
# torchvision's targets are parts of cells, made of whole masks, and ours are made of the crops. That moves the loss a
# little and its gradients more, where those of many cells cancel. detectron2's targets are yes or no, as ours are then.
MASK_TOLERANCES = {"torchvision": (1e-3, 0.03), "detectron2": (1e-5, GRADIENT_TOLERANCE)}


@pytest.fixture(scope="module", params=NAMES)
def step(request, tmp_path_factory):
    """A dictionary: the `library` and what was `recorded`, our `model`, `losses` and `gradients` of both parts, and as
    `sources` what was recorded of each of our trainable weights."""
    recorded = parity.architecture(f"training_{request.param}")
    shapes = parity.architecture(recorded["architecture"])["shapes"]
    tensors = made_up.weights(shapes, recorded["seed"], recorded["background"])
    folder = tmp_path_factory.mktemp(request.param)
    model = load(recorded, tensors, folder)
    with tf.GradientTape(persistent=True) as tape:
        losses = model.compute_losses(make_batch(recorded, model))
        other = tf.add_n([value for name, value in losses.items() if name != "loss_mask"])
    return {
        "library": request.param,
        "recorded": recorded,
        "model": model,
        "losses": losses,
        "gradients": [tape.gradient(loss, model.trainable_weights) for loss in (other, losses["loss_mask"])],
        "sources": [recorded["gradients"][name] for name in their_names(recorded, tensors, folder)],
    }


def load(recorded, tensors, folder):
    path, count = folder / "model.pth", recorded["proposals"]
    torch_writer.save_torch(path, tensors)
    overrides = [
        f"model.resize={{min_size: {recorded['min_size']}, max_size: {recorded['max_size']}}}",
        "model.backbone.freeze_at=0",
        f"model.rpn={{pre_nms_train: {4 * count}, post_nms_train: {count}}}",
        f"model.rpn.batch_per_image={recorded['anchors_drawn']}",
        f"model.rois={{batch_per_image: {recorded['rois_drawn']}, positive_fraction: 0.5}}",
    ]
    model = MaskRCNN.from_pretrained(path, overrides, verbose=False)
    path.unlink()
    return model


def their_names(recorded, tensors, folder):
    """Their tensor's name for each of our trainable weights: tensors full of their own number tell it when loaded."""
    names = list(recorded["gradients"])
    numbered = {name: np.full_like(tensors[name], number) for number, name in enumerate(names)}
    model = load(recorded, tensors | numbered, folder)
    numbers = [int(np.max(weight)) for weight in model.trainable_weights]
    assert sorted(numbers) == list(range(len(names)))
    return [names[number] for number in numbers]


def make_batch(recorded, model):
    height, width, _ = recorded["image"]
    labels, polygons = made_up.objects(height, width, recorded["objects"], recorded["seed"])
    boxes = tf.constant([made_up.polygon_box(polygon) for polygon in polygons], tf.float32)
    segmentations = Segmentations(
        points=tf.constant(np.concatenate(polygons), tf.float32),
        ring_sizes=tf.constant([len(polygon) for polygon in polygons]),
        ring_instances=tf.range(len(polygons)),
        runs=tf.zeros([0], tf.int32),
        run_counts=tf.zeros([len(polygons)], tf.int32),
    )
    inputs = model.preprocess(made_up.image(*recorded["image"]))
    assert inputs["image_size"].numpy().tolist() == [[height, width]]
    return {
        **inputs,
        "boxes": boxes[None],
        "classes": tf.constant([labels], tf.int32),
        "crowd": tf.zeros([1, len(labels)], tf.bool),
        "masks": crop_masks(segmentations, boxes, height, width, CROP)[None],
        "image_id": tf.constant([1], tf.int64),
    }


def test_losses_are_the_librarys(step):
    names, recorded = NAMES[step["library"]], step["recorded"]["losses"]
    assert {names[name] for name in recorded} == set(step["losses"])
    for name, value in recorded.items():
        tolerance = MASK_TOLERANCES[step["library"]][0] if name == "loss_mask" else 1e-5
        assert step["losses"][names[name]].numpy() == pytest.approx(value, rel=tolerance), name


@pytest.mark.parametrize("part", [0, 1], ids=["others", "mask"])
def test_gradients_are_the_librarys(step, part):
    """Every weight's norm, and its product with the weight itself; of the mask's loss and of the sum of the others."""
    tolerance = MASK_TOLERANCES[step["library"]][1] if part else GRADIENT_TOLERANCE
    for weight, gradient, source in zip(
        step["model"].trainable_weights, step["gradients"][part], step["sources"], strict=True
    ):
        size, norm, product = source[0], *source[1 + 2 * part :][:2]
        gradient = np.zeros(1) if gradient is None else np.array(tf.convert_to_tensor(gradient))
        assert np.linalg.norm(gradient) == pytest.approx(norm, rel=tolerance), weight.path
        assert np.sum(gradient * weight) == pytest.approx(product, abs=tolerance * norm * size), weight.path
