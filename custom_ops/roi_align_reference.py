"""RoIAlign in float64 as the paper words it: loops over bins and samples, bilinear interpolation at each sample.

Slow, and independent of the kernels: nothing is merged, listed or cut into tiles.
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass
class Pooling:
    """What is pooled, without the maps' values.

    Attributes:
        sizes: (height, width) in cells of each level's map.
        scales: cells per image pixel of each level.
        images: number of images in a map.
        boxes: float32 [R, 4] = (x1, y1, x2, y2) in image pixels.
        image, level: int32 [R], the map that each RoI is pooled from.
        out: bins per side.
        ratio: samples per bin side, 0 for ceil(bin size).
        aligned: whether RoIs are shifted by half a cell; those that aren't are at least one cell wide and high.
        canvas: int32 [images, 2] = (height, width) in pixels where the images' own areas end, or None.
        step: n, where only every n-th bin of a grid of n * out is pooled.
    """

    sizes: list
    scales: list
    images: int
    boxes: np.ndarray
    image: np.ndarray
    level: np.ndarray
    out: int
    ratio: int
    aligned: bool
    canvas: np.ndarray | None = None
    step: int = 1

    def own_size(self, roi):
        """(height, width) in cells of what RoI number `roi` may read."""
        size, scale = self.sizes[self.level[roi]], self.scales[self.level[roi]]
        if self.canvas is None:
            return size
        return tuple(
            min(cells, math.ceil(pixels * scale))
            for cells, pixels in zip(size, self.canvas[self.image[roi]].tolist(), strict=True)
        )

    def pools_something(self, roi):
        """False for RoIs that name no map and for boxes with a coordinate that isn't finite."""
        named = 0 <= self.level[roi] < len(self.sizes) and 0 <= self.image[roi] < self.images
        return bool(named and np.isfinite(self.boxes[roi]).all())

    def axis(self, roi, axis):
        """The samples of RoI `roi` along one axis (0: x, 1: y).

        Returns:
            For each bin the list of its samples' (low cell, high cell, fraction), without those more than one cell
            outside the map; and the number of samples of a bin with those.
        """
        cells = self.own_size(roi)[1 - axis]
        box, scale = self.boxes[roi].astype(np.float64), self.scales[self.level[roi]]
        start = box[axis] * scale - (0.5 if self.aligned else 0.0)
        length = (box[axis + 2] - box[axis]) * scale
        size = (length if self.aligned else max(length, 1.0)) / (self.out * self.step)
        count = self.ratio or max(math.ceil(size), 0)
        bins = []
        for number in range(0, self.out * self.step, self.step):
            first, last = _possible(start + number * size, size, count, cells)
            positions = [start + number * size + (sample + 0.5) * size / count for sample in range(first, last)]
            bins.append([_neighbours(place, cells) for place in positions if cells > 0 and -1.0 <= place <= cells])
        return bins, count


def _possible(start, size, count, cells):
    """A range that holds all samples on the map, so that boxes of 1e9 cells need no 1e9 steps."""
    if count < 100 or size <= 0:
        return 0, count
    step = size / count
    first, last = (-1.0 - start) / step - 2.0, (cells - start) / step + 2.0
    return int(min(max(first, 0), count)), int(min(max(last, 0), count))


def _neighbours(position, cells):
    position = min(max(position, 0.0), cells - 1.0)
    low = int(position)
    return low, min(low + 1, cells - 1), position - low


def _samples(pooling, roi):
    """Yields (bin row, bin column, cells and weights) for each sample of an RoI; weights of a bin sum to 1 at most."""
    rows, row_count = pooling.axis(roi, 1)
    columns, column_count = pooling.axis(roi, 0)
    for y, row in enumerate(rows):
        for x, column in enumerate(columns):
            for top, bottom, down in row:
                for left, right, across in column:
                    share = 1.0 / (row_count * column_count)
                    yield (
                        y,
                        x,
                        (
                            (top, left, (1 - down) * (1 - across) * share),
                            (top, right, (1 - down) * across * share),
                            (bottom, left, down * (1 - across) * share),
                            (bottom, right, down * across * share),
                        ),
                    )


def forward(pooling, maps):
    """Pooled float64 [R, out, out, C] of float64 maps [images, height, width, C]."""
    pooled = np.zeros((len(pooling.boxes), pooling.out, pooling.out, maps[0].shape[-1]))
    for roi in filter(pooling.pools_something, range(len(pooling.boxes))):
        image = maps[pooling.level[roi]][pooling.image[roi]]
        for y, x, cells in _samples(pooling, roi):
            for row, column, weight in cells:
                pooled[roi, y, x] += weight * image[row, column]
    return pooled


def backward(pooling, gradient):
    """Gradients of the maps, float64 [images, height, width, C] each, for that of the pooled values."""
    maps = [np.zeros((pooling.images, *size, gradient.shape[-1])) for size in pooling.sizes]
    for roi in filter(pooling.pools_something, range(len(pooling.boxes))):
        image = maps[pooling.level[roi]][pooling.image[roi]]
        for y, x, cells in _samples(pooling, roi):
            for row, column, weight in cells:
                image[row, column] += weight * gradient[roi, y, x]
    return maps


def touched_cells(pooling):
    """The number of different cells, over all maps, that the RoIs read."""
    touched = [np.zeros((pooling.images, *size), bool) for size in pooling.sizes]
    for roi in filter(pooling.pools_something, range(len(pooling.boxes))):
        cells = []
        for axis in (1, 0):
            bins, _ = pooling.axis(roi, axis)
            cells.append(sorted({cell for samples in bins for low, high, _ in samples for cell in (low, high)}))
        touched[pooling.level[roi]][pooling.image[roi]][np.ix_(*cells)] = True
    return sum(int(level.sum()) for level in touched)
