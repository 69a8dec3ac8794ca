"""What each pixel of a dataset's images belongs to: segments of a panoptic json, or classes of label maps."""

import concurrent.futures
import dataclasses
import os

import numpy as np

from mrcnn_tf.common.categories import IGNORED, THINGS
from mrcnn_tf.datasets.map_files import semantic_classes
from mrcnn_tf.datasets.read_coco import load_index
from mrcnn_tf.evaluation.ground_truth import read_pixel_classes, segments_to_annotations, segments_to_classes
from mrcnn_tf.evaluation.instance_ground_truth import InstanceGroundTruth
from mrcnn_tf.evaluation.panoptic_ground_truth import read_panoptic_ground_truth
from mrcnn_tf.evaluation.panoptic_metrics import ALL_THINGS


@dataclasses.dataclass
class RegionClass:
    """A class that a segment or a region can have; `id` is None for all things as one."""

    id: int | None
    name: str
    is_thing: bool


@dataclasses.dataclass
class ImageRegions:
    """One image's pixels divided up.

    Attributes:
        pixels: int32 [H, W], the id of each pixel's region; 0 for none.
        segments: list of dicts with `id`, `category_id` (None: all things as one) and `iscrowd`.
    """

    pixels: np.ndarray
    segments: list[dict]


class PanopticRegions:
    """The segments of a COCO panoptic json. A `LabelTruth` has the same attributes and methods.

    Args:
        panoptic: `PanopticGroundTruth`.
        things, stuff: the `Category`s that the model or the config knows; empty: all of the json's.

    Attributes:
        source: the file or folder it comes from.
        images: list of dicts with `id`, `file_name`, `height` and `width`, in the file's order.
        things, stuff: lists of `Category`.
        classes: list of `PixelClass` of its regions.
        judged: whether a region is right or wrong by itself, as a segment is.
        left_out: a sentence for each image without a map.
    """

    judged = True

    def __init__(self, panoptic, things=(), stuff=()):
        self._panoptic = panoptic
        self.source, self.left_out = panoptic.source, panoptic.left_out
        self.images = [image for image in panoptic.records.images if image["id"] in panoptic.places]
        self.things, self.stuff = list(things) or panoptic.things, list(stuff) or panoptic.stuff
        self._numbers = semantic_classes(self.things, self.stuff)
        kinds = (panoptic.things, True), (panoptic.stuff, False)
        self.classes = [RegionClass(one.id, one.name, is_thing) for group, is_thing in kinds for one in group]

    def __contains__(self, image_id):
        return image_id in self._panoptic.places

    def regions(self, image_id):
        """`Regions` of an image."""
        return ImageRegions(self._panoptic.segment_map(image_id), self._panoptic.segments(image_id))

    def labels(self, image_id, regions=None):
        """uint8 [H, W]: 0 of any thing, 1 to S of stuff, 255 in void and in segments of other categories; from its
        `Regions` if they were read already."""
        regions = regions or self.regions(image_id)
        return segments_to_classes(regions.pixels, regions.segments, self._numbers)

    def instances(self):
        """A `InstanceGroundTruth` of the json's images and categories of things, without annotations yet."""
        records = [dataclasses.asdict(category) for category in self._panoptic.things]
        return InstanceGroundTruth(self.source, self.images, records, [], {}, list(self.left_out))


class SemanticRegions:
    """The classes of pixels, all things being one; the attributes are those of `SegmentTruth`.

    Args:
        source: the file or folder it comes from.
        images: its images' records.
        things, stuff: lists of `Category`.
        read: gives uint8 [H, W] labels for the id of an image; 255 is ignored.
    """

    judged = False
    left_out = ()

    def __init__(self, source, images, things, stuff, read):
        self.source, self.images, self.things, self.stuff = source, images, list(things), list(stuff)
        self.labels = read
        self._ids = {image["id"] for image in images}
        self.classes = [RegionClass(None, ALL_THINGS, True), *(RegionClass(one.id, one.name, False) for one in stuff)]

    def __contains__(self, image_id):
        return image_id in self._ids

    def regions(self, image_id):
        """`Regions` of an image, one for each class in it."""
        return make_class_regions(self.labels(image_id), self.stuff)

    def instances(self):
        """A `InstanceGroundTruth` of the images, without annotations."""
        return InstanceGroundTruth(self.source, self.images, [], [], {}, [])


