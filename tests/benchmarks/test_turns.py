"""Processes that take turns, and what becomes of those that fail."""

import pytest
from measured_modules import write_modules

from benchmarks.processes import Process, measure


@pytest.fixture
def modules(tmp_path, monkeypatch):
    return write_modules(tmp_path, monkeypatch)


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
