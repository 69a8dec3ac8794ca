"""Which regions that a model predicts in an image are which of the ground truth, by the rule of panoptic quality."""

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

# What became of a region of the ground truth, and what a predicted one is. `crowd` and `uncounted` (of a category that
# isn't evaluated) need not be detected; `ignored` lies in void, in crowd regions of its class or in both by more than
# half. Classes of pixels are `compared`: they overlap more or less.
TRUTH_KINDS = ("matched", "missed", "crowd", "uncounted", "compared")
PREDICTED_KINDS = ("matched", "false", "ignored", "compared")


@dataclasses.dataclass
class RegionMatch:
    """What became of one region."""

    kind: str  # one of `TRUTH_KINDS` or of `PREDICTED_KINDS`
    # Index in the other list of the region that it is matched or compared with, or of the one that a false or missed
    # one overlaps most; None without any.
    other: int | None
    iou: float  # with that one, 0..1


@dataclasses.dataclass
class MatchedRegions:
    """The regions of one image, in their order."""

    truths: list[RegionMatch]
    predicted: list[RegionMatch]
    # Of segments the panoptic quality of this image, all classes as one: the sum of the IoUs of matches over matches
    # and half of the false and missed ones. Of classes of pixels the mean of their IoUs. None without any of them.
    quality: float | None

    @property
    def mistakes(self):
        """How many are missed or false."""
        return sum(match.kind in ("missed", "false") for match in self.truths + self.predicted)


def match_regions(truth, predicted, evaluated):
    """`MatchedRegions` of the segments of two `ImageRegions` of one size; `evaluated`: the category ids that count."""
    ious, matches, crowd, ignored = panoptic_metrics.match_segments(
        _count_shared_pixels(truth, predicted), truth.segments, predicted.segments
    )
    image = MatchedRegions([], [], None)
    for row, segment in enumerate(truth.segments):
        kind = "matched" if matches[row].any() else "crowd" if crowd[row] else "missed"
        kind = kind if segment["category_id"] in evaluated else "uncounted"
        image.truths.append(_make_match(kind, matches[row], ious[row]))
    for column in range(len(predicted.segments)):
        kind = "matched" if matches[:, column].any() else "ignored" if ignored[column] else "false"
        image.predicted.append(_make_match(kind, matches[:, column], ious[:, column]))
    matched = [match.iou for match in image.truths if match.kind == "matched"]
    if matched or image.mistakes:
        image.quality = sum(matched) / (len(matched) + image.mistakes / 2)
    return image


def compare_class_regions(truth, predicted):
    """`MatchedRegions` of two `ImageRegions` with a region for each class; pixels without a label don't count."""
    table = _count_shared_pixels(truth, predicted)[1:]  # without what isn't labelled
    shared = table[:, 1:]
    unions = table.sum(axis=1)[:, None] + shared.sum(axis=0) - shared
    same = [[a["category_id"] == b["category_id"] for b in predicted.segments] for a in truth.segments]
    same = np.array(same, bool).reshape(shared.shape)
    ious = np.where(same, shared / np.maximum(unions, 1), 0.0)
    truths = [_make_match("compared", *pair) for pair in zip(same, ious, strict=True)]
    others = [_make_match("compared", *pair) for pair in zip(same.T, ious.T, strict=True)]
    quality = sum(match.iou for match in truths) / len(truths) if truths else None
    return MatchedRegions(truths, others, quality)


def _count_shared_pixels(truth, predicted):
    """[T + 1, F + 1] int64 pixels that two regions share; row and column 0 are void."""
    rows, columns = _number_pixels(truth), _number_pixels(predicted)
    count = len(predicted.segments) + 1
    table = np.bincount(rows * count + columns, minlength=(len(truth.segments) + 1) * count)
    return table.reshape(-1, count)


def _number_pixels(regions):
    """int64 [H * W]: 0 for none, n for the n-th of the segments."""
    ids = np.array([0, *(segment["id"] for segment in regions.segments)], np.int64)
    return find_indices(ids, regions.pixels.ravel())


