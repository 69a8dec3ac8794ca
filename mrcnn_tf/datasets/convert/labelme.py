"""labelme's json files, one beside each image.

A shape has a label, points in pixels of the image as seen, a shape_type and maybe a group_id: shapes of one label and
group_id are one object. A mask shape has two opposite corner pixels and a PNG of what lies between them, in base64.
"""

import base64
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
from mrcnn_tf.datasets.convert.inputs import (
    BrokenFile,
    existing_path,
    raise_wrong_format,
    read_json,
)
from mrcnn_tf.datasets.image_folder import ImageFolder, find_image_files

OUTLINES = ("polygon", "rectangle", "circle", "mask", "oriented_rectangle", "rotation")
VERSION = "5.5.0"  # of labelme, whose files know mask shapes


def read_labelme(source, images=None, names=None):
    """The Dataset of labelme's json files in a folder and those below, or of a single one; see `convert` for readers.

    Points, lines, broken files, jsons without their image and images without a json are noted in it.
    """
    source = existing_path(source, "the folder of labelme's json files")
    files = [source] if source.is_file() else sorted(source.rglob("*.json"), key=lambda path: path.as_posix())
    folder = ImageFolder(images or (source.parent if source.is_file() else source))
    dataset = Dataset(source, names)
    labelled = []
    for file in show_progress(files, "labelme"):
        try:
            content = read_json(file)
        except BrokenFile as error:
            dataset.leave_out("broken_file", file, str(error))
            continue
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            dataset.leave_out("other_json", file, f"{file} has no shapes, as labelme's files do, and was left out.")
            continue
        labelled.append(_read_file(file, content, folder, dataset))
    if not labelled:
        raise_wrong_format(source, "labelme", dataset.problems)
    labelled = set(labelled)
    for path in find_image_files(folder.root):
        if folder.relative(path) not in labelled:
            dataset.leave_out("unlabelled_image", path, f"{path} has no labelme json and was left out: label it.")
    return dataset


def _read_file(file, content, folder, dataset):
    """Adds the image of one json and its objects; gives the image's file_name, None if there is none."""
    name = content.get("imagePath")
    path = folder.find(name, file.parent) if isinstance(name, str) and name else None
    if path is None:
        message = f"{file} belongs to {name}, which isn't there, and was left out: put the image beside it."
        dataset.leave_out("missing_image", file, message)
        return None
    file_name = folder.relative(path)
    frame = dataset.read_frame(path)
    if frame is None:
        return file_name
    size = content.get("imageWidth") or frame.width, content.get("imageHeight") or frame.height
    if not frame.fits(*size):
        message = f"{path} is {frame.width} x {frame.height} but {file} was drawn on {size[0]} x {size[1]}"
        dataset.leave_out("other_size", file, f"{message} and was left out: put back the image that was labelled.")
        return file_name
    image = dataset.add_image(file_name, *size, file)
    for label, where, parts, crowd in _read_objects(content["shapes"], file, image, dataset) if image else ():
        dataset.add_object(image, label, file, where, parts=parts, crowd=crowd)
    return file_name


def _read_objects(shapes, file, image, dataset):
    """(label, where, parts, crowd) of each object: shapes of one label and group_id are its parts."""
    objects = {}

    def leave_out(kind, where, detail):
        dataset.leave_out(kind, file, f"{where} of {file} {detail}.", where)

    for number, shape in enumerate(shapes, 1):
        where = f"Shape {number}"
        try:
            kind = shape.get("shape_type") or "polygon"
            label, group = shape.get("label"), shape.get("group_id")
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
        crowd = bool((shape.get("flags") or {}).get("iscrowd"))
        objects.setdefault(key, (label, where, [], crowd))[2].append(part)
    return objects.values()


def _read_shape(shape, kind, image):
    """A shape as a polygon [x, y, x, y, ...] or a run-length mask."""
    points = [(float(x), float(y)) for x, y in shape["points"]]
    if kind == "mask":
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
    mask = np.zeros((image.height, image.width), bool)
    x1, y1 = max(left, 0), max(top, 0)
    x2, y2 = min(left + crop.shape[1], image.width), min(top + crop.shape[0], image.height)
    if x1 < x2 and y1 < y2:
        mask[y1:y2, x1:x2] = crop[y1 - top : y2 - top, x1 - left : x2 - left]
    return run_lengths.encode(mask)


def write_labelme(coco, out, images, copy_images=False):
    """Writes a json for each image: polygons as polygons, run lengths as mask shapes, boxes without mask as rectangles.

    Parts of one object get a group_id of their own, and a crowd the flag "iscrowd". Images are put beside the jsons, or
    without `copy_images` named there by a relative path. See `convert` for writers.
    """
    coco.note_repeated_names()
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
            content = {"version": VERSION, "flags": {}, "shapes": _make_shapes(image, coco.names)}
            content |= {"imagePath": link.replace(os.sep, "/"), "imageData": None}
            content |= {"imageHeight": image.height, "imageWidth": image.width}
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")


def _make_shapes(image, names):
    shapes, group_count = [], 0
    for annotation in image.annotations:
        parts = _make_parts(annotation, image)
        group = group_count if len(parts) > 1 else None
        group_count += len(parts) > 1
        for kind, points, mask in parts:
            shape = {"label": names[annotation.category_id], "points": points, "group_id": group, "description": ""}
            shape |= {"shape_type": kind, "flags": {"iscrowd": True} if annotation.crowd else {}, "mask": mask}
            shapes.append(shape)
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
