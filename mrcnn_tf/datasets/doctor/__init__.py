"""Checks datasets before training.

`validate(annotations, images, ...)` reports what is wrong with a COCO dataset, instances or panoptic, as a
`findings.Report`; `repair(report, out)` writes a repaired copy of its json and a log. All kinds of problems, with their
severity and remedy, stand in problem_kinds.yaml. The other modules of this folder are used by these two functions only.

There, a name stands for one type: source, a CocoSource; records, its AnnotationRecords; images, CheckedImages; masks,
MaskGeometry; annotations, CheckedAnnotations; findings, the Findings that problems are added to; bars, a rich Progress;
and headers, {path: ImageFile}. T is the number of annotations with columns and I that of usable images.
"""

from mrcnn_tf.datasets.doctor.repair import repair
from mrcnn_tf.datasets.doctor.validation import validate

__all__ = ["repair", "validate"]
