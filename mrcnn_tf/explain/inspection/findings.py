"""What a report says of a model: COCO's figures, curves, errors and confusion of its detections."""

import dataclasses

from mrcnn_tf.evaluation.coco import evaluate_detections
from mrcnn_tf.evaluation.results import CocoResults
from mrcnn_tf.explain.inspection.confusion import Confusion, confusion
from mrcnn_tf.explain.inspection.curves import Curves, curves
from mrcnn_tf.explain.inspection.errors import ErrorSplit, split_errors
from mrcnn_tf.explain.inspection.matching import Overlaps, overlaps
from mrcnn_tf.explain.inspection.ranking import RankedImage, worst_images

IOU = 0.5  # of a detection that counts as right
USUAL_THRESHOLD = 0.5  # of scores, where no other is better


@dataclasses.dataclass
class Findings:
    """Everything that is known of a model's detections on a dataset.

    Attributes:
        results: `CocoResults`.
        pairs: `Overlaps`, of masks if they were evaluated, else of boxes.
        errors: `ErrorSplit` at `threshold`.
        curves: `Curves`.
        confusion: `Confusion` at `threshold`.
        ranking: `RankedImage`s, worst first; images without mistakes are left out.
        threshold: the score that gives the best F1, to two decimals.
    """

    results: CocoResults
    pairs: Overlaps
    errors: ErrorSplit
    curves: Curves
    confusion: Confusion
    ranking: list[RankedImage]
    threshold: float

    def to_json(self):
        """The figures as a plain dict for `json.dump`, without curves and ranking."""
        return {
            "results": self.results.to_json(),
            "errors": self.errors.to_json(),
            "confusion": self.confusion.to_json(),
            "threshold": self.threshold,
        }


def make_findings(truth, detections, image_ids=None, categories=None, sigmas=None, backend="pycocotools", results=None):
    """`Findings` of detections.

    Args:
        truth: the `GroundTruth`.
        detections: list of dicts in COCO's result format.
        image_ids, categories, sigmas, backend: as for `evaluation.coco.evaluate_detections`.
        results: the `CocoResults` if they are known already.

    Raises:
        UserError: what `evaluate_detections` refuses.
    """
    if results is None:
        results = evaluate_detections(detections, truth, image_ids, categories, sigmas, backend=backend)
    kind = "segm" if results.segm is not None else "bbox"
    pairs = overlaps(truth, detections, kind, image_ids, categories)
    drawn = curves(pairs)
    best = drawn.whole.best_threshold
    threshold = USUAL_THRESHOLD if best is None else round(float(best), 2)
    split = split_errors(pairs, IOU, min_score=threshold)
    ranking = worst_images(pairs, split, count=None)
    return Findings(results, pairs, split, drawn, confusion(pairs, IOU, threshold), ranking, threshold)
