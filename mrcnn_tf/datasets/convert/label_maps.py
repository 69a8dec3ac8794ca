"""Label maps: for each image a PNG of its size, whose pixels say which object they belong to; 0 is background."""

import json

import numpy as np
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.problems import show_progress
from mrcnn_tf.datasets import run_lengths
from mrcnn_tf.datasets.convert.coco import by_target, new_folder
from mrcnn_tf.datasets.convert.dataset import Dataset
from mrcnn_tf.datasets.convert.geometry import connected_parts, painted
from mrcnn_tf.datasets.convert.inputs import BrokenFile, ImageFolder, existing, frame_of, image_files, refuse_other
from mrcnn_tf.datasets.convert.label_images import read_labels

ENDINGS = ("_mask", "_masks", "_label", "_labels", "_instance", "_instances", "_gt", "_cp_masks")


def read_label_maps(
    source, images, names=None, class_name=None, class_divisor=None, ignore=(), split_parts=False, ending=None
):
    """The objects of label maps.

    A map belongs to the image of the same name; endings such as _mask may follow.

    Args:
        source: the folder of the maps; folders below are read as well.
        images: the folder of the images.
        names: ClassNames by number. A number in a map is then a class; with `class_divisor`, number // class_divisor.
        class_name: the class of all objects, instead.
        class_divisor: 1000 for Cityscapes, whose instanceIds are class * 1000 + object; lower numbers, which it has for
            groups and for classes without objects, are left out.
        ignore: numbers that are no objects, such as 255.
        split_parts: make an object of each part of a number that doesn't touch the others.
        ending: what a map's name has after the image's, such as _gtFine_instanceIds; None for the usual ones.

    Returns:
        Dataset. Maps without image, images without map and maps of another size are noted in it.

    Raises:
        UserError: a folder isn't there or is packed, holds no map, or nothing says what the classes are.
    """
    source = existing(source, "the folder of the label maps")
    if images is None:
        raise UserError(f"Say where the images of {source} are: --images FOLDER.")
    folder = ImageFolder(existing(images, "the folder of the images"))
    numbers = names.numbers if names else {}
    if not class_name and not numbers:
        raise UserError("Say what the objects are: --class-name NAME, or --names FILE with a class for each number.")
    files = [path for path in image_files(source) if path.suffix.lower() in (".png", ".tif", ".tiff", ".bmp", ".gif")]
    if not files:
        refuse_other(source, "label-maps")
    dataset = Dataset(source, names)
    pairs = _pairs(files, source, folder, ending, dataset)
    for file, image in show_progress(pairs, "label maps"):
        try:
            labels, frame = read_labels(file), frame_of(image)
        except BrokenFile as error:
            dataset.leave_out("unreadable_image", file, str(error))
            continue
        picture = _picture(labels, frame, file, image, folder, dataset)
        for number, rle in _objects(labels, ignore, split_parts) if picture else ():
            label = class_name or _class_of(number, numbers, class_divisor, file, dataset)
            if label:
                dataset.add_object(picture, label, file, f"Object {number}", parts=[rle])
    return dataset


def _picture(labels, frame, file, image, folder, dataset):
    """The dataset.Picture of a map; None, and a note, if its size isn't the image's."""
    height, width = labels.shape
    if frame.fits(width, height):
        return dataset.add_picture(folder.relative(image), width, height, file)
    message = f"{file} is {width} x {height} but {image} is {frame.width} x {frame.height}"
    dataset.leave_out("other_size", file, f"{message}, and it was left out: make them of one size.")
    return None


