"""labelme's json files, one beside each image.

A shape has a label, points in pixels of the image as seen, a shape_type and maybe a group_id: shapes of one label and
group_id are one object. A mask shape has two opposite corner pixels and a PNG of what lies between them, in base64.
Points of an object's group_id are its keypoints and their labels those keypoints' names, as in X-AnyLabeling. Occluded
ones have the flag "occluded", or are "difficult", as X-AnyLabeling has it.
"""

import base64
import dataclasses
import io
import json
import math
import os

import numpy as np
from PIL import Image

from mrcnn_tf.common.problems import show_progress
from mrcnn_tf.datasets import run_lengths
from mrcnn_tf.datasets.convert.coco import find_image, link_or_copy, new_folder, output_names
from mrcnn_tf.datasets.convert.dataset import BACKGROUNDS, IGNORED, Dataset
from mrcnn_tf.datasets.convert.geometry import ellipse, rectangle
from mrcnn_tf.datasets.convert.inputs import BrokenFile, existing_path, raise_wrong_format, read_json
from mrcnn_tf.datasets.convert.keypoints import OCCLUDED, UNLABELLED, VISIBLE
from mrcnn_tf.datasets.convert.labelme_pictures import PictureFinder
from mrcnn_tf.datasets.image_folder import ImageFolder, find_image_files

# labelme's, and X-AnyLabeling's last two.
OUTLINES = ("polygon", "rectangle", "circle", "mask", "oriented_rectangle", "ai_polygon", "ai_mask")
OUTLINES += ("rotation", "quadrilateral")
VERSION = "5.5.0"  # of labelme, whose files know mask shapes


@dataclasses.dataclass
class _Object:
    label: str
    where: str  # of its first shape
    crowd: bool
    parts: list = dataclasses.field(default_factory=list)  # polygons and run-length masks
    keypoints: dict = dataclasses.field(default_factory=dict)  # by name: (x, y, visibility)


def read_labelme(source, images=None, names=None, extracted=None):
    """The Dataset of labelme's json files in a folder and those below, or of a single one; see `convert` for readers.

    Lines, points that are no object's keypoints, broken files, jsons without their image and images without a json are
    noted in it. If pictures are in their json alone, all images are put into the folder `extracted`, so that one folder
    holds all, and the Dataset's image_folder is that; without it such jsons are left out.
    """
    source = existing_path(source, "the folder of labelme's json files")
    files = [source] if source.is_file() else sorted(source.rglob("*.json"), key=lambda path: path.as_posix())
    root = source.parent if source.is_file() else source
    folder = ImageFolder(images or root)
    dataset = Dataset(source, names)
    finder = PictureFinder(folder, root, dataset, extracted)
    labelled, pictures, is_labelme = set(finder.written), [], False
    for file in show_progress(files, "labelme"):
        try:
            content = read_json(file)
        except BrokenFile as error:
            dataset.leave_out("broken_file", file, str(error))
            continue
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            message = f"{file} has no shapes, as labelme's files have, and was left out: move it out of the folder."
            dataset.leave_out("other_json", file, message)
            continue
        is_labelme = True
        picture, image_files = finder.find(file, content)
        labelled.update(map(os.path.normpath, image_files))
        if picture and _add_objects(file, content["shapes"], picture, dataset):
            pictures.append(picture)
    if not is_labelme:
        raise_wrong_format(source, "labelme", dataset.problems)
    for path in find_image_files(folder.root):
        if os.path.normpath(path) not in labelled:
            dataset.leave_out("unlabelled_image", path, f"{path} has no labelme json and was left out: label it.")
    if any(image.annotations for image in dataset.images):
        dataset.image_folder = finder.write(pictures)
    return dataset


def _add_objects(file, shapes, picture, dataset):
    """Adds the image of one json and its objects; whether that is the image's first json."""
    image = dataset.add_image(picture.file_name, picture.width, picture.height, file)
    for item in _read_objects(shapes, file, image, dataset) if image else ():
        more = {"parts": item.parts, "crowd": item.crowd, "keypoints": item.keypoints}
        dataset.add_object(image, item.label, file, item.where, **more)
    return image is not None


def _read_objects(shapes, file, image, dataset):
    """The _Objects of a json's shapes: those of one label and group_id are parts of one, and points its keypoints."""
    objects, points = {}, []

    def leave_out(kind, where, detail):
        dataset.leave_out_record(kind, file, where, detail)

    for number, shape in enumerate(shapes, 1):
        where = f"Shape {number}"
        try:
            kind = shape.get("shape_type") or "polygon"
            label, group = _read_label(shape), _read_group(shape)
            if kind == "point":
                points.append((where, label, group, _read_keypoint(shape)))
                continue
            if kind not in OUTLINES:
                detail = f"is a {kind}, which has no area, and was left out: outline the object"
                leave_out(f"{kind}_shape", where, detail)
                continue
            if label in (IGNORED, *BACKGROUNDS):
                leave_out("background_shape", where, f"is {label} and was left out")
                continue
            part = _read_shape(shape, kind, image)
        except (AttributeError, TypeError, ValueError, KeyError, OSError, SyntaxError) as error:
            detail = f"can't be read ({error or type(error).__name__}) and was left out: draw it again"
            leave_out("broken_shape", where, detail)
            continue
        key = (label, group) if group is not None else number
        objects.setdefault(key, _Object(label, where, _has_flag(shape, "iscrowd"))).parts.append(part)
    _assign_points(points, objects, leave_out)
    return objects.values()


