"""Maps and their images: which map belongs to which image, and whether the two are of one size."""

import collections
import itertools
import os

from mrcnn_tf.common.errors import BrokenFile, UserError
from mrcnn_tf.datasets.image_folder import find_image_files
from mrcnn_tf.datasets.map_files import read_any_map

# Of a map's name after its image's; one that ends with another comes first.
ENDINGS = ("_cp_masks", "_instances", "_instance", "_labels", "_label", "_masks", "_mask", "_gt")
SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif")
OBJECT_FOLDER = "SegmentationObject"  # VOC's, beside SegmentationClass with maps of the same names


def find_maps_and_images(source, folder, ending=None):
    """(maps, images), lists of Path: the maps in `source`, and the images in an ImageFolder that are no maps.

    Where both lie in one folder, a map is what has an ending such as _mask, or is named as an image of another suffix.
    `ending` is what the names of all maps have after those of images; None for the usual ones.
    """
    files = [path for path in find_image_files(source) if path.suffix.lower() in SUFFIXES]
    photos = find_image_files(folder.root)
    if ending:
        maps = [path for path in files if path.stem.endswith(ending)]
    else:
        in_source = {os.path.abspath(path) for path in files}
        in_both = {os.path.abspath(path) for path in photos} & in_source
        stems = {path.stem for path in photos if os.path.abspath(path) not in in_both}
        maps = [
            path
            for path in files
            if os.path.abspath(path) not in in_both or path.stem in stems or _stem(path) != path.stem
        ]
    used = {os.path.abspath(path) for path in maps}
    return maps, [path for path in photos if os.path.abspath(path) not in used]


def match_maps(maps, source, images, folder, ending, dataset):
    """(map, image) of each image that has a map; a note of each that has none, and of maps that are not used.

    Several maps may have an image's name, and several images a map's: folders that agree decide.

    Raises:
        UserError: two of them fit alike.
    """
    by_stem = collections.defaultdict(list)
    for file in maps:
        for stem in {file.stem, _stem(file, ending)}:
            by_stem[stem].append(file)
    fits = collections.defaultdict(list)  # of each map, the images that it fits best of all
    for path in images:
        candidates = [(_agreement(file, source, path, folder.root), file) for file in by_stem.get(path.stem, [])]
        best = [file for agreement, file in candidates if agreement == max(candidates)[0]]
        if len(best) > 1:
            raise UserError(f"{best[0]} and {best[1]} may both be the map of {path}: {_remedy(*best[:2], ending)}.")
        for file in best:
            fits[file].append((max(candidates)[0], path))
    image_of = {}
    for file, candidates in fits.items():
        best = [path for agreement, path in candidates if agreement == max(candidates)[0]]
        if len(best) > 1:
            message = f"{file} may be the map of {best[0]} and of {best[1]}"
            raise UserError(f"{message}: put maps into folders that are named as those of the images.")
        image_of[file] = best[0]
    _note_unused(maps, images, image_of, by_stem, folder, dataset)
    return [(file, path) for file, path in image_of.items()]


def _stem(file, ending=None):
    """A map's name without suffix and ending."""
    endings = (known for known in ((ending,) if ending else ENDINGS) if file.stem.endswith(known))
    return file.stem.removesuffix(next(endings, ""))


def _agreement(file, source, path, root):
    """How well the folders of a map and an image agree: (whether they are the same, how many have the same names)."""
    folders, others = file.relative_to(source).parts[:-1], path.relative_to(root).parts[:-1]
    starts, ends = (itertools.takewhile(bool, map(str.__eq__, folders[::step], others[::step])) for step in (1, -1))
    return folders == others, sum(starts) + sum(ends)


def _remedy(first, second, ending):
    if first.parent != second.parent:
        chosen = first if OBJECT_FOLDER in first.parts else second
        return f"give the folder with the maps of objects alone, such as {chosen.parent}"
    own = [file.stem.removeprefix(_stem(file, ending)) for file in (second, first)]
    if own[0] != own[1]:
        return f"say what all maps have after the images' names, such as --ending {own[0] or own[1]}"
    return "keep one of them there"


def _note_unused(maps, images, image_of, by_stem, folder, dataset):
    paired = set(image_of.values())
    for path in images:
        if path not in paired:
            dataset.leave_out("unlabelled_image", path, f"{path} has no map and was left out: draw one.")
    stems = {path.stem for path in images}
    for file in maps:
        if file in image_of:
            continue
        if any(file in by_stem[stem] for stem in stems & {file.stem, _stem(file)}):
            message = f"{file} is of an image whose map is another one, and was left out: remove one of the two."
            dataset.leave_out("map_twice", file, message)
        else:
            message = f"{file} belongs to no image in {folder.root} and was left out: check names, or give --ending."
            dataset.leave_out("missing_image", file, message)


def read_mapped_image(file, path, folder, dataset):
    """Adds an image that has a map to a Dataset.

    Args:
        file, path: of the map and of the image.
        folder: the ImageFolder that the image is in.

    Returns:
        (the map [H, W] int32, the DatasetImage); None, and a note, where one can't be read or their sizes differ.
    """
    try:
        labels = read_any_map(file)
    except BrokenFile as error:
        dataset.leave_out("unreadable_image", file, str(error))
        return None
    image = dataset.add_image_of_size(path, folder, file, labels.shape[::-1])
    return (labels, image) if image else None
