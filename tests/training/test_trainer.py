"""What a run refuses before it reads any data."""

import pytest
from tiny import tiny_config

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import Config, SemanticHeadConfig
from mrcnn_tf.training.trainer import train


@pytest.mark.parametrize(
    ("instances", "train_data", "val_data", "words"),
    [
        (True, "", "", "names no data to train on: set data.train.annotations"),
        (True, "semantic_maps", "", "maps has classes of pixels and no instances .*model.box_head=null"),
        (False, "semantic_maps", "annotations", "annotations has no classes of pixels, .* set data.val.panoptic"),
    ],
)
def test_data_that_the_model_has_no_use_for(instances, train_data, val_data, words, tmp_path):
    config = Config(model=tiny_config())
    config.model.semantic_head, config.model.stuff = SemanticHeadConfig(channels=32), [Category(5, "sky")]
    if not instances:
        config.model.box_head = config.model.mask_head = None
    for split, kinds in ((config.data.train, train_data), (config.data.val, val_data)):
        for kind in kinds.split():
            setattr(split, kind, kind)
    with pytest.raises(UserError, match=words):
        train(config, tmp_path)
