"""An image and its objects on their way from the files to a batch."""

import collections

# image [H, W, 3], uint8 as decoded or float32 once resized; boxes [N, 4] pixels, inside the image; classes [N] int32,
# 1 to K; crowd [N] bool; areas [N] float32 square pixels; masks [N, S, S] uint8, 255 times the occupancy of each S-th
# part of the object's box; keypoints [N, P, 3] (x, y) pixels and v, (0, 0, 0) for an unlabelled one; semantic [H, W]
# uint8, see labels.py. S, P, or H and W of `semantic` are 0 for a dataset without masks, keypoints or labels.
Sample = collections.namedtuple("Sample", "image boxes classes crowd areas masks keypoints semantic")

OBJECTS = ("boxes", "classes", "crowd", "areas", "masks", "keypoints")  # what has a row for each object
