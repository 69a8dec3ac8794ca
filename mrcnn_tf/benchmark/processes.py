"""The side of the process that measures others: starts them, lets them take turns, and survives their failures."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time

# The name of the command keeps `import mrcnn_tf` from importing TensorFlow, whose memory and threads would otherwise
# be counted in with the peers'.
LAUNCH = "import runpy, sys; sys.argv[0] = 'mrcnn-tf'; runpy.run_module(sys.argv.pop(1), run_name='__main__')"
PATIENCE = 900  # seconds for one answer: the first run of a large model on a small machine, with its compilation


class LeftOut(Exception):
    """There is nothing to measure, for the reason given."""


class Failed(Exception):
    """The measured process ended or hung, for the reason given."""


class Process:
    """A measured module in a process that stays until `finish`; see `worker`.

    Every method may raise LeftOut or Failed, after which the process is gone.

    Args:
        module: the full name of a module that calls `worker.serve`.
        arguments: of its `prepare`, json values by name.
    """

    def __init__(self, module, arguments):
        self.module, self.arguments = module, arguments
        self._process = None

    def start(self):
        """Prepares and runs once; returns that run's seconds by name."""
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, self.module, json.dumps(self.arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"},  # all are compared on the processor
        )
        return self._answer()["first"]

    def run(self):
        """Runs once more; returns seconds by name."""
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed(self._end()) from None
        return self._answer()["run"]

    def finish(self):
        """Ends the process; returns its summary: `runs`, `facts`, `peak_memory` in bytes."""
        self._process.stdin.close()
        summary = self._answer()
        self._end()
        return summary

    def stop(self):
        """Ends the process if it still runs."""
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._end()

    def _answer(self):
        watch = threading.Timer(PATIENCE, self._process.kill)
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
        """Waits for the process and says in a line why it ended."""
        status = self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        for pipe in (self._process.stdout, self._errors):
            pipe.close()
        if status < 0:
            return f"ended by signal {-status} (9: out of memory, or no answer for {PATIENCE} s)"
        return lines[-1] if lines else f"ended with status {status}"


class FreshProcess:
    """The same for a module whose start-up is measured: every run is a process of its own.

    `prepare` also gets `started`, the time.time() before its process was started.
    """

    def __init__(self, module, arguments):
        self.module, self.arguments = module, arguments
        self._runs, self._summary, self._process = [], {}, None

    def start(self):
        """As `Process.start`; fills the disk's cache, too."""
        self._process = Process(self.module, self.arguments | {"started": time.time()})
        first = self._process.start()
        self._summary = self._process.finish()
        return first

    def run(self):
        """As `Process.run`."""
        self._runs.append(self.start())
        return self._runs[-1]

    def finish(self):
        """As `Process.finish`; facts and memory are the last process's."""
        return self._summary | {"runs": self._runs}

    def stop(self):
        """As `Process.stop`."""
        if self._process:
            self._process.stop()


def take_turns(processes, repeats, report):
    """Starts each process, then lets them run in turn, so that what disturbs one disturbs all.

    Args:
        processes: list of `Process` and `FreshProcess`.
        repeats: timed runs of each after the first.
        report: called with a process before it is started.

    Returns:
        A list with, for each process, its summary with `first` (seconds by name) added, a `LeftOut` or a `Failed`.
    """
    first, outcomes = {}, {}

    def attempt(process, action):
        try:
            return action()
        except (LeftOut, Failed) as reason:
            outcomes[process] = reason

    try:
        for process in processes:
            report(process)
            first[process] = attempt(process, process.start)
        for _ in range(repeats):
            for process in processes:
                if process not in outcomes:
                    attempt(process, process.run)
        for process in processes:
            if process not in outcomes and (summary := attempt(process, process.finish)):
                outcomes[process] = summary | {"first": first[process]}
    finally:
        for process in processes:
            process.stop()
    return [outcomes[process] for process in processes]
