"""The assembled model: losses, padding, detection, saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny import CATEGORIES, KINDS, tiny_batch, tiny_config

import mrcnn_tf
from mrcnn_tf.model.blocks import ConvNorm
from mrcnn_tf.model.mask_rcnn import MaskRCNN

LOSSES = ("loss_rpn_objectness", "loss_rpn_box", "loss_class", "loss_box", "loss_mask")


def randomize(model, seed=0):
    """Weights large enough for scores and boxes to spread, and batch norm statistics that aren't neutral."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        shape = weight.shape
        if len(shape) >= 2 and "seed" not in weight.path:
            # Frozen statistics don't bring the sums of 8 residual blocks back to size, so smaller kernels must.
            gain = 2.0 if model.settings.backbone.norm == "gn" else 0.7
            weight.assign(generator.normal(0, np.sqrt(gain / np.prod(shape[:-1])), shape))
        elif weight.path.endswith(("bias", "beta", "moving_mean")):
            weight.assign(generator.normal(0, 0.2, shape))
        elif weight.path.endswith(("gamma", "moving_variance")):
            weight.assign(generator.uniform(0.5, 1.5, shape))
    return model


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    keras.utils.set_random_seed(1)
    return randomize(MaskRCNN.from_settings(tiny_config(request.param)))


@pytest.fixture(scope="module")
def trained():
    """A model after a step of fit, and its history."""
    keras.utils.set_random_seed(2)
    config = tiny_config()
    config.rpn.batch_per_image = 2000  # all anchors, so that every level learns whatever is drawn
    model = MaskRCNN.from_settings(config)
    model.compile(optimizer=keras.optimizers.SGD(0.001))
    before = {weight.path: weight.numpy() for weight in model.trainable_weights}
    history = model.fit(tf.data.Dataset.from_tensors(tiny_batch()), verbose=0)
    return model, before, history.history


def test_every_loss_is_there_and_moves_the_weights_it_should(trained):
    model, before, history = trained
    assert set(history) == {"loss", "images_per_second", "input_wait", *LOSSES}
    for name in LOSSES:
        assert np.isfinite(history[name][0]) and history[name][0] > 0, name
    assert history["loss"][0] == pytest.approx(sum(history[name][0] for name in LOSSES), rel=1e-5)
    still = [path for path, value in before.items() if np.array_equal(value, _weight(model, path))]
    assert still == []


@pytest.mark.parametrize(
    "name, part",
    [
        ("loss_rpn_objectness", "rpn/head/objectness_logits"),
        ("loss_rpn_box", "rpn/head/anchor_deltas"),
        ("loss_class", "box_head/class_logits"),
        ("loss_box", "box_head/box_deltas"),
        ("loss_mask", "mask_head/predictor_kernel"),
    ],
)
def test_each_loss_reaches_its_own_head_and_the_backbone(trained, name, part):
    model = trained[0]
    with tf.GradientTape() as tape:
        loss = model.compute_losses(_tensors(tiny_batch()))[name]
    gradients = dict(zip(_paths(model), tape.gradient(loss, model.trainable_weights), strict=True))
    reached = {path for path, gradient in gradients.items() if gradient is not None and np.any(gradient)}
    assert any(part in path for path in reached)
    assert any("backbone/stem" in path for path in reached)
    others = {"rpn/", "box_head/", "mask_head/"} - {part.split("/")[0] + "/"}
    assert not any(other in path for path in reached for other in others)


@pytest.mark.parametrize("kind", ["c4", "keypoints"])
def test_every_weight_of_the_other_kinds_learns(kind):
    keras.utils.set_random_seed(2)
    model = MaskRCNN.from_settings(tiny_config(kind))
    with tf.GradientTape() as tape:
        found = model.compute_losses(_tensors(tiny_batch()))
        total = tf.add_n(list(found.values()))
    assert all(np.isfinite(value) and value > 0 for value in found.values())
    assert ("loss_keypoint" in found) == (kind == "keypoints") and "loss_mask" in found
    gradients = zip(_paths(model), tape.gradient(total, model.trainable_weights), strict=True)
    assert [path for path, gradient in gradients if gradient is None or not np.any(gradient)] == []


def test_a_keypoint_head_needs_keypoints():
    config = tiny_config("keypoints")
    config.categories = list(CATEGORIES)
    with pytest.raises(mrcnn_tf.UserError, match="keypoint head, and no category names its keypoints"):
        MaskRCNN.from_settings(config)


