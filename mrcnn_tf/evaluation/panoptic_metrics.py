"""COCO's panoptic quality (Kirillov et al. 2019, Panoptic Segmentation, section 4), counted image by image.

hotcoco's PanopticEval follows the same rule, but takes a whole dataset from files at once and is an extra; the tests
compare with it. Here every process counts the images that it has predicted, and nothing has to be written first.
"""

import collections
import json
import math

import numpy as np

from mrcnn_tf.common.categories import IGNORED
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.annotation_checks import places
from mrcnn_tf.evaluation.results import PanopticResults, SemanticResults

# Intersection over union of the classes of pixels, counted image by image at the original images' size.
#
# The rule is detectron2's of semantic segmentation: all things are one class, pixels without a label don't count, and
# the mean is over the classes that the ground truth has.
#

# What is counted image by image, handed from one process to another.
#

class ImageCounts:
    """Counts by image; those that measure something fill `_counts`, {image id: lists of plain numbers}."""

    def __init__(self):
        self._counts = {}

    def to_bytes(self):
        """All that was counted, for another process to `merge`."""
        return json.dumps(list(self._counts.items())).encode()

    def merge(self, data):
        """Adds what another one of the same categories gave as `to_bytes`; an image of both counts once."""
        self._counts = dict(json.loads(data)) | self._counts


ALL_THINGS = "things"  # the name of class 0


