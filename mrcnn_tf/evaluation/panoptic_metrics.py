"""Panoptic quality of segments, and intersection over union of the classes of pixels: metrics counted image by image.

Both are counted at the original images' size. Every process counts the images that it has predicted, nothing has to be
written first, and the counts of all processes, plain numbers, are joined.
"""

import collections
import math

import numpy as np

from mrcnn_tf.common.categories import IGNORED
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.annotation_checks import find_indices
from mrcnn_tf.evaluation.results import PANOPTIC_METRICS, PanopticResults, SemanticResults

COUNTS = ("tp", "fp", "fn")  # matched segments, predicted ones without a match, missed ones
ALL_THINGS = "things"  # the name of class 0 of pixels

# Of T segments of the ground truth and P predicted ones: ious float64 and matches bool [T, P]; crowd bool [T]; ignored
# bool [P], mostly in void or a crowd, so that they aren't wrong without a match.
SegmentMatches = collections.namedtuple("SegmentMatches", "ious matches crowd ignored")


class PanopticQuality:
    """Counts PQ, SQ and RQ (Kirillov et al. 2019, Panoptic Segmentation, section 4) over the images that are added.

    The metrics are the same to the last bit in whatever order and in however many processes the images were added.
    hotcoco's PanopticEval follows the same rule, but takes a whole dataset from files at once; the tests compare.

    Args:
        things, stuff: the `Category`s to evaluate. Ground truth of any other category is neither matched nor missed,
            and no void either: the metrics of a category don't depend on which others are evaluated.

    Attributes:
        counts: {image id: [[category id, sum of IoUs, tp, fp, fn], ...]}; several processes can join theirs.
    """

    def __init__(self, things, stuff):
        self.things, self.stuff = list(things), list(stuff)
        self.counts = {}
        self._evaluated_ids = {category.id for category in self.things + self.stuff}

    def add(self, image_id, truth_map, truth_segments, predicted_map, predicted_segments):
        """Count an image; one added again, as by a last batch that is filled up, still counts once.

        Args:
            image_id: int.
            truth_map: int [H, W], the segment id of each pixel; 0 is void.
            truth_segments: list of dicts with `id`, `category_id` and `iscrowd` (0 where it is missing), as
                `segments_info` in COCO's panoptic json.
            predicted_map, predicted_segments: the same of the prediction; its `iscrowd` means nothing.

        Raises:
            UserError: the maps differ in size, a segment has no pixel or isn't in its list, or the prediction has a
                category that isn't evaluated.
        """
        truth_map, predicted_map = np.asarray(truth_map), np.asarray(predicted_map)
        if truth_map.shape != predicted_map.shape:
            raise UserError(
                f"The segments predicted in image {image_id} are a map of {list(predicted_map.shape)} pixels but those "
                f"of its ground truth {list(truth_map.shape)} (height, width): correct the json or the image file."
            )
        for segment in predicted_segments:
            if segment["category_id"] not in self._evaluated_ids:
                raise UserError(
                    f"Segment {segment['id']} predicted in image {image_id} is of category {segment['category_id']}, "
                    "which is not evaluated: evaluate on annotations with the model's category ids."
                )
        ids, lengths = _common_runs(truth_map, predicted_map)
        truth_numbers = _number_segments(ids[0], truth_segments, f"the ground truth of image {image_id}")
        predicted_numbers = _number_segments(ids[1], predicted_segments, f"the prediction for image {image_id}")
        rows, columns = len(truth_segments) + 1, len(predicted_segments) + 1
        # Whole numbers stay exact in the float64 that bincount sums up, below 2^53 pixels.
        overlaps = np.bincount(truth_numbers * columns + predicted_numbers, lengths, rows * columns)
        overlaps = overlaps.astype(np.int64).reshape(rows, columns)
        self.counts[int(image_id)] = _count_matches(overlaps, truth_segments, predicted_segments)

    def results(self, skipped=()):
        """The metrics of all images added, as `PanopticResults`; `skipped`: sentences on what wasn't evaluated."""
        counts_by_category = collections.defaultdict(list)
        for image in self.counts.values():
            for category_id, *counts in image:
                counts_by_category[category_id].append(counts)
        per_class = []
        for is_thing, categories in ((True, self.things), (False, self.stuff)):
            for category in categories:
                ious, *counts = zip(*counts_by_category.get(category.id, [(0.0, 0, 0, 0)]), strict=True)
                counts = [sum(numbers) for numbers in counts]
                row = {"id": category.id, "name": category.name, "isthing": is_thing}
                metrics = _panoptic_metrics(math.fsum(ious), *counts)  # exact, so in any order the same
                per_class.append(row | metrics | dict(zip(COUNTS, counts, strict=True)))
        return PanopticResults(
            images=len(self.counts),
            all=_mean_metrics(per_class),
            things=_mean_metrics([row for row in per_class if row["isthing"]]),
            stuff=_mean_metrics([row for row in per_class if not row["isthing"]]),
            per_class=per_class,
            skipped=list(skipped),
        )


