"""Records torchvision's RoIPool: values and gradients on two levels.

`roi_pool.npz` holds for the levels 0 (scale 1/4) and 1 (scale 1/8) `map` [2, C, H, W], without two equal values in an
image's channel; `rois` [n, 5] = (image, x1, y1, x2, y2), among them halves to round, boxes of no area, turned round,
and partly or wholly outside; `upstream` and `pooled` [n, C, 3, 3], and `gradient` of sum(pooled * upstream). `wide` and
`narrow` [7, 7] are the bins of the first 57 and the first 3 cells of a map of one row 0, 1, ... 59: in float32,
57 / 7 * 7 is more than 57, and 3 / 7 * 7 is 3, but 3 * (1 / 7) * 7 more.
Made with Python 3.11, torch 2.13.0 (CPU), torchvision 0.28.0 and numpy 2.4.6 by

    PYTHONPATH=tests python tests/golden/record_roi_pool.py
"""

import pathlib

import numpy as np
import torch
from torchvision.ops import roi_pool

ODD = [
    [10, 6, 30, 50],  # 2.5, 1.5, 7.5, 12.5 cells of 4 pixels, 12.5 beyond the map
    [-10, -6, 14, 22],  # -2.5, -1.5
    [20, 20, 20, 20],
    [40, 30, 24, 10],
    [-60, 8, -30, 30],
    [200, 8, 230, 30],
    [-50, -50, 300, 300],
]


def main():
    random, arrays = np.random.default_rng(11), {}
    for level, (scale, height, width) in enumerate([(1 / 4, 12, 17), (1 / 8, 6, 9)]):
        shape = (2, 3, height, width)
        corners = random.uniform(-8, 60, (8, 2))
        boxes = np.concatenate([ODD, np.concatenate([corners, corners + random.uniform(1, 50, (8, 2))], axis=1)])
        image = random.integers(0, 2, (len(boxes), 1))
        values = random.permutation(np.prod(shape)).reshape(shape) / 64 - 8
        upstream = random.integers(-64, 65, (len(boxes), 3, 3, 3)) / 32
        rois = np.concatenate([image, boxes], axis=1)
        values, upstream, rois = (torch.from_numpy(np.float32(array)) for array in (values, upstream, rois))
        values.requires_grad_()
        pooled = roi_pool(values, rois, 3, scale)
        (pooled * upstream).sum().backward()
        record = {"map": values, "rois": rois, "upstream": upstream, "pooled": pooled, "gradient": values.grad}
        arrays |= {f"{name}{level}": tensor.detach().numpy() for name, tensor in record.items()}
    row = torch.arange(60.0).reshape(1, 1, 1, 60)
    for name, last in (("wide", 56.0), ("narrow", 2.0)):
        arrays[name] = roi_pool(row, torch.tensor([[0.0, 0, 0, last, 0]]), 7)[0, 0].numpy()
    np.savez_compressed(pathlib.Path(__file__).with_name("roi_pool.npz"), **arrays)


if __name__ == "__main__":
    main()
