"""`mrcnn-tf benchmark`: time and memory of a model on this machine."""

import json
import pathlib
from typing import Annotated

import typer

from mrcnn_tf.cli.options import AsJson, ConfigName, Overrides, console


def benchmark(
    config: ConfigName = "mask_rcnn_r50_fpn",
    overrides: Overrides = None,
    only: Annotated[
        str | None,
        typer.Option(
            help="Some of: roofline, roi_align, inference, family, breakdown, panoptic, training, startup, "
            "postprocessing, pipeline, replicas, checkpoints, serving, evaluation."
        ),
    ] = None,
    tflite: Annotated[
        pathlib.Path | None, typer.Option(help="Measure this file in its interpreter, and nothing else.")
    ] = None,
    height: Annotated[int, typer.Option(min=32, help="Of the image, pixels.")] = 800,
    width: Annotated[int, typer.Option(min=32, help="Of the image, pixels.")] = 1088,
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs after the first.")] = 10,
    out: Annotated[pathlib.Path, typer.Option(help="The folder for benchmark.json and benchmark.png.")] = pathlib.Path(
        "runs/benchmark"
    ),
    as_json: AsJson = False,
):
    """Time and memory on this machine's processor, beside torchvision, detectron2, Model Garden if they are there."""
    from mrcnn_tf.benchmark.chart import draw_chart
    from mrcnn_tf.benchmark.edge import benchmark_edge
    from mrcnn_tf.benchmark.plan import OURS, Settings
    from mrcnn_tf.benchmark.suite import run_benchmark
    from mrcnn_tf.benchmark.table import benchmark_table
    from mrcnn_tf.common.files import atomic_write

    tell = (lambda sentence: None) if as_json else (lambda sentence: console.print(sentence, style="dim", markup=False))
    if tflite:
        report = benchmark_edge(tflite, repeats, report=tell)
        print(json.dumps(report.to_json())) if as_json else console.print(report.table())
        return
    chosen = [name.strip() for name in only.split(",")] if only else []
    report = run_benchmark(Settings(config, overrides or [], height, width, repeats), chosen, tell)
    with atomic_write(out / "benchmark.json") as file:
        file.write_text(json.dumps(report.to_json(), indent=1), encoding="utf-8")
    with atomic_write(out / "benchmark.png") as file:
        draw_chart(report, file)
    if as_json:
        print(json.dumps(report.to_json()))
    else:
        console.print(benchmark_table(report))
        console.print(f"Figures and chart: {out}", soft_wrap=True)
    if any(f": {OURS}" in sentence for sentence in report.failed):
        raise typer.Exit(1)
