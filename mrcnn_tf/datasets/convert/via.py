"""VGG Image Annotator's files, versions 1 and 2: one json or csv for all images.

An image has regions, a list in version 2 and a dict in version 1, each with shape_attributes in pixels of the image as
the browser shows it and with region_attributes, one of which is the class. Projects wrap this in _via_img_metadata and
describe the attributes in _via_attributes. See https://www.robots.ox.ac.uk/~vgg/software/via/.
"""

import itertools
import json
import math
import urllib.parse

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.common.problems import show_progress
from mrcnn_tf.datasets.convert.coco import find_image
from mrcnn_tf.datasets.convert.dataset import Dataset
from mrcnn_tf.datasets.convert.geometry import as_one_polygon, ellipse, rectangle
from mrcnn_tf.datasets.convert.inputs import choose_only_file, existing_path, recognise_format
from mrcnn_tf.datasets.convert.via_files import (
    ViaFile,
    chosen_options,
    parse_object,
    region_attributes,
    regions_of,
)
from mrcnn_tf.datasets.image_folder import ImageFolder

LIKELY_ATTRIBUTES = ("class", "class_name", "label", "category", "name", "type", "object")  # that may be the class
# Of a polyline's length, how far its ends may be apart where it goes around an object. Outlines drawn by hand have 2 %
# in the median and 4 % at the 90th percentile. Of lines, a straight one has 100 %, half a circle 64 %, three sides of a
# square 33 %, and an arc 10 % where a tenth of the circle is missing.
WIDEST_GAP = 0.1
FEWEST_POINTS = 3
WRITTEN_ATTRIBUTE = "class"


def read_via(source, images=None, names=None, class_attribute=None, class_name=None):
    """The Dataset of a VIA project or of annotations exported as json or csv; see `convert` for readers.

    Points, open lines, lines that were closed, regions without a class and missing images are noted in it.

    Args:
        class_attribute: the region attribute that is the class; None to find it.
        class_name: the class of all regions, instead.

    Raises:
        UserError: also if there are several attributes that may be the class, or none.
    """
    source = existing_path(source, "VIA's json or csv file")
    source = _find_file(source) if source.is_dir() else source
    file = ViaFile(source)
    folder = ImageFolder(images or source.parent)
    classes = RegionClasses(file, class_attribute, class_name)
    dataset = Dataset(source, names)
    for key, entry in file.entries():
        problem = _entry_problem(entry)
        if problem:
            message = (
                f"An entry of {source}{f' ({key})' if key else ''} {problem} and was left out: save it again in VIA."
            )
            dataset.leave_out("broken_entry", source, message, key)
        else:
            _read_entry(entry, folder, classes, dataset)
    return dataset


def _find_file(folder):
    """VIA's file in a folder, if there is one; raises UserError for none or several."""
    files = sorted([*folder.glob("*.json"), *folder.glob("*.csv")])
    if len(files) > 1:  # a single one may be large, and is read anyway
        files = [file for file in files if recognise_format(file) == "via"]
    return choose_only_file(files, folder, "via", "files of VIA")


def _entry_problem(entry):
    if not isinstance(entry, dict) or not isinstance(entry.get("filename"), str) or not entry["filename"].strip():
        return "names no image file"
    if not isinstance(entry.get("regions", []), (list, dict, type(None))):
        return f"has a {type(entry['regions']).__name__} in place of its regions"
    return None


class RegionClasses:
    """Finds the attribute that is the class and reads the class of each region.

    Args:
        file: ViaFile.
        attribute: the attribute's name; None to find it: the only one that has values, or the only likely one.
        class_name: the class of all regions, instead of an attribute.

    Raises:
        UserError: there is no such attribute, none at all, or several.
    """

    def __init__(self, file, attribute=None, class_name=None):
        self._class_name = class_name
        if class_name:
            return
        self._attribute = attribute or _likely_attribute(file)
        if self._attribute not in file.examples:
            known = ", ".join(map(repr, file.examples)) or "none"
            raise UserError(f"No region of {file.path} has the attribute {attribute!r}: the file has {known}.")
        self._options = file.options(self._attribute)

    def read_class(self, region, where, dataset):
        """The class of a region; None, and a note in the dataset, if it has none or several."""
        if self._class_name:
            return self._class_name
        options = chosen_options(region_attributes(region).get(self._attribute))
        if len(options) != 1:
            kind, detail = (
                ("several_classes", f"is {' and '.join(options)}") if options else ("no_class", "has no value")
            )
            message = f"{where} in {dataset.source} {detail} in {self._attribute!r} and was left out: choose one class."
            dataset.leave_out(kind, dataset.source, message, where)
            return None
        # As in VIA's own COCO export, an option goes by its description where it has one.
        description = self._options.get(options[0])
        return description if isinstance(description, str) and description.strip() else options[0]


def _likely_attribute(file):
    examples = file.examples
    likely = [name for name in examples if name.strip().lower() in LIKELY_ATTRIBUTES]
    candidates = list(examples) if len(examples) == 1 else likely
    if len(candidates) == 1:
        return candidates[0]
    if not examples:
        remedy = "name the class of all by --class-name NAME"
        raise UserError(f"No region of {file.path} has an attribute with a value: {remedy}.")
    listed = ", ".join(f"{name!r} (such as {value!r})" for name, value in examples.items())
    remedy = "say which is the class by --class-attribute"
    raise UserError(f"Regions of {file.path} have several attributes, {listed}: {remedy}.")


