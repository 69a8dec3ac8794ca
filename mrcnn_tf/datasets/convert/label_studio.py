"""Label Studio's exports JSON and JSON-MIN, one file for all tasks.

A task has data, among it the place of its image, and annotations, each with a result: regions and other answers. A
region has a value with a shape, in percent of the image's sides as seen, and with labels under the name of its type,
such as polygonlabels. What was asked about a region comes as another part of the result with the region's id. Keypoints
belong to the region of their parentID or to one that a relation joins them to. JSON-MIN has a record for each
annotation: the task's data and, under the name of each tag, the values of its regions, without ids.
"""

import base64
import binascii
import collections
import contextlib
import dataclasses
import os
import urllib.parse

from mrcnn_tf.common.json_stream import stream_members
from mrcnn_tf.common.problems import CONSOLE, progress_bars, reading_bar
from mrcnn_tf.datasets.convert.dataset import Dataset
from mrcnn_tf.datasets.convert.inputs import existing_path, raise_wrong_format
from mrcnn_tf.datasets.convert.keypoints import VISIBLE
from mrcnn_tf.datasets.convert.label_studio_shapes import read_shape, shape_kind, to_pixels
from mrcnn_tf.datasets.image_files import IMAGE_SUFFIXES
from mrcnn_tf.datasets.image_folder import ImageFolder

ANNOTATIONS = ("annotations", "completions")  # of a task; the latter in versions before 1.0
TIMES = ("updated_at", "created_at")
PATH_QUERIES = ("d", "filepath", "fileuri")  # parts of an address that hold a path: local files, uploads, cloud storage
SAME_ASPECT = 0.01  # by how much the ratio of an image's sides may differ from that of the labelled one


def read_label_studio(source, images=None, names=None):
    """The Dataset of a JSON or JSON-MIN export, or of a folder of such files; see `convert` for readers.

    A task's annotation is the one marked as ground truth, or the latest that wasn't skipped; others are noted, as are
    tasks without annotations, missing images, and regions without area or label.
    """
    source = existing_path(source, "Label Studio's JSON export")
    files = sorted(source.glob("*.json")) if source.is_dir() else [source]
    folder = ImageFolder(images or (source if source.is_dir() else source.parent))
    dataset = Dataset(source, names)
    task_count = 0
    for file in files:
        for task in _tasks(file):
            task_count += 1
            _read_task(task, file, folder, dataset)
    if not task_count:
        raise_wrong_format(source, "label-studio")
    return dataset


@dataclasses.dataclass
class _Task:
    """A task as either export has it.

    Attributes:
        where: what it is, for messages.
        data: dict of texts and other values, one of which is the place of the image.
        annotations: list of dicts with `result`, a list of dicts, and the time and marks of the annotation.
    """

    where: str
    data: dict
    annotations: list[dict]


def _tasks(file):
    """Yields the _Tasks of a file. JSON-MIN is read twice: the records of a task need not be in a row."""
    annotations = collections.defaultdict(list)  # by task, of JSON-MIN
    for value in _elements(file):
        if task := _full_task(value):
            yield task
        elif _is_minimal(value):
            annotations[value.get("id")].append({name: value.get(name) for name in ("annotation_id", *TIMES)})
    for value in _elements(file) if annotations else ():
        others = annotations.get(value.get("id"), ()) if _is_minimal(value) else ()
        if others and max(others, key=_time)["annotation_id"] == value["annotation_id"]:
            others = [each for each in others if each["annotation_id"] != value["annotation_id"]]
            yield _Task(f"Task {value.get('id')}", value, [value | {"result": _minimal_result(value)}, *others])


def _elements(file):
    """Yields the elements of the array in a json file, or the object that it holds; a bar shows the bytes read."""
    members = {}
    with progress_bars(CONSOLE.is_terminal) as bars:
        for name, value in stream_members(file, on_progress=reading_bar(bars, "Label Studio", file)):
            if name is None:
                yield value
            else:
                members[name] = value
    if members:
        yield members


def _full_task(value):
    """The _Task of an element of a JSON export; None if it is none."""
    data = value.get("data") if isinstance(value, dict) else None
    annotations = next((value[name] for name in ANNOTATIONS if isinstance(value.get(name), list)), None)
    if not isinstance(data, dict) or annotations is None:
        return None
    annotations = [annotation for annotation in annotations if isinstance(annotation, dict)]
    return _Task(f"Task {value.get('id')}", data, annotations)


