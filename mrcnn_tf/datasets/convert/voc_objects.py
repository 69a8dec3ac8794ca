"""The objects of one image in VOC's manner: those that its xml lists, or those that are painted in its maps.

Pixels are counted from 1 in the boxes, and both ends belong to them.
"""

import dataclasses
import math

import numpy as np

from mrcnn_tf.common.errors import BrokenFile, UserError
from mrcnn_tf.datasets import run_lengths
from mrcnn_tf.datasets.convert.geometry import connected_parts
from mrcnn_tf.datasets.convert.inputs import quote_path, read_xml
from mrcnn_tf.datasets.convert.voc_folders import CLASSES, OBJECTS, is_map
from mrcnn_tf.datasets.convert.voc_masks import (
    BORDER,
    count_classes,
    match_masks,
    number_objects,
    read_class_table,
    read_map_pixels,
    without_border,
)
from mrcnn_tf.datasets.convert.voc_outlines import Outline, read_outline
from mrcnn_tf.datasets.image_files import IMAGE_SUFFIXES

CORNERS = ("xmin", "ymin", "xmax", "ymax")
_SIZES = (("size/width", "size/height"), ("imagesize/ncols", "imagesize/nrows"))  # VOC's, LabelMe's


@dataclasses.dataclass
class _XmlObject:
    """An <object>: its place from 1, its class, its box [x1, y1, x2, y2] in pixels from the corner or None."""

    place: int
    label: str
    box: list[float] | None
    outline: Outline

    @property
    def where(self):
        return f"Object {self.place}"


