"""`mrcnn_tf.diagnose` of models with a semantic head: instances as ever, or one sentence."""

import numpy as np
import pytest
from serving.export.panoptic_model import panoptic_config

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.explain.diagnosis.diagnose import diagnose
from mrcnn_tf.explain.diagnosis.forward import find_non_finite
from mrcnn_tf.model.mask_rcnn import MaskRCNN

IMAGE = np.random.default_rng(0).integers(0, 255, (50, 70, 3)).astype(np.uint8)
RECORDS = [{"bbox": [4, 4, 26, 24], "category_id": 3}, {"bbox": [30, 10, 36, 30], "category_id": 17}]


def test_its_instances_are_diagnosed_and_its_segments_are_there():
    model = MaskRCNN(panoptic_config(), seed=0)
    diagnosis = diagnose(model, IMAGE, RECORDS)
    assert len(diagnosis.objects) == 2 and "of 2 annotated objects" in diagnosis.sentences[0]
    assert diagnosis.draw(heat=False).size > (500, 300)
    assert diagnosis.stages.detections.panoptic.segment_map.shape == IMAGE.shape[:2]
    assert diagnosis.stages.not_finite == []


def test_numbers_of_the_semantic_head_that_are_not_finite_are_named():
    fine = np.ones((1, 2, 2, 3), np.float32)
    seen = {"normalized": fine, "maps": [], "features": [fine], "logits": [fine], "deltas": [fine]}
    seen |= {"class_logits": fine, "box_deltas": fine, "outputs": {"masks": fine, "semantic_logits": fine * np.nan}}
    assert find_non_finite(seen, ["C4"]) == ["the semantic head's logits"]


def test_a_semantic_head_by_itself_has_no_stages_to_look_into():
    model = MaskRCNN(panoptic_config(instances=False), seed=0)
    with pytest.raises(
        UserError, match=r"semantic head alone .*model.box_head=null.*mrcnn-tf predict.*mrcnn-tf inspect"
    ):
        diagnose(model, IMAGE, RECORDS)
