"""What a dataset consists of, and how its objects suit the model's anchors."""

import collections
import dataclasses

import numpy as np

from mrcnn_tf.config.settings import ModelConfig

# Counts in bins whose edges people can read.
#

MOST_BARS = 24


@dataclasses.dataclass
class Histogram:
    """`counts` [n] of the values between `edges` [n + 1], each bin without its upper edge.

    `log`: the edges grow by a factor.
    """

    edges: list[float]
    counts: list[int]
    log: bool


def make_integer_histogram(values):
    """A `Histogram` of integers >= 0 in bins of 1, 2, 5, 10, ... numbers each; `values` [N]."""
    values = np.asarray(values, np.int64)
    top = int(values.max(initial=0)) + 1
    step = next(s for power in range(19) for s in (10**power * f for f in (1, 2, 5)) if s * MOST_BARS >= top)
    edges = np.arange(0, top + step, step)
    return Histogram(edges.tolist(), np.histogram(values, np.r_[edges[:-1], edges[-1] - 0.5])[0].tolist(), False)


def make_log_histogram(values, per_double=2):
    """A `Histogram` of positive numbers, `per_double` bins (fewer if they would be too many) for each doubling.

    Args:
        values: [N] floats; those that are not positive and finite are left out.
        per_double: bins from x to 2 x.
    """
    values = np.asarray(values, np.float64)
    exponents = np.log2(values[np.isfinite(values) & (values > 0)])
    if not exponents.size:
        return Histogram([1, 2], [0], True)
    while per_double > 1 and np.ptp(exponents) * per_double > MOST_BARS - 1:
        per_double //= 2
    bins = np.floor(exponents * per_double).astype(np.int64)
    counts = np.bincount(bins - bins.min())
    edges = 2.0 ** ((bins.min() + np.arange(len(counts) + 1)) / per_double)
    return Histogram(edges.tolist(), counts.tolist(), True)


GOOD_FIT = 0.5  # of an object's box with the anchor of the best size and shape
SHOWN_SIZES = 200  # of images, the most frequent ones


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
    """How the objects' boxes suit the anchors, in the pixels of the resized image that the network sees.

    Attributes:
        sizes, ratios: square roots of the anchors' areas, and height / width, as in `RPNConfig`.
        resized_to: the shorter and the longest side of images, pixels.
        box_sizes: `Histogram` of the square roots of the boxes' areas.
        good: share of the objects whose IoU with an anchor of the best size and shape, centred on the object, is at
            least `GOOD_FIT`; None without objects. The grid of anchors can only be worse than that.
        too_small, too_large: objects that no anchor fits so well, smaller than the smallest or larger than the largest.
    """

    sizes: list[float]
    ratios: list[float]
    resized_to: list[int]
    box_sizes: Histogram
    good: float | None
    too_small: int
    too_large: int


@dataclasses.dataclass
class DatasetStatistics:
    """Counts over the images and objects of a dataset.

    Attributes:
        images, objects, crowds: how many; crowd regions don't count as objects.
        empty: images without objects.
        image_sizes: [[width, height, images], ...], the most frequent first, at most `SHOWN_SIZES`.
        different_sizes: how many there are.
        objects_per_image: `Histogram`.
        classes: `ClassCount`s in the order of ids.
        anchors: `AnchorFit`.
        aspect_ratios: `Histogram` of the boxes' height / width.
        mask_shares: `Histogram` of masks as shares of their images, percent; None without masks.
        small, medium, large: objects by COCO's bounds, 32^2 and 96^2 pixels of their `area`.
        keypoints: `KeypointCount`s.
        left_out: a sentence for each record that can't be used.
    """

    images: int
    objects: int
    crowds: int
    empty: int
    image_sizes: list[list[int]]
    different_sizes: int
    objects_per_image: Histogram
    classes: list[ClassCount]
    anchors: AnchorFit
    aspect_ratios: Histogram
    mask_shares: Histogram | None
    small: int
    medium: int
    large: int
    keypoints: list[KeypointCount]
    left_out: list[str]

    def to_json(self):
        """All of it as a plain dict for `json.dump`."""
        return dataclasses.asdict(self)


def compute_statistics(truth, model=None):
    """`DatasetStatistics`.

    Args:
        truth: the `InstanceGroundTruth` of `evaluation.instance_ground_truth.read_instance_ground_truth`.
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
        image_sizes=[[*size, count] for size, count in image_sizes.most_common(SHOWN_SIZES)],
        different_sizes=len(image_sizes),
        objects_per_image=make_integer_histogram([per_image[image_id] for image_id in sizes]),
        classes=_classes(truth, objects, crowds),
        anchors=_anchor_fit(boxes[:, 2:], frames, model or ModelConfig()),
        aspect_ratios=make_log_histogram(ratios),
        mask_shares=make_log_histogram(100 * areas[masked] / frames[masked].prod(axis=1)) if masked.any() else None,
        small=int((areas < 32**2).sum()),
        medium=int(((areas >= 32**2) & (areas < 96**2)).sum()),
        large=int((areas >= 96**2).sum()),
        keypoints=_keypoints(truth, objects),
        left_out=list(truth.left_out),
    )


def _classes(truth, objects, crowds):
    number = collections.Counter(a["category_id"] for a in objects)
    regions = collections.Counter(a["category_id"] for a in crowds)
    images = collections.Counter(category for category, _ in {(a["category_id"], a["image_id"]) for a in objects})
    return [
        ClassCount(c["id"], str(c.get("name", c["id"])), number[c["id"]], images[c["id"]], regions[c["id"]])
        for c in sorted(truth.categories, key=lambda one: one["id"])
    ]


def _anchor_fit(sides, frames, model):
    """`AnchorFit` of boxes with `sides` [N, 2] (width, height) in images of `frames` [N, 2] (height, width) pixels."""
    resize, rpn = model.resize, model.rpn
    scale = np.minimum(resize.min_size / frames.min(axis=1), resize.max_size / frames.max(axis=1))
    sides = np.maximum(sides, 0) * scale[:, None]
    extents = np.sqrt(sides.prod(axis=1))
    best = np.zeros(len(sides))
    for size in rpn.anchor_sizes:
        for ratio in rpn.aspect_ratios:
            anchor = size / ratio**0.5, size * ratio**0.5
            shared = np.minimum(sides, anchor).prod(axis=1)
            best = np.maximum(best, shared / (sides.prod(axis=1) + size**2 - shared))
    poor = best < GOOD_FIT
    return AnchorFit(
        sizes=list(rpn.anchor_sizes),
        ratios=list(rpn.aspect_ratios),
        resized_to=[resize.min_size, resize.max_size],
        box_sizes=make_log_histogram(extents),
        good=float(1 - poor.mean()) if len(poor) else None,
        too_small=int((poor & (extents < min(rpn.anchor_sizes))).sum()),
        too_large=int((poor & (extents > max(rpn.anchor_sizes))).sum()),
    )


def _keypoints(truth, objects):
    names = {c["id"]: str(c.get("name", c["id"])) for c in truth.categories}
    counts = []
    for category_id, points in sorted(truth.keypoints.items()):
        own = [a["keypoints"][2::3] for a in objects if a["category_id"] == category_id]
        visibility = np.array(own, np.int64).reshape(-1, len(points))
        for place, name in enumerate(points):
            hidden, visible = (int((visibility[:, place] == v).sum()) for v in (1, 2))
            rest = len(visibility) - hidden - visible
            counts.append(KeypointCount(names[category_id], name, visible, hidden, rest))
    return counts