def _is_minimal(value):
    return isinstance(value, dict) and {"annotation_id", "lead_time"} <= set(value)


def _minimal_result(record):
    """The regions in a record of JSON-MIN as a JSON export has them."""
    lists = (value for value in record.values() if isinstance(value, list))
    regions = [value for values in lists for value in values if isinstance(value, dict) and shape_kind(value)]
    return [{"value": value} | value for value in regions]


def _read_task(task, file, folder, dataset):
    """Adds a task's image and objects, or notes why not."""

    def leave_out(kind, detail):
        dataset.leave_out_record(kind, file, task.where, detail)

    annotation = _choose_annotation(task.annotations, leave_out)
    if annotation is None:
        return
    places = [text for text in task.data.values() if isinstance(text, str) and _is_place(text)]
    path = next((path for place in places for name in _names_of(place) if (path := folder.find(name))), None)
    if path is None:
        if any(place.startswith("data:") for place in places):
            detail = "has its image in the json, which isn't read: write it to a file and name that in the json"
        elif places:
            detail = f"has its image at {places[0]}, which isn't in {folder.root}: give its folder by --images"
        else:
            detail = "names no image file, and was left out: its data should hold the path of one"
        leave_out("missing_image", detail)
        return
    frame = dataset.read_frame(path, task.where)
    if frame is None:
        return
    results = [part for part in annotation.get("result") or [] if isinstance(part, dict)]
    size = _labelled_size(results)
    if size and not frame.fits(*size):
        ratio = size[0] * frame.height / (size[1] * frame.width)
        if abs(ratio - 1) > SAME_ASPECT:
            other = f"{frame.width} x {frame.height} but was {size[0]} x {size[1]} when it was labelled"
            leave_out("other_size", f"was left out, as {path} is {other}: put back the image that was labelled")
            return
        size = None  # percentages hold for an image that was made smaller
    width, height = size or (frame.width, frame.height)
    image = dataset.add_image(folder.relative(path), width, height, file)
    if image:
        _add_objects(results, task.where.lower(), file, image, dataset)


def _choose_annotation(annotations, leave_out):
    """The annotation of a task that is used; None if there is none. Others are noted."""
    usable = [each for each in annotations if not (each.get("was_cancelled") or each.get("skipped"))]
    if not usable:
        kind, detail = ("skipped_task", "was skipped") if annotations else ("no_annotation", "has no annotation")
        leave_out(kind, f"{detail} and was left out: annotate it, also where there is nothing")
        return None
    truths = [each for each in usable if each.get("ground_truth")]
    chosen = max(truths or usable, key=_time)
    if len(usable) > 1:
        which = "the one marked as ground truth" if truths else "the latest"
        number = chosen.get("id", chosen.get("annotation_id"))
        detail = f"has {len(usable)} annotations, of which {which}, {number}, was used"
        leave_out("other_annotation", f"{detail}: mark another one as ground truth or delete it, if that is wrong")
    return chosen


def _time(annotation):
    return next((str(annotation[name]) for name in TIMES if annotation.get(name)), "")


def _is_place(text):
    """Whether a text may be the place of an image file."""
    if text.startswith("data:image/"):
        return True
    return any(os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES for name in _names_of(text))


def _names_of(place):
    """The names that a file may have at a place: a path, or an address with a path in it; list of str."""
    address = urllib.parse.urlsplit(place, allow_fragments=False)
    queries = urllib.parse.parse_qs(address.query)
    inner = next((queries[name][-1] for name in PATH_QUERIES if name in queries), None)
    if inner is None:
        path = address.path if address.netloc or not address.scheme else place
        return [name.lstrip("/") for name in dict.fromkeys((urllib.parse.unquote(path), path, place))]
    if "://" not in inner and "." not in inner:
        with contextlib.suppress(binascii.Error, UnicodeDecodeError):
            inner = base64.b64decode(inner, altchars=b"-_", validate=True).decode()
    return [urllib.parse.urlsplit(inner, allow_fragments=False).path.lstrip("/") if "://" in inner else inner]


def _labelled_size(results):
    """(width, height) of the image that was labelled; None where no region says it."""
    for part in results:
        size = part.get("original_width"), part.get("original_height")
        if all(isinstance(side, int | float) and side > 0 for side in size):
            return round(size[0]), round(size[1])
    return None


@dataclasses.dataclass
class _Region:
    value: dict  # its parts' values together
    rotation: float  # degrees that the view was turned by
    parent: str | None  # id of the region that it belongs to
    where: str


