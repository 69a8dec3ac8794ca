"""Label maps: for each image a PNG of its size, whose pixels say which object they belong to; 0 is background.

Roboflow's "Semantic Segmentation Masks" are read, too: x_mask.png beside x.jpg, and _classes.csv with a class for each
number.
"""

import collections
import csv
import io
import json

import numpy as np
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.problems import show_progress
from mrcnn_tf.datasets import run_lengths
from mrcnn_tf.datasets.convert.coco import new_folder, output_names, paint_annotations
from mrcnn_tf.datasets.convert.dataset import BACKGROUNDS, Dataset, number_names
from mrcnn_tf.datasets.convert.geometry import connected_parts
from mrcnn_tf.datasets.convert.inputs import (
    ROBOFLOW_CLASSES,
    existing_path,
    raise_wrong_format,
    read_text,
    recognise_format,
)
from mrcnn_tf.datasets.convert.map_pairs import find_maps_and_images, match_maps, read_mapped_image
from mrcnn_tf.datasets.image_folder import ImageFolder

MAX_VALUE = 65535  # of a 16-bit PNG
NAMES = "names.json"


def read_label_maps(
    source, images=None, names=None, class_name=None, class_divisor=None, ignore=(), split_parts=False, ending=None
):
    """The Dataset of the label maps in a folder and those below; see `convert` for readers.

    A map belongs to the image of the same name; endings such as _mask may follow. Maps without image, images without
    map and maps of another size are noted.

    Args:
        images: needed here, except for Roboflow's.
        names: ClassNames by number. A number in a map is then a class; with `class_divisor`, number // class_divisor.
            None for those in Roboflow's _classes.csv.
        class_name: the class of all objects, instead.
        class_divisor: 1000 for pixels of class * 1000 + object; lower numbers are left out.
        ignore: numbers that are no objects, such as 255.
        split_parts: make an object of each part of a number that doesn't touch the others.
        ending: what all maps' names have after the images', such as _gt; None for the usual ones, or none.

    Raises:
        UserError: also if two maps of an image, or images of a map, fit alike.
    """
    source = existing_path(source, "the folder of the label maps")
    classes_file = _find_roboflow_classes(source)
    if classes_file and not class_divisor and not split_parts:
        raise UserError(f"A number is a class by {classes_file}: give --split-parts, which makes each part an object.")
    if images is None and not classes_file:
        raise UserError(f"Say where the images of {source} are: --images FOLDER.")
    folder = ImageFolder(existing_path(images or source, "the folder of the images"))
    dataset, labels_of = _start_dataset(source, names, class_name, classes_file)
    for file, path in show_progress(_find_pairs(source, folder, ending, dataset), "label maps"):
        mapped = read_mapped_image(file, path, folder, dataset)
        for number, rle in _label_masks(mapped[0], split_parts) if mapped else ():
            if number in ignore:
                continue
            if number < 0:
                message = f"{file} has {number} and was used without it: give --ignore {number}, or number from 1."
                dataset.leave_out("negative_number", file, message, number)
                continue
            label = class_name or _class_of(number, labels_of, class_divisor, file, dataset)
            if label is not None:
                dataset.add_object(mapped[1], label, file, f"Object {number}", parts=[rle])
    return dataset


def _start_dataset(source, names, class_name, classes_file):
    """(Dataset without images, dict number -> what it knows the class by; {} if all are of `class_name`)."""
    listed = _read_roboflow_classes(classes_file) if classes_file else {}
    background = listed.pop(0, None)
    if listed and not class_name:
        names = names or number_names(listed, classes_file)
    # A COCO json gives the ids of classes, and their numbers are Roboflow's then.
    labels_of = names.labels(None if names.numbers else listed) if names else {}
    if not class_name and not labels_of:
        raise UserError("Say what the objects are: --class-name NAME, or --names FILE with a class for each number.")
    dataset = Dataset(source, names)
    if background and background.lower() not in (*BACKGROUNDS, "unlabeled"):
        message = f"{classes_file} has {background!r} as 0, which is background here and was left out: renumber it."
        dataset.leave_out("background_class", classes_file, message, background)
    return dataset, labels_of


def _find_pairs(source, folder, ending, dataset):
    """list of (map, image); raises UserError if there are no maps."""
    maps, photos = find_maps_and_images(source, folder, ending)
    if not maps and ending:
        raise UserError(f"{source} has no map whose name ends with {ending}: correct --ending or leave it out.")
    pairs = match_maps(maps, source, photos, folder, ending, dataset)
    if not maps or not pairs and recognise_format(source) not in (None, "label-maps"):
        raise_wrong_format(source, "label-maps")
    return pairs


def _find_roboflow_classes(source):
    """The _classes.csv of a folder, None if it has none; a UserError if folders in it have one each."""
    files = [source / ROBOFLOW_CLASSES] if (source / ROBOFLOW_CLASSES).is_file() else []
    files = files or sorted(source.rglob(ROBOFLOW_CLASSES), key=lambda path: path.as_posix())
    if len(files) > 1:
        several = ", ".join(file.parent.name for file in files)
        raise UserError(f"{source} holds sets that need a json each, {several}: give one, such as {files[0].parent}.")
    return files[0] if files else None


def _read_roboflow_classes(path):
    """{number: name} of a csv with a header; raises UserError."""
    rows = [row for row in csv.reader(io.StringIO(read_text(path)), skipinitialspace=True) if row]
    try:
        return {int(number): name.strip() for number, name, *_ in rows[1:]}
    except ValueError:
        raise UserError(f"{path} isn't a list of pixel values and classes: give the classes by --names.") from None


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
