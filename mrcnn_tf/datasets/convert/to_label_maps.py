"""COCO's json to label maps: a 16-bit PNG for each image. See `label_maps` for the format."""

import json

import numpy as np
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.progress import steps
from mrcnn_tf.datasets.convert.painting import painted
from mrcnn_tf.datasets.convert.writing import by_target, new_folder

HIGHEST = 65535
NAMES = "names.json"


def write_label_maps(coco, out, class_divisor=1000):
    """Writes a PNG for each image, with pixels of class * class_divisor + object from 1, and names.json of classes.

    Args:
        coco: coco_json.CocoJson; crowds, what overlaps and what has no mask is noted in it. Classes go by their ids.
        out: a new folder.
        class_divisor: 1000 as Cityscapes has it.

    Raises:
        UserError: `out` has files already, two images would get the same map, or numbers don't fit 16 bits.
    """
    if max(coco.names) * class_divisor + class_divisor > HIGHEST + 1:
        raise UserError(
            f"Class {max(coco.names)} of {coco.source} times {class_divisor} doesn't fit 16 bits: give a smaller "
            "--class-divisor, or number the classes from 1."
        )
    coco.drop_crowds()
    targets = by_target(coco, ".png")
    with new_folder(out) as folder:
        for image, target in steps(targets, "label maps"):
            labels = painted(coco, image, _numbers(image, class_divisor))
            file = folder / target
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(labels.astype(np.uint16)).save(file)
        (folder / NAMES).write_text(json.dumps(coco.names, ensure_ascii=False, indent=1), encoding="utf-8")


def _numbers(image, divisor):
    counts, numbers = {}, []
    for instance in image.instances:
        counts[instance.category_id] = counts.get(instance.category_id, 0) + 1
        numbers.append(instance.category_id * divisor + counts[instance.category_id])
    if any(count >= divisor for count in counts.values()):
        raise UserError(
            f"{image.file_name} has {max(counts.values())} objects of a class, more than --class-divisor {divisor} "
            "has numbers for: give a larger one."
        )
    return numbers
