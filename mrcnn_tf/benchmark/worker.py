"""The side of the measured process: prepares something once and times it again whenever it is told to.

A measured module is run as `python -m mrcnn_tf.benchmark.MODULE ARGUMENTS`, the arguments a json object. It prints a
json line after the first run, another after each line that it reads from stdin (one more run), and the summary as its
last line when stdin ends. So several processes can take turns, and a module can also be run by hand.
"""

import dataclasses
import json
import os
import resource
import sys
import time
from collections.abc import Callable

from mrcnn_tf.common.errors import UserError

RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, bytes


@dataclasses.dataclass
class Task:
    """What a measured process does over and over.

    Attributes:
        run: one run; returns seconds by name.
        facts: anything worth reporting beside the times, json values by name; may be filled in by `run`.
    """

    run: Callable[[], dict[str, float]]
    facts: dict = dataclasses.field(default_factory=dict)


def timed(**functions):
    """A `Task.run` that calls each function in turn; the name of its time is the argument's."""

    def run():
        return {name: seconds(function) for name, function in functions.items()}

    return run


def seconds(function):
    """The wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def serve(prepare):
    """The whole life of a measured process, see above.

    Args:
        prepare: takes the arguments of the command line by name and returns a `Task`. A UserError of it or of the first
            run says why there is nothing to measure here, which is no failure.
    """
    with _quiet_stdout() as channel:
        try:
            task = prepare(**json.loads(sys.argv[1]) if len(sys.argv) > 1 else {})
            first = task.run()
        except UserError as reason:
            _send(channel, {"left_out": str(reason).splitlines()[0]})
            return
        _send(channel, {"first": first})
        runs = []
        for _ in sys.stdin:
            runs.append(task.run())
            _send(channel, {"run": runs[-1]})
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT
        _send(channel, {"runs": runs, "facts": task.facts, "peak_memory": peak})


def _quiet_stdout():
    """The real stdout for json alone: what libraries print goes to stderr."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return channel


def _send(channel, message):
    channel.write(json.dumps(message) + "\n")
    channel.flush()
