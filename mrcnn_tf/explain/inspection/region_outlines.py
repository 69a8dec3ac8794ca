"""The regions of a map as closed polygons, and where in each of them its name has the most room."""

import contourpy
import numpy as np

from mrcnn_tf.explain.inspection.outlines import simple_rings

MOST_SAMPLES = 512  # along the longer side of a map
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
    step = max(1.0, tolerance / scale, max(height, width) / MOST_SAMPLES)  # pixels between samples
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
