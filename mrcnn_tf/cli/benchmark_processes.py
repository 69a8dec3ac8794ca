"""Measure in fresh processes: what the measured process does, and how its figures are read.

A module with measurements ends in `serve(inference, training)`, and `python -m MODULE inference ARGUMENTS` runs one of
them, ARGUMENTS being a json object; further words are modules that it imports first. It prints a json line after the
first run, another after each line that it reads from stdin (one more run), and a summary as its last line when stdin
ends. So a measurement can also be run by hand. The process that starts it imports neither TensorFlow nor PyTorch, as
long as no module of the user's own does.
"""

import dataclasses
import datetime
import importlib
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from mrcnn_tf.common.environment import available_cores
from mrcnn_tf.common.errors import UserError

ANSWER_SECONDS = 900  # the longest wait: the first run of a large model on a small machine, with its compilation
own_modules = []  # of the user, by `mrcnn-tf --import`, while the command runs: what is measured may need them
RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, bytes


@dataclasses.dataclass
class Task:
    """What a measured process does over and over."""

    run: Callable[[], dict[str, float]]  # one run; returns seconds by name
    # Anything worth reporting beside the times, json values by name; may be filled in by `run`.
    facts: dict = dataclasses.field(default_factory=dict)
    folder: tempfile.TemporaryDirectory | None = None  # kept until the process ends


def seconds(function):
    """The wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def peak_memory():
    """The most memory that this process, or one that it has waited for, has held so far, bytes.

    On Linux of this program alone: the peak in `resource` begins with that of the process that started this one.
    """
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * RSS_UNIT
    try:
        with open("/proc/self/status", encoding="ascii") as lines:
            own = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):  # not Linux
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT
    return max(own, children)


def start_program(program, **arguments):
    """Run Python code in a new process, as for a start-up; returns what it prints last, a json object.

    The code gets the arguments and `started`, the time.time() before its process was started, as json in sys.argv[1].
    """
    command = [sys.executable, "-c", program, json.dumps(arguments | {"started": time.time()})]
    ended = subprocess.run(command, stdout=subprocess.PIPE)
    if ended.returncode:
        sys.exit(ended.returncode)  # the program has said on stderr what went wrong
    return json.loads(ended.stdout.splitlines()[-1])


def serve(*measurements):
    """The whole life of a measured process, see the head of this file.

    Args:
        measurements: functions that prepare something and return its `Task`; the command line has the name of one and
            its arguments. A UserError of it or of its first run says why there is nothing to measure, which is no
            failure.
    """
    prepare = {function.__name__: function for function in measurements}[sys.argv[1]]
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")  # the real stdout for json alone:
    os.dup2(2, 1)  # what libraries print goes to stderr

    def send(**message):
        print(json.dumps(message), file=channel, flush=True)

    for name in sys.argv[3:]:
        importlib.import_module(name)
    try:
        task = prepare(**json.loads(sys.argv[2]) if len(sys.argv) > 2 else {})
        first = task.run()
    except UserError as reason:
        send(left_out=str(reason).splitlines()[0])
        return
    send(first=first)
    runs = []
    for _ in sys.stdin:
        runs.append(task.run())
        send(run=runs[-1])
    send(runs=runs, facts=task.facts, peak_memory=peak_memory())


class LeftOut(Exception):
    """There is nothing to measure, for the reason given."""


class Failed(Exception):
    """The measured process broke down or hung, for the reason given."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One process of a benchmark."""

    measurement: str  # what is measured, such as "inference"
    module: str  # the full name of a module that calls `serve`
    task: str  # the name of one of its measurements
    arguments: dict  # of that, json values by name
    label: str = ""  # sets it apart from the measurement's other cases, such as "bfloat16"

    @property
    def title(self):
        """Such as "roi_align: custom float32"."""
        return ": ".join(filter(None, (self.measurement, self.label)))


@dataclasses.dataclass
class Times:
    """Seconds: of the first run, which compiles, and of the others."""

    first: float
    median: float
    fastest: float
    runs: list[float]


@dataclasses.dataclass
class Result:
    """What the process of a `Case` measured: times by name, its peak of memory in bytes, and facts (see its module)."""

    case: Case
    times: dict[str, Times]
    peak_memory: int
    facts: dict


def measure(case, repeats):
    """The `Result` of a `Case`, which runs in a process of its own once and then `repeats` times more.

    Raises:
        LeftOut: there is nothing to measure.
        Failed: the process broke down or hung.
    """
    command = [sys.executable, "-m", case.module, case.task, json.dumps(case.arguments), *own_modules]
    limit = ANSWER_SECONDS * (repeats + 1)
    # A file: on a pipe, a program that the process has started could be waited for after it is killed.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        options = {"stdout": subprocess.PIPE, "stderr": errors, "text": True, "env": processor_only()}
        try:
            process = subprocess.run(command, input="\n" * repeats, timeout=limit, **options)
        except subprocess.TimeoutExpired:
            raise Failed(f"no end after {limit} s") from None
        errors.seek(0)
        if process.returncode:
            raise Failed(end_reason(process.returncode, errors.read()))
    answers = [json.loads(line) for line in process.stdout.splitlines()]
    if "left_out" in answers[0]:
        raise LeftOut(answers[0]["left_out"])
    return make_result(case, answers[0]["first"], answers[-1])


def processor_only():
    """The environment of a measured process, whose figures are the processor's."""
    return os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}


def end_reason(status, errors):
    """A line that says why a process ended with this status, by what it wrote to stderr."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    if status < 0:
        return f"ended by signal {-status} (9: out of memory, or no answer for {ANSWER_SECONDS} s)"
    return lines[-1] if lines else f"ended with status {status}"


def make_result(case, first, summary):
    """The `Result` of a case by the times of its first run and the last line of its process."""
    runs = {name: [run[name] for run in summary["runs"]] for name in first}
    times = {name: Times(first[name], statistics.median(run), min(run), run) for name, run in runs.items()}
    return Result(case, times, summary["peak_memory"], summary["facts"])


def describe_machine():
    """Processor, cores that this process may use (all use as many threads), memory in bytes, load, system and date."""
    return {
        "processor": _processor(),
        "cores": available_cores(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load": os.getloadavg()[0],  # processes that were busy in the last minute, beside the benchmark
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


def _processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux, or no such line
        return platform.processor() or "unknown processor"


def library_versions(libraries):
    """The version of each distribution, None where it isn't installed."""
    versions = {distribution.name.lower(): distribution.version for distribution in importlib.metadata.distributions()}
    return {library: versions.get(library) for library in libraries}


def machine_lines(machine, versions):
    """Two lines on what was measured on, by `describe_machine` and `library_versions`."""
    installed = ", ".join(f"{library} {version}" for library, version in versions.items() if version)
    return [
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores (all used), "
        f"{machine['memory'] / 2**30:.0f} GiB, {machine['system']}; load before the start {machine['load']:.1f}",
        f"Python {machine['python']}, {installed}",
    ]


def format_seconds(value):
    """Seconds with three digits that matter: "0.19 s", "12.3 s", "7.01 ms"."""
    return f"{value * 1e3:.3g} ms" if value < 0.1 else f"{value:.3g} s"
