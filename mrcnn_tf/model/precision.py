"""Which numbers a model computes with: a Keras dtype policy for `train.precision`."""

import pathlib

import keras
import tensorflow as tf

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
NATIVE_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}


def dtype_policy(precision):
    """The Keras dtype policy for `train.precision`: "float32", "bfloat16", "float16" or "auto".

    "auto" takes bfloat16 where the hardware multiplies it natively: GPUs from compute capability 8.0, and processors
    with AVX512-BF16 or AMX. Elsewhere it would be emulated, slower than float32. Weights stay float32, and so do boxes,
    scores and losses.
    """
    if precision == "auto":
        precision = "bfloat16" if _multiplies_bfloat16() else "float32"
    return keras.dtype_policies.get(POLICIES[precision])


def _multiplies_bfloat16():
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        return min(gpu.get("compute_capability", (0, 0)) for gpu in details) >= (8, 0)
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return bool(NATIVE_CPU_FLAGS & set(flags.split()))