class VocReader:
    """Reads images one by one into a Dataset.

    Args:
        dataset: Dataset.
        folder: ImageFolder of the photos.
        source: the path that was given, where lists of classes may be, too.
        names, zero_based, split_parts: see `voc.read_voc`.
    """

    def __init__(self, dataset, folder, source, names, zero_based, split_parts):
        self.dataset, self.folder, self.source = dataset, folder, source
        self.names, self.zero_based, self.split_parts = names, zero_based, split_parts
        self._tables = {}

    def read(self, files):
        """Adds the image of VocFiles and its objects, or notes why not; raises BrokenFile."""
        root = read_xml(files.xml) if files.xml else None
        if root is not None and root.tag != "annotation":
            is_cvat = root.tag == "annotations"
            remedy = f"try `mrcnn-tf convert cvat {quote_path(files.xml)}`" if is_cvat else "VOC's is <annotation>"
            raise BrokenFile(f"{files.xml} is another kind of xml, its top is <{root.tag}>: {remedy}.")
        elements = [] if root is None else list(root.iter("object"))
        if root is None and not (files.classes and (files.objects or self.split_parts)):
            what = f"no {OBJECTS}" if files.classes else f"neither an xml nor {CLASSES}"
            message = f"{files.main_file} has {what} beside it and was left out: add what is missing."
            self.dataset.leave_out("no_objects", files.main_file, message)
            return
        path = self._find_photo(files, root)
        if path is None:
            return
        maps = {file: read_map_pixels(file) for file in (files.objects, not elements and files.classes) if file}
        size, file = None if root is None else _read_size(root), files.main_file
        if not size and maps:
            file, pixels = next(iter(maps.items()))
            size = pixels.values.shape[::-1]
        image = self.dataset.add_image_of_size(path, self.folder, file, size)
        if not image:
            return
        for file in list(maps):
            self._drop_other_size(file, image, maps)
        objects, classes = maps.get(files.objects), maps.get(files.classes)
        if elements:
            self._add_listed(elements, files, image, objects)
        elif classes and (objects or self.split_parts):
            self._add_painted(files, image, objects, classes)
        elif objects:
            message = f"The objects of {files.objects} aren't in {files.xml} and were left out: add them there."
            self.dataset.leave_out("mask_without_object", files.objects, message)

    def _find_photo(self, files, root):
        """The path of the image; None and a note if there is none."""
        texts = [] if root is None else [(root.findtext(tag) or "").strip() for tag in ("filename", "path")]
        own = next((path for path in map(self._at, self._own_names(files)) if path), None)
        named = next((path for path in (self._find(text, files) for text in texts if text) if path), None)
        if own and named and own.stem.lower() != named.stem.lower():
            message = f"{files.xml} names {named.name}, but {own} has the xml's name and was taken: correct <filename>."
            self.dataset.leave_out("other_name", files.xml, message)
            return own
        path = named or own or self._find(files.name, files)
        if path is None:
            name = next(filter(None, texts), files.name)
            self.dataset.leave_out_missing(name, self.folder, files.main_file)
        return path

    def _own_names(self, files):
        for suffix in IMAGE_SUFFIXES:
            yield self.folder.root / f"{files.name}{suffix}"
            if files.xml:
                yield files.xml.with_name(f"{files.xml.stem}{suffix}")

    def _at(self, path):
        return path if path.is_file() and not self._is_map(path) else None

    def _find(self, text, files):
        """The photo that a name means; where splits repeat file names, the folders of the xml decide."""
        folders, _, _ = files.name.rpartition("/")
        beside = files.xml.parent if files.xml else None
        for name in dict.fromkeys((f"{folders}/{text}" if folders else text, text)):
            path = self.folder.find(name, beside)
            if path and not self._is_map(path):
                return path
            photos = [path for path in self.folder.candidates(name) if not self._is_map(path)]
            if len(photos) > 1:
                photos = [path for path in photos if path.is_relative_to(files.root)]
            if len(photos) == 1:
                return photos[0]
        return None

    def _is_map(self, path):
        return path.is_relative_to(self.folder.root) and is_map(path, self.folder.root)

    def _drop_other_size(self, file, image, maps):
        height, width = maps[file].values.shape
        if (width, height) != (image.width, image.height):
            message = f"{file} is {width} x {height}, its image {image.width} x {image.height}, and it was left out"
            self.dataset.leave_out("other_size", file, f"{message}: make them of one size.")
            del maps[file]

    # Objects that an xml lists.

    def _add_listed(self, elements, files, image, objects_map):
        objects = self._read_listed(elements, files, image)
        masks = without_border(run_lengths.encode_labels(number_objects(objects_map))) if objects_map else {}
        number_of = match_masks(masks, {entry.place: entry.box for entry in objects if entry.box}) if masks else {}
        for entry in objects:
            parts = [masks[number_of[entry.place]]] if entry.place in number_of else entry.outline.parts
            if masks and not parts:
                detail = f"has no mask in {files.objects} and keeps its box only: paint it there, unless others hide it"
                self.dataset.leave_out_record("no_mask", files.xml, entry.where, detail)
            box = None
            if entry.box:
                x1, y1, x2, y2 = entry.box
                box = [x1, y1, x2 - x1, y2 - y1]
            self.dataset.add_object(image, entry.label, files.xml, entry.where, parts=parts, box=box)
        for number in sorted(masks.keys() - number_of.values()):
            is_there = number <= len(elements)
            remedy = f"correct the box of the xml's object {number}" if is_there else "add the object to the xml"
            message = f"Object {number} of {files.objects} fits no box in {files.xml} and was left out: {remedy}."
            self.dataset.leave_out("mask_without_object", files.objects, message, number)

    def _read_listed(self, elements, files, image):
        """The _XmlObjects that can be used; what can't is noted."""
        objects, mask_folders = {}, _mask_folders(files)
        for place, element in enumerate(elements, 1):
            entry = _XmlObject(place, element.findtext("name") or "", None, Outline())
            if (element.findtext("deleted") or "").strip() == "1":
                detail = "is <deleted> and was left out: set that to 0 to keep it"
                self.dataset.leave_out_record("deleted", files.xml, entry.where, detail)
                continue
            entry.outline = read_outline(element, image, mask_folders, self.zero_based)
            if entry.outline.unread:
                self.dataset.leave_out_record("unread_outline", files.xml, entry.where, entry.outline.unread)
            entry.box, problem = self._read_box(element)
            entry.box = entry.box or entry.outline.box
            if not entry.box and not entry.outline.parts:
                self.dataset.leave_out_record("bad_box", files.xml, entry.where, problem)
                continue
            objects[_read_id(element) or place] = entry
        objects, boxes = _join_parts(objects, elements)
        for entry in boxes:
            detail = "is a box among the parts of an object and was left out, as that has outlines, too"
            self.dataset.leave_out_record("box_of_group", files.xml, entry.where, detail)
        return objects

    def _read_box(self, element):
        """([x1, y1, x2, y2], ""), or (None, what is wrong with the box)."""
        try:
            box = [_read_number(element, f"bndbox/{corner}") for corner in CORNERS]
        except ValueError as error:
            return None, f"has a box of {error} and was left out: correct it"
        if None in box:
            return None, "lacks a corner of its box and was left out: add it"
        (x1, x2), (y1, y2) = sorted(box[0::2]), sorted(box[1::2])
        first = 0 if self.zero_based else 1
        return [x1 - first, y1 - first, x2, y2], ""

    # Objects that are only painted.

    def _add_painted(self, files, image, objects_map, classes_map):
        table = self._class_table(files.root)
        values = classes_map.values
        names = table.names(classes_map, np.unique(values).tolist())
        if objects_map:
            labels, file = number_objects(objects_map), files.objects
        else:
            background = [value for value, name in names.items() if name is None]
            labels, file = connected_parts(np.where(np.isin(values, background), 0, values)), files.classes
        counts = count_classes(labels, values)
        for number, mask in run_lengths.encode_labels(labels).items():
            label = self._choose_class(number, counts[number], names, file, files.classes, table)
            if label:
                self.dataset.add_object(image, label, file, f"Object {number}", parts=[mask])

    def _choose_class(self, number, counts, names, file, classes, table):
        """The class that most of an object's pixels have; None and a note if it's not known."""
        painted = {value: count for value, count in counts.items() if names[value] is not None}
        if not painted:
            if number != BORDER:
                message = f"Object {number} of {file} is background in {classes} and was left out: paint it in both."
                self.dataset.leave_out("no_class", file, message, number)
            return None
        value = next(iter(painted))
        if not names[value]:
            message = f"Object {number} of {file} has the value {value} in {classes}, which {table.source} doesn't name"
            self.dataset.leave_out("unknown_class", file, f"{message}, and was left out: add it there.", number)
            return None
        if len(painted) > 1:
            shares = ", ".join(f"{names[value] or value} {count}" for value, count in painted.items())
            message = f"Object {number} of {file} has pixels of several classes ({shares}) and became {names[value]}"
            self.dataset.leave_out("mixed_class", file, f"{message}: correct the map if that's wrong.", number)
        return names[value]

    def _class_table(self, root):
        if root not in self._tables:
            try:
                self._tables[root] = read_class_table(dict.fromkeys((root, self.source)), self.names)
            except BrokenFile as error:
                raise UserError(str(error)) from None  # it concerns all images, not one
            if self._tables[root].is_assumed:
                message = f"Nothing in {root} names its classes, so their numbers were taken for those of VOC's 20"
                message = f"{message}: if they are others, list yours in a file, in the order of numbers, for --names."
                self.dataset.leave_out("assumed_classes", root, message)
        return self._tables[root]


