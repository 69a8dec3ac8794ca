"""`mrcnn-tf benchmark`: its command and tables, and the measurements at small sizes. Nothing depends on a time."""

import dataclasses
import io
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from command import call
from rich.console import Console
from tiny import SMALL_OVERRIDES, tiny_config

from mrcnn_tf.cli import benchmark, benchmark_measurements
from mrcnn_tf.cli.benchmark_processes import Failed, LeftOut, Result, Times
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.serving.interpreter import append_metadata

CONFIG = {"config": "nuclei_r18_fpn", "overrides": SMALL_OVERRIDES}
SIZE = {"height": 64, "width": 96}


def names_of(task):
    times = task.run()
    assert all(math.isfinite(seconds) and seconds > 0 for seconds in times.values())
    return set(times)


def printed(table):
    console = Console(file=io.StringIO(), width=150)
    console.print(table)
    return console.file.getvalue()


def test_a_detection_is_timed_with_and_without_full_size_masks():
    task = benchmark_measurements.inference(**CONFIG, **SIZE, precision="float32")
    assert names_of(task) == {"detect", "detect_full"}
    assert task.facts["detections"] == 5


def test_keypoints_are_detected_in_a_config_that_leaves_the_categories_open():
    overrides = [*SMALL_OVERRIDES, "model.mask_head=null", "model.keypoint_head.channels=16"]
    config = "torchvision_keypointrcnn_resnet50_fpn"
    task = benchmark_measurements.inference(config, overrides, **SIZE, precision="float32")
    assert names_of(task) == {"detect"}
    assert 0 < task.facts["detections"] <= 5


def test_a_training_step_learns_from_the_seven_objects_and_all_pixels():
    config = {"config": "nuclei_r18_fpn", "overrides": [*SMALL_OVERRIDES, "model.semantic_head.channels=32"]}
    task = benchmark_measurements.training(**config, **SIZE, precision="float32")
    assert names_of(task) == {"step"}
    assert task.facts["loss_mask"] > 0 and task.facts["loss_semantic"] > 0
    losses = [value for name, value in task.facts.items() if name != "loss"]
    assert task.facts["loss"] == pytest.approx(sum(losses), rel=1e-4)


