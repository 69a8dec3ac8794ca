"""Pixels of VOC's maps: which object each is of (SegmentationObject), and of which class (SegmentationClass).

In a map of grey, with a palette or in a .npy file, pixels are numbers. In one of colours, as CVAT has it, an object has
the colour of VOC's palette for its number, and a class the one that labelmap.txt gives it. 0 is background, and 255 the
border that belongs to no object.
"""

import dataclasses
import itertools

import numpy as np
from PIL import Image

from mrcnn_tf.common.errors import BrokenFile
from mrcnn_tf.datasets import run_lengths
from mrcnn_tf.datasets.convert.dataset import BACKGROUNDS, IGNORED, read_names
from mrcnn_tf.datasets.convert.inputs import read_json, read_text
from mrcnn_tf.datasets.map_files import count_values, read_any_map, rgb_to_ids

BORDER = 255
SAME_IOU = 0.5  # of a mask's box and an object's, from which on they are the same
SLACK = 2  # pixels that a mask may be outside its object's box
VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_NO_CLASS = {*BACKGROUNDS, IGNORED, "ignored"}
_GREY = 1 + 256 + 65536  # times a number: the colour whose channels are all this number


def make_palette():
    """[256, 3] uint8, VOC's colours: the bits of an index are dealt to red, green and blue, highest first."""
    indices = np.arange(256)
    colours = np.zeros([256, 3], np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((indices >> channel) & 1) << (7 - bit)).astype(np.uint8)
        indices >>= 3
    return colours


# A colour is a number here, R + 256 G + 65536 B.
NUMBER_OF_COLOUR = {colour: number for number, colour in enumerate(rgb_to_ids(make_palette()).tolist())}
_COLOURS = list(NUMBER_OF_COLOUR)


@dataclasses.dataclass
class MapPixels:
    """A map's pixels.

    Attributes:
        values: int32 [H, W], numbers, or colours where the file has no numbers.
        colours: dict value -> its colour, for all values of a file of colours or with a palette; empty for others.
        has_numbers: whether values are numbers.
    """

    values: np.ndarray
    colours: dict[int, int]
    has_numbers: bool


def read_map_pixels(path):
    """The MapPixels of an image file or a .npy file; raises BrokenFile."""
    if path.suffix == ".npy":
        return MapPixels(_read_array(path), {}, True)
    values = read_any_map(path)
    with Image.open(path) as image:
        bands, palette = len(image.getbands()), image.getpalette("RGB") if image.palette else None
    if bands >= 3:
        return MapPixels(values, {value: value for value in np.unique(values).tolist()}, False)
    colours = rgb_to_ids(np.array(palette, np.uint8).reshape(-1, 3)).tolist() if palette else []
    return MapPixels(values, dict(enumerate(colours)), True)


def _read_array(path):
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BrokenFile(f"The map {path} can't be read ({error}): replace the file.") from None
    if values.ndim != 2 or values.dtype.kind not in "bui":
        what = f"has {values.dtype} {list(values.shape)}"
        raise BrokenFile(f"The map {path} {what}: save whole numbers of the shape [height, width].")
    return np.maximum(values, 0).astype(np.int32)  # labelme has -1 for what is to be ignored


def number_objects(pixels):
    """The number of each pixel's object, int32 [H, W], of the MapPixels of a map of objects.

    Colours that aren't all VOC's become numbers from 256 on: they say nothing about the order of objects.
    """
    if pixels.has_numbers:
        return pixels.values
    colours, places = np.unique(pixels.values, return_inverse=True)
    numbers = [NUMBER_OF_COLOUR.get(colour) for colour in colours.tolist()]
    if None in numbers:
        is_special = np.isin(colours, [0, _COLOURS[BORDER]])
        numbers = np.where(is_special, np.where(colours == 0, 0, BORDER), np.arange(len(colours)) + BORDER + 1)
    return np.array(numbers, np.int32)[places].reshape(pixels.values.shape)


def without_border(masks):
    """The masks of objects. Where there are larger numbers than 255, that is an object, too."""
    return {number: mask for number, mask in masks.items() if number != BORDER or max(masks) > BORDER}


