"""Counts in bins whose edges people can read."""

import dataclasses

import numpy as np

MOST_BARS = 24


@dataclasses.dataclass
class Histogram:
    """`counts` [n] of the values between `edges` [n + 1], each bin without its upper edge.

    `log`: the edges grow by a factor.
    """

    edges: list[float]
    counts: list[int]
    log: bool


def whole_numbers(values):
    """A `Histogram` of integers >= 0 in bins of 1, 2, 5, 10, ... numbers each; `values` [N]."""
    values = np.asarray(values, np.int64)
    top = int(values.max(initial=0)) + 1
    step = next(s for power in range(19) for s in (10**power * f for f in (1, 2, 5)) if s * MOST_BARS >= top)
    edges = np.arange(0, top + step, step)
    return Histogram(edges.tolist(), np.histogram(values, np.r_[edges[:-1], edges[-1] - 0.5])[0].tolist(), False)


def by_factor(values, per_double=2):
    """A `Histogram` of positive numbers, `per_double` bins (fewer if they would be too many) for each doubling.

    Args:
        values: [N] floats; those that are not positive and finite are left out.
        per_double: bins from x to 2 x.
    """
    values = np.asarray(values, np.float64)
    exponents = np.log2(values[np.isfinite(values) & (values > 0)])
    if not exponents.size:
        return Histogram([1, 2], [0], True)
    while per_double > 1 and np.ptp(exponents) * per_double > MOST_BARS - 1:
        per_double //= 2
    bins = np.floor(exponents * per_double).astype(np.int64)
    counts = np.bincount(bins - bins.min())
    edges = 2.0 ** ((bins.min() + np.arange(len(counts) + 1)) / per_double)
    return Histogram(edges.tolist(), counts.tolist(), True)