def _mask_folders(files):
    """Where LabelMe's pictures of masks may be."""
    folders, _, _ = files.name.rpartition("/")
    own = files.xml.parent
    return list(dict.fromkeys((files.root / "Masks" / folders, files.root / "Masks", own / "Masks", own)))


def _join_parts(objects, elements):
    """Makes one object of LabelMe's parts of the same class: so CVAT and Datumaro write groups.

    Args:
        objects: dict <id>, or place where there is none -> _XmlObject.
        elements: all <object>.

    Returns:
        (the objects, the boxes that say less than the outlines of other parts): lists of _XmlObject.
    """
    joined, owner, boxes = dict(objects), {}, []
    for element in elements:
        number = _read_id(element)
        whole = joined.get(owner.get(number, number))
        for child in filter(None, map(str.strip, (element.findtext("parts/hasparts") or "").split(","))):
            part = joined.get(child)
            if not whole or not part or part is whole or part.label != whole.label:
                continue
            if not part.outline.parts and not whole.outline.parts:
                continue
            boxes += [entry for entry in (whole, part) if not entry.outline.parts]
            whole.outline.parts += joined.pop(child).outline.parts
            whole.box = None
            owner[child] = owner.get(number, number)
    return list(joined.values()), boxes


def _read_id(element):
    return (element.findtext("id") or "").strip()


def _read_size(root):
    """(width, height) in an xml, None where it isn't known: left out, 0, negative or no number."""
    for paths in _SIZES:
        try:
            width, height = (_read_number(root, path) or 0 for path in paths)
        except ValueError:
            continue
        if width > 0 and height > 0:
            return width, height
    return None


def _read_number(element, path):
    """The finite number at a path in xml; None if nothing is there. Raises ValueError."""
    text = element.findtext(path)
    if text is None or not text.strip():
        return None
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