def _add_objects(results, where, file, image, dataset):
    """Adds the objects of an annotation's result."""

    def leave_out(kind, region, detail):
        dataset.leave_out_record(kind, file, region.where, detail)

    regions = _join_parts(results, where)
    points = {key: region for key, region in regions.items() if shape_kind(region.value) == "point"}
    keypoints = _assign_points(points, regions, _relations(results), image, leave_out)
    for key, region in regions.items():
        label = None if key in points else _read_label(region, leave_out)
        if label is None:
            continue
        try:
            parts, box = read_shape(region.value, image.width, image.height)
        except (KeyError, TypeError, ValueError, OSError, SyntaxError) as error:
            reason = str(error) or type(error).__name__
            leave_out("broken_region", region, f"can't be read ({reason}) and was left out: draw it again")
            continue
        if region.value.get("closed") is False:
            leave_out("closed_polygon", region, "is a polygon that wasn't closed, and was closed")
        given = {"parts": parts, "box": box, "keypoints": keypoints.get(key)}
        dataset.add_object(image, label, file, region.where, **given)


def _join_parts(results, where):
    """The _Regions of a result by their ids; parts of one id are one region."""
    regions = {}
    for number, part in enumerate(results, 1):
        value = part.get("value")
        if not isinstance(value, dict) or not (shape_kind(value) or part.get("original_width")):
            continue  # an answer about the whole image
        key = part.get("id") or number
        name = f"Region {part['id']} of {where}" if part.get("id") else f"Region {number} of {where}"
        region = regions.setdefault(key, _Region({}, part.get("image_rotation") or 0, part.get("parentID"), name))
        region.value |= value
        region.parent = region.parent or part.get("parentID")
    return regions


def _relations(results):
    """list of (id, id) of regions that a relation joins."""
    return [(part.get("from_id"), part.get("to_id")) for part in results if part.get("type") == "relation"]


def _labels(value):
    """The labels of a region's value, list of str; without labels those that were chosen for it."""
    lists = [(name, texts) for name, texts in value.items() if name.endswith("labels") or name == "choices"]
    lists.sort(key=lambda item: item[0] == "choices")
    return next(([str(text) for text in texts] for _, texts in lists if isinstance(texts, list) and texts), [])


def _read_label(region, leave_out):
    """The class of a region with an area; None and a note if it hasn't both."""
    labels = _labels(region.value)
    if not shape_kind(region.value):
        detail = "has no shape that is read and was left out: outline it by a polygon, a brush or a rectangle"
        leave_out("unknown_shape", region, detail)
    elif region.rotation % 360:
        detail = f"was drawn while the image was turned by {region.rotation} degrees, and was left out"
        leave_out("turned_view", region, f"{detail}: turn the image back in Label Studio and save it again")
    elif not labels:
        leave_out("no_class", region, "has no label and was left out: choose one")
    else:
        if len(labels) > 1:
            detail = f"has the labels {', '.join(labels)}, of which only the first was used: an object is of one class"
            leave_out("several_classes", region, detail)
        return labels[0]
    return None


def _assign_points(points, regions, relations, image, leave_out):
    """{region's key: {name: (x, y, visibility)}} of the keypoint regions `points`; those of no region are noted."""
    keypoints = collections.defaultdict(dict)
    for key, point in points.items():
        joined = [one if other == key else other for one, other in relations if key in (one, other)]
        owners = [owner for owner in (point.parent, *joined) if owner in regions and owner not in points]
        names = _labels(point.value)
        if not owners:
            detail = "is a point of no object and was left out: drag it onto its object in the list of regions"
            leave_out("point_shape", point, detail)
        elif len(set(owners)) > 1:
            detail = "is a point that relations join to several objects, and was left out: keep one relation"
            leave_out("shared_point", point, detail)
        elif not names:
            leave_out("unnamed_point", point, "is a keypoint without a label and was left out: choose its name")
        elif names[0] in keypoints[owners[0]]:
            detail = f"is a second keypoint {names[0]!r} of its object and was left out: remove it or name it properly"
            leave_out("repeated_point", point, detail)
        else:
            try:
                place = to_pixels(point.value["x"], point.value["y"], image.width, image.height)
                keypoints[owners[0]][names[0]] = *place, VISIBLE
            except (TypeError, ValueError) as error:
                leave_out("broken_region", point, f"can't be read ({error}) and was left out: draw it again")
    return keypoints