@dataclasses.dataclass
class ClassTable:
    """What the pixels of a map of classes mean.

    Attributes:
        numbers, colours: dict number, or colour -> name of the class; background and the like are among them.
        source: where it's from, for messages.
        is_assumed: whether nothing says so.
    """

    numbers: dict[int, str]
    colours: dict[int, str]
    source: str
    is_assumed: bool = False

    def names(self, pixels, values):
        """dict value -> name for values of MapPixels: None for what is no object, and "" for what isn't known."""
        colours = {value: pixels.colours[value] for value in values if value in pixels.colours}
        go_by_colour = colours and all(colours.get(value, -1) in self.colours for value in values if value)
        names = {}
        for value in values:
            if value in colours and (go_by_colour or not pixels.has_numbers):
                name = self._name_of_colour(colours[value])
            else:
                name = self.numbers.get(value) or self.colours.get(value * _GREY, "")
                name = None if not name and value in (0, BORDER) else name
            names[value] = None if name is None or name.lower() in _NO_CLASS else name
        return names

    def _name_of_colour(self, colour):
        if colour in self.colours:
            return self.colours[colour]
        if colour in (0, _COLOURS[BORDER]):
            return None
        return self.numbers.get(colour // _GREY, "") if colour % _GREY == 0 else ""


def read_class_table(folders, names=None):
    """The ClassTable of a dataset, whose folders are given: of labelmap.txt (CVAT, Datumaro), dataset_meta.json
    (Datumaro), class_names.txt (labelme), or else of `names`, ClassNames, or VOC's own.

    Raises BrokenFile or UserError for a list that can't be read.
    """
    readers = {"labelmap.txt": _read_label_list, "dataset_meta.json": _read_meta}
    readers |= dict.fromkeys(("class_names.txt", "classes.txt", "labels.txt"), _read_class_names)
    for (name, read), folder in itertools.product(readers.items(), folders):
        if (folder / name).is_file():
            return read(folder / name)
    if names and names.numbers:
        return _table_of_numbers(names.numbers, names.source)
    return _table_of_numbers(dict(enumerate(VOC_CLASSES, 1)), "VOC's own list", is_assumed=True)


def _table_of_numbers(numbers, source, is_assumed=False):
    colours = {_COLOURS[number]: name for number, name in numbers.items() if 0 <= number <= BORDER}
    return ClassTable(numbers, colours, str(source), is_assumed)


def _read_class_names(path):
    return _table_of_numbers(read_names(path, first=1).numbers, path)


def _read_label_list(path):
    """labelmap.txt: `name:red,green,blue:parts:actions` on each line; colours may be left out."""
    entries = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            name, colour = [*line.strip().rsplit(":", 3), ""][:2]
            try:
                entries.append((name.strip(), [int(part) for part in colour.split(",")] if colour.strip() else None))
            except ValueError:
                raise BrokenFile(f"Line {number} of {path} isn't `name:red,green,blue::`: correct it.") from None
    return _table_of_entries(entries, path)


def _read_meta(path):
    content = read_json(path)
    try:
        label_map, colours = content.get("label_map") or {}, content.get("segmentation_colors") or []
        colour_of = dict(zip(label_map.values(), colours, strict=False))
        labels = content.get("labels") or list(label_map.values())
        return _table_of_entries([(name, colour_of.get(name)) for name in labels], path)
    except (AttributeError, TypeError, ValueError):
        raise BrokenFile(f"{path} isn't Datumaro's list of classes: replace it by class_names.txt.") from None


def _table_of_entries(entries, path):
    """The ClassTable of (name, [red, green, blue] or None) in the order of numbers, from 0 if that's the background."""
    if any(colour and len(colour) != 3 for _, colour in entries):
        raise BrokenFile(f"{path} has a colour that isn't red,green,blue: correct it.")
    numbers = dict(enumerate((name for name, _ in entries), 0 if entries and entries[0][0] in _NO_CLASS else 1))
    if not any(colour for _, colour in entries):
        return _table_of_numbers(numbers, path)
    colours = {int(rgb_to_ids(np.array(colour))): name for name, colour in entries if colour}
    return ClassTable(numbers, colours, str(path))


def count_classes(labels, values):
    """How many pixels of each value each object has.

    Args:
        labels, values: int32 [H, W], numbers of objects and values of a map of classes, none negative.

    Returns:
        dict number of an object -> dict value -> pixels, most first.
    """
    pairs, pixels = count_values(labels.astype(np.int64) << 32 | values)
    counts = {}
    for pair, count in sorted(zip(pairs.tolist(), pixels.tolist(), strict=True), key=lambda entry: -entry[1]):
        counts.setdefault(pair >> 32, {})[pair & 0xFFFFFFFF] = count
    return counts


def match_masks(masks, boxes):
    """Which mask belongs to which object of an xml.

    VOC numbers objects as the xml lists them, and an object that others hide has a mask that is smaller than its box.
    Other tools don't always number them so: if a mask with a number isn't in the box at its place, numbers only count
    where the boxes of both agree, and what is left goes by boxes alone, and by place at last.

    Args:
        masks: dict number from 1 -> run-length mask.
        boxes: dict place in the xml, from 1 -> [x1, y1, x2, y2].

    Returns:
        dict place -> number.
    """
    corners = {}
    for number, mask in masks.items():
        x, y, width, height = run_lengths.box_of_rle(mask)
        corners[number] = [x, y, x + width, y + height]
    in_place = [number for number in masks if number in boxes and _is_inside(corners[number], boxes[number])]
    same = [number for number in masks if number in boxes and box_iou(corners[number], boxes[number]) >= SAME_IOU]
    if len({*in_place, *same}) == len(masks):
        return {number: number for number in masks}
    number_of = {number: number for number in same}
    pairs = [
        (-box_iou(corners[number], box), place, number)
        for number in masks.keys() - number_of.keys()
        for place, box in boxes.items()
        if place not in number_of
    ]
    for negative_iou, place, number in sorted(pairs):
        if -negative_iou >= SAME_IOU and place not in number_of and number not in number_of.values():
            number_of[place] = number
    for number in in_place:
        if number not in number_of and number not in number_of.values():
            number_of[number] = number
    return number_of


def _is_inside(box, other):
    """Whether a box [x1, y1, x2, y2] lies in another, but for a few pixels."""
    starts = all(box[side] >= other[side] - SLACK for side in (0, 1))
    return starts and all(box[side] <= other[side] + SLACK for side in (2, 3))


def box_iou(box, other):
    """IoU of two boxes [x1, y1, x2, y2]."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (box, other)]
    return shared / (sum(areas) - shared) if shared else 0.0
