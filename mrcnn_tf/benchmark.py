"""How long a model takes on this machine, and how much memory."""

import dataclasses
import platform
import resource
import statistics
import time

import numpy as np

from mrcnn_tf.config import Category, Config
from mrcnn_tf.model import MaskRCNN
from mrcnn_tf.training.precision import dtype_policy


@dataclasses.dataclass
class InferenceTimes:
    """Of `MaskRCNN.detect` on one image; seconds and bytes."""

    image: tuple[int, int]
    precision: str
    first: float  # tracing included
    median: float
    fastest: float
    repeats: int
    peak_memory: int  # of the whole process so far
    machine: str


def benchmark_inference(config: Config, height=800, width=1088, repeats=10) -> InferenceTimes:
    """Times `detect` of the config's model with random weights on a random image of height x width.

    Random weights give as many proposals and detections as the settings allow (1000 and 100 in the paper's configs),
    since no score falls below a threshold of 0: the slowest case.
    """
    settings = dataclasses.replace(config.model)
    settings.categories = settings.categories or [Category(number, str(number)) for number in range(1, 81)]
    settings.detections = dataclasses.replace(settings.detections, score_threshold=0.0)
    settings.resize = dataclasses.replace(settings.resize, min_size=min(height, width), max_size=max(height, width))
    policy = dtype_policy(config.train.precision)
    model = MaskRCNN(settings, dtype=policy)
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    times = [_seconds(model, image) for _ in range(repeats + 1)]
    return InferenceTimes(
        image=(height, width),
        precision=policy.name,
        first=times[0],
        median=statistics.median(times[1:]),
        fastest=min(times[1:]),
        repeats=repeats,
        peak_memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        machine=f"{platform.system()} {platform.machine()}, {_processor()}",
    )


def _seconds(model, image):
    start = time.perf_counter()
    model.detect(image)
    return time.perf_counter() - start


def _processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            rows = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        return f"{len(rows)} x {rows[0]}"
    except (OSError, IndexError):  # not Linux, or no such line
        return platform.processor() or "unknown processor"
