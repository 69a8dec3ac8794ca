"""VGG Image Annotator's files, versions 1 and 2: one json or csv for all images.

An image has regions, a list in version 2 and a dict in version 1, each with shape_attributes in pixels of the image as
the browser shows it and with region_attributes, one of which is the class. Projects wrap this in _via_img_metadata and
describe the attributes in _via_attributes. See https://www.robots.ox.ac.uk/~vgg/software/via/.
"""

import csv
import io
import json
import math

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.common.problems import show_progress
from mrcnn_tf.datasets.convert.coco import find_image
from mrcnn_tf.datasets.convert.dataset import Dataset
from mrcnn_tf.datasets.convert.geometry import as_one_polygon, ellipse, rectangle
from mrcnn_tf.datasets.convert.inputs import existing_path, raise_wrong_format, read_json, read_text
from mrcnn_tf.datasets.image_folder import ImageFolder

LIKELY_ATTRIBUTES = ("class", "class_name", "label", "category", "name", "type", "object")  # that may be the class
CLOSED = 5  # pixels between the ends of a polyline that count as none, as when VIA closes a polygon
WRITTEN_ATTRIBUTE = "class"
CSV_COLUMNS = ("filename", "region_shape_attributes", "region_attributes")


def read_via(source, images=None, names=None, class_attribute=None, class_name=None):
    """The Dataset of a VIA project or of annotations exported as json or csv; see `convert` for readers.

    Points, open lines, regions without a class and missing images are noted in it.

    Args:
        class_attribute: the region attribute that is the class; None to find it.
        class_name: the class of all regions, instead.

    Raises:
        UserError: also if there are several attributes that may be the class, or none.
    """
    source = existing_path(source, "VIA's json or csv file")
    if source.is_dir():
        files = sorted([*source.glob("*.json"), *source.glob("via*.csv")])
        if len(files) != 1:
            raise UserError(f"{source} is a folder: name the json or csv file that VIA saved.")
        source = files[0]
    content = _read_csv(source) if source.suffix.lower() == ".csv" else read_json(source)
    entries = _image_entries(content, source)
    folder = ImageFolder(images or source.parent)
    classes = RegionClasses(content, entries, source, class_attribute, class_name)
    dataset = Dataset(source, names)
    for entry in show_progress(entries, "VIA"):
        _read_entry(entry, folder, classes, dataset)
        entry.clear()  # a large file's regions aren't needed twice
    return dataset


def _read_csv(path):
    """The records of exported annotations in csv as those of a json, a list of dict."""
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""))
    rows.fieldnames = [name.lstrip("#").strip() for name in rows.fieldnames or []]
    if not set(CSV_COLUMNS) <= set(rows.fieldnames):
        raise UserError(f"{path} has no columns {', '.join(CSV_COLUMNS[:2])} and {CSV_COLUMNS[2]}, as VIA's csv has.")
    entries = {}
    for row in rows:
        try:
            shape, attributes = (json.loads(row[name] or "{}") for name in CSV_COLUMNS[1:])
        except (ValueError, TypeError) as error:
            where = f"{path}, line {rows.line_num},"
            raise UserError(f"{where} has a cell that isn't json ({error}): export it again.") from None
        key = row["filename"], row.get("file_size")
        entry = entries.setdefault(key, {"filename": row["filename"], "regions": []})
        if shape:  # an image without regions has a line with empty cells
            entry["regions"].append({"shape_attributes": shape, "region_attributes": attributes})
    return list(entries.values())


def _image_entries(content, source):
    """The images' records, list of dict."""
    if isinstance(content, dict) and isinstance(content.get("project"), dict) and "view" in content:
        raise UserError(f"{source} is of VIA 3, which isn't read: export it as COCO there.")
    if isinstance(content, dict):
        content = content.get("_via_img_metadata", content)
    entries = list(content.values()) if isinstance(content, dict) else content
    if not isinstance(entries, list) or not any(isinstance(entry, dict) and "regions" in entry for entry in entries):
        raise_wrong_format(source, "via")
    return [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("filename"), str)]


def _regions(entry):
    regions = entry.get("regions") or []
    return list(regions.values()) if isinstance(regions, dict) else regions


def _dict_at(content, *keys):
    """The dict under nested keys; an empty one where something else stands there."""
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}


