"""CVAT's own xml, "CVAT for images": one annotations.xml for all images of a task, job or project.

A shape's coordinates are pixels of the image as seen. Shapes of one label and group_id are one object, of which boxes
only count where it has no outline. A skeleton's points are the keypoints of the shape in its group or, if there is
none, of an object whose box lies around them, as in CVAT's own export to COCO.
"""

import dataclasses
import html
import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.problems import CONSOLE, progress_bars, reading_bar
from mrcnn_tf.datasets import run_lengths
from mrcnn_tf.datasets.convert.dataset import BACKGROUNDS, Dataset
from mrcnn_tf.datasets.convert.geometry import ellipse, rectangle
from mrcnn_tf.datasets.convert.inputs import (
    BrokenFile,
    choose_only_file,
    existing_path,
    raise_wrong_format,
    recognise_format,
)
from mrcnn_tf.datasets.convert.keypoints import OCCLUDED, UNLABELLED, VISIBLE
from mrcnn_tf.datasets.convert.splits import choose_split
from mrcnn_tf.datasets.image_folder import ImageFolder

SHAPES = ("polygon", "box", "mask", "ellipse", "skeleton")
_WHY_LEFT_OUT = {
    "points": "are points without an object and were left out: draw a skeleton, if they are keypoints",
    "tag": "is a class of the whole image and was left out: outline the objects",
    "polyline": "has no area and was left out: outline the object",
}
XML_NAME, IMAGES_NAME = "annotations.xml", "images"  # in the zip that CVAT exports


@dataclasses.dataclass
class _Object:
    """Shapes that are one object: outlines, boxes [x, y, width, height] and keypoints (x, y, visibility) by name."""

    label: str
    where: str  # of its first shape
    outlines: list = dataclasses.field(default_factory=list)
    boxes: list = dataclasses.field(default_factory=list)
    keypoints: dict = dataclasses.field(default_factory=dict)
    skeleton: str = ""  # the label that the keypoints had


def read_cvat(source, images=None, names=None, split=None):
    """The Dataset of an annotations.xml, or of a folder that holds one; see `convert` for readers.

    Args:
        split: the subset to read, as projects have them.

    Raises:
        UserError: also where an xml has several subsets and `split` names none of them, and for CVAT for video.
    """
    source = existing_path(source, "CVAT's annotations.xml")
    file = _find_xml(source) if source.is_dir() else source
    beside = file.parent / IMAGES_NAME
    folder = ImageFolder(images or (beside if beside.is_dir() else file.parent))
    dataset = Dataset(source, names)
    edges, subsets = {}, set()
    with progress_bars(CONSOLE.is_terminal) as bars:
        for element in _stream_elements(file, reading_bar(bars, "CVAT", file)):
            if element.tag == "track":
                remedy = 'export the task as "CVAT for images 1.1" or "COCO 1.0", which have the frames one by one'
                raise UserError(f"{file} is CVAT for video, whose tracks aren't read: {remedy}.")
            if element.tag == "label":
                edges[element.findtext("name", "").strip()] = _read_edges(element.findtext("svg", ""))
            elif element.tag == "image":
                subsets |= {element.get("subset")} - {None}
                if split in (None, element.get("subset")):
                    _read_image(element, file, folder, edges, dataset)
    choose_split(sorted(subsets), split, file)
    return dataset


def _find_xml(folder):
    """CVAT's xml in a folder: annotations.xml, or the only one; raises UserError for none or several."""
    if (folder / XML_NAME).is_file():
        return folder / XML_NAME
    files = [file for file in sorted(folder.glob("*.xml")) if recognise_format(file) == "cvat"]
    return choose_only_file(files, folder, "cvat", "xml files of CVAT")


