"""Compares the CUDA kernels with the float64 reference and with torchvision's operation.

An error is a largest absolute difference divided by a scale, and the tolerance 1e-5 for float32:
- forward, the scale is the largest value of the maps. Most of the error is the samples' places, which float32 knows to
  1e-6 of a cell or so;
- backward, it is the largest sum over the RoIs of the absolute contributions to a cell: rounding errors of a sum grow
  with its terms, not with its result, which may cancel.
Half types are given inputs that they hold exactly and add one rounding of the result, of relative size 2**-11 (float16)
or 2**-8 (bfloat16), to the tolerance; below float16's normal numbers it is half their distance, 2**-25.
"""

import math
from dataclasses import dataclass

import numpy as np
import roi_align_reference as reference
import torch
from roi_align_library import RoIs

TOLERANCE = 1e-5
ROUNDING = {torch.float32: (0.0, 0.0), torch.float16: (2.0**-11, 2.0**-25), torch.bfloat16: (2.0**-8, 0.0)}


@dataclass
class Outcome:
    """The error of one comparison, as a multiple of what is tolerated: above 1 it fails."""

    case: str
    dtype: str
    comparison: str
    error: float

    @property
    def passed(self):
        """Whether the comparison holds."""
        return self.error <= 1.0


def compare(library, case, dtype, device):
    """Yields the outcomes of one case of `roi_align_cases` for maps of `dtype`."""
    name = str(dtype).removeprefix("torch.")
    pooling, random = case.pooling, np.random.default_rng(len(case.name))
    out, channels = pooling.out, case.channels
    maps = [_values(random, (pooling.images, *size, channels), dtype) for size in pooling.sizes]
    upstream = _values(random, (len(pooling.boxes), out, out, channels), dtype)
    call = RoIs(pooling, channels, device)

    def outcome(comparison, values, expected, scale):
        return Outcome(case.name, name, comparison, _error(values, expected, scale, ROUNDING[dtype]))

    on_device = [_place(level, case.misaligned, device) for level in maps]
    pooled = _poisoned(upstream, case.misaligned, device)
    library.forward(call, on_device, pooled)
    scale = _largest(maps)
    yield outcome("forward", [pooled], [reference.forward(pooling, _doubles(maps))], scale)

    scale = _largest(reference.backward(pooling, np.abs(upstream.double().numpy())))
    expected = reference.backward(pooling, upstream.double().numpy())
    gradient = _place(upstream, case.misaligned, device)
    fast = _run_backward(library, call, gradient, maps, False, case.misaligned)
    yield outcome("backward", fast, expected, scale)
    in_order = _run_backward(library, call, gradient, maps, True, case.misaligned)
    yield outcome("backward in order", in_order, expected, scale)
    again = _run_backward(library, call, gradient, maps, True, case.misaligned)
    equal = all(torch.equal(_bits(one), _bits(other)) for one, other in zip(in_order, again, strict=True))
    yield Outcome(case.name, name, "backward in order, equal bits", 0.0 if equal else math.inf)

    if dtype == torch.float32 and case.same_as_torchvision:
        yield from _compare_torchvision(case, on_device, gradient, pooled, fast, outcome, (_largest(maps), scale))


def _compare_torchvision(case, maps, gradient, pooled, map_gradients, outcome, scales):
    """Outcomes against torchvision, one level at a time; none where torchvision isn't installed."""
    try:
        from torchvision.ops import roi_align
    except (ImportError, RuntimeError):
        return
    pooling = case.pooling
    for level, scale in enumerate(pooling.scales):
        chosen = np.flatnonzero(pooling.level == level)
        rois = np.column_stack([pooling.image[chosen], pooling.boxes[chosen]]).astype(np.float32)
        rois, chosen = (torch.from_numpy(array).to(pooled.device) for array in (rois, chosen))
        planes = maps[level].permute(0, 3, 1, 2).contiguous().requires_grad_()
        ratio = pooling.ratio or -1
        values = roi_align(planes, rois, pooling.out, scale, ratio, pooling.aligned)
        values.backward(gradient[chosen].permute(0, 3, 1, 2).contiguous())
        expected = values.detach().permute(0, 2, 3, 1).double().cpu().numpy()
        yield outcome(f"forward, torchvision, level {level}", [pooled[chosen]], [expected], scales[0])
        expected = planes.grad.permute(0, 2, 3, 1).double().cpu().numpy()
        yield outcome(f"backward, torchvision, level {level}", [map_gradients[level]], [expected], scales[1])


def _run_backward(library, call, gradient, maps, deterministic, misaligned):
    results = [_poisoned(level, misaligned, gradient.device) for level in maps]
    needs_workspace = gradient.dtype != torch.float32 and not deterministic
    workspace = None
    if needs_workspace:
        workspace = torch.full((sum(level.numel() for level in maps),), torch.nan, device=gradient.device)
    library.backward(call, gradient, results, workspace, deterministic)
    return results


def _values(random, shape, dtype):
    return torch.from_numpy(random.standard_normal(shape, np.float32)).to(dtype)


def _place(values, misaligned, device):
    """A copy on the device, one value after an aligned address if `misaligned`."""
    storage = torch.empty(values.numel() + misaligned, dtype=values.dtype, device=device)
    return storage[int(misaligned) :].view(values.shape).copy_(values)


def _poisoned(like, misaligned, device):
    """A tensor of NaN, so that a value left unwritten shows."""
    return _place(torch.full_like(like, torch.nan), misaligned, device)


def _bits(tensor):
    return tensor.view(torch.int32 if tensor.dtype == torch.float32 else torch.int16)


def _doubles(tensors):
    return [tensor.double().cpu().numpy() for tensor in tensors]


def _largest(arrays):
    return max((float(np.abs(np.asarray(array)).max()) for array in map(_as_array, arrays) if array.size), default=0.0)


def _as_array(values):
    return values.double().cpu().numpy() if isinstance(values, torch.Tensor) else values


def _error(values, expected, scale, rounding):
    worst = 0.0
    for own, right in zip(_doubles(values), expected, strict=True):
        if own.size:
            difference = np.abs(own - right)
            tolerated = TOLERANCE * scale + rounding[0] * np.abs(right) + rounding[1]
            errors = difference / np.maximum(tolerated, 1e-30)
            worst = max(worst, float(np.nan_to_num(errors, nan=math.inf, posinf=math.inf).max()))
    return worst
