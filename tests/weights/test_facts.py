"""What an import says of its settings: facts and their origins, assumptions with the override that changes each."""

import dataclasses
import pickle

import numpy as np
import pytest
from test_detectron import blobs_and_tensors
from tiny_weights import as_torchvision, make, values, write

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import IMAGENET_MEAN, IMAGENET_STD
from mrcnn_tf.model.mask_rcnn import MaskRCNN, load_model
from mrcnn_tf.weights.facts import Origin, deciding_settings, override, setting_of
from mrcnn_tf.weights.pretrained import read_pretrained

# Another value for each setting that a user of detectron2 may have chosen, and no shape shows.
OTHERS = {
    "file.pixel_order": "RGB",
    "model.pixel_mean": [1.0, 2.0, 3.0],
    "model.pixel_std": [58.0, 57.0, 56.0],
    "model.resize.min_size": 640,
    "model.resize.max_size": 1000,
    "model.backbone.stride_in_1x1": False,
    "model.rpn.anchor_sizes": [16.0, 32.0, 64.0, 128.0, 256.0],
    "model.rpn.aspect_ratios": [0.3, 1.0, 3.0],
    "model.rpn.delta_weights": [2.0, 2.0, 1.0, 1.0],
    "model.rpn.pre_nms_test": 500,
    "model.rpn.post_nms_test": 300,
    "model.rpn.nms_iou": 0.6,
    "model.conventions.roi_aligned": False,
    "model.conventions.roi_sampling_ratio": 2,
    "model.box_head.delta_weights": [1.0, 1.0, 1.0, 1.0],
    "model.mask_head.pool_size": 7,
    "model.detections.score_threshold": 0.2,
    "model.detections.nms_iou": 0.4,
    "model.detections.max_per_image": 300,
}


@pytest.fixture(scope="module")
def tensors():
    """A Mask R-CNN of detectron2 with three classes and frozen batch norm."""
    named = blobs_and_tensors()[1]
    norms = {name: array for name, array in named.items() if name.endswith(".norm.weight")}
    for part in ("running_mean", "running_var"):
        named |= {name.replace("weight", part): np.ones_like(array) for name, array in norms.items()}
    return named


def read(folder, tensors, statements=(), name="model.pth", **options):
    path = folder / name
    path.write_bytes(pickle.dumps({"model": tensors, "iteration": 9}, protocol=4))
    return read_pretrained(path, None, statements, **options)


def anchors(sizes, ratios):
    sides = [(size * ratio**-0.5 / 2, size * ratio**0.5 / 2) for size in sizes for ratio in ratios]
    return np.array([[-w, -h, w, h] for w, h in sides], np.float32)


def cell_anchors(sizes, ratios):
    return {
        f"proposal_generator.anchor_generator.cell_anchors.{level}": anchors(each, ratios)
        for level, each in enumerate(sizes)
    }


def test_each_setting_that_nothing_tells_is_assumed_and_can_be_stated(tensors, tmp_path):
    plain = read(tmp_path, tensors).provenance()
    stated = read(tmp_path, tensors, [override(name, value) for name, value in OTHERS.items()])
    for name, value in OTHERS.items():
        assert plain[name].origin is Origin.ASSUMPTION and plain[name].value != value, name
        fact = stated.provenance()[name]
        assert (fact.value, fact.origin) == (value, Origin.STATEMENT), name
        assert name.startswith("file.") or setting_of(stated.config().model, name) == value
    assumed = {name for name, fact in plain.items() if fact.origin is Origin.ASSUMPTION}
    assert assumed == {*OTHERS, "file.anchor_offset", "file.fpn_fuse"}
    assert set(deciding_settings(stated.config().model)) <= set(plain)


def test_the_stem_is_turned_by_what_is_known_of_the_order(tensors, tmp_path):
    bgr, rgb = (read(tmp_path, tensors, said).converted.arrays["backbone/stem/kernel"] for said in (
        [], ["file.pixel_order=rgb"],
    ))  # fmt: skip
    np.testing.assert_array_equal(bgr, rgb[:, :, ::-1])
    with pytest.raises(UserError, match="your statement says that the network reads GRB pixels"):
        read(tmp_path, tensors, ["file.pixel_order=GRB"])


