"""Looks COCO datasets over: `validate` finds what is wrong, `repair` writes a mended copy."""

from mrcnn_tf.doctor.repair import repair
from mrcnn_tf.doctor.validation import validate

__all__ = ["repair", "validate"]
