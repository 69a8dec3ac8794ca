"""Looks COCO datasets over: `validate` finds what is wrong, `repair` writes a mended copy."""

from mrcnn_tf.datasets.doctor.repair import repair
from mrcnn_tf.datasets.doctor.validation import validate

__all__ = ["repair", "validate"]
