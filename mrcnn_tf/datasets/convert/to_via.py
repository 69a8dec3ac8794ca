"""COCO's json to VIA 2: one json of annotations, for "Import Annotations" in VIA. See `via` for the format."""

import json

from mrcnn_tf.common.files import replaced
from mrcnn_tf.common.progress import steps
from mrcnn_tf.datasets.convert.outlines import as_one_polygon
from mrcnn_tf.datasets.convert.writing import image_path

ATTRIBUTE = "class"


def write_via(coco, out, images):
    """Writes one json with a region for each object: a polygon, or a rect where there is only a box.

    A region can't have several parts or holes, so these become one polygon with ways between them (see `outlines`).

    Args:
        coco: coco_json.CocoJson; crowds and images that aren't there are noted in it and left out.
        out: the file.
        images: the folder of the images; VIA knows an image by its name and the size of its file.

    Raises:
        UserError: there is no folder of images.
    """
    coco.drop_crowds()
    entries = {}
    for image in steps(coco.images, "VIA"):
        path = image_path(coco, image, images)
        if path is None:
            continue
        regions = []
        for instance in image.instances:
            attributes = {ATTRIBUTE: coco.names[instance.category_id]}
            regions.append({"shape_attributes": _shape(instance, image), "region_attributes": attributes})
        size = path.stat().st_size
        entry = {"filename": image.file_name, "size": size, "regions": regions, "file_attributes": {}}
        entries[f"{image.file_name}{size}"] = entry
    with replaced(out) as file:
        file.write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")


def _shape(instance, image):
    if instance.segmentation is None:
        return dict(zip(("name", "x", "y", "width", "height"), ("rect", *instance.box), strict=True))
    polygon = as_one_polygon(instance.segmentation, image.height, image.width)
    return {"name": "polygon", "all_points_x": polygon[0::2], "all_points_y": polygon[1::2]}