class RegionClasses:
    """Finds the attribute that is the class and reads the class of each region.

    Args:
        content: the file's json; a project describes its attributes and what their options stand for.
        entries: list of the images' records.
        source: the file, for messages.
        attribute: the attribute's name; None to find it: the only one that has values, or the only likely one.
        class_name: the class of all regions, instead of an attribute.

    Raises:
        UserError: there is no such attribute, none at all, or several.
    """

    def __init__(self, content, entries, source, attribute=None, class_name=None):
        self._class_name = class_name
        if class_name:
            return
        examples = _example_values(entries)
        self._attribute = attribute or _likely_attribute(examples, source)
        if self._attribute not in examples:
            known = ", ".join(map(repr, examples)) or "none"
            raise UserError(f"No region of {source} has the attribute {attribute!r}: the file has {known}.")
        self._options = _dict_at(content, "_via_attributes", "region", self._attribute, "options")

    def read_class(self, region, where, dataset):
        """The class of a region; None, and a note in the dataset, if it has none or several."""
        if self._class_name:
            return self._class_name
        options = _chosen_options(_dict_at(region, "region_attributes").get(self._attribute))
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


def _example_values(entries):
    """dict attribute -> one of its values, of all attributes that some region has a value of."""
    examples = {}
    for entry in entries:
        for region in _regions(entry):
            for name, value in _dict_at(region, "region_attributes").items():
                if name not in examples and (options := _chosen_options(value)):
                    examples[name] = options[0]
    return examples


def _likely_attribute(examples, source):
    likely = [name for name in examples if name.strip().lower() in LIKELY_ATTRIBUTES]
    candidates = list(examples) if len(examples) == 1 else likely
    if len(candidates) == 1:
        return candidates[0]
    if not examples:
        remedy = "name the class of all by --class-name NAME"
        raise UserError(f"No region of {source} has an attribute with a value: {remedy}.")
    listed = ", ".join(f"{name!r} (such as {value!r})" for name, value in examples.items())
    remedy = "say which is the class by --class-attribute"
    raise UserError(f"Regions of {source} have several attributes, {listed}: {remedy}.")


def _chosen_options(value):
    """The options that an attribute's value names: a text is one, a checkbox has any number."""
    if isinstance(value, dict):
        return [name for name, is_checked in value.items() if is_checked]
    if isinstance(value, bool) or value is None:
        return []
    return [str(value).strip()] if str(value).strip() else []


def _read_entry(entry, folder, classes, dataset):
    """Adds an image and the objects of its regions."""
    name, source = entry["filename"], dataset.source
    path = folder.find(name)
    if path is None:
        message = f"{name} in {source} isn't in {folder.root} and was left out: give its folder by --images."
        dataset.leave_out("missing_image", source, message, name)
        return
    frame = dataset.read_frame(path, name)
    if frame is None:
        return
    regions = {f"Region {number} of {name}": region for number, region in enumerate(_regions(entry), 1)}
    polygons = {where: _read_polygon(region, where, dataset) for where, region in regions.items()}
    right = max((max(polygon[0::2]) for polygon in polygons.values() if polygon), default=0)
    bottom = max((max(polygon[1::2]) for polygon in polygons.values() if polygon), default=0)
    image = dataset.add_image(folder.relative(path), *frame.around(right, bottom), source)
    for where, polygon in polygons.items() if image else ():
        if polygon and (label := classes.read_class(regions[where], where, dataset)):
            dataset.add_object(image, label, source, where, parts=[polygon])


def _read_polygon(region, where, dataset):
    """A region as a polygon [x, y, x, y, ...]; None, and a note, if it can't be one."""
    try:
        shape = region["shape_attributes"]
        kind = shape["name"]
        if kind == "rect":
            x, y = float(shape["x"]), float(shape["y"])
            return rectangle(x, y, x + shape["width"], y + shape["height"])
        if kind == "circle":
            return ellipse(shape["cx"], shape["cy"], shape["r"], shape["r"])
        if kind == "ellipse":
            return ellipse(shape["cx"], shape["cy"], shape["rx"], shape["ry"], shape.get("theta", 0.0))
        if kind in ("polygon", "polyline"):
            x, y = shape["all_points_x"], shape["all_points_y"]
            if kind == "polygon" or math.hypot(x[0] - x[-1], y[0] - y[-1]) <= CLOSED:
                return [float(value) for point in zip(x, y, strict=True) for value in point]
    except (AttributeError, TypeError, ValueError, KeyError, IndexError) as error:
        kind, detail = "broken_shape", f"can't be read ({error!r}) and was left out: draw it again"
    else:
        kind = "open polyline" if kind == "polyline" else kind
        detail = f"is a {kind}, which has no area, and was left out: outline the object"
        kind = f"{kind}_shape".replace(" ", "_")
    dataset.leave_out(kind, dataset.source, f"{where} in {dataset.source} {detail}.", where)
    return None


def write_via(coco, out, images):
    """Writes one json for "Import Annotations" in VIA 2, a region for each object: a polygon, or a rect for a box.

    A region can't have several parts or holes, so these become one polygon with ways between them, see `geometry`.
    Crowds are left out. The images are needed, as VIA knows an image by its name and the size of its file. See
    `convert` for writers; here `out` is the file.
    """
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
