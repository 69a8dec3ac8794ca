"""`mrcnn-tf export`: models for TensorFlow Serving and for the edge."""

import json
import pathlib
from typing import Annotated

import typer

from mrcnn_tf.cli.options import AsJson, console
from mrcnn_tf.common.errors import UserError

export_app = typer.Typer(help="Export a trained model, and compare it with the original.", no_args_is_help=True)

Model = Annotated[pathlib.Path | None, typer.Option(help="The model.keras to export.")]
InputSize = Annotated[str | None, typer.Option(help="A fixed input, pixels: a side, or HEIGHTxWIDTH.")]
MaxDetections = Annotated[int | None, typer.Option(min=1, help="Of an image. Default: the model's own.")]
ScoreThreshold = Annotated[
    float | None, typer.Option(min=0.0, max=1.0, help="Leave worse detections out. Default: the model's own.")
]
CheckImages = Annotated[
    list[str] | None, typer.Option(help="Images for the comparison. Default: three of the package.")
]


@export_app.command()
def saved_model(
    weights: Model = None,
    out: Annotated[
        pathlib.Path, typer.Option(help="The model's folder; its next free number is the version.")
    ] = pathlib.Path("export/mask_rcnn"),
    masks: Annotated[str, typer.Option(help="roi: probabilities in each box; rle: COCO's run lengths.")] = "roi",
    precision: Annotated[str | None, typer.Option(help="float32, bfloat16, float16. Default: the model's own.")] = None,
    max_detections: MaxDetections = None,
    score_threshold: ScoreThreshold = None,
    input_size: InputSize = None,
    xla: Annotated[bool, typer.Option("--xla", help="Compile the network by XLA; needs --input-size.")] = False,
    custom_ops: Annotated[
        bool, typer.Option("--custom-ops", help="Use this package's own operations: for servers in Python only.")
    ] = False,
    gpu: Annotated[bool, typer.Option("--gpu", help="The server has one: leave convolutions to its library.")] = False,
    check_images: CheckImages = None,
    as_json: AsJson = False,
):
    """Export a SavedModel for TensorFlow Serving: image files in, boxes in their pixels and masks out."""
    from mrcnn_tf.serving.saved_model_export import export_saved_model

    model = _load_model(weights)
    versions = [int(path.name) for path in out.glob("*") if path.name.isascii() and path.name.isdigit()]
    report = export_saved_model(
        model,
        out / str(max(versions, default=0) + 1),
        masks=masks,
        precision=precision,
        max_detections=max_detections,
        score_threshold=score_threshold,
        input_size=_parse_size(input_size),
        xla=xla,
        custom_ops=custom_ops,
        gpu=gpu,
        check_images=_find_images(check_images),
    )
    if as_json:
        figures = {"folder": str(report.folder), "bytes": report.size, "precision": report.precision}
        print(json.dumps(figures | {"input_size": report.input_size, "differences": report.differences.to_json()}))
        return
    console.print(report.differences.table())
    console.print(f"{report.size / 2**20:.0f} MiB, {report.precision}: {report.folder}", soft_wrap=True)
    console.print(f"Try it:  mrcnn-tf predict YOUR_IMAGE.png --saved-model {out}", soft_wrap=True)


@export_app.command()
def tflite(
    weights: Model = None,
    out: Annotated[pathlib.Path, typer.Option(help="The file to write.")] = pathlib.Path("model.tflite"),
    quantize: Annotated[str, typer.Option(help="float32, float16, dynamic, or int8 with --calibration.")] = "float32",
    calibration: Annotated[
        list[str] | None, typer.Option(help="For int8: images like the training's: files, folders or quoted patterns.")
    ] = None,
    input_size: InputSize = None,
    max_detections: MaxDetections = None,
    score_threshold: ScoreThreshold = None,
    split: Annotated[bool, typer.Option("--split", help="Two files: backbone, for a delegate, and heads.")] = False,
    check_images: CheckImages = None,
    as_json: AsJson = False,
):
    """Export TFLite files of builtin operations: one picture in, boxes and masks out."""
    from mrcnn_tf.datasets.image_files import read_image
    from mrcnn_tf.serving.tflite_export import export_tflite

    model = _load_model(weights)
    images = None if calibration is None else map(read_image, _find_images(calibration))
    size, checks = _parse_size(input_size), _find_images(check_images)
    report = export_tflite(model, out, quantize, images, size, max_detections, score_threshold, split, checks)
    sizes = {str(file): file.stat().st_size for file in report.files}
    if as_json:
        figures = {"files": sizes, "quantization": report.quantization, "input_size": report.input_size}
        print(json.dumps(figures | {"differences": report.differences.to_json()}))
        return
    console.print(report.differences.table())
    for file, size in sizes.items():
        console.print(f"{size / 2**20:.1f} MiB, {report.quantization}: {file}", soft_wrap=True)
    console.print(f"Try it:  mrcnn-tf predict YOUR_IMAGE.png --tflite {report.files[0]}", soft_wrap=True)


def _load_model(weights):
    from mrcnn_tf.model.mask_rcnn import load_model

    if weights is None:
        raise UserError("There is nothing to export: give --weights MODEL.keras.")
    return load_model(weights)


def _parse_size(text):
    """A side or (height, width) from "320" or "240x320"; None for None."""
    if text is None:
        return None
    try:
        numbers = [int(part) for part in text.lower().split("x")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise UserError(f"--input-size {text} isn't a size: give one such as 320 or 240x320.")
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


def _find_images(patterns):
    from mrcnn_tf.datasets.image_files import find_images

    return None if patterns is None else find_images(patterns)
