"""What everyone is measured on, as numpy arrays that follow from their sizes alone."""

import numpy as np

OBJECTS = 7  # of the training image; COCO's images have 7.3 on average
# RoIAlign alone: on the pyramid's finest level, with the paper's bins and two samples on each side of one.
ROI_STRIDE, ROI_BINS, ROI_SAMPLES = 4, 7, 2
# Ranges of the root of an RoI's area in pixels: what the pyramid's rule sends to the finest level, and everything.
ROI_SIZES = {"level": (16, 112), "spread": (16, 600)}
DETECTION_SIZES = (16, 400)  # pixels, the root of the area
# For the family. Random weights let features grow from block to block: on the pixels' own scale, as detectron2 has it,
# until no proposal is finite. So they come out near 1, and the peers have the 1000 proposals that ours always computes.
PIXEL_STD = 1000.0


def image(height, width):
    """A random image, uint8 [H, W, 3]."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def features(height, width, channels):
    """A random feature map, float32 [1, H, W, C]."""
    return np.random.default_rng(1).standard_normal((1, height, width, channels), np.float32)


def boxes(count, height, width, smallest, largest):
    """Boxes [N, 4] inside an image of height x width pixels, the root of their area log-uniform in a range of them."""
    generator = np.random.default_rng(2)
    scale = np.exp(generator.uniform(np.log(smallest), np.log(largest), count))
    stretch = np.exp(generator.uniform(np.log(0.5), np.log(2.0), count) / 2)
    limit = np.array([width, height], np.float64)
    sides = np.minimum(np.stack([scale * stretch, scale / stretch], 1), limit)
    corners = generator.uniform(0, 1, (count, 2)) * (limit - sides)
    return np.concatenate([corners, corners + sides], 1).astype(np.float32)


def ellipses(boxes, height, width):
    """The ellipse that fills each box as a mask, uint8 [N, H, W] of 0 and 1."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    masks = []
    for x1, y1, x2, y2 in boxes:
        across = (columns - (x1 + x2) / 2) / ((x2 - x1) / 2)
        down = (rows - (y1 + y2) / 2) / ((y2 - y1) / 2)
        masks.append(across**2 + down**2 <= 1)
    return np.array(masks, np.uint8)


def objects(height, width, classes):
    """The training image's objects: boxes [7, 4] from 40 pixels to half of the shorter side, classes [7] in 1..K.

    Args:
        height, width: of the image, pixels.
        classes: K.
    """
    side = min(height, width)
    return boxes(OBJECTS, height, width, min(40, side / 4), side / 2), 1 + np.arange(OBJECTS) % classes


def labels(height, width, stuff):
    """A class for each pixel, uint8 [H, W] in 0..S: bands of all of them."""
    return np.repeat((np.arange(height) * (stuff + 1) // height).astype(np.uint8)[:, None], width, axis=1)


def mask_probabilities(count, side=28):
    """Smooth blobs as a mask head predicts them, float32 [N, side, side] in 0..1."""
    centre = np.random.default_rng(3).uniform(0.35, 0.65, (count, 2, 1, 1))
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    distance = np.hypot(y - centre[:, 0], x - centre[:, 1])
    return (1 / (1 + np.exp(20 * (distance - 0.4)))).astype(np.float32)
