"""Loading into models without a pyramid and with keypoints: what goes where, and what is refused."""

import numpy as np
import pytest
from tiny_weights import as_torchvision, head, make, values, write

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.load import load_config
from mrcnn_tf.config.settings import KeypointHeadConfig
from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.weights.keras_applications import make_network

HEAD = ("keypoint_head/score_kernel", "keypoint_head/score_bias")


def c4(**changes):
    return make(
        features="C4", box_head__pool_size=14, box_head__fcs=0, mask_head__pool_size=7, mask_head__convs=0, **changes
    )


def with_keypoints(**names):
    """A model with a class for each keyword, whose keypoints are the words of its value."""
    categories = [Category(id, name, words.split()) for id, (name, words) in enumerate(names.items(), 1)]
    return make(categories=categories, mask_head=False, keypoint_head=KeypointHeadConfig(convs=1, channels=16))


@pytest.fixture(scope="module")
def classifier():
    """The tensors of a ResNet-18 under torchvision's names, and the weights that they stand for."""
    model = make()
    tensors = as_torchvision(model)
    return {name.removeprefix("backbone.body."): a for name, a in tensors.items() if "body" in name}, values(model)


def test_a_classifiers_last_stage_becomes_the_head_of_a_c4_model(classifier, tmp_path):
    tensors, expected = classifier
    model = c4(conventions__batch_norm_epsilon=1e-5)
    for variable in model.weights:
        variable.assign(variable * 3)
    report = model.load_pretrained(write(tmp_path, tensors), verbose=False)
    loaded = {path: array for path, array in values(model).items() if path in report.loaded}
    assert any(path.startswith("res5/res5_0/conv2/") for path in loaded) and len(loaded) == len(tensors)
    for path, array in loaded.items():
        np.testing.assert_allclose(array, expected[path.replace("res5/res5_", "backbone/res5_")], rtol=1e-6)
    missing = {name: array for name, array in tensors.items() if name != "layer4.0.conv2.weight"}
    with pytest.raises(UserError, match="missing .res5/res5_0/conv2/kernel"):
        model.load_pretrained(write(tmp_path, missing), verbose=False)


def test_a_classifier_may_be_dilated_but_not_a_detector(classifier, tmp_path):
    dilated = make(features="C5", backbone__dilated=True, conventions__batch_norm_epsilon=1e-5)
    report = dilated.load_pretrained(write(tmp_path, classifier[0]), verbose=False)
    assert "backbone/res5_0/conv2/kernel" in report.loaded
    with pytest.raises(UserError, match="set model.backbone.dilated=True .the model's is False"):
        make(features="C5").load_pretrained(dilated, verbose=False)


def test_other_features_are_another_architecture():
    with pytest.raises(UserError, match="architecture: set model.features=C4 .the model's is FPN."):
        make().load_pretrained(c4(), verbose=False)


def test_a_saved_c4_model_has_all_its_weights_again(tmp_path):
    source = c4()
    source.save(tmp_path / "c4.keras")
    model = c4()
    for variable in model.weights:
        variable.assign(variable * 3)
    model.load_pretrained(tmp_path / "c4.keras", verbose=False)
    for path, array in values(source).items():
        np.testing.assert_array_equal(values(model)[path], array)


def test_the_same_keypoints_are_kept_and_others_set_anew():
    source = with_keypoints(cat="nose tail")
    kept = with_keypoints(dog="nose tail")  # another class with the same heatmaps
    for variable in head(kept, "keypoint_head").weights:
        variable.assign(variable * 3)
    report = kept.load_pretrained(source, verbose=False)
    assert "box_head/class_logits/bias" in report.not_loaded and not set(HEAD) & set(report.not_loaded)
    for path in HEAD:
        np.testing.assert_array_equal(values(kept)[path], values(source)[path])
    report = with_keypoints(cat="nose left_ear right_ear").load_pretrained(source, verbose=False)
    assert {path: report.not_loaded.get(path) for path in HEAD} == dict.fromkeys(
        HEAD, "set anew: 2 keypoints in the file, 3 in the model"
    )
    assert "box_head/class_logits/bias" in report.loaded


def test_keypoints_are_mapped_by_name_when_asked():
    source = with_keypoints(cat="nose tail", bird="beak tail")
    model = with_keypoints(bird="wing tail beak", cat="tail nose", cow="tail")
    random = np.random.default_rng(1)
    for variable in head(source, "keypoint_head").weights:
        variable.assign(random.normal(size=variable.shape))
    report = model.load_pretrained(source, map_classes=True, verbose=False)
    assert report.loaded[HEAD[0]] == "4 of 6 keypoints by name, the others new"
    ours, theirs = values(model), values(source)
    # There: cat's nose and tail, bird's beak and tail. Here: bird's wing, tail and beak, cat's tail and nose, cow's.
    np.testing.assert_array_equal(ours[HEAD[0]][:, :, [1, 2, 3, 4]], theirs[HEAD[0]][:, :, [3, 2, 1, 0]])
    np.testing.assert_array_equal(ours[HEAD[1]], [0, *theirs[HEAD[1]][[3, 2, 1, 0]], 0])


@pytest.mark.parametrize("setting", ["fcs", "activation"])
def test_other_mask_branches_are_mapped_by_class_too(setting):
    choice = {f"mask_head__{setting}": {"fcs": 1, "activation": "softmax"}[setting], "mask_head__pool_size": 3}
    source, model = make(("cat", "dog"), **choice), make(("yak", "dog", "cat"), **choice)
    random = np.random.default_rng(2)
    for variable in head(source, "mask_head").weights:
        variable.assign(random.normal(size=variable.shape))
    model.load_pretrained(source, map_classes=True, verbose=False)
    ours, theirs = (values(each)["mask_head/predictor_bias"] for each in (model, source))
    if setting == "fcs":
        np.testing.assert_array_equal(ours.reshape(3, 36)[[1, 2]], theirs.reshape(2, 36)[[1, 0]])
    else:  # the background is last
        np.testing.assert_array_equal(ours[[1, 2, 3]], theirs[[1, 0, 2]])


def test_a_keypoint_file_without_names_numbers_them(tmp_path):
    source = with_keypoints(cat="nose tail")
    tensors = as_torchvision(source)
    model = MaskRCNN.from_pretrained(write(tmp_path, tensors), verbose=False)
    assert [(one.name, one.keypoints) for one in model.categories] == [("class 1", ["keypoint 1", "keypoint 2"])]
    for path, array in values(source).items():
        np.testing.assert_array_equal(values(model)[path], array, err_msg=path)


def test_imagenet_stands_for_the_models_own_network(monkeypatch):
    monkeypatch.setattr("mrcnn_tf.weights.keras_applications.download_network", make_network)
    backbone = load_config("mask_rcnn_mobilenet_v3_small_fpn").model.backbone
    model = make(backbone=backbone, conventions__batch_norm_epsilon=0.5)
    report = model.load_pretrained("imagenet", verbose=False)
    assert report.source == "imagenet MobileNetV3Small" and report.format == "keras.applications"
    assert len(model.features.backbone.weights) == sum(path.startswith("backbone/") for path in report.loaded)
    # Initial values, which nothing has changed.
    variances = [array for path, array in values(model).items() if path.endswith("/moving_variance")]
    assert len(variances) > 30 and all((array == 1).all() for array in variances)
    assert any("pixel_std=[127.5" in note for note in report.notes)
