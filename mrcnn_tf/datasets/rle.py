"""COCO's run lengths: compressed strings to runs, and what runs say about a mask. Numpy, once per dataset.

Runs go down the columns of the image, one column after another, outside and inside by turns, beginning outside.
"""

import numpy as np


def decode_strings(strings):
    """The runs of many compressed masks at once.

    COCO writes each number in groups of five bits, the least first, as characters from 48 on; bit 5 says that a group
    follows, and the sign is bit 4 of the last group. From the fourth number of a mask on, it is the difference to the
    number two before.

    Args:
        strings: list of bytes.

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


def blocks(counts, limit):
    """Consecutive masks whose runs are few enough to be worked on together.

    Args:
        counts: [N] int64, runs of each mask.
        limit: the most runs of a block, unless a single mask has more.

    Yields:
        (first, last), int: the block is masks first to last - 1.
    """
    offsets, first = np.r_[0, np.cumsum(counts)], 0
    while first < counts.size:
        last = int(np.searchsorted(offsets, offsets[first] + limit, side="right")) - 1
        last = min(max(last, first + 1), counts.size)
        yield first, last
        first = last


def inside_area(runs, counts):
    """[N] int64: pixels inside each mask."""
    nth = np.arange(runs.size) - np.repeat(np.cumsum(counts) - counts, counts)
    mask = np.repeat(np.arange(counts.size), counts)
    return np.bincount(mask, runs * (nth % 2), minlength=counts.size).astype(np.int64)


def bounding_box(runs, height):
    """(x1, y1, x2, y2) in whole pixels around one mask's pixels, given its runs; zeros for an empty mask."""
    ends = np.cumsum(runs)
    starts, ends = ends[:-1:2], ends[1::2]
    starts, ends = starts[: ends.size][ends > starts[: ends.size]], ends[ends > starts[: ends.size]]
    if not ends.size:
        return 0.0, 0.0, 0.0, 0.0
    left, right = starts // height, (ends - 1) // height
    # A run that goes on in the next column touches the bottom of one and the top of the other.
    several = left < right
    top = np.where(several, 0, starts % height).min()
    bottom = np.where(several, height - 1, (ends - 1) % height).max()
    return float(left.min()), float(top), float(right.max() + 1), float(bottom + 1)
