"""Modules with a measurement each, which goes well, fails in one way or another, or is left out."""

import textwrap

from mrcnn_tf.cli.benchmark_processes import Case

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
    "stumbles": """
        from mrcnn_tf.cli.benchmark_processes import start_program
        def prepare(log):
            return Task(lambda: start_program("raise ValueError('no such model')"))
    """,
}


def write_modules(folder, monkeypatch):
    """Write them into a folder where Python finds them; returns a function of a name in MODULES: the `Case` of it."""
    for name, text in MODULES.items():
        head = "from mrcnn_tf.cli.benchmark_processes import Task, serve"
        (folder / f"{name}.py").write_text(f"{head}\n{textwrap.dedent(text)}\nserve(prepare)\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return lambda name: Case(name, name, "prepare", {"log": str(folder / "log")}, "float32")
