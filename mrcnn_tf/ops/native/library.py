"""Loads the library of custom ops, building it first where that is possible."""

import contextlib
import contextvars
import functools
import subprocess
import sys
import warnings

import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.ops.native.builder import build, built_libraries, find_compiler, find_nvcc

_stock_only = contextvars.ContextVar("stock_only", default=False)
_for_cpu = contextvars.ContextVar("for_cpu", default=False)
_static_shapes = contextvars.ContextVar("static_shapes", default=False)


@contextlib.contextmanager
def stock_operations(for_cpu=False):
    """Whatever is traced in this context uses TensorFlow's stock operations only: graphs that run without this package.

    Args:
        for_cpu: the graph will run on a processor, so what is fast there may be chosen, though a GPU has better.
    """
    tokens = _stock_only.set(True), _for_cpu.set(for_cpu)
    try:
        yield
    finally:
        _stock_only.reset(tokens[0])
        _for_cpu.reset(tokens[1])


@contextlib.contextmanager
def static_shapes():
    """Whatever is traced in this context has no shape that depends on values, and stock operations only: graphs for
    compilers, such as XLA and TFLite."""
    token = _static_shapes.set(True)
    try:
        with stock_operations():
            yield
    finally:
        _static_shapes.reset(token)


def shapes_must_be_static():
    """Whether this is traced inside `static_shapes`."""
    return _static_shapes.get()


def runs_on_cpu():
    """Whether this is traced inside `stock_operations(for_cpu=True)`."""
    return _for_cpu.get()


def custom_ops():
    """The module of our operations that `tf.load_op_library` gives, built on the first use where a compiler exists.

    None inside `stock_operations` and, after one warning that says why, where there can be no library.
    """
    return None if _stock_only.get() else load_custom_ops()


@functools.cache
def load_custom_ops():
    """As `custom_ops`, wherever it is called: for gradients of operations that are already in a graph."""
    try:
        return tf.load_op_library(str(_library().path))
    except (UserError, OSError, tf.errors.OpError) as error:
        why = str(error).strip().splitlines()[0]
        warnings.warn(
            f"RoIAlign and convolutions run on stock operations, which is slower: {why} Then run mrcnn-tf build-ops.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


def build_and_try(architectures):
    """Builds the library for the CPU and these CUDA architectures, unless it is there, and proves that it loads.

    It is loaded by a process of its own: this one may have loaded another library, and TensorFlow takes no second
    kernel for an operation. Returns the `Library`.

    Raises:
        UserError: it can't be built, or this TensorFlow doesn't load it.
    """
    library = build(architectures)
    program = "import sys, tensorflow as tf; tf.load_op_library(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", program, str(library.path)], capture_output=True, text=True)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"])[-1]
        raise UserError(f"{library.path} doesn't load ({why}); delete it and try again.")
    return library


def _library():
    """A `Library` that every GPU of this process can run, from the cache or built."""
    capabilities = gpu_capabilities()
    for library in built_libraries():
        if all(library.runs_on(capability) for capability in capabilities):
            return library
    if capabilities and find_compiler() and not find_nvcc():
        # The CPU's kernel would do, but the maps would travel to it and back.
        raise UserError("There is a GPU, but no nvcc to build its RoIAlign with: install the CUDA toolkit.")
    return build(capabilities)


def gpu_capabilities():
    """The compute capabilities of the GPUs that TensorFlow sees, such as (75, 90); none on a CPU."""
    capabilities = set()
    for gpu in tf.config.list_physical_devices("GPU"):
        capability = tf.config.experimental.get_device_details(gpu).get("compute_capability")
        if capability is None:
            raise UserError(f"{gpu.name} isn't a CUDA device.")
        capabilities.add(10 * capability[0] + capability[1])
    return tuple(sorted(capabilities))
