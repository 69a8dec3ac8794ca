"""Compiles the CUDA kernels with nvcc and calls them on PyTorch's tensors, without TensorFlow."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import torch

SOURCE = Path(__file__).resolve().parent / "roi_align_cuda.cu"
TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}  # as in roi_align_cuda.h
MOST_LEVELS = 8


class RoIAlign(ctypes.Structure):
    """`mrcnn_tf::RoIAlign` of roi_align.h; roi_align_cuda.cu asserts the same layout."""

    _fields_ = [
        ("levels", ctypes.c_int32),
        ("images", ctypes.c_int32),
        ("channels", ctypes.c_int32),
        ("height", ctypes.c_int32 * MOST_LEVELS),
        ("width", ctypes.c_int32 * MOST_LEVELS),
        ("scale", ctypes.c_float * MOST_LEVELS),
        ("out", ctypes.c_int32),
        ("sampling_ratio", ctypes.c_int32),
        ("aligned", ctypes.c_int32),
        ("bin_step", ctypes.c_int32),
        ("rois", ctypes.c_int64),
        ("boxes", ctypes.c_void_p),
        ("image", ctypes.c_void_p),
        ("level", ctypes.c_void_p),
        ("canvas", ctypes.c_void_p),
    ]


assert ctypes.sizeof(RoIAlign) == 168, "RoIAlign is not laid out as in roi_align.h"


def find_nvcc():
    """The path of nvcc on PATH, under CUDA_HOME or in its usual place, or None."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    places = [shutil.which("nvcc"), home and f"{home}/bin/nvcc", "/usr/local/cuda/bin/nvcc"]
    return next((place for place in places if place and Path(place).is_file()), None)


def compile_library(nvcc, folder):
    """Compiles for the current device alone.

    Returns:
        The path of the shared library in `folder`.

    Raises:
        RuntimeError: nvcc failed; the text is what it printed.
    """
    major, minor = torch.cuda.get_device_capability()
    library = Path(folder) / "libroi_align.so"
    command = [nvcc, "-O3", "-std=c++17", "-shared", "-Xcompiler", "-fPIC"]
    command += ["-gencode", f"arch=compute_{major}{minor},code=sm_{major}{minor}", str(SOURCE), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stdout}{done.stderr}")
    return library


class Library:
    """The entry points of roi_align_cuda.h, on the current stream of PyTorch."""

    def __init__(self, path):
        library = ctypes.CDLL(str(path))
        self._forward = library.mrcnn_tf_roi_align_forward
        self._backward = library.mrcnn_tf_roi_align_backward

    def forward(self, call, maps, pooled):
        """Pools `maps` [images, height, width, C] into `pooled` [R, out, out, C] of the same type.

        Args:
            call: the `RoIs` to pool.
        """
        code = self._forward(
            ctypes.byref(call.struct), TYPES[pooled.dtype], _pointers(maps), _pointer(pooled), current_stream()
        )
        _check(code)

    def backward(self, call, gradient, maps, workspace, deterministic):
        """Writes the gradients of the maps for `gradient` of the pooled values into `maps`.

        Args:
            workspace: float32 with a value for each of all maps, or None for float32 or `deterministic`.
        """
        code = self._backward(
            ctypes.byref(call.struct),
            TYPES[gradient.dtype],
            _pointer(gradient),
            _pointers(maps),
            None if workspace is None else _pointer(workspace),
            ctypes.c_int(deterministic),
            current_stream(),
        )
        _check(code)


class RoIs:
    """A `roi_align_reference.Pooling` on the device, for maps of `channels` channels."""

    def __init__(self, pooling, channels, device):
        self._kept = [
            None if array is None else torch.from_numpy(array).to(device)
            for array in (pooling.boxes, pooling.image, pooling.level, pooling.canvas)
        ]
        boxes, image, level, canvas = (None if tensor is None else tensor.data_ptr() for tensor in self._kept)
        padding = [0] * (MOST_LEVELS - len(pooling.sizes))
        self.struct = RoIAlign(
            levels=len(pooling.sizes),
            images=pooling.images,
            channels=channels,
            height=(ctypes.c_int32 * MOST_LEVELS)(*[height for height, _ in pooling.sizes], *padding),
            width=(ctypes.c_int32 * MOST_LEVELS)(*[width for _, width in pooling.sizes], *padding),
            scale=(ctypes.c_float * MOST_LEVELS)(*pooling.scales, *padding),
            out=pooling.out,
            sampling_ratio=pooling.ratio,
            aligned=pooling.aligned,
            bin_step=pooling.step,
            rois=len(pooling.boxes),
            boxes=boxes,
            image=image,
            level=level,
            canvas=canvas,
        )


def current_stream():
    """PyTorch's current stream as a cudaStream_t."""
    return ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)


def _pointer(tensor):
    return ctypes.c_void_p(tensor.data_ptr())


def _pointers(tensors):
    return (ctypes.c_void_p * len(tensors))(*[tensor.data_ptr() for tensor in tensors])


def _check(code):
    if code:
        raise RuntimeError(f"The kernel was refused with CUDA error {code}.")
