"""Checks datasets before training.

`validate(annotations, images, ...)` reports what is wrong with a COCO dataset, instances or panoptic, as a
`findings.Report`; `repair(report, out)` writes a repaired copy of its json and a log. All kinds of problems, with their
severity and remedy, stand in problem_kinds.yaml. The other modules of this folder are used by these two functions only.
"""

from mrcnn_tf.datasets.doctor.repair import repair
from mrcnn_tf.datasets.doctor.validation import validate

__all__ = ["repair", "validate"]
