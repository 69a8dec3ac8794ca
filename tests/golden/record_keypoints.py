"""Records the keypoint targets, decoded keypoints and upsampled heatmaps of torchvision and detectron2.

`keypoints.npz` holds the inputs: `boxes` [8, 4], among them sides of whole pixels, below one pixel and of no length,
`keypoints` [8, 5, 3], some on the boxes' borders, and `maps` [8, 3, 14, 14]. Of torchvision come `targets` and `valid`
(side 14), `places` [8, 3, 2] with `logits` [8, 3], and `upsampled` [1, 3, 28, 28], torch's doubling of the first RoI's
maps; of detectron2 `detectron2_targets`, `detectron2_valid` and `detectron2_places` with `detectron2_probabilities`.
Made with Python 3.11, torch 2.13.0 (CPU), torchvision 0.28.0, numpy 2.4.6 and the commit of detectron2 that
record_detectron2.py names by

    PYTHONPATH=tests python tests/golden/record_keypoints.py
"""

import pathlib

import numpy as np
import torch
from detectron2.structures import keypoints as detectron2
from torchvision.models.detection import roi_heads as torchvision

BOXES = [
    [10, 20, 66, 90],
    [3.25, 7.5, 40.75, 99.125],
    [0, 0, 14, 14],
    [100.3, 50.7, 107.9, 55.2],
    [5.5, 5.5, 6.2, 30.5],
    [8, 8, 20, 8.4],
    [12, 30, 12, 30],
    [200.1, 1.9, 330.6, 60],
]


def main():
    random = np.random.default_rng(5)
    boxes = np.float32(BOXES)
    # Steps of 0.002 keep the file small; the maxima of the resized maps are far enough apart.
    maps = (np.round(random.normal(size=(8, 3, 14, 14)) * 500) / 500).astype(np.float32)
    keypoints = points_around(boxes, random)
    tensors = [torch.from_numpy(array) for array in (keypoints, maps, boxes)]
    points, heatmaps, rois = tensors
    arrays = {"boxes": boxes, "keypoints": keypoints, "maps": maps}
    for prefix, encode in (("", torchvision.keypoints_to_heatmap), ("detectron2_", detectron2._keypoints_to_heatmap)):
        targets, valid = encode(points, rois, 14)
        arrays |= {f"{prefix}targets": targets.numpy(), f"{prefix}valid": valid.numpy().astype(bool)}
    places, logits = torchvision.heatmaps_to_keypoints(heatmaps, rois)
    arrays |= {"places": places[..., :2].numpy(), "logits": logits.numpy()}
    found = detectron2.heatmaps_to_keypoints(heatmaps, rois).numpy()
    arrays |= {"detectron2_places": found[..., :2], "detectron2_probabilities": found[..., 3]}
    upsampled = torch.nn.functional.interpolate(heatmaps[:1], scale_factor=2, mode="bilinear", align_corners=False)
    np.savez_compressed(pathlib.Path(__file__).with_name("keypoints.npz"), **arrays, upsampled=upsampled.numpy())


def points_around(boxes, random):
    """Keypoints [N, 5, 3]: anywhere in and around each box, on its far corner, on its near one, and unlabelled."""
    corner, sides = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
    share = random.uniform(-0.2, 1.2, (len(boxes), 5, 2))
    share[:, 1], share[:, 2], share[:, 3:] = 1, 0, random.uniform(0, 1, (len(boxes), 2, 2))
    places = np.float32(corner + share * sides)
    places[:, 1] = boxes[:, 2:]
    visibility = np.broadcast_to(np.float32([2, 1, 2, 1, 0])[:, None], (len(boxes), 5, 1))
    return np.concatenate([places, visibility], axis=2)


if __name__ == "__main__":
    main()