def test_buffers_win_over_what_is_assumed(tensors, tmp_path):
    sizes, ratios = [[8.0, 10.0], [16.0, 20.0], [32.0, 40.0], [64.0, 80.0], [128.0, 160.0]], [0.5, 1.5]
    buffers = {"pixel_mean": np.float32(IMAGENET_MEAN), "pixel_std": np.float32(IMAGENET_STD)}
    buffers = {name: value.reshape(3, 1, 1) for name, value in buffers.items()} | cell_anchors(sizes, ratios)
    weights = read(tmp_path, tensors | buffers)
    facts = weights.provenance()
    for name, value in {
        "file.pixel_order": "RGB", "model.pixel_mean": list(IMAGENET_MEAN), "model.pixel_std": list(IMAGENET_STD),
        "model.rpn.anchor_sizes": sizes, "model.rpn.aspect_ratios": ratios,
    }.items():  # fmt: skip
        assert (facts[name].value, facts[name].origin) == (value, Origin.BUFFER)
    assert not set(buffers) & set(weights.converted.unknown)
    buffers["pixel_mean"] = buffers["pixel_mean"][::-1]
    assert read(tmp_path, tensors | buffers).provenance()["model.pixel_std"].value == list(IMAGENET_STD[::-1])


def test_sizes_that_no_float32_holds_are_read_off_their_anchors(tensors, tmp_path):
    sizes, ratios = [[22.627417], [45.254834], [90.509668], [181.019336], [362.038672]], [1 / 3, 1.0, 3.0]
    weights = read(tmp_path, tensors | cell_anchors(sizes, ratios))
    rpn = weights.config().model.rpn
    np.testing.assert_allclose(rpn.anchor_sizes, np.ravel(sizes), rtol=1e-5)
    np.testing.assert_allclose(rpn.aspect_ratios, ratios, rtol=1e-5)
    shifted = {name: value + 4 for name, value in cell_anchors(sizes, ratios).items()}
    with pytest.raises(UserError, match=r"model.pth: Its cell_anchors aren't sizes times aspect ratios"):
        read(tmp_path, tensors | shifted)


def test_an_author_tells_the_statistics_and_the_stride(tensors, tmp_path):
    body = {name: array for name, array in tensors.items() if "bottom_up" in name}
    body = {name.removeprefix("backbone.bottom_up."): array for name, array in body.items()}
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"model": body, "__author__": "torchvision"}, protocol=4))
    facts = read_pretrained(path).provenance()
    assert facts["model.backbone.stride_in_1x1"].value is False and facts["file.pixel_order"].value == "RGB"
    assert facts["model.pixel_std"].origin is Origin.AUTHOR and not any(name.startswith("model.rpn") for name in facts)


CONFIG = """
VERSION: 2
INPUT: {FORMAT: RGB}
MODEL:
  MASK_ON: true
  PIXEL_STD: [57.0, 56.0, 55.0]
  BACKBONE: {NAME: build_resnet_fpn_backbone}
  RESNETS: {OUT_FEATURES: [res2, res3, res4, res5], WIDTH_PER_GROUP: 2}
  FPN: {IN_FEATURES: [res2, res3, res4, res5], OUT_CHANNELS: 2}
  ANCHOR_GENERATOR: {SIZES: [[8], [16], [32], [64], [128]]}
  RPN: {IN_FEATURES: [p2, p3, p4, p5, p6]}
  ROI_HEADS: {NAME: StandardROIHeads, IN_FEATURES: [p2, p3, p4, p5], NUM_CLASSES: 3}
  ROI_BOX_HEAD: {NAME: FastRCNNConvFCHead, NUM_FC: 2, FC_DIM: 4, POOLER_RESOLUTION: 7}
  ROI_MASK_HEAD: {NAME: MaskRCNNConvUpsampleHead, NUM_CONV: 4, CONV_DIM: 2, POOLER_RESOLUTION: 14}
"""


