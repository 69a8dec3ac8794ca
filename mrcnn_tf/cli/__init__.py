"""The command line, `mrcnn-tf`: each command is a few lines over the API.

TensorFlow is imported inside the commands, so that help and mistakes in the arguments are answered at once.
"""

import json
import os
import pathlib
import sys
import time
from typing import Annotated

import typer

from mrcnn_tf.cli.benchmark import benchmark
from mrcnn_tf.cli.convert import convert_app
from mrcnn_tf.cli.export import export_app
from mrcnn_tf.cli.inspect import inspect
from mrcnn_tf.cli.options import (
    AsJson,
    ConfigName,
    ModelFile,
    Overrides,
    SavedModelFolder,
    TFLiteFile,
    Weights,
    check_choice,
    console,
    open_model,
    open_server,
)
from mrcnn_tf.cli.validate import validate
from mrcnn_tf.common.errors import UserError

app = typer.Typer(
    help="Mask R-CNN for TensorFlow and Keras 3: import weights, train, evaluate, predict, export.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(convert_app, name="convert")
app.add_typer(export_app, name="export")


def main():
    """Entry point: exit status 2 and one sentence for a user's mistake."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's notes on its build help nobody here
    try:
        app()
    except UserError as error:
        print(f"mrcnn-tf: {error}", file=sys.stderr)
        sys.exit(2)


@app.command()
def demo(
    overrides: Overrides = None,
    out: Annotated[pathlib.Path, typer.Option(help="The folder for the model, figures and pictures.")] = pathlib.Path(
        "runs/demo"
    ),
    as_json: AsJson = False,
):
    """Train a small Mask R-CNN on microscopy tiles that come with the package, evaluate it and draw what it sees."""
    started = time.perf_counter()
    from mrcnn_tf.cli.demo import run_demo
    from mrcnn_tf.config.load import load_config

    result = run_demo(load_config("nuclei_r18_fpn", overrides or []), out, verbose=0 if as_json else "auto")
    seconds = {"training": result.run.seconds, "total": time.perf_counter() - started}
    if as_json:
        print(json.dumps(result.run.results.to_json() | {"seconds": seconds}))
        return
    console.print(result.run.results.table())
    console.print(f"Trained in {seconds['training']:.0f} s, everything took {seconds['total']:.0f} s.")
    for picture in result.pictures:
        console.print(f"Picture: {picture}", soft_wrap=True)
    model = result.run.folder / "model.keras"
    console.print(f"Model:   {model}\nTry it:  mrcnn-tf predict YOUR_IMAGE.png --weights {model}", soft_wrap=True)


@app.command()
def train(
    config: ConfigName,
    overrides: Overrides = None,
    weights: Weights = None,
    out: Annotated[pathlib.Path | None, typer.Option(help="Default: runs/CONFIG.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in the folder, if there is one.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Resume even with another config.")] = False,
):
    """Train a model by a config; evaluates and saves after each epoch. Ctrl-C saves; --resume goes on."""
    from mrcnn_tf.config.load import load_config
    from mrcnn_tf.training.callbacks import Interrupted
    from mrcnn_tf.training.trainer import train as run_training

    settings = load_config(config, overrides or [])
    folder = out or pathlib.Path("runs") / pathlib.Path(config).stem
    try:
        run = run_training(settings, folder, weights, resume, force)
    except Interrupted as interrupted:
        console.print(f"Stopped; everything is in {folder}. Go on with the same command and --resume.", soft_wrap=True)
        raise typer.Exit(interrupted.exit_code) from None
    console.print(f"Trained in {run.seconds:.0f} s. Model, config and history: {run.folder}", soft_wrap=True)


@app.command()
def import_weights(
    file: Annotated[str, typer.Argument(help="A published checkpoint (.pth, .pkl, .safetensors, .h5) or a preset.")],
    overrides: Overrides = None,
    out: Annotated[pathlib.Path | None, typer.Option(help="The model to write, ending in .keras.")] = None,
    config: Annotated[
        str | None, typer.Option(help="Load into this config's model instead of the one that the file was made for.")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option(help="Take what fits: leave weights that the file lacks, skip tensors without a place.")
    ] = False,
    map_classes: Annotated[
        bool, typer.Option(help="With --config: keep the classifiers of classes that both know by name.")
    ] = False,
    as_json: AsJson = False,
):
    """Make a model of published weights: torchvision, detectron2, Detectron, matterport, keras.applications."""
    if out is None or out.suffix != ".keras":
        raise UserError("Say where the model should go: --out MODEL.keras.")
    from mrcnn_tf.common.files import atomic_write
    from mrcnn_tf.config.load import load_config
    from mrcnn_tf.model.mask_rcnn import MaskRCNN
    from mrcnn_tf.weights.source import read_weights

    source = read_weights(file)
    settings = load_config(config, overrides or []) if config else source.config(overrides or [])
    model = MaskRCNN(settings.model)
    report = model.load_pretrained(source, allow_missing, map_classes, verbose=False)
    with atomic_write(out) as temporary:
        model.save(temporary)
    if as_json:
        print(json.dumps({"out": str(out)} | report.to_json()))
        return
    console.print(report.table())
    console.print(f"Model:   {out}\nTry it:  mrcnn-tf predict YOUR_IMAGE.png --weights {out}", soft_wrap=True)


@app.command()
def evaluate(
    config: ConfigName,
    overrides: Overrides = None,
    weights: ModelFile = None,
    saved_model: SavedModelFolder = None,
    tflite: TFLiteFile = None,
    out: Annotated[
        pathlib.Path | None,
        typer.Option(help="Also write results.json, detections.json and a panoptic model's panoptic.json here."),
    ] = None,
    as_json: AsJson = False,
):
    """COCO's figures of a trained or exported model on the config's data.val."""
    from mrcnn_tf.config.load import load_config
    from mrcnn_tf.datasets.read_coco import source_name
    from mrcnn_tf.evaluation.runner import evaluate as run_evaluation

    settings = load_config(config, overrides or [])
    val = settings.data.val
    if not source_name(val):
        raise UserError(f"{config} names no data to evaluate on: set data.val.annotations and data.val.images.")
    model, knows = open_model(weights, saved_model, tflite)
    val.categories, val.resize = knows.categories, knows.resize
    val.stuff, val.semantic = knows.stuff, bool(model.semantic_head)
    results, _ = run_evaluation(model, val, progress=not as_json, out=out)
    if as_json:
        print(json.dumps(results.to_json()))
        return
    console.print(results.table())
    if out:
        console.print(f"Figures and detections: {out}", soft_wrap=True)


@app.command()
def predict(
    images: Annotated[list[str], typer.Argument(help="Files, folders or quoted glob patterns.")],
    weights: ModelFile = None,
    saved_model: SavedModelFolder = None,
    tflite: TFLiteFile = None,
    server: Annotated[
        str | None, typer.Option(help="A TensorFlow Serving: http://HOST:8501 or grpc://HOST:8500.")
    ] = None,
    labels: Annotated[
        pathlib.Path | None, typer.Option(help="With --server: the exported folder, or its assets/labels.json.")
    ] = None,
    model_name: Annotated[str, typer.Option(help="With --server: what it calls the model.")] = "mask_rcnn",
    timeout: Annotated[float, typer.Option(help="With --server: seconds to wait for an answer.")] = 60.0,
    out: Annotated[
        pathlib.Path, typer.Option(help="The folder for a json and a picture of each image.")
    ] = pathlib.Path("runs/predict"),
    min_score: Annotated[float, typer.Option(min=0.0, max=1.0, help="Draw detections of at least this score.")] = 0.5,
    as_json: AsJson = False,
):
    """Detect objects in images, and segments with a semantic head: a json and a picture of each."""
    from mrcnn_tf.cli.predict import predict_files
    from mrcnn_tf.datasets.image_files import find_images

    if not server:
        check_choice(weights, saved_model, tflite)
    paths = find_images(images)
    model = open_server(server, labels, model_name, timeout) if server else open_model(weights, saved_model, tflite)[0]
    report = None if as_json else _print_found
    drawn, unreadable = predict_files(model, paths, out, min_score, report)
    for sentence in unreadable:
        print(f"mrcnn-tf: {sentence}", file=sys.stderr)
    if as_json:
        print(
            json.dumps(
                {"out": str(out), "images": [{"file": str(p), "drawn": n} for p, n in drawn], "unreadable": unreadable}
            )
        )
    else:
        console.print(f"{len(drawn)} of {len(paths)} images, json and picture each: {out}", soft_wrap=True)
    if unreadable:
        raise typer.Exit(2)


def _print_found(path, detections):
    found = detections if detections.panoptic is None else detections.panoptic
    console.print(f"{path}: {found!r}", soft_wrap=True, markup=False)


@app.command()
def build_ops(
    cuda: Annotated[
        str | None,
        typer.Option(help="CUDA architectures, such as 80,90, or none. Default: all usual ones where nvcc is found."),
    ] = None,
):
    """Compile this package's own operations for the TensorFlow that is installed, and load them."""
    from mrcnn_tf.ops.native.builder import parse_architectures
    from mrcnn_tf.ops.native.library import build_and_try

    library = build_and_try(parse_architectures(cuda))
    code = "".join(f", sm_{number}" for number in library.architectures)
    console.print(f"Works: {library.path}", soft_wrap=True)
    console.print(f"Built for the CPU{code}{' and PTX' if code else ''}.")


app.command()(benchmark)
app.command()(inspect)
app.command()(validate)