def _read_entry(entry, folder, classes, dataset):
    """Adds an image and the objects of its regions."""
    name, source = entry["filename"], dataset.source
    path = _find_image(name, folder)
    if path is None:
        dataset.leave_out_missing(name, folder, source, name)
        return
    frame = dataset.read_frame(path, name)
    if frame is None:
        return
    regions = {f"Region {number} of {name}": region for number, region in enumerate(regions_of(entry), 1)}
    polygons = {where: _read_polygon(region, where, dataset) for where, region in regions.items()}
    right = max((max(polygon[0::2]) for polygon in polygons.values() if polygon), default=0)
    bottom = max((max(polygon[1::2]) for polygon in polygons.values() if polygon), default=0)
    image = dataset.add_image(folder.relative(path), *frame.around(right, bottom), source)
    for where, polygon in polygons.items() if image else ():
        if polygon and (label := classes.read_class(regions[where], where, dataset)):
            dataset.add_object(image, label, source, where, parts=[polygon])


def _find_image(name, folder):
    """The file of a name, which may be an address as VIA has it of images on the web; None if there is none."""
    path = folder.find(name)
    if path is None and "://" in name:
        path = folder.find(urllib.parse.unquote(urllib.parse.urlsplit(name).path).lstrip("/"))
    return path


def _read_polygon(region, where, dataset):
    """A region as a polygon [x, y, x, y, ...]; None, and a note, if it can't be one."""
    try:
        shape = region["shape_attributes"]
        shape = parse_object(shape) if isinstance(shape, str) else shape
        kind = shape["name"]
        if kind == "rect":
            x, y, width, height = (float(shape[name]) for name in ("x", "y", "width", "height"))
            return rectangle(x, y, x + width, y + height)
        if kind == "circle":
            x, y, radius = (float(shape[name]) for name in ("cx", "cy", "r"))
            return ellipse(x, y, radius, radius)
        if kind == "ellipse":
            x, y, width, height = (float(shape[name]) for name in ("cx", "cy", "rx", "ry"))
            return ellipse(x, y, width, height, float(shape.get("theta") or 0))
        if kind in ("polygon", "polyline"):
            polygon = _points_of(shape)
            if kind == "polygon" or _is_closed(polygon, where, dataset):
                return polygon
    except (AttributeError, TypeError, ValueError, OverflowError, KeyError, IndexError) as error:
        kind, detail = "broken_shape", f"can't be read ({error!r}) and was left out: draw it again"
    else:
        what = "an open polyline" if kind == "polyline" else f"a {kind}"
        detail = f"is {what}, which has no area, and was left out: outline the object"
        kind = "open_polyline_shape" if kind == "polyline" else f"{kind}_shape"
    dataset.leave_out(kind, dataset.source, f"{where} in {dataset.source} {detail}.", where)
    return None


def _points_of(shape):
    """[x, y, x, y, ...] of a polygon or polyline; raises TypeError or ValueError if the lists aren't of one length."""
    x, y = shape["all_points_x"], shape["all_points_y"]
    if not isinstance(x, list) or not isinstance(y, list):
        raise TypeError("its points aren't lists")
    points = [0.0] * (2 * len(x))
    points[0::2], points[1::2] = list(map(float, x)), list(map(float, y))
    return points


def _is_closed(line, where, dataset):
    """Whether the ends of a polyline [x, y, x, y, ...] nearly meet, so that it outlines something, which is noted."""
    points = list(zip(line[0::2], line[1::2], strict=True))
    length = sum(itertools.starmap(math.dist, itertools.pairwise(points)))
    gap = math.dist(points[0], points[-1])
    if len(set(points)) < FEWEST_POINTS or not gap <= WIDEST_GAP * length:
        return False
    if gap:
        detail = (
            f"is a polyline whose ends are {gap:.1f} pixels apart, {gap / length:.1%} of its length, and was closed"
        )
        dataset.leave_out("closed_polyline", dataset.source, f"{where} in {dataset.source} {detail}.", where)
    return True


def write_via(coco, out, images):
    """Writes one json for "Import Annotations" in VIA 2, a region for each object: a polygon, or a rect for a box.

    A region can't have several parts or holes, so these become one polygon with ways between them, see `geometry`.
    Crowds are left out. The images are needed, as VIA knows an image by its name and the size of its file. See
    `convert` for writers; here `out` is the file.
    """
    coco.note_repeated_names()
    coco.drop_crowds()
    entries = {}
    for image in show_progress(coco.images, "VIA"):
        path = find_image(coco, image, images)
        if path is None:
            continue
        regions = []
        for annotation in image.annotations:
            attributes = {WRITTEN_ATTRIBUTE: coco.names[annotation.category_id]}
            regions.append({"shape_attributes": _make_shape(annotation, image), "region_attributes": attributes})
        size = path.stat().st_size
        entry = {"filename": image.file_name, "size": size, "regions": regions, "file_attributes": {}}
        entries[f"{image.file_name}{size}"] = entry
    with atomic_write(out) as file:
        file.write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")


def _make_shape(annotation, image):
    if annotation.segmentation is None:
        return dict(zip(("name", "x", "y", "width", "height"), ("rect", *annotation.box), strict=True))
    polygon = as_one_polygon(annotation.segmentation, image.height, image.width)
    return {"name": "polygon", "all_points_x": polygon[0::2], "all_points_y": polygon[1::2]}