def test_the_model_has_the_weights_that_are_given(tmp_path):
    config = benchmark_measurements.benchmark_config(**CONFIG, **SIZE)
    model = benchmark_measurements.benchmark_model(config, "float32")
    model.save(tmp_path / "model.keras")
    other = benchmark_measurements.benchmark_model(config, "float32", str(tmp_path / "model.keras"))
    for weight, expected in zip(other.weights, model.weights, strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_the_pipelines_images_are_those_of_the_config():
    assert names_of(benchmark_measurements.pipeline("nuclei_r18_fpn", [], images=2)) == {"image"}
    with pytest.raises(UserError, match="mask_rcnn_r50_fpn names no data to train on"):
        benchmark_measurements.pipeline("mask_rcnn_r50_fpn", [])


def test_a_start_up_has_stages_that_add_up():
    stages = benchmark_measurements.startup("nuclei_r18_fpn", SMALL_OVERRIDES, 32, 32).run()
    assert set(stages) == {"tensorflow", "mrcnn_tf", "build", "first_detection", "start_to_detection"}
    total = stages.pop("start_to_detection")
    assert min(stages.values()) > 0 and 0.5 * total < sum(stages.values()) < total


def test_boxes_lie_inside_the_image_and_keep_to_their_range():
    boxes = benchmark_measurements.random_boxes(500, 200, 300, 16, 112)
    assert (boxes >= 0).all() and (boxes[:, 2] <= 300.001).all() and (boxes[:, 3] <= 200.001).all()
    sides = boxes[:, 2:] - boxes[:, :2]
    area = np.sqrt(sides.prod(1))
    assert area.min() > 15.9 and area.max() < 112.1 and area.max() / area.min() > 5


def test_unknown_measurements_and_configs_are_refused_before_anything_is_started(monkeypatch):
    monkeypatch.setattr(benchmark, "measure", lambda *_: pytest.fail("started"))
    with pytest.raises(UserError, match="no measurement 'speed': choose of inference, training"):
        benchmark.measure_config("mask_rcnn_r50_fpn", [], None, 64, 64, 1, ["speed"])
    with pytest.raises(UserError, match="no config 'mine'"):
        benchmark.measure_config("mine", [], None, 64, 64, 1)


@pytest.fixture
def cases(monkeypatch):
    """The cases that are measured. Training fails and bfloat16 is left out."""
    measured = []

    def fake(case, repeats):
        measured.append(case)
        if case.label == "bfloat16":
            raise LeftOut("not native")
        if case.measurement == "training":
            raise Failed("it broke")
        name = {"inference": "detect", "pipeline": "image", "startup": "build"}[case.measurement]
        return Result(case, {name: Times(2.0, 0.5, 0.25, [0.5, 0.25, 0.75])}, 2**30, {})

    monkeypatch.setattr(benchmark, "measure", fake)
    return measured


def test_the_command_measures_the_users_config_and_prints_json_alone(cases):
    text = call(
        "benchmark", "nuclei_r18_fpn", "train.seed=1", "--only", "pipeline, inference", "--height", "64", "--json"
    )
    document = json.loads(text)
    assert [result["case"]["measurement"] for result in document["results"]] == ["inference", "pipeline"]
    assert document["results"][0]["times"]["detect"]["median"] == 0.5
    assert document["machine"]["cores"] >= 1 and document["failed"] == []
    *inference, pipeline = cases
    assert [case.label for case in inference] == ["float32", "bfloat16"]
    expected = {"config": "nuclei_r18_fpn", "overrides": ["train.seed=1"], "height": 64, "width": 1088}
    assert inference[1].arguments == expected | {"precision": "bfloat16", "weights": None}
    assert pipeline.arguments == {"config": "nuclei_r18_fpn", "overrides": ["train.seed=1"]}


def test_the_table_names_everything_with_its_figures_and_a_failure_is_told_by_the_exit_status(cases):
    text = call("benchmark", "nuclei_r18_fpn", status=1)
    measurements = ["inference", "inference", "training", "training", "pipeline", "startup"]
    assert [case.measurement for case in cases] == measurements
    rows = {" ".join(line.split()) for line in text.splitlines()}
    assert "float32, to boxes, masks inside them 0.5 s 0.25 s 2 s 1024" in rows
    assert "build the model 0.5 s 0.25 s 2 s 1024" in rows
    assert "Input pipeline: 2 images per second" in rows
    assert "Left out: inference: bfloat16: not native" in rows
    assert "FAILED: training: float32: it broke" in rows
    assert "nuclei_r18_fpn, 800 x 1088 pixels, random weights; 10 runs after the first" in rows


def test_the_process_that_measures_and_a_light_measurement_never_import_tensorflow():
    program = (
        "import sys, mrcnn_tf.cli.benchmark, mrcnn_tf.cli.benchmark_measurements; "
        "print([name for name in ('tensorflow', 'keras', 'torch') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "[]"


def test_an_exported_folder_is_measured_in_batches(tmp_path):
    import tensorflow as tf

    from mrcnn_tf.model.mask_rcnn import MaskRCNN
    from mrcnn_tf.serving.export_labels import write_assets

    # A graph that counts the images: that of a model is measured in tests/benchmarks/test_detection_cost.py.
    module, version = tf.Module(), tmp_path / "export" / "1"
    inputs = [tf.TensorSpec([None], tf.string, name="image_bytes")]
    module.detect = tf.function(lambda image_bytes: {"ok": tf.strings.length(image_bytes) > 0}, inputs)
    tf.saved_model.save(module, str(version), {"serving_default": module.detect})
    write_assets(MaskRCNN.from_settings(tiny_config()), version, {})
    result = benchmark.measure_saved_model(tmp_path / "export", 40, 56, repeats=1)
    (measured,) = result.results
    assert set(measured.times) == {"batch_1", "batch_8"} and measured.facts["load"] > 0
    assert 0 < measured.facts["memory_before"] <= measured.peak_memory
    assert "eight in a batch" in printed(result.table())
    with pytest.raises(UserError, match="no SavedModel in"):
        benchmark.measure_saved_model(tmp_path, 40, 56, repeats=1)


@pytest.fixture(scope="module")
def tflite(tmp_path_factory):
    """A .tflite file that detects what it is told."""
    pytest.importorskip("ai_edge_litert")
    from serving import tflite_stand_in

    return tflite_stand_in.write(tmp_path_factory.mktemp("edge") / "model.tflite")


def test_a_tflite_file_is_measured_each_way_in_a_process_without_tensorflow(tflite):
    reported = []
    result = benchmark.measure_tflite(tflite, repeats=2, threads=(1, 2), report=reported.append)
    assert [run.case.label for run in result.results] == [
        "1 threads, with XNNPACK", "1 threads, without XNNPACK", "2 threads, with XNNPACK", "2 threads, without XNNPACK"
    ]  # fmt: skip
    assert len(reported) == 4 and not result.failed
    for run in result.results:
        times = run.times["run"]
        assert len(times.runs) == 2 and 0 < times.fastest <= times.median and run.facts["load"] > 0
        # TensorFlow alone takes more than 300 MiB.
        assert 0 < run.facts["memory_before"] <= run.peak_memory < 250 * 2**20
    document = json.loads(json.dumps(dataclasses.asdict(result)))
    assert document["results"][3]["case"]["arguments"]["threads"] == 2
    text = printed(result.table())
    assert "XNNPACK" in text and len(text.splitlines()) == 9


def test_a_file_that_can_t_run_is_refused(tflite, tmp_path):
    from serving import tflite_stand_in

    broken = append_metadata(tflite.read_bytes()[:200], tflite_stand_in.document(), "")
    (tmp_path / "broken.tflite").write_bytes(broken)
    with pytest.raises(UserError, match="can't load .*broken.tflite"):
        benchmark.measure_tflite(tmp_path / "broken.tflite", repeats=1, threads=(1,))
    (tmp_path / "text.tflite").write_text("words")
    with pytest.raises(UserError, match="isn't a TFLite file"):
        benchmark.measure_tflite(tmp_path / "text.tflite", repeats=1)


def test_a_process_that_fails_is_named_and_the_others_count(tflite, monkeypatch):
    measure = benchmark.measure

    def fails(case, repeats):
        if not case.arguments["xnnpack"]:
            case.arguments["threads"] = "two"
        return measure(case, repeats)

    monkeypatch.setattr(benchmark, "measure", fails)
    result = benchmark.measure_tflite(tflite, repeats=1, threads=(1,))
    assert len(result.results) == 1 and len(result.failed) == 1
    assert result.failed[0].startswith("tflite: 1 threads, without XNNPACK: TypeError")