def match_segments(overlaps, truth_segments, predicted_segments):
    """Match the predicted segments of an image with those of the ground truth: `SegmentMatches`.

    Args:
        overlaps: [T + 1, P + 1] int64 pixels that a segment of the ground truth and one of the prediction share; row
            and column 0 are void.
        truth_segments, predicted_segments: the lists of T and P dicts with `category_id` and `iscrowd`.
    """
    truth_classes, predicted_classes = _category_ids(truth_segments), _category_ids(predicted_segments)
    crowd = np.array([bool(segment.get("iscrowd")) for segment in truth_segments], bool)
    truth_areas, predicted_areas = overlaps.sum(axis=1)[1:], overlaps.sum(axis=0)[1:]
    void, shared = overlaps[0, 1:], overlaps[1:, 1:]
    same_class = truth_classes[:, None] == predicted_classes
    # Nobody can say what void pixels are, so they don't count as outside of the ground truth. Crowd pixels do.
    unions = truth_areas[:, None] + predicted_areas - void - shared
    # With more than half of their union in common, two segments can't match a third.
    matches = same_class & ~crowd[:, None] & (2 * shared > unions)
    excused = void + np.where(same_class & crowd[:, None], shared, 0).sum(axis=0)
    return SegmentMatches(shared / np.maximum(unions, 1), matches, crowd, 2 * excused > predicted_areas)


def _common_runs(truth_map, predicted_map):
    """([2, N] the ids, [N] the pixels) of the runs along the rows in which neither map changes.

    There are some ten thousands of them in a photo of a million pixels, which saves sorting those.
    """
    maps = np.stack([truth_map.ravel(), predicted_map.ravel()])
    starts = np.r_[0, np.flatnonzero((maps[:, 1:] != maps[:, :-1]).any(axis=0)) + 1]
    return maps[:, starts], np.diff(starts, append=maps.shape[1])


def _number_segments(ids, segments, where):
    """[N] int64 of segment ids [N]: 0 for void, which is id 0, i + 1 for `segments[i]`.

    Raises UserError, which says `where`, for an id that isn't listed and for a segment without a pixel.
    """
    listed = np.array([0, *(segment["id"] for segment in segments)], np.int64)
    numbers = find_indices(listed, ids.astype(np.int64, copy=False))
    unlisted = ids[numbers < 0]
    if unlisted.size:
        raise UserError(
            f"There are pixels of segment {unlisted[0]} in {where}, which its segments_info doesn't list: "
            "add the segment or make the pixels 0, which is void."
        )
    empty = np.flatnonzero(np.bincount(numbers, minlength=listed.size)[1:] == 0)
    if empty.size:
        raise UserError(
            f"There is no pixel of segment {listed[1:][empty[0]]} in {where}, though its segments_info lists it: "
            "take the segment out or correct its id."
        )
    return numbers


def _category_ids(segments):
    return np.array([segment["category_id"] for segment in segments], np.int64)


def _count_matches(overlaps, truth_segments, predicted_segments):
    """[[category id, sum of IoUs, tp, fp, fn], ...] of the categories in one image, by what `match_segments` takes."""
    matched = match_segments(overlaps, truth_segments, predicted_segments)
    truth_classes, predicted_classes = _category_ids(truth_segments), _category_ids(predicted_segments)
    ious, is_matched = np.where(matched.matches, matched.ious, 0.0).sum(axis=1), matched.matches.any(axis=1)
    is_missed = ~is_matched & ~matched.crowd
    is_wrong = ~matched.matches.any(axis=0) & ~matched.ignored
    counts = []
    for category_id in np.union1d(truth_classes, predicted_classes):
        of_truth, of_predicted = truth_classes == category_id, predicted_classes == category_id
        values = ious[of_truth], is_matched[of_truth], is_wrong[of_predicted], is_missed[of_truth]
        counts.append([int(category_id), *(array.sum().item() for array in values)])
    return counts


