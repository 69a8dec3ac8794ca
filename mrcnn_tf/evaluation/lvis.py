"""LVIS's protocol (Gupta et al. 2019, section 2, and lvis-api): COCO's, on images annotated for some categories only.

LVIS's annotators looked for a few categories in each image. Its record says which: those with annotations, those of
`neg_category_ids`, which were looked for and are not there, and among the former those of
`not_exhaustive_category_ids`, of which more are there than were annotated. What is detected of a category that nobody
looked for is neither right nor wrong, nor is what matches nothing of a category that isn't complete.
"""

import collections
import copy

import numpy as np
from pycocotools.cocoeval import COCOeval

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.json_values import parse_integer

IMAGE_LISTS = ("neg_category_ids", "not_exhaustive_category_ids")
FREQUENCIES = ("r", "c", "f")  # of a category: rare, common, frequent; in up to 10, up to 100 and more training images
MOST_DETECTIONS = 300  # an image, of all categories together
AREAS = {"": 0, "s": 1, "m": 2, "l": 3}  # suffix of a metric: place in COCOeval's axis of areas
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR300", "ARs", "ARm", "ARl")


def read_image_lists(images, source):
    """What LVIS's image records say about categories.

    Args:
        images: the records of a COCO json.
        source: its path, for messages.

    Returns:
        {image id: (set of ids of categories that are not there, set of ids of those that are not complete)}; None for a
        dataset without such lists, whose images are annotated for all categories.

    Raises:
        UserError: an image lacks a list that others have, or has something else in its place.
    """
    if not any(name in image for image in images for name in IMAGE_LISTS):
        return None
    lists = {}
    for image in images:
        for name in IMAGE_LISTS:
            ids = image.get(name)
            lists[image["id"], name] = set(map(parse_integer, ids)) if isinstance(ids, list) else {None}
            if None in lists[image["id"], name]:
                raise UserError(
                    f"{source}: image {image['id']} has no list of category ids as {name}, which other images of LVIS "
                    "have: add it, or remove neg_category_ids and not_exhaustive_category_ids from all images to "
                    "evaluate by COCO's protocol."
                )
    return {image["id"]: tuple(lists[image["id"], name] for name in IMAGE_LISTS) for image in images}


def searched_pairs(annotations, image_lists):
    """The set of (image id, category id) that say whether there is any: those that are annotated or known not to be.

    Args:
        annotations: records with `image_id` and `category_id`.
        image_lists: of `read_image_lists`.
    """
    annotated = {(annotation["image_id"], annotation["category_id"]) for annotation in annotations}
    return annotated | {(image_id, number) for image_id, (absent, _) in image_lists.items() for number in absent}


def drop_uncounted(annotations, detections, image_lists):
    """The annotations and detections that LVIS counts, as two lists; annotations are no crowds, which LVIS lacks.

    Args:
        annotations, detections: records of pycocotools with `area`. Those without an area don't count, as in lvis-api.
        image_lists: of `read_image_lists`.
    """
    annotations = [annotation | {"iscrowd": 0} for annotation in annotations if annotation["area"] > 0]
    searched = searched_pairs(annotations, image_lists)
    by_image = collections.defaultdict(list)
    for detection in detections:
        by_image[detection["image_id"]].append(detection)
    counted = []
    for image_id, found in by_image.items():
        best = sorted(found, key=lambda detection: -detection["score"])[:MOST_DETECTIONS]
        counted += [each for each in best if each["area"] > 0 and (image_id, each["category_id"]) in searched]
    return annotations, counted


class _Sparse(dict):
    """A list that is mostly None, as a dict of what isn't."""

    def __missing__(self, place):
        return None


class LvisEval(COCOeval):
    """COCOeval of what `drop_uncounted` leaves, with LVIS's metrics as `stats`.

    Args:
        truth, detections: pycocotools' COCO, or None if another program counts and `eval` is set.
        kind: "bbox" or "segm".
        image_lists: of `read_image_lists`.
        frequencies: {category id: one of `FREQUENCIES`}; a category without is in none of APr, APc and APf.
    """

    def __init__(self, truth, detections, kind, image_lists, frequencies):
        super().__init__(truth, detections, kind)
        self.params.maxDets = [MOST_DETECTIONS]
        self._image_lists, self._frequencies = image_lists, frequencies

    def evaluate(self):
        """As COCOeval's, but without the images that have nothing of a category: of 1203 categories most are in few."""
        self._prepare()
        params, (self.ious, self.evalImgs) = self.params, ({}, _Sparse())
        images = {image_id: place for place, image_id in enumerate(params.imgIds)}
        categories = {category_id: place for place, category_id in enumerate(params.catIds)}
        for image_id, category_id in {*self._gts, *self._dts}:
            self.ious[image_id, category_id] = self.computeIoU(image_id, category_id)
            for area_place, area in enumerate(params.areaRng):
                outcome = self.evaluateImg(image_id, category_id, area, MOST_DETECTIONS)
                if category_id in self._image_lists[image_id][1]:
                    outcome["dtIgnore"] = np.logical_or(outcome["dtIgnore"], outcome["dtMatches"] == 0)
                place = categories[category_id] * len(params.areaRng) + area_place
                self.evalImgs[place * len(images) + images[image_id]] = outcome
        self._paramsEval = copy.deepcopy(params)

    def summarize(self):
        """Set `stats` to `METRICS`, -1 where there is nothing to find."""
        precision, recall = (
            self.eval["precision"][..., -1],
            self.eval["recall"][..., -1],
        )  # [T, R, K, area], [T, K, area]
        groups = {
            name: [place for place, i in enumerate(self.params.catIds) if self._frequencies.get(i) == name]
            for name in FREQUENCIES
        }
        stats = {f"AP{suffix}": precision[..., area] for suffix, area in AREAS.items()}
        stats |= {f"AP{name}": precision[:, :, places, 0] for name, places in groups.items()}
        stats |= {f"AP{round(100 * iou)}": precision[at, ..., 0] for at, iou in enumerate(self.params.iouThrs)}
        stats |= {f"AR{suffix or MOST_DETECTIONS}": recall[..., area] for suffix, area in AREAS.items()}
        self.stats = np.array([_mean(stats[name]) for name in METRICS])


def _mean(values):
    values = values[values > -1]
    return values.mean() if values.size else -1