def _stream_elements(file, on_progress):
    """The finished label, image and track elements of an xml, one after another and each freed after its turn.

    Raises BrokenFile for an xml that isn't valid, UserError for another format's.
    """
    wanted, root = ("label", "image", "track"), None
    try:
        with open(file, "rb") as stream:
            for event, element in ElementTree.iterparse(stream, events=("start", "end")):
                if root is None:
                    root = element
                    if root.tag != "annotations":
                        raise_wrong_format(file, "cvat")
                elif event == "end" and element.tag in wanted:
                    yield element
                    on_progress(stream.tell())
                    element.clear()
                    if element.tag != "label":
                        root.clear()
    except ElementTree.ParseError as error:
        where = f"line {error.position[0]}"
        raise BrokenFile(f"{file} isn't valid xml ({where}): export it again, it may have been cut off.") from None


def _read_edges(svg):
    """The pairs of keypoints' names that a skeleton's drawing joins, list of (first, second); [] for none."""
    nodes, pairs = {}, []
    for tag in re.findall(r"<\w+[^>]*>", html.unescape(svg)):
        values = dict(re.findall(r"data-([\w-]+)=\"([^\"]*)\"", tag))
        if "label-name" in values:
            nodes[values.get("node-id")] = values["label-name"]
        if values.get("type") == "edge":
            pairs.append((values.get("node-from"), values.get("node-to")))
    return [(nodes[first], nodes[second]) for first, second in pairs if first in nodes and second in nodes]


def _read_image(element, file, folder, edges, dataset):
    """Adds an image element and its objects."""
    name = element.get("name") or ""
    subset = element.get("subset")
    # A project's export has a folder for each subset, which the name lacks.
    path = (subset and folder.find(f"{subset}/{name}")) or folder.find(name)
    if path is None:
        dataset.leave_out_missing(name, folder, file, name)
        return
    try:
        size = int(element.get("width")), int(element.get("height"))
    except (TypeError, ValueError):
        size = None
    image = dataset.add_image_of_size(path, folder, file, size, name)
    for item in _read_objects(element, file, image, dataset) if image else ():
        given = {"parts": item.outlines, "keypoints": item.keypoints, "edges": edges.get(item.skeleton, ())}
        box = item.boxes[0] if item.boxes else _box_around(item.keypoints)
        dataset.add_object(image, item.label, file, item.where, box=box, **given)


def _read_objects(element, file, image, dataset):
    """The _Objects of an image element's shapes."""
    objects, skeletons, counts = {}, [], {}

    def leave_out(kind, where, detail):
        dataset.leave_out_record(kind, file, where, detail)

    for number, shape in enumerate(element):
        kind, label = shape.tag, (shape.get("label") or "").strip()
        counts[kind] = counts.get(kind, 0) + 1
        where = f"{kind.capitalize()} {counts[kind]} of image {element.get('name')}"
        if kind not in SHAPES:
            leave_out(f"{kind}_shape", where, _WHY_LEFT_OUT.get(kind, _WHY_LEFT_OUT["polyline"]))
            continue
        if label in BACKGROUNDS:
            leave_out("background_shape", where, f"is {label} and was left out; what it lies on keeps its pixels")
            continue
        group = shape.get("group_id") if shape.get("group_id") not in (None, "0", "") else None
        try:
            if kind == "skeleton":
                skeletons.append((group, _Object(label, where, keypoints=_read_skeleton(shape), skeleton=label)))
                continue
            outline, box = _read_shape(shape, image)
        except (TypeError, ValueError, KeyError) as error:
            leave_out("broken_shape", where, f"can't be read ({error}) and was left out: draw it again")
            continue
        item = objects.setdefault((group, label) if group else number, _Object(label, where))
        item.outlines += outline
        item.boxes += box
    for item in objects.values():
        _leave_out_boxes(item, leave_out)
    return [*objects.values(), *_assign_skeletons(skeletons, objects, leave_out)]


def _leave_out_boxes(item, leave_out):
    """Notes boxes of an object that has outlines, or another box, which say more."""
    for _ in item.boxes[0 if item.outlines else 1 :]:
        better = "outlines" if item.outlines else "another box"
        leave_out("box_of_group", item.where, f"has a box in its group, which was left out, as it has {better}, too")