def _make_match(kind, matches, ious):
    """`RegionMatch` from [N] bool, which it is matched with, and [N] its IoUs."""
    if matches.any():
        other = int(matches.argmax())
        return RegionMatch(kind, other, float(ious[other]))
    if not ious.size or not ious.max():
        return RegionMatch(kind, None, 0.0)
    return RegionMatch(kind, int(ious.argmax()), float(ious.max()))


@dataclasses.dataclass
class RegionFindings:
    """A model's regions against those of the ground truth."""

    truth: PanopticRegions | SemanticRegions
    predicted: PanopticRegions | SemanticRegions  # of the same type
    images: dict[int, MatchedRegions]  # by image id, of the images that both have
    ranking: list[int]  # ids of these images, the worst quality first, of equally bad ones those with more mistakes


@dataclasses.dataclass
class RegionData:
    """What a report says of the segments of a dataset's images, or of the classes of their pixels."""

    truth: PanopticRegions | SemanticRegions
    statistics: PixelStatistics
    findings: RegionFindings | None = None  # of a model whose regions are known
    results: CocoResults | None = None  # of a model that was evaluated on segments or classes of pixels

    @property
    def shown(self):
        """The truth that a report draws: the one that was compared with what the model predicts."""
        return self.findings.truth if self.findings else self.truth


def judge_model_regions(truth, results, recording, folder):
    """`RegionFindings` of a `RecordingModel` that was just evaluated, with panoptic or semantic figures in `results`.

    Panoptic segments are read from `folder`, the `out` of the evaluation; without them, classes of pixels are compared.
    """
    if results.panoptic:
        folder = pathlib.Path(folder)
        predicted = PanopticRegions(read_panoptic_ground_truth(folder / "panoptic.json", folder / "panoptic"))
        return judge_regions(truth, predicted, results)
    names = truth.things, truth.stuff
    truth = SemanticRegions(truth.source, truth.images, *names, truth.labels)
    predicted = SemanticRegions("the model", recording.recorded(truth.images), *names, recording.labels)
    return judge_regions(truth, predicted, results)


def judge_regions(truth, predicted, results):
    """`RegionFindings`.

    Args:
        truth, predicted: `PanopticRegions` each, then `results` has `panoptic`, or `SemanticRegions` each.
        results: `CocoResults`.

    Raises:
        UserError: no image is in both, one has another size there, or a predicted region is of a category that
            `results` don't evaluate.
    """
    ids = [image["id"] for image in truth.images if image["id"] in predicted]
    if not ids:
        raise UserError(
            f"{predicted.source} has none of the images of {truth.source}: give the results of an evaluation on these "
            "very images."
        )
    evaluated = set()
    if truth.has_segments:
        evaluated = {row["id"] for row in results.panoptic.per_class} & {c.id for c in truth.classes}

    def match(image_id):
        true_regions, predicted_regions = truth.regions(image_id), predicted.regions(image_id)
        _check_size(image_id, true_regions, predicted_regions, predicted.source)
        if not truth.has_segments:
            return compare_class_regions(true_regions, predicted_regions)
        _check_categories(image_id, predicted_regions, predicted.source, evaluated)
        return match_regions(true_regions, predicted_regions, evaluated)

    def rank(image_id):
        image = images[image_id]
        return image.quality is None, image.quality, -image.mistakes

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        images = dict(zip(ids, pool.map(match, ids), strict=True))
    return RegionFindings(truth, predicted, images, sorted(ids, key=rank))


def _check_size(image_id, truth, predicted, source):
    if truth.pixels.shape != predicted.pixels.shape:
        sizes = " and ".join(f"{width} x {height}" for height, width in (predicted.pixels.shape, truth.pixels.shape))
        raise UserError(
            f"Image {image_id} has {sizes} pixels in {source} and in the ground truth: evaluate on the same images."
        )


def _check_categories(image_id, predicted, source, evaluated):
    for segment in predicted.segments:
        if segment["category_id"] not in evaluated:
            raise UserError(
                f"Segment {segment['id']} of image {image_id} in {source} is of category {segment['category_id']}, "
                "which wasn't evaluated: take panoptic.json and results.json from one evaluation."
            )
