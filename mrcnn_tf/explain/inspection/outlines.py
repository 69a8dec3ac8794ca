"""Masks as the closed polygons that a page draws: sampled from their run lengths, traced and simplified."""

import contourpy
import numpy as np

from mrcnn_tf.datasets.run_lengths import bounding_box, decode_strings

MOST_SAMPLES = 256  # along a side of one mask; a large object's outline has more points than a page can show


def mask_outlines(rles, scale, tolerance):
    """The outlines of the masks of one image, as polygons that an even-odd rule fills.

    A mask is never decoded whole: its run lengths are looked up at the points of a grid over its own box, so a photo of
    50 megapixels costs no more than a small one.

    Args:
        rles: list of N masks in COCO's compressed RLE of one size; None for a missing one.
        scale: drawing units per pixel of the image.
        tolerance: drawing units by which a simplified outline may lie beside the traced one.

    Returns:
        A list of N lists of rings, each int64 [V, 2] with (x, y) in drawing units, V >= 3 and the first point not
        repeated. Holes are rings as well. A mask without pixels, or smaller than the tolerance, has none.
    """
    rings, owners = [], []
    for owner, rle in enumerate(rles):
        traced = [] if rle is None else _trace(rle, scale, tolerance)
        rings += traced
        owners += [owner] * len(traced)
    return simple_rings(rings, owners, len(rles), tolerance)


def simple_rings(lines, owners, count, tolerance):
    """Traced outlines as polygons of whole numbers, by whom they belong to.

    Args:
        lines: list of float [V, 2], closed.
        owners: for each its owner, 0 to count - 1.
        tolerance: as for `mask_outlines`.

    Returns:
        A list of `count` lists of rings, int64 [V, 2], as `mask_outlines` gives them.
    """
    found = [[] for _ in range(count)]
    for owner, ring in zip(owners, simplify(lines, tolerance), strict=True):
        ring = np.rint(ring[:-1]).astype(np.int64)
        ring = ring[(ring != np.roll(ring, 1, axis=0)).any(axis=1)]
        if len(ring) >= 3:
            found[owner].append(ring)
    return found


def simplify(rings, tolerance):
    """Ramer's and Douglas and Peucker's simplification of polylines, all of them at once.

    Each pass splits every stretch between two kept points at the point that lies farthest from their chord, until none
    lies farther than the tolerance.

    Args:
        rings: list of float [V, 2]; a closed one repeats its first point at the end.
        tolerance: in the points' unit.

    Returns:
        The rings with the kept points only, first and last among them.
    """
    if not rings:
        return []
    points, ends = np.concatenate(rings), np.cumsum([len(ring) for ring in rings])
    keep = np.zeros(len(points), bool)
    keep[ends - 1] = keep[np.r_[0, ends[:-1]]] = True
    while True:
        kept = np.flatnonzero(keep)
        stretch = np.cumsum(keep) - 1
        first, last = points[kept[stretch]], points[kept[np.minimum(stretch + 1, len(kept) - 1)]]
        distance = np.where(keep, 0.0, _distance(points, first, last))
        farthest = np.maximum.reduceat(distance, kept)
        split = np.flatnonzero((distance > tolerance) & (distance == farthest[stretch]))
        if not split.size:
            break
        keep[split[np.unique(stretch[split], return_index=True)[1]]] = True
    return [points[start:end][keep[start:end]] for start, end in zip(np.r_[0, ends[:-1]], ends, strict=True)]


def _trace(rle, scale, tolerance):
    """Closed polylines [V, 2] in drawing units around the mask's pixels."""
    height = int(rle["size"][0])
    counts = rle["counts"]
    runs = decode_strings([counts.encode() if isinstance(counts, str) else counts])[0]
    left, top, right, bottom = bounding_box(runs, height)
    longest = max(right - left, bottom - top)
    if not longest:
        return []
    step = max(1.0, tolerance / scale, longest / MOST_SAMPLES)  # pixels between samples
    x, y = (
        low + (np.arange(np.ceil((high - low) / step)) + 0.5) * step for low, high in ((left, right), (top, bottom))
    )
    # The last sample of a row or column may lie beyond the box, which holds nothing there.
    columns, rows = np.minimum(x, right - 0.5).astype(np.int64), np.minimum(y, bottom - 0.5).astype(np.int64)
    # Runs are outside and inside by turns, so the number of those that end at or before a pixel says which it is.
    inside = np.searchsorted(np.cumsum(runs), columns[:, None] * height + rows[None, :], side="right") % 2 == 1
    grid = np.zeros((len(rows) + 2, len(columns) + 2), np.float32)
    grid[1:-1, 1:-1] = inside.T
    x, y = (np.r_[values[0] - step, values, values[-1] + step] for values in (x, y))
    return [line * scale for line in contourpy.contour_generator(x, y, grid).lines(0.5)]


