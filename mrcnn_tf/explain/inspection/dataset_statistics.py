"""What a dataset consists of, and how its objects suit the model's anchors."""

import collections
import dataclasses

import numpy as np

from mrcnn_tf.config.settings import ModelConfig

GOOD_FIT = 0.5  # IoU of an object's box with the anchor of the best size and shape
MAX_SIZES = 200  # of images that are listed, the most frequent ones
MAX_BINS = 24  # of a histogram
SMALL, LARGE = 32**2, 96**2  # COCO's bounds of an object's area, pixels


@dataclasses.dataclass
class Histogram:
    """Counts in bins whose edges people can read."""

    edges: list[float]  # n + 1
    counts: list[int]  # n, of the values in each bin without its upper edge
    log: bool  # the edges grow by a factor


@dataclasses.dataclass
class ClassCount:
    """How many objects a class has (crowd regions apart) and in how many images."""

    id: int
    name: str
    objects: int
    images: int
    crowds: int


@dataclasses.dataclass
class KeypointCount:
    """A keypoint of a class: in how many of its objects it is visible, hidden and not labelled."""

    category: str
    name: str
    visible: int
    hidden: int
    unlabelled: int


@dataclasses.dataclass
class AnchorFit:
    """How the objects' boxes suit the anchors, in the pixels of the resized image that the network sees."""

    sizes: list[float]  # square roots of the anchors' areas
    ratios: list[float]  # their height / width
    resized_to: list[int]  # the shorter and the longest side of images, pixels
    box_sizes: Histogram  # of the square roots of the boxes' areas
    # Share of the objects whose IoU with an anchor of the best size and shape, centred on the object, is at least
    # `GOOD_FIT`; None without objects. The grid of anchors can only be worse than that.
    good: float | None
    too_small: int  # objects that no anchor fits so well, smaller than the smallest ...
    too_large: int  # ... or larger than the largest


@dataclasses.dataclass
class DatasetStatistics:
    """Counts over the images and objects of a dataset; crowd regions don't count as objects."""

    images: int
    objects: int
    crowds: int
    empty: int  # images without objects
    image_sizes: list[list[int]]  # [[width, height, images], ...], the most frequent first, at most `MAX_SIZES`
    different_sizes: int  # how many there are
    objects_per_image: Histogram
    classes: list[ClassCount]  # in the order of ids
    anchors: AnchorFit
    aspect_ratios: Histogram  # of the boxes' height / width
    mask_shares: Histogram | None  # of masks as shares of their images, percent; None without masks
    small: int  # objects by COCO's bounds of their `area`
    medium: int
    large: int
    keypoints: list[KeypointCount]
    skipped: list[str]  # a sentence for each record that can't be used

    def to_json(self):
        """All of it as a plain dict for `json.dump`."""
        return dataclasses.asdict(self)


