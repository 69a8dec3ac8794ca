"""What a measurement was made on."""

import datetime
import importlib.metadata
import os
import platform

LIBRARIES = ("mrcnn-tf", "tensorflow", "keras", "numpy", "torch", "torchvision", "tf-models-official", "detectron2")


def describe_machine():
    """Processor, cores that this process may use (all use as many threads), memory in bytes, load, system and date."""
    return {
        "processor": _processor(),
        "cores": available_cores(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load": os.getloadavg()[0],  # processes that were busy in the last minute, beside the benchmark
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


def available_cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def library_versions():
    """The version of each library that takes part, None where it isn't installed."""
    return {name: _version(name) for name in LIBRARIES}


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux, or no such line
        return platform.processor() or "unknown processor"
