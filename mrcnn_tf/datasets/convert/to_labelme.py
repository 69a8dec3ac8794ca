"""COCO's json to labelme: a json for each image. See `labelme` for the format."""

import base64
import io
import json
import os

import numpy as np
from PIL import Image

from mrcnn_tf.common.progress import steps
from mrcnn_tf.datasets import masks
from mrcnn_tf.datasets.convert.writing import by_target, image_path, new_folder, put_image

VERSION = "5.5.0"  # of labelme, whose files know mask shapes


def write_labelme(coco, out, images, copy_images=False):
    """Writes a json for each image: polygons as polygons, run lengths as mask shapes, boxes without mask as rectangles.

    Parts of one object get a group_id of their own, and a crowd the flag "iscrowd".

    Args:
        coco: coco_json.CocoJson; images that aren't there are noted in it and left out.
        out: a new folder.
        images: the folder of the images.
        copy_images: put the images beside the jsons; without, the jsons name them by a relative path.

    Raises:
        UserError: `out` has files already, there is no folder of images, or two images would get the same json.
    """
    targets = by_target(coco, ".json")
    with new_folder(out) as folder:
        for image, target in steps(targets, "labelme"):
            path = image_path(coco, image, images)
            if path is None:
                continue
            file = folder / target
            file.parent.mkdir(parents=True, exist_ok=True)
            place = os.path.join(os.path.abspath(out), os.path.dirname(target))
            link = os.path.basename(image.file_name) if copy_images else os.path.relpath(os.path.abspath(path), place)
            if copy_images:
                put_image(path, folder / image.file_name)
            content = {"version": VERSION, "flags": {}, "shapes": _shapes(image, coco.names)}
            content |= {"imagePath": link.replace(os.sep, "/"), "imageData": None}
            content |= {"imageHeight": image.height, "imageWidth": image.width}
            file.write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")


def _shapes(image, names):
    shapes, groups = [], 0
    for instance in image.instances:
        parts = _parts(instance, image)
        group = groups if len(parts) > 1 else None
        groups += len(parts) > 1
        for kind, points, mask in parts:
            shape = {"label": names[instance.category_id], "points": points, "group_id": group, "description": ""}
            shape |= {"shape_type": kind, "flags": {"iscrowd": True} if instance.crowd else {}, "mask": mask}
            shapes.append(shape)
    return shapes


def _parts(instance, image):
    """(shape_type, points, mask in base64 or None) of each shape of an object."""
    if instance.segmentation is None:
        x, y, width, height = instance.box
        return [("rectangle", [[x, y], [x + width, y + height]], None)]
    if isinstance(instance.segmentation, list):
        return [("polygon", np.reshape(polygon, (-1, 2)).tolist(), None) for polygon in instance.segmentation]
    mask = masks.as_pixels(instance.segmentation, image.height, image.width)
    (rows,), (columns,) = np.nonzero(mask.any(axis=1)), np.nonzero(mask.any(axis=0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])
    file = io.BytesIO()
    Image.fromarray(mask[top : bottom + 1, left : right + 1].astype(np.uint8) * 255).save(file, "PNG")
    return [("mask", [[left, top], [right, bottom]], base64.b64encode(file.getvalue()).decode("ascii"))]
