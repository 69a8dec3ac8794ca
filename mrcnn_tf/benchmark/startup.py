"""From the start of a process to its first detection, and what `import mrcnn_tf` adds to TensorFlow and Keras."""

import importlib
import sys
import time

from mrcnn_tf.benchmark import inputs, worker


def prepare(started, config, overrides, height, width):
    """Times the stages, each in the order in which a user's process goes through them. `started`: see FreshProcess."""

    def run():
        times = {name: _import_seconds(name) for name in ("tensorflow", "keras")}
        _forget()
        times["mrcnn_tf"] = _import_seconds("mrcnn_tf")
        from mrcnn_tf.benchmark.models import benchmark_config, benchmark_model

        settings = benchmark_config(config, overrides, height, width)
        start = time.perf_counter()
        model = benchmark_model(settings, "float32")
        times["build"] = time.perf_counter() - start
        times["first_detection"] = worker.seconds(lambda: model.detect(inputs.image(height, width)))
        return times | {"start_to_detection": time.time() - started}

    return worker.Task(run)


def _import_seconds(name):
    return worker.seconds(lambda: importlib.import_module(name))


def _forget():
    """So that the whole package is imported, and not only what the command line needs of it (see __init__.py)."""
    sys.argv[0] = ""
    for name in [name for name in sys.modules if name.partition(".")[0] == "mrcnn_tf"]:
        del sys.modules[name]


if __name__ == "__main__":
    worker.serve(prepare)
