"""Which PNG holds the classes of each image's pixels, whether it can be used, and what its values mean."""

import concurrent.futures
import dataclasses
import os

import numpy as np

from mrcnn_tf.common.categories import MOST_STUFF, THINGS
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.problems import Problem
from mrcnn_tf.datasets import map_files
from mrcnn_tf.datasets.checks import places
from mrcnn_tf.datasets.image_files import FULL_CHECK_BYTES, WORKERS, inspect_files


@dataclasses.dataclass
class ImageMaps:
    """The maps of I usable images.

    Attributes:
        kept: [I] bool; the others have no map that can be used.
        files: list of str, those of the kept images.
        sizes: {path: bytes} of all maps.
        problems: list of Problem.
    """

    kept: np.ndarray
    files: list[str]
    sizes: dict[str, int]
    problems: list[Problem]


def semantic_classes(categories, stuff):
    """{category id: its class in a semantic label map}: 0 for all things, 1 to S for stuff.

    Raises:
        UserError: one id is both, or there is more stuff than a byte can number.
    """
    if len(stuff) > MOST_STUFF:
        raise UserError(f"There are {len(stuff)} classes in model.stuff: leave at most {MOST_STUFF}.")
    classes = {category.id: THINGS for category in categories}
    for place, category in enumerate(stuff, 1):
        if category.id in classes:
            raise UserError(
                f"Category {category.id} ({category.name!r}) is used twice in model.categories and model.stuff: "
                "give each class an id of its own."
            )
        classes[category.id] = place
    return classes


def label_columns(files):
    """The map columns of a CocoIndex, as a dict, of images with label maps, or with none where a file is empty."""
    return map_columns(files, np.zeros(len(files) + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.uint8))


def map_columns(files, offsets, ids, classes):
    """The map columns of a CocoIndex, as a dict."""
    return {
        "map_files": np.array([os.fsencode(path) for path in files], np.bytes_),
        "segment_offsets": offsets,
        "segment_ids": ids,
        "segment_classes": classes,
    }


def segment_map_paths(panoptic, folder, image_ids):
    """(paths, places): the PNG of each image, None without one, and [I] int64 the place of its annotation, or -1.

    Args:
        panoptic: panoptic_json.PanopticJson.
        folder: of the PNGs.
        image_ids: [I] int64.
    """
    found = places(panoptic.image_ids, image_ids)
    return [os.path.join(folder, panoptic.map_names[at]) if at >= 0 else None for at in found.tolist()], found


def strangers(panoptic):
    """A Problem for each annotation of a PanopticJson whose image isn't among its images."""
    listed = [record.get("id") for record in panoptic.images if isinstance(record, dict)]
    listed = np.array([number for number in listed if type(number) is int and abs(number) < 1 << 63], np.int64)
    problems = []
    for image in panoptic.image_ids[~np.isin(panoptic.image_ids, listed)].tolist():
        name = f"The annotation of image {image} in {panoptic.path}"
        message = f"{name} belongs to no image and was skipped: correct image_id or add the image."
        problems.append(Problem("unknown_image", image, panoptic.path, message))
    return problems


def label_map_paths(folder, images, image_files):
    """Where the label map of each image is: the image's path in its folder, but .png, in the folder of maps.

    Args:
        folder: of the maps.
        images: folder of the images.
        image_files: [I] bytes, their paths.
    """
    names = (os.path.relpath(os.fsdecode(path), images) for path in image_files.tolist())
    return [os.path.join(folder, os.path.splitext(name)[0] + ".png") for name in names]


def usable_maps(paths, fields, source, segments, on_progress, decode=None):
    """Looks at the headers of maps. In a small set, and where a file's end is missing, they are decoded, too.

    Args:
        paths: list of I str or None, the maps of images.
        fields: the image arrays of a CocoIndex, as a dict.
        source: the json or folder that lists the images.
        segments: whether the maps are segment maps.
        on_progress: called with the number of files done since the last call.
        decode: see `inspect_files`.

    Returns:
        ImageMaps.
    """
    files = list(dict.fromkeys(path for path in paths if path))
    headers = dict(zip(files, inspect_files(files, on_progress, decode), strict=True))
    kept, problems = np.ones(len(paths), bool), []
    frames = zip(fields["image_ids"].tolist(), fields["heights"].tolist(), fields["widths"].tolist(), strict=True)
    for row, (path, (image, height, width)) in enumerate(zip(paths, frames, strict=True)):
        problem = _problem(headers.get(path), height, width, segments)
        if problem:
            kept[row] = False
            kind, what, remedy = problem
            name = f"Image {image} in {source}"
            message = f"{name} has a map, {path}, that {what} and was skipped: {remedy}."
            if path is None:
                message = f"{name} {what} and was skipped: {remedy}."
            problems.append(Problem(kind, image, path or source, message))
    used = [path for path, good in zip(paths, kept.tolist(), strict=True) if good]
    return ImageMaps(kept, used, {path: header.size for path, header in headers.items()}, problems)


def are_few(maps):
    """Whether all pixels of an ImageMaps can be looked at when the dataset is opened."""
    return sum(maps.sizes[path] for path in maps.files) <= FULL_CHECK_BYTES


def check_labels(maps, known):
    """Raises UserError if one of the label maps has a value that isn't among `known`, ids of categories."""
    listed = [*known, *map_files.UNLABELLED]

    def unknown(path):
        return np.setdiff1d(map_files.values_of(map_files.read_label_map(path))[0], listed)

    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        for path, values in zip(maps.files, pool.map(unknown, maps.files), strict=True):
            if values.size:
                raise UserError(f"{map_files.unknown_labels(path, values)}.")


def _problem(header, height, width, segments):
    """(kind, what, remedy), or None."""
    if header is None:
        return "unmapped_image", "has no annotation with a map", "add it or remove the image"
    problem = map_files.map_problem(header, segments)
    if problem or (header.height, header.width) == (height, width):
        return problem
    what = f"is {header.width} x {header.height} pixels and not {width} x {height} like the image"
    return "map_size", what, "save it at the image's width and height"
