"""Loading into a model: all or nothing, other classes and stuff, other conventions, and what the report says."""

import json

import numpy as np
import pytest
from tiny_weights import as_torchvision, head, make, values, write

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import SemanticHeadConfig
from mrcnn_tf.model.mask_rcnn import MaskRCNN

CLASSES = {
    "box_head/class_logits/kernel", "box_head/class_logits/bias", "box_head/box_deltas/kernel",
    "box_head/box_deltas/bias", "mask_head/predictor_kernel", "mask_head/predictor_bias",
}  # fmt: skip


@pytest.fixture(scope="module")
def source():
    return make()


@pytest.fixture
def tensors(source):
    return as_torchvision(source)


def test_the_model_of_a_file_has_its_sizes_and_all_its_values(source, tensors, tmp_path):
    model = MaskRCNN.from_pretrained(write(tmp_path, tensors), verbose=False)
    settings = model.settings
    assert (settings.backbone.depth, settings.fpn.channels, settings.mask_head.convs) == (10, 32, 2)
    assert [(one.id, one.name) for one in model.categories] == [(1, "class 1"), (2, "class 2")]
    for path, array in values(source).items():
        np.testing.assert_array_equal(values(model)[path], array, err_msg=path)


@pytest.mark.parametrize(
    "break_it, words",
    [
        (lambda t: t.pop("rpn.head.cls_logits.bias"), "missing (rpn/head/objectness_logits/bias)"),
        (lambda t: t.update({"roi_heads.keypoint_head.0.weight": np.zeros(3, np.float32)}), "keypoint_head.0.weight"),
        (lambda t: t["rpn.head.cls_logits.bias"].__setitem__(0, np.nan), "objectness_logits/bias isn't finite"),
        (lambda t: t.update({"rpn.head.conv.0.0.bias": np.zeros(5, np.float32)}), "conv/bias is [5] and not [32]"),
        (lambda t: t.update({"rpn.head.conv.0.0.bias": np.zeros((5, 1), np.float32)}), "should have 1 dimensions"),
        (lambda t: t.update({"rpn.head.conv.bias": np.zeros(32, np.float32)}), "another tensor holds already"),
        (lambda t: t.update({"rpn.head.cls_logits.bias": np.zeros(3, bool)}), "holds bool"),
    ],
)  # fmt: skip
def test_what_doesnt_fit_is_named_and_the_model_keeps_its_weights(tensors, tmp_path, break_it, words):
    break_it(tensors)
    model = make(conventions__roi_aligned=False)
    for variable in model.weights:
        variable.assign(variable * 2.0)
    before = values(model)
    with pytest.raises(UserError) as error:
        model.load_pretrained(write(tmp_path, tensors), verbose=False)
    assert words in str(error.value) and "weights.pth" in str(error.value)
    for path, array in values(model).items():
        np.testing.assert_array_equal(array, before[path])


def test_missing_weights_may_be_left_and_strangers_skipped(source, tensors, tmp_path):
    tensors.pop("rpn.head.cls_logits.bias")
    tensors["extra.weight"] = np.zeros(3, np.float32)
    model = make()
    model.rpn.head.objectness.bias.assign([7.0, 8.0, 9.0])
    report = model.load_pretrained(write(tmp_path, tensors), allow_missing=True, verbose=False)
    assert report.not_loaded == {"rpn/head/objectness_logits/bias": "not in the file"}
    assert "extra.weight" in report.skipped
    np.testing.assert_array_equal(model.rpn.head.objectness.bias, [7.0, 8.0, 9.0])
    assert json.loads(json.dumps(report.to_json()))["loaded"]


def test_a_stride_that_no_shape_shows_is_refused(tensors, tmp_path):
    model = make(backbone__stride_in_1x1=True)
    with pytest.raises(UserError, match="set model.backbone.stride_in_1x1=False"):
        model.load_pretrained(write(tmp_path, tensors), verbose=False)