def read_region_truth(data):
    """The `SegmentTruth` or `LabelTruth` that a `DataConfig` names; None if it names neither.

    Raises:
        UserError: see `read_panoptic_ground_truth` and `load_index`.
    """
    if data.panoptic:
        return PanopticRegions(read_panoptic_ground_truth(data.panoptic, data.panoptic_maps), data.categories, data.stuff)
    if not data.semantic_maps:
        return None
    index = load_index(dataclasses.replace(data, semantic=True))
    numbers = semantic_classes(index.categories, data.stuff)
    columns = (index.image_ids, index.image_files, index.heights, index.widths)
    images = [
        {"id": one, "file_name": os.path.relpath(os.fsdecode(file), data.images), "height": height, "width": width}
        for one, file, height, width in zip(*(column.tolist() for column in columns), strict=True)
    ]
    files = dict(zip(index.image_ids.tolist(), map(os.fsdecode, index.map_files.tolist()), strict=True))
    source = data.annotations or data.semantic_maps
    return SemanticRegions(
        source, images, index.categories, data.stuff, lambda image_id: read_pixel_classes(files[image_id], numbers)
    )


def make_class_regions(labels, stuff):
    """`Regions` of uint8 [H, W] labels, one for each class in them.

    Args:
        labels: 0 of any thing, 1 to S of stuff, 255 where ignored.
        stuff: S `Category`s.
    """
    pixels = np.where(labels == IGNORED, 0, labels.astype(np.int32) + 1)
    numbers = np.flatnonzero(np.bincount(pixels.ravel(), minlength=2)[1:])
    ids = [None if number == THINGS else stuff[number - 1].id for number in numbers.tolist()]
    return ImageRegions(
        pixels, [{"id": int(n) + 1, "category_id": i, "iscrowd": 0} for n, i in zip(numbers, ids, strict=True)]
    )


# How the pixels of a dataset are divided among things, the classes of stuff and what has no class.
#

@dataclasses.dataclass
class ClassPixels:
    """How many pixels a class has and in how many images it occurs; `id` is None for all things as one."""

    id: int | None
    name: str
    pixels: int
    images: int


@dataclasses.dataclass
class PixelStatistics:
    """Counts over the pixels of all images with a map.

    Attributes:
        images, pixels: how many.
        unlabelled: pixels of no class: void, ignored, or of a category that isn't among those in use.
        classes: `PixelCount`s, all things as one first, then stuff in its order.
    """

    images: int
    pixels: int
    unlabelled: int
    classes: list[ClassPixels]

    def to_json(self):
        """All of it as a plain dict for `json.dump`, each class with its `share` of all pixels."""
        plain = dataclasses.asdict(self)
        for row in plain["classes"]:
            row["share"] = row["pixels"] / self.pixels
        return plain | {"unlabelled_share": self.unlabelled / self.pixels}


def count_pixels(truth, annotate=False, on_done=None):
    """Goes through all maps once.

    Args:
        truth: `SegmentTruth` or `LabelTruth`.
        annotate: whether its things are the dataset's instances.
        on_done: called after each image.

    Returns:
        (`PixelStatistics`, the things as annotations of a `InstanceGroundTruth`, [] unless `annotate`).

    Raises:
        UserError: a map that can't be read or doesn't fit its json.
    """
    counts = np.zeros([len(truth.images), IGNORED + 1], np.int64)
    annotations = []
    ids = [image["id"] for image in truth.images]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        read = pool.map(lambda image_id: _read(truth, image_id, annotate), ids)
        for row, (found, things) in enumerate(read):
            counts[row] = found
            annotations += [{"id": len(annotations) + place} | thing for place, thing in enumerate(things, 1)]
            if on_done:
                on_done()
    described = [(None, ALL_THINGS), *((one.id, one.name) for one in truth.stuff)]
    classes = [
        ClassPixels(*one, int(counts[:, number].sum()), int((counts[:, number] > 0).sum()))
        for number, one in enumerate(described)
    ]
    return PixelStatistics(len(ids), int(counts.sum()), int(counts[:, IGNORED].sum()), classes), annotations


def _read(truth, image_id, annotate):
    """([256] pixels of each class, the things as annotations) of an image."""
    if not annotate:
        return _class_counts(truth.labels(image_id)), []
    regions, things = truth.regions(image_id), {one.id for one in truth.classes if one.is_thing}
    segments = [segment for segment in regions.segments if segment["category_id"] in things]
    annotations = segments_to_annotations(regions.pixels, segments, image_id)
    return _class_counts(truth.labels(image_id, regions)), annotations


def _class_counts(labels):
    return np.bincount(labels.ravel(), minlength=IGNORED + 1)
