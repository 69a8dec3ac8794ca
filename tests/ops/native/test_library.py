"""Loading: the fall back with one warning, and the CUDA build wherever nvcc is found (each in its own process, since a
process loads one library)."""

import importlib
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.ops.native.builder import find_compiler, find_nvcc

WITHOUT_COMPILER = """
import warnings
import numpy as np
from mrcnn_tf.ops.roi_align import implementations, roi_align
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        pooled = roi_align(np.ones((1, 4, 4, 1), "f"), np.float32([[0, 0, 4, 4]]), [0], 1.0, 2, 2, True)
caught = [str(warning.message) for warning in caught if warning.category is RuntimeWarning]
assert implementations() == ("gather",) and pooled.numpy().all()
print(len(caught), caught[0])
"""

WITH_CUDA = """
import numpy as np
import tensorflow as tf
from mrcnn_tf.ops.native.builder import built_libraries
from mrcnn_tf.ops.native.library import build_and_try
from mrcnn_tf.ops.roi_align import roi_align
library = build_and_try((90,))
assert built_libraries()[0] == library
pooled = roi_align(np.ones((1, 4, 4, 1), "f"), np.float32([[0, 0, 4, 4]]), [0], 1.0, 2, 2, True, "custom")
np.testing.assert_array_equal(pooled, np.ones((1, 2, 2, 1)))
from tensorflow.python.framework.kernels import get_registered_kernels_for_op
for name in ("MrcnnTf>RoiAlign", "MrcnnTf>RoiAlignGrad"):
    print(name, sorted(k.device_type for k in get_registered_kernels_for_op(name).kernel))
"""


def run(program, cache, **changes):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "MRCNN_TF_CACHE": str(cache)} | changes
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_can_be_imported_again():
    """TensorFlow refuses a second gradient for an operation."""
    for name in ("mrcnn_tf.ops.conv", "mrcnn_tf.ops.roi_align"):
        importlib.reload(importlib.import_module(name))
    conv2d = importlib.import_module("mrcnn_tf.ops.conv").conv2d
    inputs = tf.ones([1, 4, 4, 16])
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        total = tf.reduce_sum(conv2d(inputs, tf.ones([3, 3, 16, 16])))
    # Each input is in 9, 6 or 4 windows of 16 filters.
    np.testing.assert_allclose(tape.gradient(total, inputs)[0, :2, :2, 0], [[64, 96], [96, 144]], rtol=1e-5)


def test_trying_another_library_leaves_this_process_with_its_own(tmp_path, monkeypatch):
    """TensorFlow refuses to run an operation that two loaded libraries have a kernel for."""
    from mrcnn_tf.ops.conv import conv2d
    from mrcnn_tf.ops.native.builder import build, library_folder
    from mrcnn_tf.ops.native.library import build_and_try

    before = conv2d(tf.ones([1, 4, 4, 16]), tf.ones([3, 3, 16, 16]))
    built = build().path
    monkeypatch.setenv("MRCNN_TF_CACHE", str(tmp_path))
    shutil.copytree(built.parent, library_folder())
    library = build_and_try(())
    assert library.path.is_relative_to(tmp_path)
    np.testing.assert_array_equal(conv2d(tf.ones([1, 4, 4, 16]), tf.ones([3, 3, 16, 16])), before)
    library.path.write_bytes(b"no library at all")
    with pytest.raises(UserError, match=r"doesn't load \(.*\); delete it"):
        build_and_try(())


def test_without_a_compiler_there_is_one_warning_and_the_stock_operations(tmp_path):
    out = run(WITHOUT_COMPILER, tmp_path, PATH="", CXX="")
    assert out.startswith("1 RoIAlign and convolutions run on stock operations") and "install g++" in out


def test_a_library_that_does_not_load_is_replaced_by_the_stock_operations(tmp_path):
    """As one that the compiler made, but whose symbols this TensorFlow doesn't have."""
    from mrcnn_tf.ops.native.builder import library_folder

    folder = tmp_path / library_folder().relative_to(library_folder().parent.parent)
    folder.mkdir(parents=True)
    (folder / "mrcnn_tf_ops.so").write_bytes(b"no library at all")
    assert run(WITHOUT_COMPILER, tmp_path).startswith("1 RoIAlign and convolutions run on stock operations")


@pytest.mark.skipif(find_nvcc() is None or find_compiler() is None, reason="needs nvcc and a C++ compiler")
def test_the_cuda_code_compiles_alone_and_in_the_operation(tmp_path):
    """With native code and PTX, and TensorFlow's headers; the library also serves a machine without a GPU."""
    lines = run(WITH_CUDA, tmp_path).splitlines()
    assert lines[-2:] == [
        "MrcnnTf>RoiAlign ['CPU', 'CPU', 'GPU', 'GPU', 'GPU']",
        "MrcnnTf>RoiAlignGrad ['CPU', 'CPU', 'GPU', 'GPU', 'GPU']",
    ]
