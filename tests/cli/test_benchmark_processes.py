"""Processes that take turns, and what becomes of those that fail."""

import json
import textwrap

import pytest

from mrcnn_tf.cli import benchmark_processes
from mrcnn_tf.cli.benchmark_processes import Case, Process, format_seconds, measure, start_program

MODULES = {
    "steady": """
        def prepare(log):
            print("what a library prints is no figure")
            facts = {}
            def run():
                open(log, "a").write("steady ")
                facts["runs"] = facts.get("runs", 0) + 1
                return {"call": float(facts["runs"])}
            return Task(run, facts)
    """,
    "breaks": """
        def prepare(log):
            def run():
                open(log, "a").write("breaks ")
                if open(log).read().count("breaks") > 1:
                    raise ValueError("the second run broke")
                return {"call": 1.0}
            return Task(run)
    """,
    "absent": "import no_such_library\n",
    "refuses": """
        from mrcnn_tf.common.errors import UserError
        def prepare(log):
            raise UserError("Not on this machine.")
    """,
    "killed": """
        import os
        def prepare(log):
            os.kill(os.getpid(), 9)
    """,
    "fresh": """
        from mrcnn_tf.cli.benchmark_processes import start_program
        PROGRAM = (
            "import json, os, sys, time; a = json.loads(sys.argv[1]); "
            "print(json.dumps({'call': time.time() - a['started'], 'process': os.getpid(), 'size': a['size']}))"
        )
        def prepare(log):
            return Task(lambda: start_program(PROGRAM, size=7))
    """,
}


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A function of a name in MODULES: the `Case` of its measurement."""
    for name, text in MODULES.items():
        head = "from mrcnn_tf.cli.benchmark_processes import Task, serve"
        (tmp_path / f"{name}.py").write_text(f"{head}\n{textwrap.dedent(text)}\nserve(prepare)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return lambda name: Case(name, name, "prepare", {"log": str(tmp_path / "log")}, "float32")


def test_all_take_turns_and_a_failure_does_not_lose_the_others(modules, tmp_path):
    names, reported = ("steady", "breaks", "absent", "refuses", "killed"), []
    results, left_out, failed = measure([modules(name) for name in names], 3, reported.append)
    (steady,) = results
    assert steady.case.measurement == "steady" and steady.times["call"].first == 1.0
    assert steady.times["call"].runs == [2.0, 3.0, 4.0]
    assert (steady.times["call"].median, steady.times["call"].fastest) == (3.0, 2.0)
    assert steady.facts == {"runs": 4} and steady.peak_memory > 2**20
    assert left_out == ["refuses: float32: Not on this machine."]
    absent, breaks, killed = sorted(failed)
    assert breaks == "breaks: float32: ValueError: the second run broke"
    assert absent.startswith("absent: float32: ") and "no_such_library" in absent
    assert killed.startswith("killed: float32: ") and "signal 9" in killed
    assert (tmp_path / "log").read_text().split() == ["steady", "breaks"] * 2 + ["steady"] * 2
    assert reported == [f"{name}: float32" for name in names]


def test_a_start_up_is_measured_in_a_new_process_each_time(modules):
    (result,), _, failed = measure([modules("fresh")], 2, lambda title: None)
    processes = [result.times["process"].first, *result.times["process"].runs]
    assert len(set(processes)) == 3 and not failed
    assert all(0 < seconds < 60 for seconds in result.times["call"].runs)
    assert result.times["size"].runs == [7, 7]


def test_the_memory_of_a_program_counts():
    before = benchmark_processes.peak_memory()
    start_program(f"data = bytearray({before} + 2**26); print('{{}}')")
    assert benchmark_processes.peak_memory() > before + 2**26


def test_an_interrupted_run_leaves_no_process(modules, monkeypatch):
    started, start = [], Process.start
    monkeypatch.setattr(Process, "start", lambda self: started.append(self) or start(self))

    def interrupt(title):
        if started:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure([modules("steady"), modules("steady")], 1, interrupt)
    (steady,) = started
    assert steady._process.poll() is not None


def test_seconds_have_three_digits():
    assert [format_seconds(value) for value in (0.00701, 0.19, 12.345)] == ["7.01 ms", "0.19 s", "12.3 s"]


def test_the_machine_is_described_in_plain_json():
    machine = json.loads(json.dumps(benchmark_processes.describe_machine()))
    assert machine["cores"] >= 1 and machine["memory"] > 2**28
    versions = benchmark_processes.library_versions(("numpy", "no-such-library"))
    assert versions["numpy"][0].isdigit() and versions["no-such-library"] is None
