"""`python -m benchmarks`: comparison with other systems, the paper's ablations at small scale, masks of datasets."""

import json
import os
import pathlib
import sys
from typing import Annotated

import typer

from benchmarks.ablation import Budget, run_ablation
from benchmarks.ablation_tables import TABLES, ablation_table
from benchmarks.cases import MEASUREMENTS, PACKAGE, Settings
from benchmarks.comparison import run_comparison
from benchmarks.crops import compare_crops
from benchmarks.display import comparison_table, draw_chart
from benchmarks.memory import measure_dropped_models
from mrcnn_tf.cli.options import AsJson, ConfigName, Overrides, console
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import atomic_write

app = typer.Typer(
    help="Measurements of mrcnn_tf beside other systems and the paper, from a checkout.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def compare(
    config: ConfigName = "mask_rcnn_r50_fpn",
    overrides: Overrides = None,
    only: Annotated[str | None, typer.Option(help=f"Some of: {', '.join(MEASUREMENTS)}.")] = None,
    height: Annotated[int, typer.Option(min=32, help="Of the image, pixels.")] = 800,
    width: Annotated[int, typer.Option(min=32, help="Of the image, pixels.")] = 1088,
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs after the first.")] = 10,
    out: Annotated[pathlib.Path, typer.Option(help="The folder for benchmark.json and benchmark.png.")] = pathlib.Path(
        "runs/benchmark"
    ),
    as_json: AsJson = False,
):
    """Time and memory on this machine's processor, beside torchvision, detectron2, Model Garden if they are there."""
    chosen = [name.strip() for name in only.split(",")] if only else []
    settings = Settings(config, overrides or [], height, width, repeats)
    comparison = run_comparison(settings, chosen, _reporter(as_json))
    _write_json(comparison.to_json(), out / "benchmark.json")
    with atomic_write(out / "benchmark.png") as file:
        draw_chart(comparison, file)
    if as_json:
        print(json.dumps(comparison.to_json()))
    else:
        console.print(comparison_table(comparison))
        console.print(f"Figures and chart: {out}", soft_wrap=True)
    if any(f": {PACKAGE}" in sentence for sentence in comparison.failed):
        raise typer.Exit(1)


@app.command()
def ablate(
    table: Annotated[str, typer.Argument(help=f"One of {', '.join(TABLES)}.")],
    overrides: Overrides = None,
    steps: Annotated[int, typer.Option(help="Of each training.")] = 600,
    seeds: Annotated[int, typer.Option(help="Trainings of each row.")] = 3,
    images: Annotated[int, typer.Option(help="To draw and to train on; a fifth as many to evaluate on.")] = 1000,
    size: Annotated[int | None, typer.Option(help="Of the images, pixels. Default: the table's.")] = None,
    rows: Annotated[str | None, typer.Option(help="Some of the table's: labels or numbers from 1, by commas.")] = None,
    out: Annotated[
        pathlib.Path, typer.Option(help="The folder for pictures and runs; finished ones are not repeated.")
    ] = pathlib.Path("runs/ablate"),
    as_json: AsJson = False,
):
    """Train the rows of one of the paper's ablation tables on generated pictures and compare them with the paper."""
    chosen = [name.strip() for name in rows.split(",")] if rows else []
    budget = Budget(steps, seeds, images, size)
    ablation = run_ablation(table, budget, out, chosen, overrides or [], _reporter(as_json))
    file = out / f"table-{table}.json"
    _write_json(ablation.to_json(), file)
    if as_json:
        print(json.dumps(ablation.to_json()))
    else:
        console.print(ablation_table(ablation))
        console.print(f"Figures: {file}", soft_wrap=True)
    if ablation.failed:
        raise typer.Exit(1)


@app.command()
def memory(
    config: ConfigName = "nuclei_r18_fpn",
    overrides: Overrides = None,
    models: Annotated[int, typer.Option(min=4, help="To build, trace and drop, one after the other.")] = 20,
    stock: Annotated[bool, typer.Option("--stock", help="Stock operations only, as without a compiler.")] = False,
    as_json: AsJson = False,
):
    """What stays in memory of models that were built, traced and dropped in one process."""
    sizes = measure_dropped_models(config, overrides or [], models, stock, _reporter(as_json))
    growth = sizes[-1] - sizes[2]
    if as_json:
        print(json.dumps({"megabytes": sizes, "growth_after_third": growth}))
    else:
        console.print(f"From the third model to the last the process grew by {growth:.0f} MB.")


@app.command()
def crops(
    annotations: Annotated[pathlib.Path, typer.Argument(help="A COCO json of instances.")],
    images: Annotated[pathlib.Path, typer.Argument(help="The folder of its images.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first images.")] = None,
    as_json: AsJson = False,
):
    """The masks that training sees of a dataset beside pycocotools': IoU of each object's crop."""
    comparison = compare_crops(annotations, images, limit)
    if as_json:
        print(json.dumps(comparison.to_json()))
        return
    figures = comparison.to_json()
    sentence = f"{figures['objects']} objects, {figures['crowds']} crowds aside: "
    if figures["objects"]:
        sentence += f"mean IoU {figures['mean']:.4f}, least {figures['min']:.4f} (annotation {figures['worst']})"
    if figures["unmatched"]:
        sentence += f"; {figures['unmatched']} objects aren't in the json that pycocotools could read"
    console.print(f"{sentence}.\npycocotools read {figures['reference']}.", markup=False, soft_wrap=True)


def _reporter(as_json):
    """A function that prints a sentence, unless json alone is asked for."""
    return (lambda sentence: None) if as_json else (lambda sentence: console.print(sentence, style="dim", markup=False))


def _write_json(document, path):
    with atomic_write(path) as file:
        file.write_text(json.dumps(document, indent=1), encoding="utf-8")


def main():
    """Exit status 2 and one sentence for a user's mistake."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        app()
    except UserError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