class SemanticIoU(ImageCounts):
    """What IoU and accuracy are made of, for each image that was added.

    Args:
        stuff: the S `Category`s of classes 1 to S; class 0 is any thing.
    """

    def __init__(self, stuff):
        super().__init__()  # {image id: [[class of the truth, class found, pixels], ...]}
        self.stuff = list(stuff)

    def add(self, image_id, truth, found):
        """Counts an image; one added again still counts once.

        Args:
            image_id: int.
            truth: uint8 [H, W], classes, or 255 where there is no label.
            found: uint8 [H, W], classes.

        Raises:
            UserError: the maps differ in size, or there are other classes than S + 1.
        """
        if truth.shape != found.shape:
            raise UserError(
                f"The classes predicted in image {image_id} are a map of {list(found.shape)} pixels but those of its "
                f"ground truth {list(truth.shape)} (height, width): correct the map or the image file."
            )
        classes, labelled = len(self.stuff) + 1, truth != IGNORED
        pairs = truth[labelled].astype(np.int64) * classes + found[labelled]
        if max(truth[labelled].max(initial=0), found.max(initial=0)) >= classes:
            raise UserError(
                f"Image {image_id} has a pixel of a class beyond the {classes} of all things and data.val.stuff: "
                "evaluate with the model's own stuff."
            )
        counts = np.bincount(pairs)
        places = np.flatnonzero(counts)
        rows = np.stack([places // classes, places % classes, counts[places]], axis=1)
        self._counts[int(image_id)] = rows.tolist()

    def results(self, left_out=()):
        """The figures of all images added, as `SemanticResults`.

        Args:
            left_out: sentences about what could not be evaluated.
        """
        classes = len(self.stuff) + 1
        confusion = np.zeros([classes, classes], np.int64)
        for rows in self._counts.values():
            for truth, found, pixels in rows:
                confusion[truth, found] += pixels
        right, there = np.diag(confusion), confusion.sum(axis=1)
        unions = there + confusion.sum(axis=0) - right
        described = [{"id": None, "name": ALL_THINGS}, *({"id": one.id, "name": one.name} for one in self.stuff)]
        per_class = [
            one | {"IoU": _share(hits, union if pixels else 0), "accuracy": _share(hits, pixels), "pixels": pixels}
            for one, hits, union, pixels in zip(described, right.tolist(), unions.tolist(), there.tolist(), strict=True)
        ]
        known = [row["IoU"] for row in per_class if row["IoU"] is not None]
        return SemanticResults(
            images=len(self._counts),
            mIoU=math.fsum(known) / len(known) if known else None,
            pixel_accuracy=_share(int(right.sum()), int(there.sum())),
            per_class=per_class,
            left_out=list(left_out),
        )


def _share(part, whole):
    return part / whole if whole else None


COUNTS = ("tp", "fp", "fn")  # matched segments, predicted ones without a match, missed ones
# Of T segments of the truth and F predicted ones: ious float64 and matches bool [T, F]; crowd bool [T]; ignored bool
# [F], predicted in what nobody knows, so that they aren't wrong without a match.
SegmentMatches = collections.namedtuple("Matching", "ious matches crowd ignored")


class PanopticQuality(ImageCounts):
    """What PQ, SQ and RQ are made of, for each image that was added.

    The figures are the same to the last bit in whatever order and in however many processes the images were added.

    Args:
        things, stuff: the `Category`s to evaluate. Ground truth of any other category is neither found nor missed, and
            no void either: the figures of a category don't depend on which others are evaluated.
    """

    def __init__(self, things, stuff):
        super().__init__()  # {image id: [[category id, sum of IoUs, tp, fp, fn], ...]}
        self.things, self.stuff = list(things), list(stuff)
        self._evaluated = {category.id for category in self.things + self.stuff}

    def add(self, image_id, truth_map, truth_segments, found_map, found_segments):
        """Counts an image; one added again, as by a last batch that is filled up, still counts once.

        Args:
            image_id: int.
            truth_map: int [H, W], the segment id of each pixel; 0 is void.
            truth_segments: list of dicts with `id`, `category_id` and `iscrowd` (0 where it is missing), as
                `segments_info` in COCO's panoptic json.
            found_map, found_segments: the same of the prediction; its `iscrowd` means nothing.

        Raises:
            UserError: the maps differ in size, a segment has no pixel or isn't in its list, or the prediction has a
                category that isn't evaluated.
        """
        truth_map, found_map = np.asarray(truth_map), np.asarray(found_map)
        if truth_map.shape != found_map.shape:
            raise UserError(
                f"The segments predicted in image {image_id} are a map of {list(found_map.shape)} pixels but those of "
                f"its ground truth {list(truth_map.shape)} (height, width): correct the json or the image file."
            )
        for segment in found_segments:
            if segment["category_id"] not in self._evaluated:
                raise UserError(
                    f"Segment {segment['id']} predicted in image {image_id} is of category {segment['category_id']}, "
                    "which is not evaluated: evaluate on annotations with the model's category ids."
                )
        runs, lengths = _runs(truth_map, found_map)
        truth_rows = _segment_rows(runs[0], truth_segments, f"the ground truth of image {image_id}")
        found_rows = _segment_rows(runs[1], found_segments, f"the prediction for image {image_id}")
        rows, columns = len(truth_segments) + 1, len(found_segments) + 1
        # Whole numbers stay exact in the float64 that bincount sums up, below 2^53 pixels.
        overlaps = np.bincount(truth_rows * columns + found_rows, lengths, rows * columns)
        overlaps = overlaps.astype(np.int64).reshape(rows, columns)
        self._counts[int(image_id)] = _count(overlaps, truth_segments, found_segments)

    def results(self, left_out=()):
        """The figures of all images added, as `PanopticResults`.

        Args:
            left_out: sentences about what could not be evaluated.
        """
        rows = {}
        for image in self._counts.values():
            for category_id, *counts in image:
                rows.setdefault(category_id, []).append(counts)
        per_class = []
        for is_thing, categories in ((True, self.things), (False, self.stuff)):
            for category in categories:
                ious, *counts = zip(*rows.get(category.id, [(0.0, 0, 0, 0)]), strict=True)
                counts = [sum(numbers) for numbers in counts]
                described = {"id": category.id, "name": category.name, "isthing": is_thing}
                figures = _class_figures(math.fsum(ious), *counts)  # exact, so in any order the same
                per_class.append(described | figures | dict(zip(COUNTS, counts, strict=True)))
        return PanopticResults(
            images=len(self._counts),
            all=_mean_figures(per_class),
            things=_mean_figures([row for row in per_class if row["isthing"]]),
            stuff=_mean_figures([row for row in per_class if not row["isthing"]]),
            per_class=per_class,
            left_out=list(left_out),
        )


def _segment_rows(ids, segments, where):
    """Which of an image's segments each pixel belongs to.

    Args:
        ids: [N] int, segment ids; 0 is void.
        segments: list of dicts with `id`, none of them 0.
        where: what the ids are of, for the sentence that names it.

    Returns:
        [N] int64: 0 for void, i + 1 for `segments[i]`.

    Raises:
        UserError: an id that isn't listed, or a segment without a pixel.
    """
    listed = np.array([0, *(segment["id"] for segment in segments)], np.int64)
    rows = places(listed, ids.astype(np.int64, copy=False))
    unlisted = ids[rows < 0]
    if unlisted.size:
        raise UserError(
            f"There are pixels of segment {unlisted[0]} in {where}, which its segments_info doesn't list: "
            "add the segment or make the pixels 0, which is void."
        )
    empty = np.flatnonzero(np.bincount(rows, minlength=listed.size)[1:] == 0)
    if empty.size:
        raise UserError(
            f"There is no pixel of segment {listed[1:][empty[0]]} in {where}, though its segments_info lists it: "
            "take the segment out or correct its id."
        )
    return rows


def _runs(truth_map, found_map):
    """([2, N] the ids, [N] the pixels) of the stretches along the rows in which neither map changes.

    There are some ten thousands of them in a photo of a million pixels, which saves sorting those.
    """
    maps = np.stack([truth_map.ravel(), found_map.ravel()])
    starts = np.flatnonzero((maps[:, 1:] != maps[:, :-1]).any(axis=0)) + 1
    starts = np.concatenate([[0], starts])
    return maps[:, starts], np.diff(starts, append=maps.shape[1])


def match_segments(overlaps, truth_segments, found_segments):
    """Which segments of an image are found, and by which.

    Args:
        overlaps: [T + 1, F + 1] int64 pixels that a segment of the truth and one of the prediction share; row and
            column 0 are void.
        truth_segments, found_segments: the lists of T and F dicts with `category_id` and `iscrowd`.

    Returns:
        `Matching`.
    """
    truth_classes, found_classes = _classes(truth_segments), _classes(found_segments)
    crowd = np.array([bool(segment.get("iscrowd")) for segment in truth_segments], bool)
    truth_areas, found_areas = overlaps.sum(axis=1)[1:], overlaps.sum(axis=0)[1:]
    void, shared = overlaps[0, 1:], overlaps[1:, 1:]
    same_class = truth_classes[:, None] == found_classes
    # Nobody knows what void pixels are, so they don't count as outside of the truth. Crowd pixels do.
    unions = truth_areas[:, None] + found_areas - void - shared
    # With more than half of their union in common, two segments can't match a third.
    matches = same_class & ~crowd[:, None] & (2 * shared > unions)
    unknown = void + np.where(same_class & crowd[:, None], shared, 0).sum(axis=0)
    return SegmentMatches(shared / np.maximum(unions, 1), matches, crowd, 2 * unknown > found_areas)


def _classes(segments):
    return np.array([segment["category_id"] for segment in segments], np.int64)


def _count(overlaps, truth_segments, found_segments):
    """The counts of one image, for each category in it: list of [category id, sum of IoUs, tp, fp, fn]. The arguments
    are those of `match_segments`."""
    matched = match_segments(overlaps, truth_segments, found_segments)
    truth_classes, found_classes = _classes(truth_segments), _classes(found_segments)
    ious, found = np.where(matched.matches, matched.ious, 0.0).sum(axis=1), matched.matches.any(axis=1)
    missed = ~found & ~matched.crowd
    wrong = ~matched.matches.any(axis=0) & ~matched.ignored
    counts = []
    for category_id in np.union1d(truth_classes, found_classes):
        of_truth, of_found = truth_classes == category_id, found_classes == category_id
        numbers = (ious[of_truth], found[of_truth], wrong[of_found], missed[of_truth])
        counts.append([int(category_id), *(each.sum().item() for each in numbers)])
    return counts


def _class_figures(iou, tp, fp, fn):
    """{"PQ": ..., "SQ": ..., "RQ": ...}; None where there is neither ground truth nor a prediction."""
    segments = tp + (fp + fn) / 2
    if not segments:
        return dict.fromkeys(("PQ", "SQ", "RQ"))
    # A category without a match has no IoU to average; COCO counts its SQ as 0.
    return {"PQ": iou / segments, "SQ": iou / tp if tp else 0.0, "RQ": tp / segments}


def _mean_figures(rows):
    """The means over those of the rows that have figures, and their number."""
    present = [row for row in rows if row["PQ"] is not None]
    means = {
        name: math.fsum(row[name] for row in present) / len(present) if present else None for name in ("PQ", "SQ", "RQ")
    }
    return means | {"n": len(present)}
