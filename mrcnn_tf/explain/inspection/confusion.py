"""Which class is taken for which."""

import dataclasses

import numpy as np

from mrcnn_tf.explain.inspection.matching import match


@dataclasses.dataclass
class Confusion:
    """Objects by what they are and what they were detected as.

    Attributes:
        names: [K] of the categories.
        category_ids: [K].
        counts: [K + 1, K + 1] int64, rows are the truth and columns the detection. The last row holds detections where
            there is no object left, the last column objects that nothing was left for.
        iou, min_score: the least overlap and score that counted.
    """

    names: list[str]
    category_ids: list[int]
    counts: np.ndarray
    iou: float
    min_score: float

    def to_json(self):
        """All of it in plain json types."""
        return dataclasses.asdict(self) | {"counts": self.counts.tolist()}


def confusion(pairs, iou=0.5, min_score=0.5):
    """Counts which class is taken for which.

    Detections are first matched within their class as in COCO's protocol; those left over, best first, with the objects
    left over, whatever their class. Detections in a crowd of their class are not counted.

    Args:
        pairs: `Overlaps`.
        iou: the least overlap of a match.
        min_score: of the detections that take part.

    Returns:
        `Confusion`.
    """
    shown = (pairs.detection_category >= 0) & (pairs.scores >= min_score)
    there = (pairs.truth_category >= 0) & ~pairs.crowd
    usable = pairs.reaching(iou) & shown[pairs.pair_detection]
    matched = match(pairs, usable & pairs.same_category())
    found = np.isin(np.arange(len(there)), matched)
    left = (matched < 0)[pairs.pair_detection] & (there & ~found)[pairs.pair_truth]
    matched = np.maximum(matched, match(pairs, usable & left))
    found = np.isin(np.arange(len(there)), matched)
    taken = np.isin(matched, np.flatnonzero(there))
    nothing = len(pairs.names)
    counts = np.zeros((nothing + 1, nothing + 1), np.int64)
    np.add.at(counts, (pairs.truth_category[matched[taken]], pairs.detection_category[taken]), 1)
    np.add.at(counts, (nothing, pairs.detection_category[shown & (matched < 0)]), 1)
    np.add.at(counts, (pairs.truth_category[there & ~found], nothing), 1)
    return Confusion(pairs.names, pairs.category_ids, counts, iou, min_score)