def _distance(points, first, last):
    """[N] distances of points from the segments between two others, all [N, 2]."""
    along = last - first
    length = (along**2).sum(axis=1)
    share = ((points - first) * along).sum(axis=1) / np.where(length, length, 1)
    return np.linalg.norm(points - first - np.clip(share, 0, 1)[:, None] * along, axis=1)


# The regions of a map as closed polygons, and where in each of them its name has the most room.
#

MOST_MAP_SAMPLES = 512  # along the longer side of a map
NAME_ROWS = 80  # of the cells among which places for names are looked for ...
NAME_CELL = 2.5  # ... whose width is this many times their height: so is a name's


def region_outlines(pixels, ids, scale, tolerance):
    """The outlines of an image's regions, which are all traced on one grid, so that neighbours fit together.

    Args:
        pixels: int [H, W], the id of each pixel's region.
        ids: of the N regions.
        scale: drawing units per pixel.
        tolerance: drawing units by which a simplified outline may lie beside the traced one.

    Returns:
        A list of N lists of rings, int64 [V, 2] with (x, y) in drawing units, as `mask_outlines` gives them. One that
        falls between the grid's points has none.
    """
    height, width = pixels.shape
    step = max(1.0, tolerance / scale, max(height, width) / MOST_MAP_SAMPLES)  # pixels between samples
    y, x = ((np.arange(np.ceil(side / step)) + 0.5) * step for side in (height, width))
    rows, columns = (np.minimum(at, side - 0.5).astype(np.int64) for at, side in ((y, height), (x, width)))
    numbers = np.zeros((len(rows) + 2, len(columns) + 2), pixels.dtype)
    inner = numbers[1:-1, 1:-1]
    inner[:] = pixels[np.ix_(rows, columns)]
    x, y = (np.r_[at[0] - step, at, at[-1] + step] for at in (x, y))
    limits = np.array([width, height], np.float64) * scale
    lines, owners = [], []
    for owner, number in enumerate(ids):
        inside = (numbers == number).astype(np.float32)
        traced = contourpy.contour_generator(x, y, inside).lines(0.5)
        lines += [np.minimum(line * scale, limits) for line in traced]  # the last sample may lie beyond the image
        owners += [owner] * len(traced)
    return simple_rings(lines, owners, len(ids), tolerance)


def name_places(pixels, ids, scale):
    """For each region the point, [x, y] in drawing units, deepest inside it; None for one smaller than a cell.

    Args:
        pixels, ids, scale: as for `region_outlines`.
    """
    height, width = pixels.shape
    rows = min(height, NAME_ROWS)
    columns = min(width, max(1, round(rows * width / height / NAME_CELL)))
    y, x = (np.arange(rows) + 0.5) * height / rows, (np.arange(columns) + 0.5) * width / columns
    numbers = pixels[np.ix_(y.astype(np.int64), x.astype(np.int64))]
    depths, places = _depths(numbers), []
    for number in ids:
        own = depths * (numbers == number)
        cells = np.argwhere((own == own.max()) & (own > 0))
        if not len(cells):
            places.append(None)
            continue
        row, column = cells[np.abs(cells - cells.mean(axis=0)).sum(axis=1).argmin()]
        places.append([round(float(x[column]) * scale), round(float(y[row]) * scale)])
    return places


def _depths(numbers):
    """int [R, C]: how many rings of cells of its own number lie around each cell, and 1."""
    padded = np.pad(numbers, 1, constant_values=-1)
    inside = np.ones(numbers.shape, bool)
    for row in range(3):
        for column in range(3):
            inside &= padded[row : row + numbers.shape[0], column : column + numbers.shape[1]] == numbers
    depths = np.ones(numbers.shape, np.int64)
    while inside.any():
        depths += inside
        around = np.pad(inside, 1)
        inside = np.logical_and.reduce(
            [around[r : r + inside.shape[0], c : c + inside.shape[1]] for r in range(3) for c in range(3)]
        )
    return depths
