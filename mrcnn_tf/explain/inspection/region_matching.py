"""Which regions that a model found in an image are which of the ground truth, by the rule of panoptic quality."""

import dataclasses

import numpy as np

from mrcnn_tf.datasets.checks import places
from mrcnn_tf.evaluation import panoptic_quality

# What became of a region of the ground truth, and what one that was found is. `crowd` and `uncounted` (of a category
# that isn't evaluated) need not be found; `ignored` lies in void, in crowd regions of its class or in both by more than
# half. Classes of pixels are `compared`: they overlap more or less.
TRUTHS = ("matched", "missed", "crowd", "uncounted", "compared")
FOUND = ("matched", "false", "ignored", "compared")


@dataclasses.dataclass
class Outcome:
    """What is known of one region.

    Attributes:
        kind: one of `TRUTHS` or of `FOUND`.
        other: the place in the other list of the region that it is matched or compared with, or of the one that a false
            or missed one overlaps most; None without any.
        iou: with that one, 0..1.
    """

    kind: str
    other: int | None
    iou: float


@dataclasses.dataclass
class MatchedImage:
    """The regions of one image.

    Attributes:
        truths, found: an `Outcome` for each region, in their order.
        quality: of segments the panoptic quality of this image, all classes as one: the sum of the IoUs of matches over
            matches and half of the false and missed ones. Of classes of pixels the mean of their IoUs. None without
            anything to find that isn't found either.
    """

    truths: list[Outcome]
    found: list[Outcome]
    quality: float | None

    @property
    def mistakes(self):
        """How many are missed or false."""
        return sum(one.kind == "missed" for one in self.truths) + sum(one.kind == "false" for one in self.found)


def match_segments(truth, found, evaluated):
    """What became of the segments of an image.

    Args:
        truth, found: `Regions` of one size.
        evaluated: set of the category ids that count.

    Returns:
        `MatchedImage`.
    """
    ious, matches, crowd, ignored = panoptic_quality.match_segments(
        _overlaps(truth, found), truth.segments, found.segments
    )
    truths = []
    for row, segment in enumerate(truth.segments):
        kind = "matched" if matches[row].any() else "crowd" if crowd[row] else "missed"
        kind = kind if segment["category_id"] in evaluated else "uncounted"
        truths.append(_outcome(kind, matches[row], ious[row]))
    outcomes = []
    for column in range(len(found.segments)):
        kind = "ignored" if ignored[column] else "false"
        kind = "matched" if matches[:, column].any() else kind
        outcomes.append(_outcome(kind, matches[:, column], ious[:, column]))
    image = MatchedImage(truths, outcomes, None)
    hits = [one.iou for one in truths if one.kind == "matched"]
    if hits or image.mistakes:
        image.quality = sum(hits) / (len(hits) + image.mistakes / 2)
    return image


def compare_classes(truth, found):
    """Compares the classes of an image's pixels; those without a label don't count.

    Args:
        truth, found: `Regions` with one region for each class.

    Returns:
        `MatchedImage`.
    """
    table = _overlaps(truth, found)[1:]  # without what isn't labelled
    shared = table[:, 1:]
    unions = table.sum(axis=1)[:, None] + shared.sum(axis=0) - shared
    same = np.array([[a["category_id"] == b["category_id"] for b in found.segments] for a in truth.segments], bool)
    same = same.reshape(shared.shape)
    ious = np.where(same, shared / np.maximum(unions, 1), 0.0)
    truths = [_outcome("compared", same[row], ious[row]) for row in range(len(truth.segments))]
    outcomes = [_outcome("compared", same[:, column], ious[:, column]) for column in range(len(found.segments))]
    quality = sum(one.iou for one in truths) / len(truths) if truths else None
    return MatchedImage(truths, outcomes, quality)


def _overlaps(truth, found):
    """[T + 1, F + 1] int64 pixels that two regions share; row and column 0 are void."""
    rows, columns = _places(truth), _places(found)
    count = len(found.segments) + 1
    table = np.bincount(rows * count + columns, minlength=(len(truth.segments) + 1) * count)
    return table.reshape(-1, count)


def _places(regions):
    """int64 [H * W]: 0 for none, n for the n-th of the segments."""
    ids = np.array([0, *(segment["id"] for segment in regions.segments)], np.int64)
    return places(ids, regions.pixels.ravel())


def _outcome(kind, matches, ious):
    """`Outcome` from [N] bool, which it is matched with, and [N] its IoUs."""
    if matches.any():
        other = int(np.flatnonzero(matches)[0])
        return Outcome(kind, other, float(ious[other]))
    if not ious.size or not ious.max():
        return Outcome(kind, None, 0.0)
    return Outcome(kind, int(ious.argmax()), float(ious.max()))
