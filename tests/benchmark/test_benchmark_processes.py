"""Processes that take turns, and what becomes of those that fail."""

import pytest

from mrcnn_tf.benchmark.processes import Failed, FreshProcess, LeftOut, Process, take_turns

MODULES = {
    "steady": """
        def prepare(log):
            print("what a library prints is no figure")
            facts = {}
            def run():
                open(log, "a").write("steady ")
                facts["runs"] = facts.get("runs", 0) + 1
                return {"call": float(facts["runs"])}
            return worker.Task(run, facts)
    """,
    "breaks": """
        def prepare(log):
            def run():
                open(log, "a").write("breaks ")
                if open(log).read().count("breaks") > 1:
                    raise ValueError("the second run broke")
                return {"call": 1.0}
            return worker.Task(run)
    """,
    "absent": "import no_such_library\n",
    "refuses": """
        from mrcnn_tf.errors import UserError
        def prepare(log):
            raise UserError("Not on this machine.")
    """,
    "killed": """
        import os
        def prepare(log):
            os.kill(os.getpid(), 9)
    """,
    "fresh": """
        def prepare(log, started):
            import os, time
            return worker.Task(lambda: {"call": time.time() - started, "process": os.getpid()})
    """,
}


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A function of a name in MODULES: the arguments of its `Process`."""
    import textwrap

    for name, text in MODULES.items():
        program = f"from mrcnn_tf.benchmark import worker\n{textwrap.dedent(text)}\nworker.serve(prepare)\n"
        (tmp_path / f"{name}.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return lambda name: (name, {"log": str(tmp_path / "log")})


def test_all_take_turns_and_a_failure_does_not_lose_the_others(modules, tmp_path):
    names = ("steady", "breaks", "absent", "refuses", "killed")
    told = []
    steady, breaks, absent, refuses, killed = take_turns([Process(*modules(n)) for n in names], 3, told.append)
    assert steady["first"] == {"call": 1.0}
    assert steady["runs"] == [{"call": 2.0}, {"call": 3.0}, {"call": 4.0}]
    assert steady["facts"] == {"runs": 4} and steady["peak_memory"] > 2**20
    assert isinstance(breaks, Failed) and str(breaks) == "ValueError: the second run broke"
    assert isinstance(absent, Failed) and "no_such_library" in str(absent)
    assert isinstance(refuses, LeftOut) and str(refuses) == "Not on this machine."
    assert isinstance(killed, Failed) and "signal 9" in str(killed)
    assert (tmp_path / "log").read_text().split() == ["steady", "breaks"] * 2 + ["steady"] * 2
    assert [process.module for process in told] == list(names)


def test_a_start_up_is_measured_in_a_new_process_each_time(modules):
    (found,) = take_turns([FreshProcess(*modules("fresh"))], 2, lambda process: None)
    processes = {run["process"] for run in [found["first"], *found["runs"]]}
    assert len(processes) == 3 and len(found["runs"]) == 2
    assert all(0 < run["call"] < 60 for run in found["runs"])


def test_an_interrupted_run_leaves_no_process(modules):
    steady = Process(*modules("steady"))

    def interrupt(process):
        if process is not steady:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take_turns([steady, Process(*modules("steady"))], 1, interrupt)
    assert steady._process.poll() is not None