def _assign_skeletons(skeletons, objects, leave_out):
    """Gives skeletons, a list of (group, _Object), to the only shape of their group; the others, a list of _Object."""
    alone = []
    for group, skeleton in skeletons:
        owners = [item for key, item in objects.items() if isinstance(key, tuple) and key[0] == group]
        rivals = sum(group is not None and other == group for other, _ in skeletons)
        if group is not None and len(owners) == 1 and rivals == 1:
            owners[0].keypoints, owners[0].skeleton = skeleton.keypoints, skeleton.label
            continue
        if owners:
            detail = f"is in a group of {len(owners)} objects and {rivals} skeletons and counts as an object of its own"
            leave_out("shared_skeleton", skeleton.where, f"{detail}: give each object a group with its skeleton")
        if any(visibility != UNLABELLED for _, _, visibility in skeleton.keypoints.values()):
            alone.append(skeleton)
        else:
            leave_out("empty_skeleton", skeleton.where, "has no point inside the image and was left out: remove it")
    return alone


def _read_skeleton(shape):
    """The keypoints of a skeleton element, {name: (x, y, visibility)}; points outside the image are unlabelled."""
    keypoints = {}
    for point in shape.findall("points"):
        ((x, y),) = _read_points(point.get("points"))
        occluded = OCCLUDED if _is_set(point, "occluded") else VISIBLE
        keypoints[(point.get("label") or "").strip()] = x, y, UNLABELLED if _is_set(point, "outside") else occluded
    return keypoints


def _read_shape(shape, image):
    """A shape as (list of polygons [x, y, x, y, ...] and run-length masks, list of boxes [x, y, width, height])."""
    turn = math.radians(float(shape.get("rotation") or 0))
    if shape.tag == "polygon":
        return [[value for point in _read_points(shape.get("points")) for value in point]], []
    if shape.tag == "mask":
        return [_read_mask(shape, image)], []
    if shape.tag == "ellipse":
        return [ellipse(*_numbers(shape, "cx", "cy", "rx", "ry"), turn)], []
    x1, y1, x2, y2 = _numbers(shape, "xtl", "ytl", "xbr", "ybr")
    if not turn:
        return [], [[x1, y1, x2 - x1, y2 - y1]]
    centre = np.array([x1 + x2, y1 + y2]) / 2
    corners = np.reshape(rectangle(x1, y1, x2, y2), (4, 2)) - centre
    cosine, sine = math.cos(turn), math.sin(turn)  # clockwise in the picture
    turned = corners @ np.array([[cosine, sine], [-sine, cosine]]) + centre
    return [turned.ravel().tolist()], []


def _read_mask(shape, image):
    """A mask element's pixels as run lengths: its rle has those of runs along the rows of its box, background first."""
    left, top, width, height = (round(value) for value in _numbers(shape, "left", "top", "width", "height"))
    runs = [int(run) for run in (shape.get("rle") or "").replace(",", " ").split()]
    if sum(runs) != width * height or min(runs, default=-1) < 0:
        raise ValueError(f"its rle has {sum(runs)} pixels and its box {width} x {height}")
    crop = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    return run_lengths.encode_crop(crop, left, top, image.height, image.width)


def _read_points(text):
    """list of (x, y) of a text "x,y;x,y"."""
    points = [tuple(map(float, point.split(","))) for point in (text or "").split(";") if point.strip()]
    if not points or any(len(point) != 2 for point in points):
        raise ValueError(f"points {text!r}")
    return points


def _numbers(shape, *names):
    return [float(shape.attrib[name]) for name in names]


def _is_set(element, name):
    return (element.get(name) or "0").strip().lower() in ("1", "true")


def _box_around(keypoints):
    """[x, y, width, height] of the labelled keypoints, at least one pixel wide and high; None without any."""
    points = np.array([(x, y) for x, y, visibility in keypoints.values() if visibility != UNLABELLED])
    if not points.size:
        return None
    low, high = points.min(axis=0), points.max(axis=0)
    return [*low.tolist(), *np.maximum(high - low, 1).tolist()]
