"""`mrcnn-tf predict` and `mrcnn-tf evaluate`: what a trained, exported or served model detects, and how well."""

import json
import pathlib
import sys
from typing import Annotated

import typer

from mrcnn_tf.cli.options import (
    AsJson,
    ConfigName,
    ModelFile,
    Overrides,
    SavedModelFolder,
    TFLiteFile,
    check_model_choice,
    console,
    open_model,
    open_server,
)
from mrcnn_tf.common.errors import UserError

SEGMENTS_SUFFIX = "_segments"  # of the file name of a map of segments, which lies beside the picture


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
    from mrcnn_tf.evaluation.evaluate_model import evaluate as run_evaluation

    settings = load_config(config, overrides or [])
    val = settings.data.val
    if not source_name(val):
        raise UserError(f"{config} names no data to evaluate on: set data.val.annotations and data.val.images.")
    model = open_model(weights, saved_model, tflite)
    val.categories, val.stuff, val.resize = model.categories, model.stuff, model.resize
    val.semantic = model.gives("semantic_logits")
    results, _ = run_evaluation(model, val, progress=not as_json, out=out)
    if as_json:
        print(json.dumps(results.to_json()))
        return
    console.print(results.table())
    if out:
        console.print(f"Figures and detections: {out}", soft_wrap=True)


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
    from mrcnn_tf.datasets.image_files import find_images

    if not server:
        check_model_choice(weights, saved_model, tflite)
    paths = find_images(images)
    model = open_server(server, labels, model_name, timeout) if server else open_model(weights, saved_model, tflite)
    drawn, unreadable = predict_files(model, paths, out, min_score, None if as_json else _print_detections)
    for sentence in unreadable:
        print(f"mrcnn-tf: {sentence}", file=sys.stderr)
    if as_json:
        files = [{"file": str(path), "drawn": count} for path, count in drawn]
        print(json.dumps({"out": str(out), "images": files, "unreadable": unreadable}))
    else:
        console.print(f"{len(drawn)} of {len(paths)} images, json and picture each: {out}", soft_wrap=True)
    if unreadable:
        raise typer.Exit(2)


def _print_detections(path, detections):
    shown = detections if detections.panoptic is None else detections.panoptic
    console.print(f"{path}: {shown!r}", soft_wrap=True, markup=False)


def predict_files(model, paths, folder, min_score=0.5, on_image=None):
    """Detect in each file; write NAME.json (all detections) and NAME.png (those of at least `min_score`) to `folder`.

    The json holds the image's size and a list of detections in COCO's result format with class names and, beside
    `keypoints`, the `keypoint_names` in their order.

    Where the model has segments, the picture shows these, NAME_segments.png is their map in COCO's panoptic format, and
    the json has a list of `segments` as its `segments_info` is, with class names, `isthing` and the scores of things.

    Args:
        model: a `MaskRCNN`, or an exported one with the same `detect`; `detect_file` is preferred.
        paths: image files.
        folder: made if missing. Files of the same name from different folders get a number.
        on_image: called with (path, Detections) after each image.

    Returns:
        A list of (path, number of segments or detections drawn) and a list of sentences, one for each file that
        couldn't be read.
    """
    from mrcnn_tf.common.files import atomic_write
    from mrcnn_tf.datasets.image_files import UnreadableImage, read_image
    from mrcnn_tf.explain.show_batch import draw_result
    from mrcnn_tf.results.draw import save_png

    folder = pathlib.Path(folder)
    drawn, unreadable, used_names = [], [], set()
    for path in map(pathlib.Path, paths):
        try:
            image = read_image(path)
            detections = model.detect_file(path) if hasattr(model, "detect_file") else model.detect(image)
        except UnreadableImage as error:
            unreadable.append(str(error))
            continue
        name = _free_name(path.stem, used_names)
        panoptic = detections.panoptic
        with atomic_write(folder / f"{name}.json") as file:
            file.write_text(json.dumps(_record(path, image, detections), ensure_ascii=False), encoding="utf-8")
        if panoptic is not None:
            with atomic_write(folder / f"{name}{SEGMENTS_SUFFIX}.png") as file:
                file.write_bytes(panoptic.png())
        save_png(draw_result(image, detections, min_score), folder / f"{name}.png")
        drawn.append((path, int((detections.scores >= min_score).sum()) if panoptic is None else len(panoptic)))
        if on_image:
            on_image(path, detections)
    return drawn, unreadable


def _record(path, image, detections):
    """The content of an image's json."""
    records = detections.to_coco(0)
    for record, category in zip(records, detections.categories, strict=True):
        del record["image_id"]
        record["category"] = category.name
        if "keypoints" in record:
            record["keypoint_names"] = list(category.keypoints)
    document = {"file": str(path), "height": image.shape[0], "width": image.shape[1], "detections": records}
    return document if detections.panoptic is None else document | {"segments": _segments(detections.panoptic)}


def _segments(panoptic):
    records = panoptic.to_coco(0, "")["segments_info"]
    for record, segment in zip(records, panoptic.segments, strict=True):
        record |= {"category": segment.category.name, "isthing": int(segment.is_thing)}
        if segment.score is not None:
            record["score"] = segment.score
    return records


def _free_name(stem, used_names):
    """A name that neither another image's files have nor its map of segments; it is added to `used_names`."""
    name, number = stem, 2
    while used_names & {name, f"{name}{SEGMENTS_SUFFIX}"}:
        name, number = f"{stem}_{number}", number + 1
    used_names |= {name, f"{name}{SEGMENTS_SUFFIX}"}
    return name
