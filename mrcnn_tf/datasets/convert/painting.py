"""An image's objects as one map of numbers, where each pixel can belong to one object only."""

import numpy as np

from mrcnn_tf.datasets import masks


def painted(coco, image, numbers):
    """A map with the number of each object on its pixels.

    Where objects overlap, the smaller one stays, since it would be hidden otherwise.

    Args:
        coco: coco_json.CocoJson; objects without a mask, or of which nothing is left, are noted in it.
        image: coco_json.Image.
        numbers: the number of each of its instances.

    Returns:
        int32 [H, W]; 0 is background.
    """
    labels = np.zeros([image.height, image.width], np.int32)
    found = []
    for instance, number in zip(image.instances, numbers, strict=True):
        where = f"Annotation {instance.id} in {coco.source}"
        if instance.segmentation is None:
            coco.leave_out("no_mask", f"{where} has only a box, which a picture of pixels can't show.", instance.id)
        else:
            size = masks.area(instance.segmentation, image.height, image.width)
            found.append((size, number, instance))
    for _, number, instance in sorted(found, key=lambda one: -one[0]):
        labels[masks.as_pixels(instance.segmentation, image.height, image.width)] = number
    left = dict(zip(*np.unique(labels, return_counts=True), strict=True))
    for size, number, instance in found:
        where = f"Annotation {instance.id} in {coco.source}"
        if number not in left:
            coco.leave_out("hidden", f"{where} lies wholly under smaller objects and is lost.", instance.id)
        elif left[number] < size:
            what = f"{where} keeps {left[number]} of its {size} pixels, as smaller objects overlap it."
            coco.leave_out("overlapped", what, instance.id)
    return labels
