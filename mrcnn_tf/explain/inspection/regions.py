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
    """A class that a region can have; `id` is None for all things as one."""

    id: int | None
    name: str
    is_thing: bool


@dataclasses.dataclass
class ImageRegions:
    """One image's pixels divided up."""

    pixels: np.ndarray  # int32 [H, W], the id of each pixel's region; 0 for none
    segments: list[dict]  # with `id`, `category_id` (None: all things as one) and `iscrowd`


class PanopticRegions:
    """The segments of a COCO panoptic json. `SemanticRegions` has the same attributes and methods.

    Args:
        panoptic: `PanopticGroundTruth`.
        things, stuff: the `Category`s that the model or the config has; empty: all of the json's.

    Attributes:
        source: the file or folder it comes from.
        images: list of dicts with `id`, `file_name`, `height` and `width`, in the file's order.
        things, stuff: lists of `Category`.
        classes: list of `RegionClass`.
        has_segments: whether a region is right or wrong by itself, as a segment is, and not all pixels of a class.
        skipped: a sentence for each image without a map.
    """

    has_segments = True

    def __init__(self, panoptic, things=(), stuff=()):
        self._panoptic = panoptic
        self.source, self.skipped = panoptic.source, panoptic.skipped
        self.images = [image for image in panoptic.images if image["id"] in self]
        self.things, self.stuff = list(things) or panoptic.things, list(stuff) or panoptic.stuff
        self._numbers = semantic_classes(self.things, self.stuff)
        groups = (panoptic.things, True), (panoptic.stuff, False)
        self.classes = [RegionClass(c.id, c.name, is_thing) for group, is_thing in groups for c in group]

    def __contains__(self, image_id):
        return image_id in self._panoptic.annotation_indices

    def regions(self, image_id):
        """`ImageRegions` of an image."""
        return ImageRegions(self._panoptic.segment_map(image_id), self._panoptic.segments(image_id))

    def labels(self, image_id):
        """uint8 [H, W]: 0 of any thing, 1 to S of stuff, 255 in void and in segments of other categories."""
        return self.labels_of(self.regions(image_id))

    def labels_of(self, regions):
        """The labels of `ImageRegions` that were read already."""
        return segments_to_classes(regions.pixels, regions.segments, self._numbers)

    def instances(self):
        """An `InstanceGroundTruth` of the images and the categories of things, without annotations yet."""
        records = [dataclasses.asdict(category) for category in self._panoptic.things]
        names = self._panoptic.records.image_names
        return InstanceGroundTruth(self.source, self.images, records, [], {}, list(self.skipped), names)


class SemanticRegions:
    """The classes of pixels, all things being one; the attributes are those of `PanopticRegions`.

    Args:
        source: the file or folder it comes from.
        images: its images' records.
        things, stuff: lists of `Category`.
        read_labels: gives uint8 [H, W] labels for the id of an image; 255 is ignored.
    """

    has_segments = False
    skipped = ()

    def __init__(self, source, images, things, stuff, read_labels):
        self.source, self.images, self.things, self.stuff = source, images, list(things), list(stuff)
        self.labels = read_labels
        self._ids = {image["id"] for image in images}
        self.classes = [RegionClass(None, ALL_THINGS, True), *(RegionClass(c.id, c.name, False) for c in stuff)]

    def __contains__(self, image_id):
        return image_id in self._ids

    def regions(self, image_id):
        """`ImageRegions` of an image, one for each class in it."""
        return make_class_regions(self.labels(image_id), self.stuff)

    def instances(self):
        """An `InstanceGroundTruth` of the images, without categories."""
        return InstanceGroundTruth(self.source, self.images, [], [], {}, [])