def test_a_mask_head_that_one_side_lacks_is_refused_unless_allowed(source, tensors, tmp_path):
    path = write(tmp_path, tensors)
    boxes_only = make(mask_head=False)
    with pytest.raises(UserError, match="have no place in it .mask_head"):
        boxes_only.load_pretrained(path, verbose=False)
    boxes_only.load_pretrained(path, allow_missing=True, verbose=False)
    np.testing.assert_array_equal(boxes_only.features.lateral[0].kernel, source.features.lateral[0].kernel)
    path = write(tmp_path, {name: array for name, array in tensors.items() if "mask" not in name})
    with pytest.raises(UserError, match="8 weights of the model are missing .mask_head"):
        make().load_pretrained(path, verbose=False)


def test_other_classes_leave_the_class_layers_new(source, tensors, tmp_path):
    model = make(("cow", "hen", "yak"))
    old = values(model)
    report = model.load_pretrained(write(tmp_path, tensors), verbose=False)
    assert set(report.not_loaded) == CLASSES and not CLASSES & set(report.loaded)
    for path, array in values(model).items():
        if path not in CLASSES:
            np.testing.assert_array_equal(array, values(source)[path])
        elif path.endswith("bias"):
            np.testing.assert_array_equal(array, 0.0)
        else:
            assert array.shape == old[path].shape and np.abs(array - old[path]).max() > 0.01


def test_classes_are_mapped_by_name_when_asked(source, tmp_path):
    saved = tmp_path / "model.keras"
    source.save(saved)
    model = make(("yak", "Dog", "cat"))
    report = model.load_pretrained(saved, map_classes=True, verbose=False)
    assert not report.not_loaded and "2 of 3 classes" in report.loaded["box_head/class_logits/kernel"]
    ours, theirs = values(model), values(source)
    # Background, cat and dog there; background, yak, Dog and cat here.
    kernel = "box_head/class_logits/kernel"
    np.testing.assert_array_equal(ours[kernel][:, [0, 3, 2]], theirs[kernel])
    kernel = "box_head/box_deltas/kernel"
    np.testing.assert_array_equal(ours[kernel][:, 4:], theirs[kernel][:, [4, 5, 6, 7, 0, 1, 2, 3]])
    np.testing.assert_array_equal(ours["mask_head/predictor_kernel"][:, [2, 1]], theirs["mask_head/predictor_kernel"])
    with pytest.raises(UserError, match="none of the model's classes"):
        make(("hen",)).load_pretrained(saved, map_classes=True, verbose=False)


def test_epsilon_and_pixel_scale_are_adapted_exactly(source, tensors, tmp_path):
    model = make(conventions__batch_norm_epsilon=1e-2, pixel_std=[1.0, 2.0, 4.0], conventions__roi_aligned=False)
    report = model.load_pretrained(write(tmp_path, tensors), verbose=False)
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3)).astype(np.float32)
    maps = []
    for each in (source, model):
        prepared = each.preprocess(image)
        maps.append(each.features.backbone(each.preprocess.normalize(prepared["image"], prepared["image_size"])))
    for name, theirs in maps[0].items():
        ours = maps[1][name]
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())
    assert "pixel_std" in report.loaded["backbone/stem/kernel"]
    assert report.loaded["backbone/stem/moving_variance"] == "epsilon 0 to 0.01"


def test_delta_weights_are_adapted_exactly(source):
    model = make(rpn__delta_weights=[1.0, 1.0, 2.0, 4.0], box_head__delta_weights=[5.0, 20.0, 5.0, 10.0])
    report = model.load_pretrained(source, verbose=False)
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3), np.uint8)
    theirs, ours = (each.detect(image) for each in (source, model))
    assert len(theirs) > 0
    np.testing.assert_array_equal(ours.boxes, theirs.boxes)  # halves and doubles are exact
    for path in ("rpn/head/anchor_deltas/kernel", "box_head/box_deltas/bias"):
        assert report.loaded[path] == "for the model's delta_weights"


def test_conventions_that_differ_are_noted(tensors, tmp_path):
    report = make(conventions__roi_aligned=True).load_pretrained(write(tmp_path, tensors), verbose=False)
    assert "trained with conventions.roi_aligned=False, the model has True" in report.notes


