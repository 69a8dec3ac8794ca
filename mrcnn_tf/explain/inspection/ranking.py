"""The images with the gravest mistakes."""

import dataclasses

import numpy as np

from mrcnn_tf.explain.inspection.errors import CORRECT, FATES, IGNORED, TYPES


@dataclasses.dataclass
class RankedImage:
    """An image and what went right and wrong in it.

    Detections and ground truths are indices into the lists that were compared; each list is best score first, those of
    ground truths in the order of the json.

    Attributes:
        image_id: of the json.
        penalty: scores of the false detections, and 1 for each object that wasn't found, less the score of the
            detection that found it below the threshold.
        found: [[detection, ground truth], ...].
        false: [[detection, its type's name, the ground truth that explains it or None], ...].
        lost: [[ground truth, its fate's name, the detection that explains it or None], ...].
        ignored: detections in crowds.
    """

    image_id: int
    penalty: float
    found: list[list[int]]
    false: list[list]
    lost: list[list]
    ignored: list[int]

    def to_json(self):
        """All of it as a plain dict."""
        return dataclasses.asdict(self)


def worst_images(pairs, split, count=20):
    """The images with the highest penalties, worst first; those without mistakes are left out.

    Args:
        pairs: `Overlaps`.
        split: the `ErrorSplit` made of it, whose `min_score` says which detections count.
        count: how many images at most; None: all of them.

    Returns:
        List of `RankedImage`.
    """
    shown = pairs.order[pairs.scores[pairs.order] >= split.min_score]
    false = shown[~np.isin(split.types[shown], (CORRECT, IGNORED))]
    lost = np.flatnonzero((split.fates >= 0) & ~np.isin(split.fates, (FATES.index("found"), FATES.index("crowd"))))
    low = split.fates[lost] == FATES.index("low_score")
    penalty = np.zeros(len(pairs.image_ids))
    np.add.at(penalty, pairs.detection_image[false], pairs.scores[false])
    np.add.at(penalty, pairs.truth_image[lost], 1.0)
    np.subtract.at(penalty, pairs.truth_image[lost[low]], pairs.scores[split.covered_by[lost[low]]])
    worst = np.argsort(-penalty, kind="stable")[:count]
    worst = worst[penalty[worst] > 0].tolist()
    ranked = {image: RankedImage(pairs.image_ids[image], float(penalty[image]), [], [], [], []) for image in worst}
    for detection in shown.tolist():
        image = ranked.get(int(pairs.detection_image[detection]))
        if image is None:
            continue
        kind, truth = int(split.types[detection]), int(split.explained_by[detection])
        if kind == CORRECT:
            image.found.append([detection, truth])
        elif kind == IGNORED:
            image.ignored.append(detection)
        else:
            image.false.append([detection, TYPES[kind], None if truth < 0 else truth])
    for truth in lost.tolist():
        image = ranked.get(int(pairs.truth_image[truth]))
        if image is not None:
            detection = int(split.covered_by[truth])
            image.lost.append([truth, FATES[split.fates[truth]], None if detection < 0 else detection])
    return list(ranked.values())
