"""Label maps: for each image a PNG of its size, whose pixels say which object they belong to; 0 is background."""

import collections
import json

import numpy as np
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.problems import show_progress
from mrcnn_tf.datasets import run_lengths
from mrcnn_tf.datasets.convert.coco import new_folder, output_names, paint_annotations
from mrcnn_tf.datasets.convert.dataset import Dataset
from mrcnn_tf.datasets.convert.geometry import connected_parts
from mrcnn_tf.datasets.convert.inputs import (
    BrokenFile,
    existing_path,
    raise_wrong_format,
    read_frame,
)
from mrcnn_tf.datasets.image_folder import ImageFolder, find_image_files
from mrcnn_tf.datasets.map_files import read_any_map

# Of a map's name after its image's; one that ends with another comes first.
ENDINGS = ("_cp_masks", "_instances", "_instance", "_labels", "_label", "_masks", "_mask", "_gt")
CITYSCAPES_IMAGE = "_leftImg8bit"  # what an image's name ends with there
SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif")
MAX_VALUE = 65535  # of a 16-bit PNG
NAMES = "names.json"


def read_label_maps(
    source, images, names=None, class_name=None, class_divisor=None, ignore=(), split_parts=False, ending=None
):
    """The Dataset of the label maps in a folder and those below; see `convert` for readers.

    A map belongs to the image of the same name; endings such as _mask may follow. Maps without image, images without
    map and maps of another size are noted.

    Args:
        images: needed here.
        names: ClassNames by number. A number in a map is then a class; with `class_divisor`, number // class_divisor.
        class_name: the class of all objects, instead.
        class_divisor: 1000 for Cityscapes, whose instanceIds are class * 1000 + object; lower numbers, which it has for
            groups and for classes without objects, are left out.
        ignore: numbers that are no objects, such as 255.
        split_parts: make an object of each part of a number that doesn't touch the others.
        ending: what a map's name has after the image's, such as _gtFine_instanceIds; None for the usual ones.
    """
    source = existing_path(source, "the folder of the label maps")
    if images is None:
        raise UserError(f"Say where the images of {source} are: --images FOLDER.")
    folder = ImageFolder(existing_path(images, "the folder of the images"))
    numbers = names.labels() if names else {}
    if not class_name and not numbers:
        raise UserError("Say what the objects are: --class-name NAME, or --names FILE with a class for each number.")
    files = [path for path in find_image_files(source) if path.suffix.lower() in SUFFIXES]
    if not files:
        raise_wrong_format(source, "label-maps")
    dataset = Dataset(source, names)
    pairs = _match_maps(files, source, folder, ending, dataset)
    for file, path in show_progress(pairs, "label maps"):
        try:
            labels, frame = read_any_map(file), read_frame(path)
        except BrokenFile as error:
            dataset.leave_out("unreadable_image", file, str(error))
            continue
        height, width = labels.shape
        if not frame.fits(width, height):
            message = f"{file} is {width} x {height} but {path} is {frame.width} x {frame.height}"
            dataset.leave_out("other_size", file, f"{message}, and it was left out: make them of one size.")
            continue
        image = dataset.add_image(folder.relative(path), width, height, file)
        for number, rle in _label_masks(labels, split_parts) if image else ():
            if number in ignore:
                continue
            label = class_name or _class_of(number, numbers, class_divisor, file, dataset)
            if label:
                dataset.add_object(image, label, file, f"Object {number}", parts=[rle])
    return dataset


def _match_maps(files, source, folder, ending, dataset):
    """(map, image) of each image that has a map."""
    maps = {}
    for file in files:
        endings = [known for known in ((ending,) if ending else ENDINGS) if file.stem.endswith(known)]
        stem = file.stem.removesuffix(endings[0]) if endings else file.stem
        maps.setdefault((file.relative_to(source).parent.as_posix(), stem), maps.setdefault(("", stem), file))
    own_files, pairs = set(files), []
    for path in find_image_files(folder.root):
        if path in own_files:
            continue
        stem = path.stem.removesuffix(CITYSCAPES_IMAGE)
        file = maps.get((path.relative_to(folder.root).parent.as_posix(), stem)) or maps.get(("", stem))
        if file is None:
            dataset.leave_out("unlabelled_image", path, f"{path} has no map and was left out: draw one.")
        else:
            pairs.append((file, path))
    used = {file for file, _ in pairs}
    for file in files:
        if file not in used:
            message = f"{file} belongs to no image in {folder.root} and was left out: check names, or give --ending."
            dataset.leave_out("missing_image", file, message)
    return pairs


def _label_masks(labels, split_parts):
    """(number, run-length mask) of each object in a map [H, W]."""
    if not split_parts:
        return list(run_lengths.encode_labels(labels).items())
    parts = connected_parts(labels)
    part_numbers, first = np.unique(parts, return_index=True)
    number_of = dict(zip(part_numbers.tolist(), labels.ravel()[first].tolist(), strict=True))
    return [(number_of[part], rle) for part, rle in run_lengths.encode_labels(parts).items()]


def _class_of(number, numbers, divisor, file, dataset):
    """The class of a number, as `ClassNames.labels` gives it; None, and a note, if it has none."""
    if divisor and number < divisor:
        message = f"{file} has {number}, a group or a class without objects, which was left out."
        dataset.leave_out("below_divisor", file, message, number)
        return None
    class_number = number // divisor if divisor else number
    if class_number not in numbers:
        message = f"{file} has {number}, whose class {class_number} --names lacks, and it was left out: add it there."
        dataset.leave_out("unknown_class", file, message, number)
        return None
    return numbers[class_number]


def write_label_maps(coco, out, class_divisor=1000):
    """Writes a 16-bit PNG for each image, with pixels of class * class_divisor + object from 1, and names.json.

    Crowds are left out; what overlaps and what has no mask is noted, too. Classes go by their ids, and `class_divisor`
    is 1000 as Cityscapes has it; a UserError if numbers don't fit 16 bits. See `convert` for writers.
    """
    if max(coco.names) * class_divisor + class_divisor > MAX_VALUE + 1:
        raise UserError(
            f"Class {max(coco.names)} of {coco.source} times {class_divisor} doesn't fit 16 bits: give a smaller "
            "--class-divisor, or number the classes from 1."
        )
    coco.drop_crowds()
    names = output_names(coco, ".png")
    with new_folder(out) as folder:
        for image, name in show_progress(names, "label maps"):
            labels = paint_annotations(coco, image, _object_numbers(image, class_divisor))
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(labels.astype(np.uint16)).save(folder / name)
        (folder / NAMES).write_text(json.dumps(coco.names, ensure_ascii=False, indent=1), encoding="utf-8")


def _object_numbers(image, divisor):
    counts, numbers = collections.Counter(), []
    for annotation in image.annotations:
        counts[annotation.category_id] += 1
        numbers.append(annotation.category_id * divisor + counts[annotation.category_id])
    if max(counts.values(), default=0) >= divisor:
        raise UserError(
            f"{image.file_name} has {max(counts.values())} objects of a class, more than --class-divisor {divisor} "
            "has numbers for: give a larger one."
        )
    return numbers
