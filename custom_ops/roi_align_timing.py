"""Times the CUDA kernels and torchvision's operation in one run, with CUDA events.

The device sleeps before each measured call, so that the host has queued all of it when it begins, and before that a
buffer larger than the second-level cache is written: maps and gradients come from memory. Each figure is a median.
torchvision is called as its own models would: planes (NCHW), one call a level, whose RoIs are picked and put back as
MultiScaleRoIAlign does it, but with their indices known beforehand. Where it has no kernel of a type it goes through
float32, as under autocast, which the table marks.
"""

from dataclasses import dataclass

import numpy as np
import torch
from roi_align_library import RoIs
from roi_align_reference import Pooling, touched_cells

RUNS, WARM_UP = 50, 5
CHANNELS = 256
IMAGE = (800, 1088)
SLEEP = 1_000_000  # cycles: about half a millisecond
FLUSH = 256 * 2**20  # bytes, more than the cache of any device at present


@dataclass
class Timing:
    """Milliseconds of one workload in one direction.

    Attributes:
        own, torchvision: medians; torchvision's is None without it.
        through_float32: whether torchvision converted to float32 and back.
        gigabytes: what has to be moved at least: cells that RoIs touch (forward) or all cells (backward), each once,
            and the pooled values or their gradient.
        peak: gigabytes per second of a large copy on the device, reads and writes counted.
    """

    workload: str
    dtype: str
    direction: str
    own: float
    torchvision: float | None
    through_float32: bool
    gigabytes: float
    peak: float

    @property
    def ratio(self):
        """How many times torchvision's time is the kernel's, or None."""
        return None if self.torchvision is None else self.torchvision / self.own

    @property
    def rate(self):
        """Gigabytes per second."""
        return self.gigabytes / self.own * 1e3

    @property
    def fraction(self):
        """Of the peak bandwidth."""
        return self.rate / self.peak


def measure(library):
    """Yields the timings of all workloads, types and directions."""
    peak = _peak()
    for name, pooling in _workloads():
        touched = touched_cells(pooling)
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            yield from _measure(library, name, pooling, touched, dtype, peak)


def _workloads():
    random = np.random.default_rng(7)
    for levels, images in ((1, 1), (4, 2)):
        where = "200x272 map" if levels == 1 else f"pyramid of {levels}, {images} images"
        for rois, out in ((512, 7), (1000, 7), (100, 14)):
            if levels > 1 or out == 7:
                yield f"{rois} RoIs {out}x{out}, {where}", _proposals(random, levels, images, rois, out)


