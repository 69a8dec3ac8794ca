"""`mrcnn-tf benchmark`: time and memory of the user's model on the user's machine, as a table and as json."""

import dataclasses
import itertools
import json
import pathlib
from typing import Annotated

import typer

from mrcnn_tf.cli.benchmark_processes import (
    Case,
    Failed,
    LeftOut,
    describe_machine,
    format_seconds,
    library_versions,
    machine_lines,
    measure,
)
from mrcnn_tf.cli.options import AsJson, ConfigName, Overrides, console
from mrcnn_tf.common.errors import UserError

MODULE = "mrcnn_tf.cli.benchmark_measurements"
MEASUREMENTS = ("inference", "training", "pipeline", "startup")  # of a config
PRECISIONS = ("float32", "bfloat16")
THREADS = (1, 2)  # of a .tflite file's interpreter
LIBRARIES = ("mrcnn-tf", "tensorflow", "keras", "numpy", "ai-edge-litert")
HEADINGS = {
    "inference": "Detection in an image",
    "training": "Training on an image",
    "pipeline": "Input pipeline",
    "startup": "Start-up",
    "saved_model": "SavedModel on JPEG files",
    "tflite": "TFLite file",
}
TIMES = {
    "detect": "to boxes, masks inside them",
    "detect_full": "to boxes, full-size masks",
    "step": "step",
    "image": "an image",
    "tensorflow": "import tensorflow, and Keras with it",
    "mrcnn_tf": "first use of mrcnn_tf.MaskRCNN",
    "build": "build the model",
    "first_detection": "first detection",
    "start_to_detection": "from process start",
    "batch_1": "one",
    "batch_8": "eight in a batch",
    "run": "pixels to outputs",
}