def test_images_without_objects_train(trained):
    batch = tiny_batch()
    batch["classes"][:] = 0
    batch["boxes"][:] = 0
    losses = {name: float(value) for name, value in trained[0].compute_losses(_tensors(batch)).items()}
    assert all(np.isfinite(value) for value in losses.values())
    assert losses["loss_mask"] == losses["loss_box"] == losses["loss_rpn_box"] == 0.0
    assert losses["loss_class"] > 0 and losses["loss_rpn_objectness"] > 0


def test_a_larger_padded_batch_gives_the_same_detections(model):
    sizes = [(64, 64), (60, 41), (33, 64)]
    images = [np.random.default_rng(3).uniform(0, 255, (*size, 3)).astype(np.float32) for size in sizes]
    other = np.random.default_rng(4).uniform(0, 255, (160, 128, 3)).astype(np.float32)
    larger = [_padded(image, (160, 128)) for image in images]
    together = model(_inputs([*larger, other], [*sizes, (160, 128)]))
    for index, (image, size) in enumerate(zip(images, sizes, strict=True)):
        own = _padded(image, [-(-side // 32) * 32 for side in size])
        alone = {name: value[0].numpy() for name, value in model(_inputs([own], [size])).items()}
        theirs = {name: value[index].numpy() for name, value in together.items()}
        count = int(alone["num_detections"])
        assert count >= 3  # the weights make some
        # Two whose scores are equal but for rounding may change places.
        ranks = [np.abs(theirs["boxes"][:count] - box).sum(axis=1).argmin() for box in alone["boxes"][:count]]
        assert sorted(ranks) == list(range(count)), size
        for name, value in alone.items():
            got = theirs[name] if value.ndim == 0 else np.concatenate([theirs[name][ranks], theirs[name][count:]])
            np.testing.assert_allclose(got, value, rtol=1e-3, atol=2e-3, err_msg=f"{name} {size}")


def test_what_stands_in_the_padding_has_no_influence(model):
    image = np.random.default_rng(5).uniform(0, 255, (64, 64, 3)).astype(np.float32)
    clean = model(_inputs([image], [(50, 40)]))
    image[50:], image[:, 40:] = 0, 255
    dirty = model(_inputs([image], [(50, 40)]))
    np.testing.assert_array_equal(dirty["boxes"], clean["boxes"])


def test_boxes_come_back_in_original_pixels(model):
    image = np.random.default_rng(6).uniform(0, 255, (64, 64, 3)).astype(np.float32)
    inputs = _inputs([image], [(64, 64)])
    small = model(inputs)
    large = model(inputs | {"original_size": tf.constant([[128, 320]])})
    np.testing.assert_allclose(large["boxes"], small["boxes"] * np.float32([5, 2, 5, 2]), rtol=1e-5)
    if model.gives("keypoints"):
        np.testing.assert_allclose(large["keypoints"], small["keypoints"] * np.float32([5, 2, 1]), rtol=1e-5)


@pytest.mark.parametrize("size", [(64, 96), (64, 83)])
def test_detect_agrees_with_the_batch_path(model, size):
    image = np.random.default_rng(7).integers(0, 255, (*size, 3), np.uint8)
    one = model.detect(image)
    batch = _inputs([_padded(image.astype(np.float32), (96, 128))], [size])
    other = model.detect_batch(batch)[0]
    assert len(one) == len(other) > 0
    np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-2)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-3)
    assert set(one.category_ids) <= {category.id for category in CATEGORIES}
    assert one.masks.shape == (len(one), *size)
    if model.gives("keypoints"):
        assert one.keypoints.shape == (len(one), 3, 3) and not one.keypoints[one.category_ids == 3, 2].any()
        np.testing.assert_allclose(one.keypoints, other.keypoints, atol=0.5)
        inside = (one.keypoints[:, 0, :2] >= one.boxes[:, :2]) & (one.keypoints[:, 0, :2] <= one.boxes[:, 2:])
        assert inside.all()
    else:
        assert one.keypoints is None
    assert (np.diff(one.scores) <= 0).all()


def test_stock_operations_find_the_same(model):
    """What an export traces: the same weights without our own operations."""
    image = np.random.default_rng(3).integers(0, 255, (64, 80, 3), np.uint8)
    stock = MaskRCNN.from_config(model.get_config())
    stock.set_weights(model.get_weights())
    found = model.detect(image)
    with mrcnn_tf.ops.stock_operations():
        expected = stock.detect(image)
    kinds = [_operations(each._detect_function) for each in (model, stock)]
    assert {"MrcnnTf>RoiAlign", "MrcnnTf>Conv3x3"} < kinds[0]
    assert not any(kind.startswith("MrcnnTf>") for kind in kinds[1])
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-2)
    np.testing.assert_allclose(found.mask_probabilities, expected.mask_probabilities, atol=1e-3)


