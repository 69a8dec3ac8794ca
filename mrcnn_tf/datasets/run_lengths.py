"""COCO's run lengths (RLE): from strings and polygons, what they say about a mask, and back. Numpy, once per dataset.

Runs go down the columns of the image, one column after another, outside and inside by turns, beginning outside.
"""

import numpy as np
from pycocotools import mask as coco_mask


def decode_strings(strings):
    """Decodes the runs of many compressed masks, a list of bytes, at once.

    COCO writes each number in groups of five bits, the least first, as characters from 48 on; bit 5 says that a group
    follows, and the sign is bit 4 of the last group. From the fourth number of a mask on, it is the difference to the
    number two before.

    Returns:
        runs: [U] int64, one mask after the other. A string that isn't COCO's gives runs that don't fill an image.
        counts: [N] int64, runs of each mask.
    """
    lengths = np.array([len(string) for string in strings], np.int64)
    groups = np.frombuffer(b"".join(strings), np.uint8).astype(np.int64) - 48
    if not groups.size:
        return np.zeros(0, np.int64), np.zeros(len(strings), np.int64)
    mask_of_group = np.repeat(np.arange(len(strings)), lengths)
    final = (groups & 32) == 0
    final[np.cumsum(lengths)[lengths > 0] - 1] = True  # a string that was cut off ends all the same
    number = np.cumsum(final) - final
    first = np.flatnonzero(np.r_[True, final[:-1]])
    nth = np.minimum(np.arange(groups.size) - first[number], 11)
    values = np.add.reduceat((groups & 31) << (5 * nth), first)
    last = np.flatnonzero(final)
    negative = (groups[last] & 16) != 0
    values -= np.where(negative, np.int64(1) << (5 * (nth[last] + 1)), 0)
    counts = np.bincount(mask_of_group[last], minlength=len(strings))
    return _undo_differences(values, counts), counts


def _undo_differences(values, counts):
    """values[m] += values[m - 2] from the fourth number of each mask on, without a loop over masks."""
    starts = np.cumsum(counts) - counts
    nth = np.arange(values.size) - np.repeat(starts, counts)
    result = values.copy()
    for parity in (0, 1):
        # The first number stands alone, so the even chain begins at the third and the odd one at the second.
        chain = np.flatnonzero((nth % 2 == parity) & (nth > 0))
        sums = np.cumsum(values[chain])
        heads = np.flatnonzero(nth[chain] == (2 if parity == 0 else 1))
        before = sums[heads] - values[chain[heads]]
        result[chain] = sums - np.repeat(before, np.diff(np.r_[heads, chain.size]))
    return result


def split_into_blocks(counts, limit):
    """Yields (first, last) of blocks, masks first to last - 1, whose runs are few enough to be worked on together.

    Args:
        counts: [N] int64, runs of each mask.
        limit: the most runs of a block, unless a single mask has more.
    """
    offsets, first = np.r_[0, np.cumsum(counts)], 0
    while first < counts.size:
        last = int(np.searchsorted(offsets, offsets[first] + limit, side="right")) - 1
        last = min(max(last, first + 1), counts.size)
        yield first, last
        first = last


def areas_of_runs(runs, counts):
    """[N] int64: pixels inside each mask."""
    nth = np.arange(runs.size) - np.repeat(np.cumsum(counts) - counts, counts)
    mask = np.repeat(np.arange(counts.size), counts)
    return np.bincount(mask, runs * (nth % 2), minlength=counts.size).astype(np.int64)


def box_of_runs(runs, height):
    """(x1, y1, x2, y2) in whole pixels around one mask's pixels, given its runs; zeros for an empty mask."""
    bounds = np.cumsum(runs)
    ends = bounds[1::2]
    starts = bounds[:-1:2][: ends.size]
    starts, ends = starts[ends > starts], ends[ends > starts]
    if not ends.size:
        return 0.0, 0.0, 0.0, 0.0
    left, right = starts // height, (ends - 1) // height
    # A run that goes on in the next column touches the bottom of one and the top of the other.
    spans_columns = left < right
    top = np.where(spans_columns, 0, starts % height).min()
    bottom = np.where(spans_columns, height - 1, (ends - 1) % height).max()
    return float(left.min()), float(top), float(right.max() + 1), float(bottom + 1)


