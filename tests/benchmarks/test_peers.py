"""The peers give figures under the names of ours, at small sizes."""

import importlib.util
import subprocess
import sys

import pytest

from benchmarks.cases import PEERS
from benchmarks.comparison import TITLES
from benchmarks.processes import measure
from mrcnn_tf.cli.benchmark_processes import Case

TORCHVISION, GARDEN, DETECTRON2 = PEERS


def works(package, module):
    """It may be installed beside a PyTorch that it wasn't built for."""
    if importlib.util.find_spec(package) is None:
        return False
    return subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True).returncode == 0


def measured(peer, task, **arguments):
    """The `Result` of a measurement, whose times have names of ours."""
    (result,), left_out, failed = measure([Case(task, peer.module, task, arguments)], 1, lambda title: None)
    assert not left_out and not failed
    known = {name for measurement, name in TITLES if measurement == task}
    assert result.times.keys() <= known and min(times.median for times in result.times.values()) > 0
    return result


@pytest.mark.skipif(
    not works("torchvision", "torchvision.models"), reason="torchvision isn't installed, or doesn't work"
)
def test_torchvision_is_measured_by_the_names_of_ours():
    result = measured(TORCHVISION, "roi_align", height=8, width=12, rois=4, channels=8)
    assert len(result.times) == 4
    result = measured(TORCHVISION, "inference", height=64, width=96, precision="bfloat16")
    assert result.facts["detections"] == 100 and result.times.keys() == {"detect_full"}
    for name in ("Faster R50-FPN", "Keypoint R50-FPN"):  # its Mask R-CNN is above
        result = measured(TORCHVISION, "family", model=name, height=32, width=32, precision="float32")
        assert result.facts["detections"] > 0 and result.times.keys() == {"detect"}
    result = measured(TORCHVISION, "training", height=64, width=96, precision="float32", positives=True)
    assert result.facts["loss_mask"] > 0
    assert measured(TORCHVISION, "pipeline", images=2, batch=1).times.keys() == {"image"}
    assert measured(TORCHVISION, "postprocessing", height=64, width=96).times.keys() == {"paste", "rle"}


@pytest.mark.skipif(not works("detectron2", "detectron2.modeling"), reason="detectron2 isn't installed, or fails")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_detectron2_is_measured_with_its_masks_small_and_in_full_size(precision):
    result = measured(DETECTRON2, "family", model="Mask R50-C4", height=32, width=48, precision=precision)
    assert 0 < result.facts["detections"] <= 100 and result.times["detect"].median < result.times["detect_full"].median


@pytest.mark.skipif(importlib.util.find_spec("official") is None, reason="the extra [garden] isn't installed")
def test_the_model_garden_builds_the_model_that_is_measured():
    # Its first run takes more than a minute whatever the image: that is left to the benchmark.
    program = (
        f"from {GARDEN.module} import inference, _make_module; size = dict(height=64, width=64, precision='float32'); "
        "task = inference(**size); "
        "head = _make_module(**size).model.detection_head[0].get_config(); "
        "print(callable(task.run), head['num_convs'], head['num_fcs'], head['num_classes'])"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert printed.stdout.strip().endswith("True 0 2 81"), printed.stderr[-2000:]