def compute_statistics(truth, model=None):
    """`DatasetStatistics`.

    Args:
        truth: an `InstanceGroundTruth`.
        model: the `ModelConfig` whose anchors and image size the boxes are compared with; None: the default one's.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth.images}
    objects = [a for a in truth.annotations if not a["iscrowd"]]
    crowds = [a for a in truth.annotations if a["iscrowd"]]
    frames = np.array([sizes[a["image_id"]] for a in objects], np.float64).reshape(-1, 2)
    boxes = np.array([a["bbox"] for a in objects], np.float64).reshape(-1, 4)
    areas = np.array([a["area"] for a in objects], np.float64)
    masked = np.array([a["segmentation"] is not None for a in objects], bool)
    per_image = collections.Counter(a["image_id"] for a in objects)
    image_sizes = collections.Counter((width, height) for height, width in sizes.values())
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = boxes[:, 3] / boxes[:, 2]
    return DatasetStatistics(
        images=len(sizes),
        objects=len(objects),
        crowds=len(crowds),
        empty=sum(not per_image[image_id] for image_id in sizes),
        image_sizes=[[*size, count] for size, count in image_sizes.most_common(MAX_SIZES)],
        different_sizes=len(image_sizes),
        objects_per_image=make_integer_histogram([per_image[image_id] for image_id in sizes]),
        classes=_count_classes(truth, objects, crowds),
        anchors=_fit_anchors(boxes[:, 2:], frames, model or ModelConfig()),
        aspect_ratios=make_log_histogram(ratios),
        mask_shares=make_log_histogram(100 * areas[masked] / frames[masked].prod(axis=1)) if masked.any() else None,
        small=int((areas < SMALL).sum()),
        medium=int(((areas >= SMALL) & (areas < LARGE)).sum()),
        large=int((areas >= LARGE).sum()),
        keypoints=_count_keypoints(truth, objects),
        skipped=list(truth.skipped),
    )


def make_integer_histogram(values):
    """A `Histogram` of integers >= 0 [N] in bins of 1, 2, 5, 10, ... numbers each."""
    values = np.asarray(values, np.int64)
    top = int(values.max(initial=0)) + 1
    steps = (digit * 10**power for power in range(19) for digit in (1, 2, 5))
    step = next(step for step in steps if step * MAX_BINS >= top)
    edges = np.arange(0, top + step, step)
    return Histogram(edges.tolist(), np.histogram(values, np.r_[edges[:-1], edges[-1] - 0.5])[0].tolist(), False)


def make_log_histogram(values):
    """A `Histogram` of floats [N] with two bins, or one if they would be too many, for each doubling.

    Values that are not positive and finite are left out.
    """
    values = np.asarray(values, np.float64)
    exponents = np.log2(values[np.isfinite(values) & (values > 0)])
    if not exponents.size:
        return Histogram([1, 2], [0], True)
    per_double = 2 if np.ptp(exponents) * 2 <= MAX_BINS - 1 else 1
    bins = np.floor(exponents * per_double).astype(np.int64)
    counts = np.bincount(bins - bins.min())
    edges = 2.0 ** ((bins.min() + np.arange(len(counts) + 1)) / per_double)
    return Histogram(edges.tolist(), counts.tolist(), True)


def _count_classes(truth, objects, crowds):
    number = collections.Counter(a["category_id"] for a in objects)
    regions = collections.Counter(a["category_id"] for a in crowds)
    images = collections.Counter(category for category, _ in {(a["category_id"], a["image_id"]) for a in objects})
    return [
        ClassCount(c["id"], str(c.get("name", c["id"])), number[c["id"]], images[c["id"]], regions[c["id"]])
        for c in sorted(truth.categories, key=lambda category: category["id"])
    ]


def _fit_anchors(sides, frames, model):
    """`AnchorFit` of boxes with `sides` [N, 2] (width, height) in images of `frames` [N, 2] (height, width) pixels."""
    resize, rpn = model.resize, model.rpn
    sizes = np.hstack(rpn.anchor_sizes).tolist()  # a map may have several
    scale = np.minimum(resize.min_size / frames.min(axis=1), resize.max_size / frames.max(axis=1))
    sides = np.maximum(sides, 0) * scale[:, None]
    box_sizes = np.sqrt(sides.prod(axis=1))
    best_iou = np.zeros(len(sides))
    for size in sizes:
        for ratio in rpn.aspect_ratios:
            anchor = size / ratio**0.5, size * ratio**0.5
            shared = np.minimum(sides, anchor).prod(axis=1)
            best_iou = np.maximum(best_iou, shared / (sides.prod(axis=1) + size**2 - shared))
    poor = best_iou < GOOD_FIT
    return AnchorFit(
        sizes=sizes,
        ratios=list(rpn.aspect_ratios),
        resized_to=[resize.min_size, resize.max_size],
        box_sizes=make_log_histogram(box_sizes),
        good=float(1 - poor.mean()) if len(poor) else None,
        too_small=int((poor & (box_sizes < min(sizes))).sum()),
        too_large=int((poor & (box_sizes > max(sizes))).sum()),
    )


def _count_keypoints(truth, objects):
    names = {c["id"]: str(c.get("name", c["id"])) for c in truth.categories}
    counts = []
    for category_id, keypoints in sorted(truth.keypoints.items()):
        own = [a["keypoints"][2::3] for a in objects if a["category_id"] == category_id]
        visibility = np.array(own, np.int64).reshape(-1, len(keypoints))
        for name, values in zip(keypoints, visibility.T, strict=True):
            hidden, visible = int((values == 1).sum()), int((values == 2).sum())
            counts.append(KeypointCount(names[category_id], name, visible, hidden, len(values) - hidden - visible))
    return counts