# Segmentations, COCO's two forms of a mask: polygons and run lengths, by pycocotools' rules.


def encode_labels(labels):
    """Encodes a run-length mask of each value of a map, integers [H, W] with 0 for background, all in one pass.

    The result is {value: {"size": [H, W], "counts": str}}, sorted by value, without 0.
    """
    height, width = labels.shape
    flat = labels.ravel(order="F")  # COCO's runs go down the columns
    starts = np.r_[0, np.flatnonzero(flat[1:] != flat[:-1]) + 1]
    lengths = np.diff(np.r_[starts, flat.size])
    values = flat[starts]
    order = np.argsort(values, kind="stable")
    distinct, first = np.unique(values[order], return_index=True)
    masks = {}
    for value, stretches in zip(distinct.tolist(), np.split(order, first[1:]), strict=True):
        if value == 0:
            continue
        inside = np.stack([starts[stretches], starts[stretches] + lengths[stretches]], axis=1).ravel()
        edges = np.r_[0, inside, flat.size] if inside[-1] < flat.size else np.r_[0, inside]
        counts = np.diff(edges).tolist()
        masks[value] = as_text(coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width))
    return masks


def encode(mask):
    """{"size": [H, W], "counts": str} of a bool mask [H, W]."""
    return as_text(coco_mask.encode(np.asfortranarray(mask, np.uint8)))


def encode_crop(crop, left, top, height, width):
    """As `encode`, of a mask of an image [height, width] that is given by a crop of it.

    Args:
        crop: bool [h, w]; outside it there is nothing.
        left, top: the image's pixel at which its upper left one lies, int; what lies outside the image is left out.
    """
    x1, y1 = max(left, 0), max(top, 0)
    inside = crop[y1 - top : max(height - top, 0), x1 - left : max(width - left, 0)]
    columns = np.zeros([height, inside.shape[1]], bool)
    columns[y1 : y1 + inside.shape[0]] = inside
    flat = np.r_[False, columns.ravel(order="F"), False]  # COCO's runs go down the columns
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + x1 * height
    ends = np.r_[0, edges, height * width] if height * width not in edges[-1:] else np.r_[0, edges]
    counts = np.diff(ends).tolist()
    return as_text(coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width))


def as_text(rle):
    """A run-length mask of pycocotools with its counts as str, as json needs them."""
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def as_rle(segmentation, height, width):
    """The run-length mask of an annotation's segmentation: polygons, which are joined, or run lengths of either kind.

    Raises ValueError, TypeError or KeyError if it is none of these, or an RLE of another size.
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


def merge_segmentations(segmentations, height, width):
    """One run-length mask of several segmentations."""
    return as_text(coco_mask.merge([as_rle(segmentation, height, width) for segmentation in segmentations]))


def join_polygons(polygons):
    """A single polygon that fills what several, lists [x, y, x, y, ...], fill together under the even-odd rule.

    Each outline is closed and followed by a way to the next, and all the ways back are at the end.
    """
    if len(polygons) == 1:
        return list(polygons[0])
    joined = []
    for polygon in polygons:
        joined += [*polygon, *polygon[:2]]
    for polygon in reversed(polygons[:-1]):
        joined += polygon[:2]
    return joined


def mask_area(segmentation, height, width):
    """Pixels inside, int; raises as `as_rle`."""
    return int(coco_mask.area(as_rle(segmentation, height, width)))


def box_of_rle(rle):
    """[x, y, width, height] around the pixels of a run-length mask, list of float."""
    return coco_mask.toBbox(rle).tolist()
