"""Measured processes that stay, so that several contenders can take turns and one that fails loses no other.

What runs in such a process is as `mrcnn_tf.cli.benchmark_processes` describes it.
"""

import json
import subprocess
import sys
import tempfile
import threading

from mrcnn_tf.cli.benchmark_processes import (
    ANSWER_SECONDS,
    Failed,
    LeftOut,
    end_reason,
    make_result,
    processor_only,
    seconds,
)


def timed(**functions):
    """A `Task.run` that calls each function in turn; the name of its time is the argument's."""

    def run():
        return {name: seconds(function) for name, function in functions.items()}

    return run


class Process:
    """A measurement in a process that stays until `finish`.

    Every method may raise LeftOut or Failed, after which the process is gone.

    Args:
        module: the full name of a module that calls `serve`.
        task: the name of one of its measurements.
        arguments: of that, json values by name.
    """

    def __init__(self, module, task, arguments):
        self.module, self.task, self.arguments = module, task, arguments
        self._process = None

    def start(self):
        """Prepare and run once; returns that run's seconds by name."""
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", self.module, self.task, json.dumps(self.arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=processor_only(),
        )
        return self._answer()["first"]

    def run(self):
        """Run once more; returns seconds by name."""
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed(self._end()) from None
        return self._answer()["run"]

    def finish(self):
        """End the process; returns its summary: `runs`, `facts`, `peak_memory` in bytes."""
        self._process.stdin.close()
        summary = self._answer()
        self._end()
        return summary

    def stop(self):
        """End the process if it still runs."""
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._end()

    def _answer(self):
        watch = threading.Timer(ANSWER_SECONDS, self._process.kill)
        watch.start()
        try:
            line = self._process.stdout.readline()
        finally:
            watch.cancel()
        if not line:
            raise Failed(self._end())
        message = json.loads(line)
        if "left_out" in message:
            self._end()
            raise LeftOut(message["left_out"])
        return message

    def _end(self):
        """Wait for the process; returns a line that says why it ended."""
        status = self._process.wait()
        self._errors.seek(0)
        errors = self._errors.read()
        for pipe in (self._process.stdout, self._errors):
            pipe.close()
        return end_reason(status, errors)


def measure(cases, repeats, report):
    """Start a process for each `Case`, then let them run in turn, so that what disturbs one disturbs all.

    Args:
        cases: list of `Case`.
        repeats: timed runs of each after the first.
        report: called with a case's title before its process is started.

    Returns:
        (list of `Result`, sentences on cases that were left out, sentences on cases that failed).
    """
    results, left_out, failed, first = [], [], [], {}
    processes = {number: Process(case.module, case.task, case.arguments) for number, case in enumerate(cases)}
    running = dict(processes)

    def attempt(number, action):
        try:
            return action()
        except (LeftOut, Failed) as reason:
            (left_out if isinstance(reason, LeftOut) else failed).append(f"{cases[number].title}: {reason}")
            del running[number]

    try:
        for number, process in processes.items():
            report(cases[number].title)
            first[number] = attempt(number, process.start)
        for _ in range(repeats):
            for number, process in list(running.items()):
                attempt(number, process.run)
        for number, process in list(running.items()):
            if summary := attempt(number, process.finish):
                results.append(make_result(cases[number], first[number], summary))
    finally:
        for process in processes.values():
            process.stop()
    return results, left_out, failed