def test_a_classifier_fills_the_backbone_alone(source, tensors, tmp_path):
    backbone = {name.removeprefix("backbone.body."): a for name, a in tensors.items() if "body" in name}
    backbone |= {"fc.weight": np.zeros((9, 512), np.float32), "bn1.num_batches_tracked": np.zeros((), np.int64)}
    model = make(conventions__batch_norm_epsilon=1e-5)
    heads = {path: array * 3 for path, array in values(model).items() if not path.startswith("backbone/")}
    for variable in model.weights:
        variable.assign(variable * 3)
    report = model.load_pretrained(write(tmp_path, backbone), verbose=False)
    assert set(report.skipped) == {"fc.weight", "bn1.num_batches_tracked"} and set(report.not_loaded) == set(heads)
    for path, array in values(model).items():
        expected = heads.get(path, values(source)[path])
        np.testing.assert_allclose(array, expected, rtol=1e-6)
    with pytest.raises(UserError, match="name the config"):
        MaskRCNN.from_pretrained(write(tmp_path, backbone), verbose=False)
    backbone.pop("layer3.0.bn1.bias")
    with pytest.raises(UserError, match="missing .backbone/res4_0/conv1/beta"):
        model.load_pretrained(write(tmp_path, backbone), verbose=False)


def test_weights_of_no_known_model_are_refused(tmp_path):
    path = write(tmp_path, {"encoder.weight": np.zeros((2, 2), np.float32)})
    with pytest.raises(UserError, match="holds weights of no model that can be imported .*encoder.weight"):
        MaskRCNN.from_pretrained(path)
    with pytest.raises(UserError, match="no file nowhere.pth"):
        MaskRCNN.from_pretrained("nowhere.pth")


CLASSIFIER = "semantic_head/predictor/kernel"
LOGITS = "box_head/class_logits/kernel"


def panoptic(things=("cat", "dog"), stuff=("sky", "sea"), **changes):
    named = [Category(number, name) for number, name in enumerate(stuff, 30)]
    return make(things, stuff=named, semantic_head=SemanticHeadConfig(channels=32), **changes)


@pytest.fixture(scope="module")
def panoptic_source():
    model, random = panoptic(), np.random.default_rng(3)
    for variable in (*head(model, "box_head").weights, *head(model, "semantic_head").weights):
        variable.assign(random.normal(size=variable.shape))
    return model


def test_other_stuff_is_mapped_by_name(panoptic_source):
    model = panoptic(stuff=("sand", "sea"))
    report = model.load_pretrained(panoptic_source, map_classes=True, verbose=False)
    assert report.loaded[CLASSIFIER] == "1 of 2 stuff classes by name, the others new"
    ours, theirs = values(model), values(panoptic_source)
    np.testing.assert_array_equal(ours[LOGITS], theirs[LOGITS])
    np.testing.assert_array_equal(ours[CLASSIFIER][..., 2], theirs[CLASSIFIER][..., 2])
    assert abs(ours[CLASSIFIER][..., 1]).max() < 0.1


def test_things_are_mapped_where_no_stuff_is_the_same_and_the_other_way_round(panoptic_source):
    model = panoptic(("yak", "dog"), ("road", "rail"))
    model.load_pretrained(panoptic_source, map_classes=True, verbose=False)
    np.testing.assert_array_equal(values(model)[LOGITS][:, 2], values(panoptic_source)[LOGITS][:, 2])
    model = panoptic(("yak", "gnu"), ("sky", "rail"))
    model.load_pretrained(panoptic_source, map_classes=True, verbose=False)
    np.testing.assert_array_equal(values(model)[CLASSIFIER][..., 1], values(panoptic_source)[CLASSIFIER][..., 1])


def test_a_semantic_head_alone_asks_for_no_things():
    alone = {"box_head": None, "mask_head": False}
    first, second = panoptic(("cat",), **alone), panoptic(("whale",), ("sea", "sky"), **alone)
    head(first, "semantic_head").predictor.kernel.assign(np.random.default_rng(4).normal(size=(1, 1, 32, 3)))
    second.load_pretrained(first, map_classes=True, verbose=False)
    np.testing.assert_array_equal(values(second)[CLASSIFIER], values(first)[CLASSIFIER][..., [0, 2, 1]])


def test_nothing_in_common_is_refused(panoptic_source):
    with pytest.raises(UserError, match=r"knows none of the model's classes \(yak, road\) by name"):
        panoptic(("yak",), ("road",)).load_pretrained(panoptic_source, map_classes=True, verbose=False)