@dataclasses.dataclass
class Benchmark:
    """What was measured of `subject`; `left_out` and `failed` are sentences on what wasn't and couldn't be."""

    subject: str
    machine: dict
    versions: dict
    results: list = dataclasses.field(default_factory=list)  # of `benchmark_processes.Result`
    left_out: list[str] = dataclasses.field(default_factory=list)
    failed: list[str] = dataclasses.field(default_factory=list)

    def table(self):
        """All of it but single times as a rich renderable."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 1, 0, 0))
        files = any("load" in result.facts for result in self.results)
        for heading in ("", "median", "fastest", "first", "peak MiB", *(("load", "MiB before it") if files else ())):
            table.add_column(heading, justify="right" if heading else "left")
        for measurement, results in itertools.groupby(self.results, lambda result: result.case.measurement):
            table.add_row(Text(HEADINGS[measurement], style="bold"))
            for result in results:
                memory, facts = f"{result.peak_memory / 2**20:.0f}", result.facts
                before = (format_seconds(facts["load"]), f"{facts['memory_before'] / 2**20:.0f}") if files else ()
                for name, times in result.times.items():
                    label = ", ".join(filter(None, (result.case.label, TIMES[name])))
                    figures = (times.median, times.fastest, times.first)
                    table.add_row(f"  {label}", *map(format_seconds, figures), memory, *before)
        lines = [*machine_lines(self.machine, self.versions), self.subject]
        rates = [1 / r.times["image"].median for r in self.results if r.case.measurement == "pipeline"]
        notes = [f"Input pipeline: {rate:.0f} images per second" for rate in rates]
        notes += [f"Left out: {sentence}" for sentence in self.left_out]
        failed = [Text(f"FAILED: {sentence}", style="bold red") for sentence in self.failed]
        return Group(*map(Text, lines), table, *map(Text, notes), *failed)


def measure_config(config, overrides, weights, height, width, repeats, only=(), report=lambda title: None):
    """The `Benchmark` of a config's model on an image of height x width pixels.

    Args:
        config, overrides: as in `load_config`.
        weights: as in `MaskRCNN.load_pretrained`; None for random ones.
        repeats: timed runs of each measurement after the first.
        only: names of `MEASUREMENTS`; empty: all of them.
        report: called with a line before each process is started.

    Raises:
        UserError: an unknown measurement, or a config that can't be used.
    """
    from mrcnn_tf.config.load import load_config

    for name in only:
        if name not in MEASUREMENTS:
            raise UserError(f"There is no measurement '{name}': choose of {', '.join(MEASUREMENTS)}.")
    load_config(config, overrides)  # a mistake in it is to be named before anything is started
    model = {"config": config, "overrides": overrides}
    image = model | {"height": height, "width": width}
    cases = [
        Case(name, MODULE, name, image | {"precision": precision, "weights": weights}, precision)
        for name in ("inference", "training")
        for precision in PRECISIONS
    ]
    cases += [Case("pipeline", MODULE, "pipeline", model), Case("startup", MODULE, "startup", image)]
    cases = [case for case in cases if not only or case.measurement in only]
    subject = f"{config}, {height} x {width} pixels, {weights or 'random weights'}; {repeats} runs after the first"
    return _measure(subject, cases, repeats, report)


def measure_tflite(path, repeats, threads=THREADS, report=lambda title: None):
    """The `Benchmark` of an exported .tflite file, with and without XNNPACK by each number of threads.

    Raises UserError if it isn't such a file or can't be loaded, or ai-edge-litert is missing.
    """
    from mrcnn_tf.serving.interpreter import read_metadata

    document, size = read_metadata(path), pathlib.Path(path).stat().st_size
    pixels = " x ".join(map(str, document.get("input_size") or ()))
    subject = f"{path}: {size / 1e6:.1f} MB, {document.get('quantization')}, input {pixels} pixels"
    cases = []
    for count, xnnpack in itertools.product(threads, (True, False)):
        label = f"{count} threads, {'with' if xnnpack else 'without'} XNNPACK"
        cases.append(Case("tflite", MODULE, "tflite", {"path": str(path), "threads": count, "xnnpack": xnnpack}, label))
    return _measure(subject, cases, repeats, report, needed=True)


def measure_saved_model(folder, height, width, repeats, report=lambda title: None):
    """The `Benchmark` of an exported folder on images of height x width pixels; raises UserError for another folder."""
    arguments = {"folder": str(folder), "height": height, "width": width}
    subject = f"{folder}, {height} x {width} pixels"
    return _measure(subject, [Case("saved_model", MODULE, "saved_model", arguments)], repeats, report, needed=True)


def _measure(subject, cases, repeats, report, needed=False):
    """Measure one case after the other. What fails doesn't stop the rest; if `needed`, to leave one out is an error."""
    benchmark = Benchmark(subject, describe_machine(), library_versions(LIBRARIES))
    for case in cases:
        report(case.title)
        try:
            benchmark.results.append(measure(case, repeats))
        except LeftOut as reason:
            if needed:
                raise UserError(str(reason)) from None
            benchmark.left_out.append(f"{case.title}: {reason}")
        except Failed as reason:
            benchmark.failed.append(f"{case.title}: {reason}")
    return benchmark


def benchmark(
    config: ConfigName = "mask_rcnn_r50_fpn",
    overrides: Overrides = None,
    only: Annotated[str | None, typer.Option(help=f"Some of: {', '.join(MEASUREMENTS)}.")] = None,
    weights: Annotated[str | None, typer.Option(help="Weights of the config's model. Default: random ones.")] = None,
    saved_model: Annotated[pathlib.Path | None, typer.Option(help="Measure this exported folder alone.")] = None,
    tflite: Annotated[pathlib.Path | None, typer.Option(help="Measure this file in its interpreter alone.")] = None,
    height: Annotated[int, typer.Option(min=32, help="Of the image, pixels.")] = 800,
    width: Annotated[int, typer.Option(min=32, help="Of the image, pixels.")] = 1088,
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs after the first.")] = 10,
    as_json: AsJson = False,
):
    """Measure time and memory of a model on this machine's processor, each in a process of its own."""

    def report(title):
        if not as_json:
            console.print(title, style="dim", markup=False)

    if tflite:
        measured = measure_tflite(tflite, repeats, report=report)
    elif saved_model:
        measured = measure_saved_model(saved_model, height, width, repeats, report)
    else:
        chosen = [name.strip() for name in only.split(",")] if only else []
        measured = measure_config(config, overrides or [], weights, height, width, repeats, chosen, report)
    if as_json:
        print(json.dumps(dataclasses.asdict(measured)))
    else:
        console.print(measured.table())
    if measured.failed:
        raise typer.Exit(1)