def _pairs(files, source, folder, ending, dataset):
    """(map, image) of each image that has a map."""
    maps = {}
    for file in files:
        key = (file.relative_to(source).parent.as_posix(), _bare(file.stem, ending))
        maps.setdefault(key, maps.setdefault(("", key[1]), file))
    pairs, used = [], set()
    own = set(files)
    for image in image_files(folder.root):
        if image in own:
            continue
        stem = image.stem.removesuffix("_leftImg8bit")
        place = image.relative_to(folder.root).parent.as_posix()
        file = maps.get((place, stem)) or maps.get(("", stem))
        if file is None:
            dataset.leave_out("unlabelled_image", image, f"{image} has no map and was left out: draw one.")
            continue
        pairs.append((file, image))
        used.add(file)
    for file in files:
        if file not in used:
            message = f"{file} belongs to no image in {folder.root} and was left out: check names, or give --ending."
            dataset.leave_out("missing_image", file, message)
    return pairs


def _bare(stem, ending):
    """A map's name without what its image's name doesn't have."""
    for known in (ending,) if ending else sorted(ENDINGS, key=len, reverse=True):
        if stem.endswith(known):
            return stem.removesuffix(known)
    return stem


def _objects(labels, ignore, split_parts):
    """(number, run-length mask) of each object."""
    if not split_parts:
        return [(number, rle) for number, rle in run_lengths.encode_labels(labels).items() if number not in ignore]
    parts = connected_parts(labels)
    flat, first = parts.ravel(), {}
    for place in (flat[1:] != flat[:-1]).nonzero()[0] + 1:
        first.setdefault(int(flat[place]), place)
    first.setdefault(int(flat[0]), 0)
    found = [(int(labels.ravel()[first[part]]), rle) for part, rle in run_lengths.encode_labels(parts).items()]
    return [(number, rle) for number, rle in found if number not in ignore]


def _class_of(number, numbers, divisor, file, dataset):
    """The name of a number's class; None, and a note, if it has none."""
    known = number // divisor if divisor else number
    if divisor and number < divisor:
        message = f"{file} has {number}, a group or a class without objects, which was left out."
        dataset.leave_out("below_divisor", file, message, number)
        return None
    if known not in numbers:
        message = f"{file} has {number}, whose class {known} --names lacks, and it was left out: add it there."
        dataset.leave_out("unknown_class", file, message, number)
        return None
    return numbers[known]


# COCO's json to label maps: a 16-bit PNG for each image. See `label_maps` for the format.
#

HIGHEST = 65535
NAMES = "names.json"


def write_label_maps(coco, out, class_divisor=1000):
    """Writes a PNG for each image, with pixels of class * class_divisor + object from 1, and names.json of classes.

    Args:
        coco: coco_json.CocoJson; crowds, what overlaps and what has no mask is noted in it. Classes go by their ids.
        out: a new folder.
        class_divisor: 1000 as Cityscapes has it.

    Raises:
        UserError: `out` has files already, two images would get the same map, or numbers don't fit 16 bits.
    """
    if max(coco.names) * class_divisor + class_divisor > HIGHEST + 1:
        raise UserError(
            f"Class {max(coco.names)} of {coco.source} times {class_divisor} doesn't fit 16 bits: give a smaller "
            "--class-divisor, or number the classes from 1."
        )
    coco.drop_crowds()
    targets = by_target(coco, ".png")
    with new_folder(out) as folder:
        for image, target in show_progress(targets, "label maps"):
            labels = painted(coco, image, _numbers(image, class_divisor))
            file = folder / target
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(labels.astype(np.uint16)).save(file)
        (folder / NAMES).write_text(json.dumps(coco.names, ensure_ascii=False, indent=1), encoding="utf-8")


def _numbers(image, divisor):
    counts, numbers = {}, []
    for instance in image.instances:
        counts[instance.category_id] = counts.get(instance.category_id, 0) + 1
        numbers.append(instance.category_id * divisor + counts[instance.category_id])
    if any(count >= divisor for count in counts.values()):
        raise UserError(
            f"{image.file_name} has {max(counts.values())} objects of a class, more than --class-divisor {divisor} "
            "has numbers for: give a larger one."
        )
    return numbers
