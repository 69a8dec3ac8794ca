"""Caffe2's names and order of classes mean what detectron2's mean: blob by blob, as its own loader renames them."""

import numpy as np
import pytest

from mrcnn_tf.weights import detectron
from mrcnn_tf.weights.facts import Facts

BLOCKS = {2: 3, 3: 4, 4: 6, 5: 3}
CONVS = {"2a": "conv1", "2b": "conv2", "2c": "conv3", "1": "shortcut"}
CLASSES = 3


def blobs_and_tensors():
    """The same made-up R50-FPN Mask R-CNN as Caffe2 blobs and as detectron2 tensors."""
    random = np.random.default_rng(0)
    blobs, tensors = {}, {}

    def both(blob, name, *shape):
        blobs[blob] = tensors[name] = random.normal(size=shape).astype(np.float32)

    def conv_norm(blob, name, *shape):
        both(f"{blob}_w", f"{name}.weight", *shape)
        prefix = "res_conv1" if blob == "conv1" else blob
        both(f"{prefix}_bn_s", f"{name}.norm.weight", shape[0])
        both(f"{prefix}_bn_b", f"{name}.norm.bias", shape[0])

    conv_norm("conv1", "backbone.bottom_up.stem.conv1", 2, 3, 7, 7)
    for stage, blocks in BLOCKS.items():
        for block in range(blocks):
            for branch, conv in CONVS.items():
                if branch != "1" or block == 0:
                    side = 3 if branch == "2b" else 1
                    name = f"backbone.bottom_up.res{stage}.{block}.{conv}"
                    conv_norm(f"res{stage}_{block}_branch{branch}", name, 2, 2, side, side)
        lateral = f"fpn_inner_res{stage}_{blocks - 1}_sum" + ("_lateral" if stage < 5 else "")
        for blob, name, side in ((lateral, "lateral", 1), (f"fpn_res{stage}_{blocks - 1}_sum", "output", 3)):
            both(f"{blob}_w", f"backbone.fpn_{name}{stage}.weight", 2, 2, side, side)
            both(f"{blob}_b", f"backbone.fpn_{name}{stage}.bias", 2)
    head = "proposal_generator.rpn_head"
    roi = "roi_heads"
    for blob, name, *shape in (
        ("conv_rpn_fpn2", f"{head}.conv", 2, 2, 3, 3),
        ("rpn_cls_logits_fpn2", f"{head}.objectness_logits", 3, 2, 1, 1),
        ("rpn_bbox_pred_fpn2", f"{head}.anchor_deltas", 12, 2, 1, 1),
        ("fc6", f"{roi}.box_head.fc1", 4, 2 * 49),
        ("fc7", f"{roi}.box_head.fc2", 4, 4),
        *((f"_[mask]_fcn{index}", f"{roi}.mask_head.mask_fcn{index}", 2, 2, 3, 3) for index in range(1, 5)),
        ("conv5_mask", f"{roi}.mask_head.deconv", 2, 2, 2, 2),
    ):
        both(f"{blob}_w", f"{name}.weight", *shape)
        both(f"{blob}_b", f"{name}.bias", shape[1] if "deconv" in name else shape[0])
    for part, rest in (("w", (4,)), ("b", ())):
        kind = "weight" if part == "w" else "bias"
        scores = random.normal(size=(CLASSES + 1, *rest)).astype(np.float32)
        boxes = random.normal(size=(4 * (CLASSES + 1), *rest)).astype(np.float32)
        masks = random.normal(size=(CLASSES + 1, *((2, 1, 1) if part == "w" else ()))).astype(np.float32)
        blobs |= {f"cls_score_{part}": scores, f"bbox_pred_{part}": boxes, f"mask_fcn_logits_{part}": masks}
        tensors[f"{roi}.box_predictor.cls_score.{kind}"] = np.concatenate([scores[1:], scores[:1]])
        tensors[f"{roi}.box_predictor.bbox_pred.{kind}"] = boxes[4:]
        tensors[f"{roi}.mask_head.predictor.{kind}"] = masks[1:]
    return blobs, tensors


def convert(converter, tensors):
    return converter(tensors, Facts(), {})


def test_blobs_become_the_same_weights_as_detectron2s_tensors():
    blobs, tensors = blobs_and_tensors()
    blobs |= {"pred_w": np.zeros((5, 2), np.float32), "pred_b": np.zeros(5, np.float32)}
    assert detectron.matches_caffe2(blobs) and not detectron.matches_detectron2(blobs)
    ours, theirs = convert(detectron.convert_caffe2, blobs), convert(detectron.convert_detectron2, tensors)
    assert not ours.unknown and set(ours.skipped) == {"pred_w", "pred_b"}
    norms = {path for path in ours.arrays if path.endswith(("moving_mean", "moving_variance"))}
    assert set(ours.arrays) - norms == set(theirs.arrays) and norms
    for path, array in theirs.arrays.items():
        np.testing.assert_array_equal(ours.arrays[path], array, err_msg=path)
    for path in norms:
        effect = ours.arrays[path] + np.float32(1e-5) if path.endswith("variance") else ours.arrays[path] + 1
        np.testing.assert_allclose(effect, 1.0, rtol=1e-7)
    assert ours.config == "detectron2_mask_rcnn_R_50_FPN" and ours.facts.value("model.backbone.stride_in_1x1")


def test_the_stem_reads_rgb_afterwards():
    blobs, _ = blobs_and_tensors()
    stem = convert(detectron.convert_caffe2, blobs).arrays["backbone/stem/kernel"]
    np.testing.assert_array_equal(stem[:, :, 0], blobs["conv1_w"][:, 2].transpose(1, 2, 0))


@pytest.mark.parametrize("converter", [detectron.convert_caffe2, detectron.convert_detectron2])
def test_a_backbone_alone_has_no_config(converter):
    blobs, tensors = blobs_and_tensors()
    named = blobs if converter is detectron.convert_caffe2 else tensors
    backbone = {name: a for name, a in named.items() if name.startswith(("conv1", "res", "backbone.bottom_up"))}
    found = convert(converter, backbone)
    assert found.config is None and found.facts.value("model.backbone.depth") == 50
    assert all(path.startswith("backbone/") for path in found.arrays)
