"""The measurement of a .tflite file, small and in few runs. Nothing here depends on how long anything takes."""

import io
import json

import pytest
from rich.console import Console
from serving.runtimes import tflite_stand_in as stand_in

from mrcnn_tf.benchmark.edge import benchmark_edge
from mrcnn_tf.benchmark.processes import Process
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.serving.interpreter import append_metadata

pytest.importorskip("ai_edge_litert")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return stand_in.write(tmp_path_factory.mktemp("edge") / "model.tflite")


def test_each_way_is_measured_in_a_process_without_tensorflow(path):
    told = []
    report = benchmark_edge(path, repeats=2, threads=(1, 2), report=told.append)
    assert [(run.threads, run.xnnpack) for run in report.runs] == [(1, True), (1, False), (2, True), (2, False)]
    assert len(told) == 4 and not report.failed
    for run in report.runs:
        assert len(run.times.runs) == 2 and 0 < run.times.fastest <= run.times.median and run.load > 0
        # TensorFlow alone takes more than 300 MiB.
        assert 0 < run.loaded_memory <= run.peak_memory < 250 * 2**20
    assert report.file_size == path.stat().st_size
    assert json.loads(json.dumps(report.to_json()))["runs"][3]["threads"] == 2
    console = Console(file=io.StringIO(), width=150)
    console.print(report.table())
    printed = console.file.getvalue()
    assert "XNNPACK" in printed and len(printed.splitlines()) == 7


def test_a_file_that_can_t_run_is_refused(path, tmp_path):
    whole = path.read_bytes()
    (tmp_path / "broken.tflite").write_bytes(append_metadata(whole[:200], stand_in.document(), ""))
    with pytest.raises(UserError, match="can't load .*broken.tflite"):
        benchmark_edge(tmp_path / "broken.tflite", repeats=1, threads=(1,))
    (tmp_path / "text.tflite").write_text("words")
    with pytest.raises(UserError, match="isn't a TFLite file"):
        benchmark_edge(tmp_path / "text.tflite")


def test_a_process_that_fails_is_named_and_the_others_count(path, monkeypatch):
    start = Process.start

    def fails(self):
        if not self.arguments["xnnpack"]:
            self.arguments["threads"] = "two"
        return start(self)

    monkeypatch.setattr(Process, "start", fails)
    report = benchmark_edge(path, repeats=1, threads=(1,))
    assert len(report.runs) == 1 and len(report.failed) == 1
    assert report.failed[0].startswith("1 threads, without XNNPACK: TypeError")