def _assign_points(points, objects, leave_out):
    """Gives points, a list of (where, label, group, (x, y, visibility)), to the only object of their group."""
    for where, label, group, keypoint in points:
        owners = [item for key, item in objects.items() if isinstance(key, tuple) and key[1] == group]
        if group is None or not owners:
            detail = "is a point of no object and was left out: give it the group_id of its object, or outline that"
            leave_out("point_shape", where, detail)
        elif len(owners) > 1:
            labels = " and ".join(sorted(item.label for item in owners))
            detail = f"is a point in a group of several objects, {labels}, and was left out: give each its own group_id"
            leave_out("shared_point", where, detail)
        elif not label:
            leave_out("unnamed_point", where, "is a keypoint without a label and was left out: give it its name")
        elif label in owners[0].keypoints:
            detail = f"is a second keypoint {label!r} of its group and was left out: remove it or name it properly"
            leave_out("repeated_point", where, detail)
        else:
            owners[0].keypoints[label] = keypoint


def _read_label(shape):
    label = shape.get("label")
    is_number = isinstance(label, int | float) and not isinstance(label, bool)
    return str(label) if is_number else label.strip() if isinstance(label, str) else None


def _read_group(shape):
    """A shape's group_id, an integer in labelme, as text, so that 1 and "1" are the same; None for no group."""
    group = shape.get("group_id")
    return None if group in (None, "") else str(group)


def _has_flag(shape, name):
    flags = shape.get("flags")
    return bool(flags.get(name)) if isinstance(flags, dict) else False


def _read_keypoint(shape):
    ((x, y),) = shape["points"]
    is_occluded = _has_flag(shape, "occluded") or shape.get("difficult") is True
    return float(x), float(y), OCCLUDED if is_occluded else VISIBLE


def _read_shape(shape, kind, image):
    """A shape as a polygon [x, y, x, y, ...] or a run-length mask."""
    points = [(float(x), float(y)) for x, y in shape["points"]]
    if kind in ("mask", "ai_mask"):
        return _read_mask(shape["mask"], points, image)
    if kind == "circle":
        (cx, cy), (x, y) = points
        radius = math.hypot(x - cx, y - cy)
        return ellipse(cx, cy, radius, radius)
    if kind == "rectangle" and len(points) == 2:
        return rectangle(*points[0], *points[1])
    return [value for point in points for value in point]


def _read_mask(text, points, image):
    with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as png:
        crop = np.asarray(png)
    crop = (crop if crop.ndim == 2 else crop[..., :3].max(axis=2)) > 0
    left, top = round(min(points)[0]), round(min(y for _, y in points))
    return run_lengths.encode_crop(crop, left, top, image.height, image.width)


def write_labelme(coco, out, images, copy_images=False):
    """Writes a json for each image: polygons as polygons, run lengths as mask shapes, boxes without mask as rectangles.

    Parts and keypoints of one object get a group_id of their own, occluded keypoints the flag "occluded", and a crowd
    "iscrowd". Images are put beside the jsons, or without `copy_images` named there by a relative path. See `convert`
    for writers.
    """
    coco.note_repeated_names()
    coco.keeps_keypoints = True
    names = output_names(coco, ".json")
    with new_folder(out) as folder:
        for image, name in show_progress(names, "labelme"):
            path = find_image(coco, image, images)
            if path is None:
                continue
            if copy_images:
                link_or_copy(path, folder / image.file_name)
                link = os.path.basename(image.file_name)
            else:
                link = os.path.relpath(os.path.abspath(path), os.path.join(os.path.abspath(out), os.path.dirname(name)))
            content = {"version": VERSION, "flags": {}, "shapes": _make_shapes(image, coco)}
            content |= {"imagePath": link.replace(os.sep, "/"), "imageData": None}
            content |= {"imageHeight": image.height, "imageWidth": image.width}
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")


def _make_shapes(image, coco):
    shapes, group_count = [], 0
    for annotation in image.annotations:
        label, flags = coco.names[annotation.category_id], {"iscrowd": True} if annotation.crowd else {}
        parts = [(label, *part, flags) for part in _make_parts(annotation, image)]
        for name, (x, y, visibility) in coco.named_keypoints(annotation):
            if visibility > UNLABELLED:
                parts.append((name, "point", [[x, y]], None, {"occluded": True} if visibility == OCCLUDED else {}))
        group = group_count if len(parts) > 1 else None
        group_count += len(parts) > 1
        for label, kind, points, mask, flags in parts:
            shape = {"label": label, "points": points, "group_id": group, "description": ""}
            shapes.append(shape | {"shape_type": kind, "flags": flags, "mask": mask})
    return shapes


def _make_parts(annotation, image):
    """(shape_type, points, mask in base64 or None) of each shape of an object."""
    if annotation.segmentation is None:
        x, y, width, height = annotation.box
        return [("rectangle", [[x, y], [x + width, y + height]], None)]
    if isinstance(annotation.segmentation, list):
        return [("polygon", np.reshape(polygon, (-1, 2)).tolist(), None) for polygon in annotation.segmentation]
    mask = run_lengths.as_pixels(annotation.segmentation, image.height, image.width)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])
    file = io.BytesIO()
    Image.fromarray(mask[top : bottom + 1, left : right + 1].astype(np.uint8) * 255).save(file, "PNG")
    return [("mask", [[left, top], [right, bottom]], base64.b64encode(file.getvalue()).decode("ascii"))]
