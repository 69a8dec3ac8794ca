"""A .tflite file in LiteRT's interpreter: time to load, time of a run and memory, each way in a process of its own."""

import dataclasses
import importlib.metadata
import itertools
import pathlib
import resource
import statistics

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from mrcnn_tf.benchmark import inputs, machine, worker
from mrcnn_tf.benchmark.processes import LeftOut, Process, take_turns
from mrcnn_tf.benchmark.report import Times
from mrcnn_tf.benchmark.table import readable
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.serving.interpreter import load_signature, read_metadata

MODULE = "mrcnn_tf.benchmark.edge"
THREADS = (1, 2)


@dataclasses.dataclass
class EdgeRun:
    """One way to run the file.

    Attributes:
        threads, xnnpack: of the interpreter.
        load: seconds from the file to an interpreter that is ready, kernels' own copies of the weights included.
        times: `Times` of a run: from pixels of the input's size to all outputs.
        peak_memory: of the process, bytes.
        loaded_memory: its peak before the file was opened (Python, numpy and the like), bytes.
    """

    threads: int
    xnnpack: bool
    load: float
    times: Times
    peak_memory: int
    loaded_memory: int


@dataclasses.dataclass
class EdgeReport:
    """What was measured of a file; `failed` are sentences on what couldn't be.

    Attributes:
        file, file_size: its path, and bytes.
        quantization: as it was exported.
        input_size: [height, width], pixels.
        machine: see `machine.describe_machine`.
        litert: the interpreter's version.
        runs: list of `EdgeRun`.
    """

    file: str
    file_size: int
    quantization: str | None
    input_size: list[int] | None
    machine: dict
    litert: str
    runs: list[EdgeRun] = dataclasses.field(default_factory=list)
    failed: list[str] = dataclasses.field(default_factory=list)

    def to_json(self):
        """All of it as a plain dict for `json.dump`."""
        return dataclasses.asdict(self)

    def table(self):
        """All of it but single times as a rich renderable."""
        described = self.machine
        size = " x ".join(map(str, self.input_size or ()))
        lines = [
            f"{described['date']}, {described['processor']}, {described['cores']} cores, {described['system']}; "
            f"load before the start {described['load']:.1f}; ai-edge-litert {self.litert}",
            f"{self.file}: {self.file_size / 1e6:.1f} MB, {self.quantization}, input {size} pixels",
        ]
        table = Table(box=None, padding=(0, 1, 0, 0))
        for heading in ("threads", "XNNPACK", "median", "fastest", "first", "load", "peak MiB", "of it the model"):
            table.add_column(heading, justify="right")
        for run in self.runs:
            times = (run.times.median, run.times.fastest, run.times.first, run.load)
            memory = (run.peak_memory, run.peak_memory - run.loaded_memory)
            table.add_row(
                str(run.threads),
                "yes" if run.xnnpack else "no",
                *map(readable, times),
                *(f"{amount / 2**20:.0f}" for amount in memory),
            )
        failed = [Text(f"FAILED: {sentence}", style="bold red") for sentence in self.failed]
        return Group(*map(Text, lines), table, *failed)


def benchmark_edge(path, repeats=20, threads=THREADS, report=lambda sentence: None):
    """Measures a .tflite file with each number of threads, with and without XNNPACK, in turns.

    Args:
        path: a file that `mrcnn-tf export tflite` wrote.
        repeats: timed runs of each after the first.
        threads: numbers of threads.
        report: called with a line before each process is started.

    Returns:
        `EdgeReport`.

    Raises:
        UserError: it isn't such a file, or ai-edge-litert is missing.
    """
    document = read_metadata(path)
    result = EdgeReport(
        str(path),
        pathlib.Path(path).stat().st_size,
        document.get("quantization"),
        document.get("input_size"),
        machine.describe_machine(),
        _version(),
    )
    ways = list(itertools.product(threads, (True, False)))
    names = [f"{count} threads, {'with' if xnnpack else 'without'} XNNPACK" for count, xnnpack in ways]
    processes = [Process(MODULE, {"path": str(path), "threads": count, "xnnpack": xnnpack}) for count, xnnpack in ways]
    outcomes = take_turns(processes, repeats, lambda process: report(names[processes.index(process)]))
    for way, name, outcome in zip(ways, names, outcomes, strict=True):
        if isinstance(outcome, LeftOut):  # the file is at fault, and in every way
            raise UserError(str(outcome))
        if isinstance(outcome, dict):
            result.runs.append(_run(*way, outcome))
        else:
            result.failed.append(f"{name}: {outcome}")
    return result


def _run(threads, xnnpack, summary):
    seconds = [run["run"] for run in summary["runs"]]
    times = Times(summary["first"]["run"], statistics.median(seconds), min(seconds), seconds)
    facts = summary["facts"]
    return EdgeRun(threads, xnnpack, facts["load"], times, facts["peak_memory"], facts["loaded_memory"])


def _version():
    try:
        return importlib.metadata.version("ai-edge-litert")
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError("TFLite files run in ai-edge-litert: pip install 'mrcnn-tf[edge]'.") from error


def prepare(path, threads, xnnpack):
    """Times runs of the file on one random image that fills its input. Images aren't decoded or resized here."""
    import ai_edge_litert.interpreter  # noqa: F401  its own memory isn't the model's

    facts, opened = {"loaded_memory": _peak_memory()}, []
    facts["load"] = worker.seconds(lambda: opened.append(load_signature(path, threads, xnnpack)))
    (runner,) = opened
    height, width = runner.get_input_details()["image"]["shape"][1:3].tolist()
    arrays = {"image": inputs.image(height, width)[None], "image_size": np.array([[height, width]], np.int32)}

    def run():
        taken = worker.seconds(lambda: runner(**arrays))
        facts["peak_memory"] = _peak_memory()
        return {"run": taken}

    return worker.Task(run, facts)


def _peak_memory():
    """Bytes. Of this program alone: the peak in `resource` begins with that of the process that started this one, which
    is more than a small model takes."""
    try:
        with open("/proc/self/status", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * worker.RSS_UNIT


if __name__ == "__main__":
    worker.serve(prepare)
