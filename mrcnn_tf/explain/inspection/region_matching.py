"""Which regions that a model found in an image are which of the ground truth, by the rule of panoptic quality."""

import concurrent.futures
import dataclasses
import os
import pathlib

import numpy as np

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.annotation_checks import find_indices
from mrcnn_tf.evaluation import panoptic_metrics
from mrcnn_tf.evaluation.panoptic_ground_truth import read_panoptic_ground_truth
from mrcnn_tf.evaluation.results import CocoResults
from mrcnn_tf.explain.inspection.regions import PanopticRegions, PixelStatistics, SemanticRegions

# What became of a region of the ground truth, and what one that was found is. `crowd` and `uncounted` (of a category
# that isn't evaluated) need not be found; `ignored` lies in void, in crowd regions of its class or in both by more than
# half. Classes of pixels are `compared`: they overlap more or less.
TRUTHS = ("matched", "missed", "crowd", "uncounted", "compared")
FOUND = ("matched", "false", "ignored", "compared")


@dataclasses.dataclass
class RegionMatch:
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
class MatchedRegions:
    """The regions of one image.

    Attributes:
        truths, found: an `Outcome` for each region, in their order.
        quality: of segments the panoptic quality of this image, all classes as one: the sum of the IoUs of matches over
            matches and half of the false and missed ones. Of classes of pixels the mean of their IoUs. None without
            anything to find that isn't found either.
    """

    truths: list[RegionMatch]
    found: list[RegionMatch]
    quality: float | None

    @property
    def mistakes(self):
        """How many are missed or false."""
        return sum(one.kind == "missed" for one in self.truths) + sum(one.kind == "false" for one in self.found)


def match_regions(truth, found, evaluated):
    """What became of the segments of an image.

    Args:
        truth, found: `Regions` of one size.
        evaluated: set of the category ids that count.

    Returns:
        `MatchedImage`.
    """
    ious, matches, crowd, ignored = panoptic_metrics.match_segments(
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
    image = MatchedRegions(truths, outcomes, None)
    hits = [one.iou for one in truths if one.kind == "matched"]
    if hits or image.mistakes:
        image.quality = sum(hits) / (len(hits) + image.mistakes / 2)
    return image


def compare_class_regions(truth, found):
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
    return MatchedRegions(truths, outcomes, quality)


def _overlaps(truth, found):
    """[T + 1, F + 1] int64 pixels that two regions share; row and column 0 are void."""
    rows, columns = _places(truth), _places(found)
    count = len(found.segments) + 1
    table = np.bincount(rows * count + columns, minlength=(len(truth.segments) + 1) * count)
    return table.reshape(-1, count)


def _places(regions):
    """int64 [H * W]: 0 for none, n for the n-th of the segments."""
    ids = np.array([0, *(segment["id"] for segment in regions.segments)], np.int64)
    return find_indices(ids, regions.pixels.ravel())


def _outcome(kind, matches, ious):
    """`Outcome` from [N] bool, which it is matched with, and [N] its IoUs."""
    if matches.any():
        other = int(np.flatnonzero(matches)[0])
        return RegionMatch(kind, other, float(ious[other]))
    if not ious.size or not ious.max():
        return RegionMatch(kind, None, 0.0)
    return RegionMatch(kind, int(ious.argmax()), float(ious.max()))


# What a report says of the segments that a model found, or of the classes that it gave to pixels.
#

@dataclasses.dataclass
class RegionFindings:
    """What is known of the regions found.

    Attributes:
        truth, found: a `SegmentTruth` each or a `LabelTruth` each.
        images: {image id: `MatchedImage`} of the images that both have.
        ranking: the ids of these images, the worst quality first, of equally bad ones those with more mistakes.
    """

    truth: PanopticRegions | SemanticRegions
    found: PanopticRegions | SemanticRegions
    images: dict[int, MatchedRegions]
    ranking: list[int]


@dataclasses.dataclass
class Pixels:
    """Everything that is known of the regions of a dataset's images.

    Attributes:
        truth: a `SegmentTruth` or a `LabelTruth`.
        statistics: `PixelStatistics`.
        findings: the `PixelFindings` of a model whose regions are known; None without.
        results: the `CocoResults` of a model that was evaluated on segments or classes of pixels; None without.
    """

    truth: PanopticRegions | SemanticRegions
    statistics: PixelStatistics
    findings: RegionFindings | None = None
    results: CocoResults | None = None

    @property
    def shown(self):
        """The truth that a report draws: the one that was compared with what was found."""
        return self.findings.truth if self.findings else self.truth


def judge_model_regions(truth, results, recording, folder):
    """`PixelFindings` of a model that was just evaluated.

    Args:
        truth: a `SegmentTruth` or `LabelTruth`. Without panoptic figures segments are compared as classes of pixels.
        results: `CocoResults` with `panoptic` or `semantic`.
        recording: the `Recording` that was evaluated.
        folder: the `out` of the evaluation, read where `results` have `panoptic`.
    """
    if results.panoptic:
        path = pathlib.Path(folder)
        found = PanopticRegions(read_panoptic_ground_truth(path / "panoptic.json", path / "panoptic"))
        return judge_regions(truth, found, results)
    truth = SemanticRegions(truth.source, truth.images, truth.things, truth.stuff, truth.labels)
    seen = recording.seen(truth.images)
    return judge_regions(truth, SemanticRegions("the model", seen, truth.things, truth.stuff, recording.labels), results)


def judge_regions(truth, found, results):
    """`PixelFindings`.

    Args:
        truth, found: a `SegmentTruth` each, then `results` has `panoptic`, or a `LabelTruth` each.
        results: `CocoResults`.

    Raises:
        UserError: no image is in both, one has another size there, or what was found is of a category that `results`
            don't evaluate.
    """
    ids = [image["id"] for image in truth.images if image["id"] in found]
    if not ids:
        raise UserError(
            f"{found.source} has none of the images of {truth.source}: give what was found in these very images."
        )
    evaluated = set()
    if truth.judged:
        evaluated = {row["id"] for row in results.panoptic.per_class} & {one.id for one in truth.classes}

    def matched(image_id):
        there, here = truth.regions(image_id), found.regions(image_id)
        _check(image_id, there, here, found.source, evaluated if truth.judged else None)
        return match_regions(there, here, evaluated) if truth.judged else compare_class_regions(there, here)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        images = dict(zip(ids, pool.map(matched, ids), strict=True))
    ranking = sorted(ids, key=lambda image_id: _rank(images[image_id]))
    return RegionFindings(truth, found, images, ranking)


def _check(image_id, truth, found, source, evaluated):
    if truth.pixels.shape != found.pixels.shape:
        sizes = " and ".join(f"{one.pixels.shape[1]} x {one.pixels.shape[0]}" for one in (found, truth))
        raise UserError(
            f"Image {image_id} has {sizes} pixels in {source} and in the ground truth: evaluate on the same images."
        )
    strange = [s for s in found.segments if evaluated is not None and s["category_id"] not in evaluated]
    if strange:
        raise UserError(
            f"Segment {strange[0]['id']} of image {image_id} in {source} is of category {strange[0]['category_id']}, "
            "which wasn't evaluated: take panoptic.json and results.json from one evaluation."
        )


def _rank(image):
    return image.quality is None, image.quality, -image.mistakes
