"""What stays in memory of models that were built, traced and dropped in one process, as in a long notebook session."""

import contextlib
import ctypes
import gc
import pathlib
import sys

from mrcnn_tf.cli.benchmark_measurements import benchmark_config, benchmark_model, compile_model, repeated_batch

SIDE = 64  # pixels of the images: the graph is as large as for any other size


def measure_dropped_models(config, overrides, models, stock, report):
    """Build, train for a step, detect with, and drop a model, again and again; the memory of the process after each.

    Args:
        config, overrides: as of `load_config`.
        models: how many.
        stock: trace TensorFlow's stock operations only, as where our library can't be built: more gradients are ours.
        report: called with a sentence after each model.

    Returns:
        A list of MB, resident memory after each model was dropped.
    """
    import keras
    import numpy as np

    from mrcnn_tf.ops.native.library import stock_operations

    settings, sizes = benchmark_config(config, overrides, SIDE, SIDE), []
    for number in range(models):
        keras.utils.set_random_seed(number)
        with stock_operations() if stock else contextlib.nullcontext():
            model = benchmark_model(settings, "float32")
            compile_model(model, settings)
            model.train_function(iter(repeated_batch(settings, SIDE, SIDE, 1)))
            model.detect(np.zeros((SIDE, SIDE, 3), np.uint8))
        del model
        sizes.append(resident_memory())
        report(f"{number + 1} of {models}: {sizes[-1]:.0f} MB")
    return sizes


def resident_memory():
    """MB of this process, after everything that Python and the C library can free has been freed (Linux)."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024