def _panoptic_metrics(iou, tp, fp, fn):
    """{"PQ": ..., "SQ": ..., "RQ": ...}; None where there is neither ground truth nor a prediction."""
    segments = tp + (fp + fn) / 2
    if not segments:
        return dict.fromkeys(PANOPTIC_METRICS)
    # A category without a match has no IoU to average; COCO counts its SQ as 0.
    return {"PQ": iou / segments, "SQ": iou / tp if tp else 0.0, "RQ": tp / segments}


def _mean_metrics(rows):
    """The means over those of the rows that have metrics, and their number."""
    counted = [row for row in rows if row["PQ"] is not None]
    return {name: _mean([row[name] for row in counted]) for name in PANOPTIC_METRICS} | {"n": len(counted)}


class SemanticIoU:
    """Counts IoU and accuracy of the classes of pixels over the images that are added.

    The rule is detectron2's of semantic segmentation: all things are one class, pixels without a label don't count, and
    the mean is over the classes that the ground truth has.

    Args:
        stuff: the S `Category`s of classes 1 to S; class 0 is any thing.

    Attributes:
        counts: {image id: [[true class, predicted class, pixels], ...]}; several processes can join theirs.
    """

    def __init__(self, stuff):
        self.stuff = list(stuff)
        self.counts = {}

    def add(self, image_id, truth, predicted):
        """Count an image; one added again still counts once.

        Args:
            image_id: int.
            truth: uint8 [H, W], classes, or 255 where there is no label.
            predicted: uint8 [H, W], classes.

        Raises:
            UserError: the maps differ in size, or there are other classes than S + 1.
        """
        if truth.shape != predicted.shape:
            raise UserError(
                f"The classes predicted in image {image_id} are a map of {list(predicted.shape)} pixels but those of "
                f"its ground truth {list(truth.shape)} (height, width): correct the map or the image file."
            )
        classes, labelled = len(self.stuff) + 1, truth != IGNORED
        if max(truth[labelled].max(initial=0), predicted.max(initial=0)) >= classes:
            raise UserError(
                f"Image {image_id} has a pixel of a class beyond the {classes} of all things and data.val.stuff: "
                "evaluate with the model's own stuff."
            )
        pixels = np.bincount(truth[labelled].astype(np.int64) * classes + predicted[labelled])
        pairs = np.flatnonzero(pixels)
        self.counts[int(image_id)] = np.stack([pairs // classes, pairs % classes, pixels[pairs]], axis=1).tolist()

    def results(self, skipped=()):
        """The metrics of all images added, as `SemanticResults`; `skipped`: sentences on what wasn't evaluated."""
        classes = len(self.stuff) + 1
        confusion = np.zeros([classes, classes], np.int64)
        for counts in self.counts.values():
            for true_class, predicted_class, pixels in counts:
                confusion[true_class, predicted_class] += pixels
        correct, labelled = np.diag(confusion), confusion.sum(axis=1)
        unions = labelled + confusion.sum(axis=0) - correct
        names = [(None, ALL_THINGS), *((category.id, category.name) for category in self.stuff)]
        per_class = []
        numbers = zip(correct.tolist(), unions.tolist(), labelled.tolist(), strict=True)
        for (category_id, name), (hits, union, pixels) in zip(names, numbers, strict=True):
            metrics = {"IoU": _ratio(hits, union if pixels else 0), "accuracy": _ratio(hits, pixels)}
            per_class.append({"id": category_id, "name": name} | metrics | {"pixels": pixels})
        return SemanticResults(
            images=len(self.counts),
            mIoU=_mean([row["IoU"] for row in per_class if row["IoU"] is not None]),
            pixel_accuracy=_ratio(int(correct.sum()), int(labelled.sum())),
            per_class=per_class,
            skipped=list(skipped),
        )


def _mean(values):
    return _ratio(math.fsum(values), len(values))


def _ratio(part, whole):
    return part / whole if whole else None