def test_a_config_beside_the_file_counts_and_may_not_contradict_it(tensors, tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    weights = read(tmp_path, tensors)
    facts = weights.provenance()
    assert facts["model.pixel_std"].value == [57.0, 56.0, 55.0] and facts["file.pixel_order"].value == "RGB"
    assert facts["model.rpn.anchor_sizes"].origin is Origin.COMPANION
    assert "config.yaml" in facts["model.rpn.anchor_sizes"].source
    assert any("config.yaml" in note for note in weights.notes)
    assert not [name for name, fact in facts.items() if fact.origin is Origin.ASSUMPTION]
    assert read(tmp_path, tensors, source_config=False).provenance()["model.pixel_std"].origin is Origin.ASSUMPTION
    other = tensors | {"pixel_std": np.ones((3, 1, 1), np.float32)}
    with pytest.raises(
        UserError, match=r"config.yaml says model.pixel_std=.57.0, .* tensor pixel_std says .*=.1.0, 1.0"
    ):
        read(tmp_path, other)
    stated = read(tmp_path, other, ["model.pixel_std=[2, 2, 2]"])
    assert stated.config().model.pixel_std == [2, 2, 2]


@pytest.mark.parametrize("statement", ["file.anchor_offset=0.5", "file.fpn_fuse=avg"])
def test_what_cant_be_represented_is_refused_by_name(tensors, tmp_path, statement):
    with pytest.raises(UserError, match=f"says {statement}, which no model of this package does"):
        read(tmp_path, tensors, [statement])
    with pytest.raises(UserError, match="There is no setting 'file.colour' of a file"):
        read(tmp_path, tensors, ["file.colour=red"])


def test_a_published_name_counts_for_the_published_model_alone(tensors, tmp_path):
    weights = read(tmp_path, tensors, name="model_final_62ca52.pkl")  # Detectron1-Comparisons, of 80 classes
    assert weights.published is None and weights.config().model.conventions.roi_aligned
    assert any("the number of classes" in note for note in weights.notes)


def test_anchors_of_another_number_ask_for_a_statement(tmp_path):
    ratios = [0.2, 0.5, 1.0, 2.0, 5.0]
    path = write(tmp_path, as_torchvision(make(rpn__aspect_ratios=ratios)))
    with pytest.raises(
        UserError,
        match=r"weights.pth: The RPN's 5 anchors a cell are no multiple of 3 .*: state them by model.rpn.aspect_ratios",
    ):
        MaskRCNN.from_pretrained(path, verbose=False)
    model = MaskRCNN.from_pretrained(path, [override("model.rpn.aspect_ratios", ratios)], verbose=False)
    assert model.settings.rpn.aspect_ratios == ratios


def test_trained_batch_norm_of_torchvision_has_its_epsilon(tmp_path):
    tensors = as_torchvision(make())
    assert read_pretrained(write(tmp_path, tensors)).config().model.conventions.batch_norm_epsilon == 0
    tensors["backbone.body.bn1.num_batches_tracked"] = np.zeros((), np.int64)
    fact = read_pretrained(write(tmp_path, tensors)).provenance()["model.conventions.batch_norm_epsilon"]
    assert (fact.value, fact.origin) == (1e-5, Origin.BUFFER)


def test_a_statement_sets_and_doesnt_rescale(tmp_path):
    source = make()
    path, said = (
        write(tmp_path, as_torchvision(source)),
        ["model.pixel_std=[1, 2, 4]", "model.conventions.batch_norm_epsilon=0.01"],
    )
    model = MaskRCNN.from_pretrained(path, said, verbose=False)
    loaded = make(pixel_std=[1.0, 2.0, 4.0], conventions__batch_norm_epsilon=0.01, conventions__roi_aligned=False)
    loaded.load_pretrained(path, statements=said, verbose=False)
    for each in (model, loaded):
        for name in ("backbone/stem/kernel", "backbone/stem/moving_variance"):
            np.testing.assert_array_equal(values(each)[name], values(source)[name])


@pytest.mark.parametrize(
    "change, anew",
    [
        ({"rpn__aspect_ratios": [0.3, 1.0, 3.0]}, {"rpn/head/objectness_logits", "rpn/head/anchor_deltas"}),
        ({"rpn__aspect_ratios": [1.0]}, {"rpn/head/objectness_logits", "rpn/head/anchor_deltas"}),
        ({"rpn__convs": 2}, {"rpn/head/conv2"}),
        ({"mask_head__convs": 3}, {"mask_head/conv3"}),
    ],
)
def test_other_parts_are_set_anew_where_that_is_allowed(tmp_path, change, anew):
    path, model = write(tmp_path, as_torchvision(make())), make(**change)
    with pytest.raises(UserError, match="another architecture"):
        model.load_pretrained(path, verbose=False)
    report = model.load_pretrained(path, allow_missing=True, verbose=False)
    assert {name.rpartition("/")[0] for name in report.not_loaded} == anew
    with pytest.raises(UserError, match="set model.backbone.stride_in_1x1=False"):
        make(backbone__stride_in_1x1=True).load_pretrained(path, allow_missing=True, verbose=False)


def test_provenance_stays_with_the_model(tmp_path):
    path = write(tmp_path, as_torchvision(make()))
    model = MaskRCNN.from_pretrained(path, class_names=["cat", "dog"], verbose=False)
    assert [each.name for each in model.categories] == ["cat", "dog"]
    with pytest.raises(
        UserError, match="your statement names 3 classes, and .*weights.pth has 2: give a name for each"
    ):
        MaskRCNN.from_pretrained(path, class_names=["cat", "dog", "cow"])
    model.save(tmp_path / "model.keras")
    assert load_model(tmp_path / "model.keras").provenance == model.provenance
    again = MaskRCNN.from_pretrained(tmp_path / "model.keras", ["model.detections.max_per_image=7"], verbose=False)
    assert again.settings == dataclasses.replace(
        model.settings, detections=dataclasses.replace(model.settings.detections, max_per_image=7)
    )
    settings = again.provenance["settings"]
    assert (
        settings["model.pixel_std"]["origin"] == "assumption" and settings["model.categories"]["origin"] == "statement"
    )
    for name, array in values(model).items():
        np.testing.assert_array_equal(values(again)[name], array)