def _proposals(random, levels, images, count, out):
    """Boxes of 16 to 512 pixels a side, in a pyramid on the level that the FPN paper gives them."""
    height, width = IMAGE
    centre = random.uniform(0.0, 1.0, (count, 2)) * (width, height)
    half = np.exp(random.uniform(np.log(8.0), np.log(256.0), (count, 2)))
    boxes = np.clip(np.concatenate([centre - half, centre + half], 1), 0, [width, height, width, height])
    sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    level = np.clip(np.floor(4 + np.log2(sides / 224 + 1e-6)) - 2, 0, levels - 1)
    return Pooling(
        sizes=[(height // stride, width // stride) for stride in (4, 8, 16, 32)[:levels]],
        scales=[1 / 4, 1 / 8, 1 / 16, 1 / 32][:levels],
        images=images,
        boxes=boxes.astype(np.float32),
        image=random.integers(0, images, count).astype(np.int32),
        level=level.astype(np.int32),
        out=out,
        ratio=2,
        aligned=True,
    )


def _median(call):
    """Milliseconds of `call`, each time with the caches emptied of its data."""
    flush = torch.empty(FLUSH // 4, device="cuda")
    events = []
    for _ in range(WARM_UP + RUNS):
        flush.fill_(0.0)
        torch.cuda._sleep(SLEEP)
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        events.append((start, end))
    torch.cuda.synchronize()
    return float(np.median([start.elapsed_time(end) for start, end in events[WARM_UP:]]))


def _peak():
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda").fill_(1)
    target = torch.empty_like(source)
    return 2 * source.numel() / 1e9 / _median(lambda: target.copy_(source)) * 1e3


def _measure(library, name, pooling, touched, dtype, peak):
    """The forward and the backward timing of one workload."""
    maps = [torch.randn(pooling.images, *size, CHANNELS, device="cuda").to(dtype) for size in pooling.sizes]
    pooled = torch.randn(len(pooling.boxes), pooling.out, pooling.out, CHANNELS, device="cuda").to(dtype)
    gradients = [torch.empty_like(level) for level in maps]
    call = RoIs(pooling, CHANNELS, "cuda")
    cells = sum(level.numel() for level in maps)
    workspace = None if dtype == torch.float32 else torch.empty(cells, device="cuda")
    own = (
        _median(lambda: library.forward(call, maps, torch.empty_like(pooled))),
        _median(lambda: library.backward(call, pooled, gradients, workspace, False)),
    )
    peer, through_float32 = _Torchvision.times(pooling, maps, pooled)
    values = (touched * CHANNELS + pooled.numel(), cells + pooled.numel())
    for i, direction in enumerate(("forward", "backward")):
        gigabytes = values[i] * pooled.element_size() / 1e9
        kind = str(dtype).removeprefix("torch.")
        yield Timing(name, kind, direction, own[i], peer and peer[i], through_float32, gigabytes, peak)


class _Torchvision:
    """torchvision's operation on the maps of a workload."""

    def __init__(self, pooling, maps, pooled, dtype):
        """Takes NHWC values of any type; computes in `dtype` and returns values of their own."""
        self.pooling, self.dtype, self.kind = pooling, dtype, pooled.dtype
        self.planes = [level.permute(0, 3, 1, 2).contiguous() for level in maps]
        self.gradient = pooled.permute(0, 3, 1, 2).contiguous()
        self.levels = []
        for level in range(len(maps)):
            chosen = np.flatnonzero(pooling.level == level)
            rois = np.column_stack([pooling.image[chosen], pooling.boxes[chosen]])
            self.levels.append((torch.from_numpy(chosen).cuda(), torch.from_numpy(rois).cuda().to(dtype)))

    @classmethod
    def times(cls, pooling, maps, pooled):
        """((forward, backward) milliseconds or None without torchvision, whether through float32)."""
        try:
            import torchvision  # noqa: F401
        except (ImportError, RuntimeError):
            return None, False
        for dtype in (pooled.dtype, torch.float32):
            peer = cls(pooling, maps, pooled, dtype)
            try:
                peer.forward()
                peer.backward()
            except RuntimeError as error:
                if "not implemented" not in str(error) or dtype == torch.float32:
                    raise
                continue
            return (_median(peer.forward), _median(peer.backward)), dtype != pooled.dtype

    def forward(self):
        """[R, C, out, out]."""
        results = []
        for planes, scale, (_, rois) in zip(self.planes, self.pooling.scales, self.levels, strict=True):
            results.append(self._pool(planes.to(self.dtype), rois, scale).to(self.kind))
        if len(results) == 1:
            return results[0]
        pooled = torch.empty_like(self.gradient)
        for values, (chosen, _) in zip(results, self.levels, strict=True):
            pooled[chosen] = values
        return pooled

    def _pool(self, planes, rois, scale):
        out = self.pooling.out
        return torch.ops.torchvision.roi_align(planes, rois, scale, out, out, self.pooling.ratio, self.pooling.aligned)

    def backward(self):
        """The gradients of all planes."""
        out, results = self.pooling.out, []
        for planes, scale, (chosen, rois) in zip(self.planes, self.pooling.scales, self.levels, strict=True):
            gradient = self.gradient if len(self.planes) == 1 else self.gradient[chosen]
            result = torch.ops.torchvision._roi_align_backward(
                gradient.to(self.dtype), rois, scale, out, out, *planes.shape, self.pooling.ratio, self.pooling.aligned
            )
            results.append(result.to(self.kind))
        return results