def test_detect_takes_a_list_of_any_sizes(model):
    images = [np.zeros((40, 90, 3), np.uint8), np.full((64, 30, 3), 255, np.uint8)]
    assert [each.image_size for each in model.detect(images)] == [(40, 90), (64, 30)]


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_detect_refuses_what_is_no_picture(model, image):
    with pytest.raises(mrcnn_tf.UserError, match="Image 0 is .*uint8 pixels"):
        model.detect(image)


@pytest.mark.usefixtures("eagerly")
def test_saving_round_trips_bit_for_bit(model, tmp_path):
    path = tmp_path / "model.keras"
    model.save(path)
    again = keras.saving.load_model(path)
    assert again.settings == model.settings
    for mine, theirs in zip(model.weights, again.weights, strict=True):
        assert mine.path == theirs.path
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())
    image = np.random.default_rng(8).integers(0, 255, (64, 64, 3), np.uint8)
    mine, theirs = model.detect(image), again.detect(image)
    np.testing.assert_array_equal(mine.boxes, theirs.boxes)
    np.testing.assert_array_equal(mine.mask_probabilities, theirs.mask_probabilities)


@pytest.mark.usefixtures("eagerly")
def test_a_saved_model_goes_on_training(trained, tmp_path):
    model = trained[0]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert int(again.optimizer.iterations) == int(model.optimizer.iterations) == 1
    again.fit(tf.data.Dataset.from_tensors(tiny_batch()), verbose=0)
    assert int(again.optimizer.iterations) == 2


def test_a_bad_number_stops_training_before_the_weights_see_it():
    keras.utils.set_random_seed(3)
    model = MaskRCNN.from_settings(tiny_config("gn"))  # its means spread the one pixel
    model.compile(optimizer=keras.optimizers.SGD(0.001))
    batch = tiny_batch()
    batch["image"][1, 5, 5] = np.nan
    before = [weight.numpy() for weight in model.trainable_weights]
    with pytest.raises(mrcnn_tf.NonFiniteLoss, match="loss_rpn_objectness.* for image ids 100, 101;") as caught:
        model.fit(tf.data.Dataset.from_tensors(batch), verbose=0)
    assert "\n" not in str(caught.value)
    for old, weight in zip(before, model.trainable_weights, strict=True):
        np.testing.assert_array_equal(old, weight.numpy())


def test_no_lambda_layers_and_float32_outputs_in_mixed_precision():
    model = MaskRCNN.from_settings(tiny_config(), dtype="mixed_bfloat16")
    assert not any(isinstance(layer, keras.layers.Lambda) for layer in model._flatten_layers())
    convs = [layer for layer in model._flatten_layers() if isinstance(layer, ConvNorm)]
    exact = {conv.name for conv in convs if conv.compute_dtype != "bfloat16"}
    assert len(convs) > 20 and exact == {"objectness_logits", "anchor_deltas"}
    assert all(weight.dtype == "float32" for weight in model.trainable_weights)
    image = np.random.default_rng(9).uniform(0, 255, (64, 64, 3)).astype(np.float32)
    outputs = model(_inputs([image], [(64, 64)]))
    assert {
        name: value.dtype for name, value in outputs.items() if name in ("boxes", "scores", "masks")
    } == dict.fromkeys(("boxes", "scores", "masks"), tf.float32)


def test_a_model_needs_classes():
    config = tiny_config()
    config.categories = []
    with pytest.raises(mrcnn_tf.UserError, match="no classes"):
        MaskRCNN.from_settings(config)


def _operations(function):
    """The types of all operations in a traced function, those inside of other functions included."""
    definition = function.get_concrete_function().graph.as_graph_def()
    nodes = [*definition.node, *(node for inner in definition.library.function for node in inner.node_def)]
    return {node.op for node in nodes}


def _weight(model, path):
    return next(weight.numpy() for weight in model.weights if weight.path == path)


def _paths(model):
    return [weight.path for weight in model.trainable_weights]


def _tensors(batch):
    return {name: tf.constant(value) for name, value in batch.items()}


def _padded(image, size):
    return np.pad(image, [(0, size[0] - image.shape[0]), (0, size[1] - image.shape[1]), (0, 0)])


def _inputs(images, sizes):
    sizes = tf.constant(sizes, tf.int32)
    return {"image": tf.constant(np.stack(images)), "image_size": sizes, "original_size": sizes}
