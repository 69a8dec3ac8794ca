"""COCO's panoptic json and its folder of PNGs as ground truth: checked as a whole, the maps read one at a time."""

import collections
import concurrent.futures
import dataclasses
import os

import numpy as np
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import refuse_archive
from mrcnn_tf.datasets.image_files import FULL_CHECK_BYTES, WORKERS, inspect_files
from mrcnn_tf.datasets.label_maps import compared, map_problem, read_segment_map, segment_fault, size_fault
from mrcnn_tf.datasets.panoptic import PanopticJson, read_panoptic


@dataclasses.dataclass
class PanopticGroundTruth:
    """A panoptic dataset whose records are in order.

    Attributes:
        source: path of the json.
        folder: of the PNGs.
        places: {image id: the place of its annotation in `records`}, in the file's order.
        sizes: {image id: (height, width)} pixels, of these and of the images left out.
        records: the json's PanopticJson.
        left_out: a sentence for each image without an annotation.
    """

    source: str
    folder: str
    places: dict[int, int]
    sizes: dict[int, tuple[int, int]]
    records: PanopticJson
    left_out: list[str]

    @property
    def things(self):
        """The categories with instances to count, sorted by id; list of Category."""
        return self.records.things

    @property
    def stuff(self):
        """The categories without, sorted by id; list of Category."""
        return self.records.stuff

    def segments(self, image_id):
        """The segments of an image, a list of dicts with `id`, `category_id`, `iscrowd`, `area` and `bbox`."""
        return self.records.segments_info(self.places[image_id])

    def map_file(self, image_id):
        """The path of the PNG with an image's segments."""
        return os.path.join(self.folder, self.records.map_names[self.places[image_id]])

    def segment_map(self, image_id):
        """The segment id of each pixel, int32 [H, W]; 0 is void.

        Raises:
            UserError: the PNG is damaged, has pixels of a segment that the json doesn't list, or none of one that it
                does. A segment's `area` and `bbox` may say what they like; only pixels count.
        """
        file, start = self.map_file(image_id), self.places[image_id]
        listed = self.records.segment_ids[slice(*self.records.segment_offsets[start : start + 2])]
        pixels = read_segment_map(file)
        unlisted, _, lacking = compared(pixels, listed)
        if unlisted.size or lacking.size:
            raise UserError(f"{segment_fault(file, self.sizes[image_id], listed)}.")
        return pixels


def read_panoptic_ground_truth(path, folder):
    """Reads a COCO panoptic json for evaluation and looks at the header of each PNG; in a small set, at all pixels.

    Args:
        path: of the json.
        folder: of the PNGs, which the annotations' file names are relative to.

    Returns:
        `PanopticTruth`; an image without an annotation is left out of it and named in `left_out`.

    Raises:
        UserError: no such file or folder, not COCO's format, no annotations, one that is malformed or whose image or
            category the json lacks, or a PNG that is missing, isn't RGB or isn't of its image's size.
    """
    path, folder = str(path), str(folder)
    refuse_archive(path, "the json in it as data.val.panoptic")
    refuse_archive(folder, "the folder of PNGs in it as data.val.panoptic_maps")
    if not os.path.isfile(path):
        raise UserError(f"There is no file {path}: set data.val.panoptic to a COCO panoptic json.")
    records = read_panoptic(path)
    if records.problems:
        raise UserError(f"{path} can't be evaluated as it stands because: {records.problems[0].message}")
    if not records.image_ids.size:
        raise UserError(f"{path} has no annotations: there is nothing to evaluate.")
    if not os.path.isdir(folder):
        raise UserError(f"There is no folder {folder}: set data.val.panoptic_maps to the PNGs of {path}.")
    sizes = _image_sizes(records.images, path)
    _check_references(records, sizes, path)
    places = {image_id: place for place, image_id in enumerate(records.image_ids.tolist())}
    left_out = [f"{path}: image {one} is left out: it has no annotation." for one in sizes if one not in places]
    truth = PanopticGroundTruth(path, folder, places, sizes, records, left_out)
    _check_maps(truth)
    return truth


def check_categories(truth, things, stuff):
    """Raises UserError for a `Category` that a model predicts and a `PanopticTruth` lacks, or has of the other kind."""
    for kind, wanted, known in (("thing", things, truth.things), ("stuff", stuff, truth.stuff)):
        ids = {category.id for category in known}
        for category in wanted:
            if category.id not in ids:
                raise UserError(
                    f"{truth.source} has no {kind} category {category.id} ({category.name}), which the model predicts: "
                    "evaluate on annotations with the model's category ids."
                )


def _image_sizes(records, path):
    """{image id: (height, width)}."""
    sizes = {}
    for place, record in enumerate(records):
        image_id = record.get("id") if isinstance(record, dict) else None
        if type(image_id) is not int:
            raise UserError(f"{path}: entry {place} of images has no whole number as id: give it one.")
        if image_id in sizes:
            raise UserError(f"{path} has two images with the id {image_id}: give each image its own id.")
        sizes[image_id] = record.get("height"), record.get("width")
        if not all(type(side) is int and side > 0 for side in sizes[image_id]):
            raise UserError(f'{path}: image {image_id} has no "height" and "width": add them, in pixels.')
    return sizes


def _check_references(records, sizes, path):
    """Raises UserError for an annotation of no image and a segment of no category."""
    for image_id in records.image_ids.tolist():
        if image_id not in sizes:
            raise UserError(
                f"The annotation of image {image_id} in {path} belongs to no image: add the image or remove it."
            )
    known = [category.id for category in records.things + records.stuff]
    strange = np.flatnonzero(~np.isin(records.category_ids, known))
    if strange.size:
        place = np.searchsorted(records.segment_offsets, strange[0], side="right") - 1
        raise UserError(
            f"Segment {records.segment_ids[strange[0]]} of image {records.image_ids[place]} in {path} is of category "
            f"{records.category_ids[strange[0]]}, which isn't among its categories: add it or correct category_id."
        )


def _check_maps(truth):
    """Raises UserError for the first PNG that can't be right, before a model detects for hours.

    Of a large set only the headers are looked at.
    """
    files = [truth.map_file(image_id) for image_id in truth.places]
    headers = inspect_files(files, lambda number: None, _decode)
    for image_id, file, header in zip(truth.places, files, headers, strict=True):
        problem = map_problem(header, segments=True)
        if problem:
            _, what, remedy = problem
            raise UserError(f"{file}, the map of image {image_id} in {truth.source}, {what}: {remedy}.")
        found = header.height, header.width
        if found != truth.sizes[image_id]:
            raise UserError(f"{size_fault(file, found, truth.sizes[image_id])}.")
    if sum(header.size for header in headers) <= FULL_CHECK_BYTES:
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            collections.deque(pool.map(truth.segment_map, truth.places), maxlen=0)


def _decode(file):
    """Raises OSError for a damaged file; not for one of a wrong kind, whose sentence is another."""
    try:
        with Image.open(file) as image:
            image.load()
    except Exception as error:  # Pillow raises whatever its format plugins run into
        raise OSError(error) from None
