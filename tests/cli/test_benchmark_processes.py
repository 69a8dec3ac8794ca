"""A measurement in a process of its own, and what becomes of one that fails."""

import json

import pytest
from command import call
from measured_modules import write_modules

from mrcnn_tf.cli import benchmark, benchmark_processes
from mrcnn_tf.cli.benchmark_processes import Failed, LeftOut, format_seconds, measure, start_program

MEASURED = """
import sys
from mrcnn_tf.cli.benchmark_processes import Task, serve
def pipeline(config, overrides):
    return Task(lambda: {"image": float("own_parts" in sys.modules)})
serve(pipeline)
"""


@pytest.fixture
def modules(tmp_path, monkeypatch):
    return write_modules(tmp_path, monkeypatch)


def test_a_case_is_run_once_and_then_as_often_as_asked(modules):
    steady = measure(modules("steady"), 3)
    assert steady.case.measurement == "steady" and steady.times["call"].first == 1.0
    assert steady.times["call"].runs == [2.0, 3.0, 4.0]
    assert (steady.times["call"].median, steady.times["call"].fastest) == (3.0, 2.0)
    assert steady.facts == {"runs": 4} and steady.peak_memory > 2**20


def test_a_case_that_fails_or_does_not_apply_says_why(modules, monkeypatch):
    for name, reason in {
        "breaks": "^ValueError: the second run broke",
        "absent": "no_such_library",
        "killed": "signal 9",
        "stumbles": "^ValueError: no such model",
    }.items():
        with pytest.raises(Failed, match=reason):
            measure(modules(name), 2)
    with pytest.raises(LeftOut, match="^Not on this machine.$"):
        measure(modules("refuses"), 2)
    monkeypatch.setattr(benchmark_processes, "ANSWER_SECONDS", 0.01)
    with pytest.raises(Failed, match="no end after 0.02 s"):
        measure(modules("steady"), 1)


def test_modules_of_the_users_own_are_imported_where_it_is_measured(modules, tmp_path, monkeypatch):
    (tmp_path / "own_parts.py").write_text("print('no figure')\n")
    (tmp_path / "measured.py").write_text(MEASURED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(benchmark, "MODULE", "measured")
    words = ["benchmark", "nuclei_r18_fpn", "--only", "pipeline", "--repeats", 1, "--json"]
    for option, expected in ((["--import", "own_parts"], 1), ([], 0)):
        text = call(*option, *words).splitlines()[-1]
        assert json.loads(text)["results"][0]["times"]["image"]["runs"] == [expected]


def test_a_start_up_is_measured_in_a_new_process_each_time(modules):
    result = measure(modules("fresh"), 2)
    processes = [result.times["process"].first, *result.times["process"].runs]
    assert len(set(processes)) == 3
    assert all(0 < seconds < 60 for seconds in result.times["call"].runs)
    assert result.times["size"].runs == [7, 7]


def test_the_memory_of_a_program_counts():
    before = benchmark_processes.peak_memory()
    start_program(f"data = bytearray({before} + 2**26); print('{{}}')")
    assert benchmark_processes.peak_memory() > before + 2**26


def test_seconds_have_three_digits():
    assert [format_seconds(value) for value in (0.00701, 0.19, 12.345)] == ["7.01 ms", "0.19 s", "12.3 s"]


def test_the_machine_is_described_in_plain_json():
    machine = json.loads(json.dumps(benchmark_processes.describe_machine()))
    assert machine["cores"] >= 1 and machine["memory"] > 2**28
    versions = benchmark_processes.library_versions(("numpy", "no-such-library"))
    assert versions["numpy"][0].isdigit() and versions["no-such-library"] is None
