"""Inputs on which the CUDA kernels are compared with the reference and with torchvision."""

from dataclasses import dataclass

import numpy as np
from roi_align_reference import Pooling

# Boxes that are hard for one reason each; RoI numbers that name no map are added where they are used.
EDGES = [
    [-80.3, -90.2, -40.1, -50.7],  # outside
    [-20.3, -9.2, 30.1, 40.7],  # across the corner
    [70.2, 90.1, 300.3, 400.9],
    [11.3, 22.2, 11.3, 22.2],  # no area
    [50.3, 60.2, 20.1, 15.7],  # ends before it starts
    [3.1, 4.2, 3.9, 5.1],  # within a cell
    [-900.3, 10.2, 1300.7, 12.9],  # far wider than the map
    [-700.4, -1.9, 900.2, 1.7],  # that too, on a single row of cells
]
NOT_FINITE = [[np.nan, 1, 9, 9], [1, 1, np.inf, 9], [-np.inf, 1, 9, np.inf], [1, 3e38, 9, -3e38]]
# All corners and sizes are dyadic, so that float32 places the samples as exactly as float64 does.
HUGE = [[-3582.75, -3581.5, 3585.25, 3586.5], [1e20, 1e20, 1e30, 1e30], [-1e30, -1e30, -1e20, -1e20]]


@dataclass
class Case:
    """Feature maps' shapes and the RoIs on them.

    Attributes:
        misaligned: whether tensors begin one value after an address divisible by 16.
        same_as_torchvision: whether torchvision defines the result, in reasonable time.
    """

    name: str
    pooling: Pooling
    channels: int
    misaligned: bool = False
    same_as_torchvision: bool = True


def _boxes(random, count, side):
    """`count` boxes of 2 to `side` pixels around centres in an image of `side` pixels."""
    centre = random.uniform(0.0, side, (count, 2))
    half = np.exp(random.uniform(np.log(1.0), np.log(side / 2), (count, 2)))
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


def _pooling(random, boxes, sizes=((20, 24),), images=2, out=7, ratio=2, aligned=True, canvas=None, step=1):
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    return Pooling(
        sizes=list(sizes),
        scales=[0.25 / 2**level for level in range(len(sizes))],
        images=images,
        boxes=boxes,
        image=random.integers(0, max(images, 1), len(boxes)).astype(np.int32),
        level=random.integers(0, len(sizes), len(boxes)).astype(np.int32),
        out=out,
        ratio=ratio,
        aligned=aligned,
        canvas=None if canvas is None else np.asarray(canvas, np.int32),
        step=step,
    )


def make_cases():
    """The list of cases, the same in every run."""
    random = np.random.default_rng(4)
    pyramid = ((20, 24), (10, 12), (5, 6))

    def case(name, boxes, channels=16, misaligned=False, same=True, **options):
        return Case(name, _pooling(random, boxes, **options), channels, misaligned, same)

    cases = [case("no RoIs", []), case("one RoI, one channel", [[8, 8, 61, 51]], channels=1, images=1)]
    for ratio in (0, 1, 2, 3):
        for aligned in (True, False):
            name = f"ratio {ratio}{'' if aligned else ', not aligned'}"
            cases.append(case(name, _boxes(random, 14, 90), ratio=ratio, aligned=aligned))
            cases.append(case(f"edges, {name}", EDGES, ratio=ratio, aligned=aligned))
    for channels in (3, 8, 20, 255, 256, 264):
        cases.append(case(f"{channels} channels", _boxes(random, 6, 90), channels=channels))
    cases += [
        case("3 levels", _boxes(random, 20, 90), sizes=pyramid),
        case("256 channels, misaligned", _boxes(random, 4, 90), channels=256, misaligned=True),
        case("14x14", _boxes(random, 5, 90), out=14, sizes=pyramid),
        case("3x3", _boxes(random, 20, 90), out=3, sizes=pyramid),
        case("1x1, adaptive", _boxes(random, 10, 90), out=1, ratio=0),
        case("19x19", _boxes(random, 3, 90), out=19),
        case("600 RoIs, 2x2", _boxes(random, 600, 90), out=2, ratio=1, sizes=pyramid),
        case("every second bin", _boxes(random, 14, 90), step=2, ratio=0, sizes=pyramid, same=False),
        case("every third bin, not aligned", _boxes(random, 14, 90), step=3, aligned=False, same=False),
        case("map of one cell", _boxes(random, 8, 8), sizes=((1, 1),)),
        case("ratio 40", _boxes(random, 3, 40), ratio=40, out=2),
        case("large adaptive bins", _boxes(random, 3, 250), ratio=0, out=2, sizes=((60, 64),), images=1),
        case("ratio 16, large bins", _boxes(random, 3, 250), ratio=16, out=2, sizes=((60, 64),), images=1),
        case("huge boxes, adaptive", HUGE, ratio=0, same=False),
        case("huge boxes, ratio 2", HUGE, same=False),
        case("not finite", NOT_FINITE + [[8, 8, 60, 50]], same=False),
        case("not finite, adaptive", NOT_FINITE + [[8, 8, 60, 50]], ratio=0, same=False),
        case("an empty level", _boxes(random, 10, 90), sizes=((20, 24), (0, 12), (5, 0)), same=False),
        case("only empty maps", _boxes(random, 4, 90), sizes=((0, 0),), same=False),
        case("no image", [], images=0, same=False),
        case("no channels", _boxes(random, 4, 90), channels=0, same=False),
        case("canvas", _boxes(random, 14, 90), sizes=pyramid, canvas=[[57, 61], [80, 33]], same=False),
        case("canvas, adaptive", _boxes(random, 14, 90), canvas=[[57, 0], [1, 96]], ratio=0, same=False),
    ]
    lost = case("RoIs that name no map", _boxes(random, 7, 90), sizes=pyramid, same=False)
    lost.pooling.level[:3] = [-1, 3, 2**31 - 1]
    lost.pooling.image[2:6] = [0, -1, 2, -(2**31)]
    return [*cases, lost]
