"""The version of this package, and a clear sentence where Keras isn't Keras 3 on TensorFlow."""

import importlib.metadata
import json
import os
import pathlib
import sys

__version__ = "0.1.0"


def check_environment():
    """Raises ImportError, one sentence with the remedy, where this package can't work; imports nothing heavy itself."""
    try:
        version = importlib.metadata.version("keras")
    except importlib.metadata.PackageNotFoundError:
        raise ImportError("mrcnn_tf needs Keras 3, which isn't installed: run pip install 'keras>=3.8'.") from None
    if int(version.split(".")[0]) < 3:
        raise ImportError(f"mrcnn_tf needs Keras 3 and found Keras {version}: run pip install --upgrade 'keras>=3.8'.")
    if os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true"):
        raise ImportError(
            "mrcnn_tf needs Keras 3, but TF_USE_LEGACY_KERAS is set: unset it before TensorFlow is imported."
        )
    backend = _find_backend()
    if backend != "tensorflow":
        raise ImportError(
            f"mrcnn_tf needs Keras on TensorFlow and the backend is '{backend}': set KERAS_BACKEND=tensorflow before "
            "Keras is imported."
        )


def _find_backend():
    """The backend that Keras runs on, or would pick when it is imported."""
    if "keras" in sys.modules:
        return sys.modules["keras"].config.backend()
    if os.environ.get("KERAS_BACKEND"):
        return os.environ["KERAS_BACKEND"]
    folder = pathlib.Path(os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras")
    try:
        return json.loads((folder / "keras.json").read_text()).get("backend", "tensorflow")
    except (OSError, ValueError):
        return "tensorflow"


def available_cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
