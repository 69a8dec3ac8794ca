"""The connected parts of masks, numbered, without a library for it."""

import numpy as np


def connected_parts(labels):
    """Numbers the parts of a map that hang together.

    Args:
        labels: integers [H, W]; 0 is background. Pixels of one value that touch, if only by a corner, hang together.

    Returns:
        int32 [H, W]: 0 for the background, parts from 1 in the order of their topmost rows, from the left.
    """
    height, width = labels.shape
    change = np.ones([height, width], bool)
    change[:, 1:] = labels[:, 1:] != labels[:, :-1]
    run = np.cumsum(change).reshape(height, width) - 1  # the number of the horizontal run that each pixel is of
    value = labels[change]
    parents = np.arange(value.size)
    for above, below in (
        (np.s_[:-1, :], np.s_[1:, :]),
        (np.s_[:-1, 1:], np.s_[1:, :-1]),
        (np.s_[:-1, :-1], np.s_[1:, 1:]),
    ):
        same = (labels[above] == labels[below]) & (labels[above] != 0)
        pairs = run[above][same].astype(np.int64) * value.size + run[below][same]
        pairs = np.unique(pairs[np.r_[True, pairs[1:] != pairs[:-1]][: pairs.size]])  # neighbours repeat their pair
        for one, other in zip((pairs // value.size).tolist(), (pairs % value.size).tolist(), strict=True):
            one, other = _root(parents, one), _root(parents, other)
            parents[max(one, other)] = min(one, other)
    roots = np.array([_root(parents, place) for place in range(value.size)])
    wanted = np.unique(roots[value != 0])
    number = np.zeros(value.size + 1, np.int32)
    number[wanted] = np.arange(1, wanted.size + 1)
    return np.where(value != 0, number[roots], 0).astype(np.int32)[run]


def _root(parents, place):
    while parents[place] != place:
        parents[place] = parents[parents[place]]  # halves the way for the next one
        place = parents[place]
    return place
