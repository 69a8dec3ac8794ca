"""COCO's two forms of a mask, polygons and run lengths, to pixels and back, by pycocotools' rules."""

import numpy as np
from pycocotools import mask as coco_mask


def encode_labels(labels):
    """A run-length mask of each value of a map, all in one pass.

    Args:
        labels: integers [H, W]; 0 is background.

    Returns:
        dict value -> {"size": [H, W], "counts": str}, sorted by value, without 0.
    """
    height, width = labels.shape
    flat = labels.ravel(order="F")  # COCO's runs go down the columns
    starts = np.r_[0, np.flatnonzero(flat[1:] != flat[:-1]) + 1]
    lengths = np.diff(np.r_[starts, flat.size])
    values = flat[starts]
    order = np.argsort(values, kind="stable")
    found, first = np.unique(values[order], return_index=True)
    masks = {}
    for value, rows in zip(found.tolist(), np.split(order, first[1:]), strict=True):
        if value == 0:
            continue
        inside = np.stack([starts[rows], starts[rows] + lengths[rows]], axis=1).ravel()
        edges = np.r_[0, inside, flat.size] if inside[-1] < flat.size else np.r_[0, inside]
        counts = np.diff(edges).tolist()
        masks[value] = as_text(coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width))
    return masks


def encode(mask):
    """{"size": [H, W], "counts": str} of a bool mask [H, W]."""
    return as_text(coco_mask.encode(np.asfortranarray(mask, np.uint8)))


def as_text(rle):
    """A run-length mask of pycocotools with its counts as str, as json needs them."""
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def as_rle(segmentation, height, width):
    """The run-length mask of an annotation's segmentation: polygons, which are joined, or run lengths of either kind.

    Raises:
        ValueError, TypeError, KeyError: it is none of these, or an RLE of another size.
    """
    if isinstance(segmentation, list):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(f"an RLE of size {segmentation['size']} for an image of {[height, width]}")
    if isinstance(segmentation["counts"], list):
        return coco_mask.frPyObjects(segmentation, height, width)
    return segmentation


def as_pixels(segmentation, height, width):
    """bool [H, W] of an annotation's segmentation; raises as `as_rle`."""
    return coco_mask.decode(as_rle(segmentation, height, width)).astype(bool)


def joined(parts, height, width):
    """One run-length mask of several segmentations."""
    return as_text(coco_mask.merge([as_rle(part, height, width) for part in parts]))


def area(segmentation, height, width):
    """Pixels inside, int; raises as `as_rle`."""
    return int(coco_mask.area(as_rle(segmentation, height, width)))


def box_of_runs(rle):
    """[x, y, width, height] around the pixels of a run-length mask, list of float."""
    return coco_mask.toBbox(rle).tolist()
