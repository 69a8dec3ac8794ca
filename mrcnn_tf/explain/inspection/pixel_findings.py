"""What a report says of the segments that a model found, or of the classes that it gave to pixels."""

import concurrent.futures
import dataclasses
import os
import pathlib

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.evaluation.panoptic_truth import read_panoptic_truth
from mrcnn_tf.evaluation.results import CocoResults
from mrcnn_tf.explain.inspection.pixel_statistics import PixelStatistics
from mrcnn_tf.explain.inspection.pixel_truth import LabelTruth, SegmentTruth
from mrcnn_tf.explain.inspection.region_matching import MatchedImage, compare_classes, match_segments


@dataclasses.dataclass
class PixelFindings:
    """What is known of the regions found.

    Attributes:
        truth, found: a `SegmentTruth` each or a `LabelTruth` each.
        images: {image id: `MatchedImage`} of the images that both have.
        ranking: the ids of these images, the worst quality first, of equally bad ones those with more mistakes.
    """

    truth: SegmentTruth | LabelTruth
    found: SegmentTruth | LabelTruth
    images: dict[int, MatchedImage]
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

    truth: SegmentTruth | LabelTruth
    statistics: PixelStatistics
    findings: PixelFindings | None = None
    results: CocoResults | None = None

    @property
    def shown(self):
        """The truth that a report draws: the one that was compared with what was found."""
        return self.findings.truth if self.findings else self.truth


def judge_model(truth, results, recording, folder):
    """`PixelFindings` of a model that was just evaluated.

    Args:
        truth: a `SegmentTruth` or `LabelTruth`. Without panoptic figures segments are compared as classes of pixels.
        results: `CocoResults` with `panoptic` or `semantic`.
        recording: the `Recording` that was evaluated.
        folder: the `out` of the evaluation, read where `results` have `panoptic`.
    """
    if results.panoptic:
        path = pathlib.Path(folder)
        found = SegmentTruth(read_panoptic_truth(path / "panoptic.json", path / "panoptic"))
        return judge_pixels(truth, found, results)
    truth = LabelTruth(truth.source, truth.images, truth.things, truth.stuff, truth.labels)
    seen = recording.seen(truth.images)
    return judge_pixels(truth, LabelTruth("the model", seen, truth.things, truth.stuff, recording.labels), results)


def judge_pixels(truth, found, results):
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
        return match_segments(there, here, evaluated) if truth.judged else compare_classes(there, here)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        images = dict(zip(ids, pool.map(matched, ids), strict=True))
    ranking = sorted(ids, key=lambda image_id: _rank(images[image_id]))
    return PixelFindings(truth, found, images, ranking)


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
