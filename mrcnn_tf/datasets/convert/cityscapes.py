"""Cityscapes: gtFine/SPLIT/CITY/*_gtFine_instanceIds.png, or *_polygons.json, with images in leftImg8bit/SPLIT/CITY.

A pixel of instanceIds is class * 1000 + object for an object, and the class alone for all else: for the road as for a
group of cars that nobody separated. Polygons are drawn one over the other in the order of the json, by which
cityscapesScripts' json2instanceImg makes the PNGs; labels such as "cargroup" are groups. gtCoarse is of the same form.
"""

import re

import numpy as np
from PIL import Image, ImageDraw

from mrcnn_tf.common.errors import BrokenFile, UserError
from mrcnn_tf.common.problems import show_progress
from mrcnn_tf.datasets import run_lengths
from mrcnn_tf.datasets.convert.dataset import ClassNames, Dataset
from mrcnn_tf.datasets.convert.inputs import existing_path, raise_wrong_format, read_json
from mrcnn_tf.datasets.convert.splits import choose_split
from mrcnn_tf.datasets.image_folder import ImageFolder
from mrcnn_tf.datasets.map_files import read_any_map

SPLITS = ("train", "val", "test", "train_extra")
DIVISOR = 1000
# Of all classes, in the order of their ids from 0.
LABELS = (
    *("unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road"),
    *("sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel", "pole"),
    *("polegroup", "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck"),
    *("bus", "caravan", "trailer", "train", "motorcycle", "bicycle"),
)
FIRST_WITH_OBJECTS = LABELS.index("person")
NOT_EVALUATED = ("caravan", "trailer")  # have objects, but the benchmark leaves them out
NOT_DRAWN = "license plate"  # has no id: what it is on stays visible
CLASSES = {
    number: name for number, name in enumerate(LABELS) if number >= FIRST_WITH_OBJECTS and name not in NOT_EVALUATED
}

_NAME = re.compile(r"(.+)_gt[A-Z][a-z]+_(instanceIds\.png|polygons\.json)")


def read_cityscapes(source, images=None, names=None, split=None, polygons=False):
    """The Dataset of Cityscapes' objects, with its ids of the 8 classes; see `convert` for readers.

    Groups become crowds. Caravans and trailers are left out and noted.

    Args:
        source: the folder that holds gtFine and leftImg8bit.
        split: such as "train"; a UserError if it's needed and missing.
        polygons: draw the polygons of the jsons, instead of reading PNGs.
    """
    source = existing_path(source, "the folder that holds gtFine and leftImg8bit")
    files = _find_annotations(source, split, polygons)
    folder = ImageFolder(images or source)
    names = names or ClassNames(list(CLASSES.items()))
    labels_of = names.labels(CLASSES)
    dataset = Dataset(source, names)
    for file in show_progress(files, "Cityscapes"):
        name = "/".join([*file.parts[-3:-1], f"{_NAME.fullmatch(file.name)[1]}_leftImg8bit.png"])
        path = folder.find(f"leftImg8bit/{name}")
        if path is None:
            dataset.leave_out_missing(name, folder, file)
            continue
        try:
            pixels = _draw_polygons(file, dataset) if polygons else read_any_map(file)
        except BrokenFile as error:
            dataset.leave_out("broken_file", file, str(error))
            continue
        image = dataset.add_image_of_size(path, folder, file, pixels.shape[::-1])
        if image:
            _add_objects(pixels, image, file, labels_of, dataset)
    return dataset


def _find_annotations(source, split, polygons):
    """The files of a split, list of Path."""
    if source.is_file():
        raise_wrong_format(source, "cityscapes")
    root = next((source / name for name in ("gtFine", "gtCoarse") if (source / name).is_dir()), source)
    kinds = {False: [], True: []}
    for path in sorted(root.rglob("*_gt*_*"), key=lambda path: path.as_posix()):
        if match := _NAME.fullmatch(path.name):
            kinds[match[2] == "polygons.json"].append(path)
    files = kinds[polygons]
    if not files and kinds[not polygons]:
        other = "leave --polygons out" if polygons else "give --polygons to read the polygons.json that it has"
        raise UserError(f"{root} has no {'polygons.json' if polygons else 'instanceIds.png'}: {other}.")
    if not files:
        raise_wrong_format(source, "cityscapes")
    split_of = {path: next((part for part in path.relative_to(root).parts if part in SPLITS), None) for path in files}
    chosen = choose_split(filter(None, split_of.values()), split, root)
    return [path for path in files if split_of[path] == chosen]


def _draw_polygons(file, dataset):
    """The pixels of instanceIds [H, W] int32 by the polygons of a json; raises BrokenFile."""
    content = read_json(file)
    try:
        canvas = Image.new("I", (int(content["imgWidth"]), int(content["imgHeight"])))
        shapes = [(str(shape["label"]), shape["polygon"]) for shape in content["objects"] if not shape.get("deleted")]
        draw, counts = ImageDraw.Draw(canvas), dict.fromkeys(LABELS, 0)
        for label, polygon in shapes:
            name = label if label in LABELS else label.removesuffix("group")
            if name == NOT_DRAWN:
                continue
            if name not in LABELS:
                message = f"{file} has the label {label!r}, which Cityscapes lacks, and it was left out: correct it."
                dataset.leave_out("unknown_class", file, message, label)
            number = LABELS.index(name) if name in LABELS else 0  # whatever is in front hides what is behind
            if number >= FIRST_WITH_OBJECTS and name == label:
                number, counts[name] = number * DIVISOR + counts[name], counts[name] + 1
                if counts[name] > DIVISOR:
                    raise BrokenFile(f"{file} has more than {DIVISOR} objects of {name}, and was left out: divide it.")
            draw.polygon([(x, y) for x, y in polygon], fill=number)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, UserError):
            raise
        raise BrokenFile(f"{file} isn't Cityscapes' kind of json ({error!r}), and was left out: repair it.") from None
    return np.asarray(canvas, np.int32)


def _add_objects(pixels, image, file, labels_of, dataset):
    """Adds the objects and groups of a map [H, W] of instanceIds to their image."""
    for number, rle in run_lengths.encode_labels(pixels).items():
        class_number = number // DIVISOR if number >= DIVISOR else number
        if class_number in labels_of:
            label, is_group = labels_of[class_number], number < DIVISOR
            dataset.add_object(image, label, file, f"Object {number}", parts=[rle], crowd=is_group)
        elif class_number >= len(LABELS):
            message = f"{file} has {number}, whose class Cityscapes lacks, and it was left out: correct it."
            dataset.leave_out("unknown_class", file, message, number)
        elif class_number >= FIRST_WITH_OBJECTS:
            message = f"{file} has {number}, a {LABELS[class_number]}: the benchmark has none, and it was left out."
            dataset.leave_out("ignored_class", file, message, number)