def read_region_truth(data):
    """The `PanopticRegions` or `SemanticRegions` of a `DataConfig` that names a panoptic json or label maps.

    Raises:
        UserError: see `read_panoptic_ground_truth` and `load_index`.
    """
    if data.panoptic:
        panoptic = read_panoptic_ground_truth(data.panoptic, data.panoptic_maps, data.images)
        return PanopticRegions(panoptic, data.categories, data.stuff)
    index = load_index(dataclasses.replace(data, semantic=True))
    numbers = semantic_classes(index.categories, data.stuff)
    image_ids = index.image_ids.tolist()
    names = [os.path.relpath(os.fsdecode(file), data.images) for file in index.image_files.tolist()]
    columns = image_ids, names, index.heights.tolist(), index.widths.tolist()
    images = [dict(zip(("id", "file_name", "height", "width"), row, strict=True)) for row in zip(*columns, strict=True)]
    files = dict(zip(image_ids, map(os.fsdecode, index.map_files.tolist()), strict=True))
    source = data.annotations or data.semantic_maps
    return SemanticRegions(
        source, images, index.categories, data.stuff, lambda image_id: read_pixel_classes(files[image_id], numbers)
    )


def make_class_regions(labels, stuff):
    """`ImageRegions` of labels, uint8 [H, W]: a region for any thing (0), and for each class of `stuff` (1 to S)."""
    pixels = np.where(labels == IGNORED, 0, labels.astype(np.int32) + 1)
    numbers = np.flatnonzero(np.bincount(pixels.ravel(), minlength=2)[1:]).tolist()
    ids = [None if number == THINGS else stuff[number - 1].id for number in numbers]
    segments = [{"id": n + 1, "category_id": i, "iscrowd": 0} for n, i in zip(numbers, ids, strict=True)]
    return ImageRegions(pixels, segments)


@dataclasses.dataclass
class ClassPixels:
    """How many pixels a class has and in how many images it occurs; `id` is None for all things as one."""

    id: int | None
    name: str
    pixels: int
    images: int


@dataclasses.dataclass
class PixelStatistics:
    """Counts over the pixels of all images with a map."""

    images: int
    pixels: int
    unlabelled: int  # pixels of no class: void, ignored, or of a category that isn't among those in use
    classes: list[ClassPixels]  # all things as one first, then stuff in its order

    def to_json(self):
        """All of it as a plain dict for `json.dump`, each class with its `share` of all pixels."""
        plain = dataclasses.asdict(self)
        for row in plain["classes"]:
            row["share"] = row["pixels"] / self.pixels
        return plain | {"unlabelled_share": self.unlabelled / self.pixels}


def count_pixels(truth, annotate=False, on_done=None):
    """Go through all maps once.

    Args:
        truth: `PanopticRegions` or `SemanticRegions`.
        annotate: whether its things are the dataset's instances.
        on_done: called after each image.

    Returns:
        (`PixelStatistics`, the things as annotations of an `InstanceGroundTruth`, [] unless `annotate`).

    Raises:
        UserError: a map that can't be read or doesn't fit its json.
    """
    counts = np.zeros([len(truth.images), IGNORED + 1], np.int64)
    annotations = []
    ids = [image["id"] for image in truth.images]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for row, (labels, things) in enumerate(pool.map(lambda image_id: _read(truth, image_id, annotate), ids)):
            counts[row] = labels
            annotations += [{"id": number} | thing for number, thing in enumerate(things, len(annotations) + 1)]
            if on_done:
                on_done()
    names = [(None, ALL_THINGS), *((category.id, category.name) for category in truth.stuff)]
    classes = [
        ClassPixels(*name, int(pixels.sum()), int((pixels > 0).sum()))
        for name, pixels in zip(names, counts.T, strict=False)
    ]
    return PixelStatistics(len(ids), int(counts.sum()), int(counts[:, IGNORED].sum()), classes), annotations


def _read(truth, image_id, annotate):
    """([256] pixels of each class, the things as annotations) of an image."""
    annotations = []
    if annotate:
        regions, things = truth.regions(image_id), {c.id for c in truth.classes if c.is_thing}
        segments = [segment for segment in regions.segments if segment["category_id"] in things]
        annotations = segments_to_annotations(regions.pixels, segments, image_id)
        labels = truth.labels_of(regions)
    else:
        labels = truth.labels(image_id)
    return np.bincount(labels.ravel(), minlength=IGNORED + 1), annotations
