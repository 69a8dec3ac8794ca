"""The config of a tiny model that gives each pixel a class."""

from tiny import tiny_config

from mrcnn_tf.common.categories import Category
from mrcnn_tf.config.settings import PanopticConfig, SemanticHeadConfig

STUFF = [Category(11, "sky"), Category(12, "sea"), Category(30, "sand")]


def panoptic_config(instances=True):
    """`tiny_config` with a semantic head, three classes of stuff, and a fusion that leaves out hardly anything; without
    `instances` the semantic head is by itself."""
    config = tiny_config()
    config.stuff, config.semantic_head = list(STUFF), SemanticHeadConfig(channels=32)
    config.panoptic = PanopticConfig(score_threshold=0.05, stuff_area=16)
    if not instances:
        config.box_head = config.mask_head = None
    return config
