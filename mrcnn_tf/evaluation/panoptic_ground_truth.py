"""Ground truth of panoptic segments: COCO's json and folder of PNGs, checked at once, the maps read one by one."""

import collections
import concurrent.futures
import dataclasses
import os

import numpy as np

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import refuse_archive
from mrcnn_tf.datasets import map_files
from mrcnn_tf.datasets.image_files import FULL_CHECK_BYTES, WORKERS, inspect_files
from mrcnn_tf.datasets.panoptic_json import PanopticJson, read_panoptic
from mrcnn_tf.evaluation.instance_ground_truth import check_categories, read_images


@dataclasses.dataclass
class PanopticGroundTruth:
    """A panoptic dataset whose records are in order."""

    source: str  # path of the json
    folder: str  # of the PNGs
    annotation_indices: dict[int, int]  # {image id: index of its annotation in `records`}, in the file's order
    images: list[dict]  # their records, with `id`, `height` and `width` as numbers, also of the images skipped
    sizes: dict[int, tuple[int, int]]  # {image id: (height, width)} pixels, of the same images
    records: PanopticJson
    skipped: list[str]  # a sentence for each image that isn't evaluated

    @property
    def things(self):
        """The categories with instances to count, sorted by id; list of Category."""
        return self.records.things

    @property
    def stuff(self):
        """The categories without, sorted by id; list of Category."""
        return self.records.stuff

    def check_categories(self, things, stuff):
        """Raise UserError for a `Category` that a model predicts and this lacks, or has of the other kind."""
        check_categories(things, {category.id for category in self.things}, self.source, "thing category")
        check_categories(stuff, {category.id for category in self.stuff}, self.source, "stuff category")

    def segments(self, image_id):
        """The segments of an image, a list of dicts with `id`, `category_id`, `iscrowd`, `area` and `bbox`."""
        return self.records.segments_info(self.annotation_indices[image_id])

    def map_file(self, image_id):
        """The path of the PNG with an image's segments."""
        return os.path.join(self.folder, self.records.map_names[self.annotation_indices[image_id]])

    def segment_map(self, image_id):
        """Read the segment id of each pixel, int32 [H, W]; 0 is void.

        Raises:
            UserError: the PNG is damaged, has pixels of a segment that the json doesn't list, or none of one that it
                does. A segment's `area` and `bbox` may say what they like; only pixels count.
        """
        file, index = self.map_file(image_id), self.annotation_indices[image_id]
        listed = self.records.segment_ids[slice(*self.records.segment_offsets[index : index + 2])]
        segment_map = map_files.read_segment_map(file)
        unlisted, _, lacking = map_files.compare_ids(segment_map, listed)
        if unlisted.size or lacking.size:
            raise UserError(f"{map_files.find_segment_fault(file, self.sizes[image_id], listed)}.")
        return segment_map


def read_panoptic_ground_truth(path, folder, images=None):
    """Read a COCO panoptic json for evaluation and look at the header of each PNG; in a small set, at all pixels.

    Args:
        path: of the json.
        folder: of the PNGs, which the annotations' file names are relative to.
        images: the folder of the images, where sizes are read that the json doesn't know.

    Returns:
        `PanopticGroundTruth`; an image without an annotation is not in it but named in `skipped`.

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
    listed = read_images(records.images, path, images)
    sizes = listed.frames
    _check_references(records, sizes, path)
    indices = {image_id: index for index, image_id in enumerate(records.image_ids.tolist())}
    unannotated = [image_id for image_id in sizes if image_id not in indices]
    names = map(records.name_of_image, unannotated)
    skipped = listed.skipped + [f"{path}: image {name} is left out: it has no annotation." for name in names]
    ground_truth = PanopticGroundTruth(path, folder, indices, listed.records, sizes, records, skipped)
    _check_maps(ground_truth)
    return ground_truth


def _check_references(records, sizes, path):
    """Raise UserError for an annotation of no image and a segment of no category."""
    for image_id in records.image_ids.tolist():
        if image_id not in sizes:
            raise UserError(
                f"The annotation of image {records.name_of_image(image_id)} in {path} belongs to no image: add the "
                "image or remove it."
            )
    category_ids = [category.id for category in records.things + records.stuff]
    unknown = np.flatnonzero(~np.isin(records.category_ids, category_ids))
    if unknown.size:
        index = np.searchsorted(records.segment_offsets, unknown[0], side="right") - 1
        raise UserError(
            f"Segment {records.segment_ids[unknown[0]]} of image "
            f"{records.name_of_image(int(records.image_ids[index]))} in {path} is of category "
            f"{records.category_ids[unknown[0]]}, which isn't among its categories: add it or correct category_id."
        )


def _check_maps(ground_truth):
    """Raise UserError for the first PNG that can't be right, before a model detects for hours.

    Of a large set only the headers are looked at.
    """
    image_ids = ground_truth.annotation_indices
    files = [ground_truth.map_file(image_id) for image_id in image_ids]
    headers = inspect_files(files, lambda number: None)
    for image_id, file, header in zip(image_ids, files, headers, strict=True):
        problem = map_files.check_map_header(header, segments=True)
        if problem:
            _, what, remedy = problem
            raise UserError(f"{file}, the map of image {image_id} in {ground_truth.source}, {what}: {remedy}.")
        size = header.stored_height, header.stored_width
        if size != ground_truth.sizes[image_id]:
            raise UserError(f"{map_files.describe_wrong_size(file, size, ground_truth.sizes[image_id])}.")
    if sum(header.size for header in headers) <= FULL_CHECK_BYTES:
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            collections.deque(pool.map(ground_truth.segment_map, image_ids), maxlen=0)
