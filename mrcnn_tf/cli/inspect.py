"""`mrcnn-tf inspect`: a report on a dataset or a model, and a look at what a model makes of one photo."""

import json
import pathlib
from typing import Annotated

import typer

from mrcnn_tf.cli.options import AsJson, ModelFile, Overrides, SavedModelFolder, TFLiteFile, console, open_model
from mrcnn_tf.common.errors import UserError

SPLITS = ("train", "val")


def inspect(
    source: Annotated[str | None, typer.Argument(help="A config's name or file, or with --images a COCO json.")] = None,
    overrides: Overrides = None,
    weights: ModelFile = None,
    saved_model: SavedModelFolder = None,
    tflite: TFLiteFile = None,
    detections: Annotated[
        pathlib.Path | None, typer.Option(help="In a model's place: `evaluate --out`'s folder or its detections.json.")
    ] = None,
    images: Annotated[pathlib.Path | None, typer.Option(help="The folder of the json's images.")] = None,
    split: Annotated[str | None, typer.Option(help="The config's train or val. Default: val if it names any.")] = None,
    image: Annotated[
        pathlib.Path | None, typer.Option(help="One photo: draw and say what each stage of --weights makes of it.")
    ] = None,
    ground_truth: Annotated[pathlib.Path | None, typer.Option(help="With --image: a COCO json that lists it.")] = None,
    out: Annotated[
        pathlib.Path | None, typer.Option(help="The file to write. Default: report.html, with --image picture.png.")
    ] = None,
    images_limit: Annotated[int, typer.Option(min=1, help="The most images to show.")] = 500,
    as_json: AsJson = False,
):
    """Look into a dataset, and into what a model makes of it: one HTML file. Or, with --image, into one photo."""
    if image:
        _diagnose(image, weights, ground_truth, out or pathlib.Path("picture.png"), as_json)
        return
    from mrcnn_tf.explain.inspection.inspect_data import inspect_data, read_detections, read_result_folder

    data, model_settings = _settings(source, overrides or [], images, split)
    origin, model, results = [], None, None  # origin: of what is judged, for the report's head
    if detections:
        if weights or saved_model or tflite:
            raise UserError("--detections are in a model's place: give one of the two.")
        results = read_result_folder(detections) if detections.is_dir() else read_detections(detections)
        origin = [("Detections", str(detections))]
    elif weights or saved_model or tflite:
        model = open_model(weights, saved_model, tflite)
        data.categories, data.resize = model.categories, model.resize
        # A model that gives no classes of pixels doesn't know what label maps call their classes.
        data.stuff, data.semantic = model.stuff or data.stuff, model.gives("semantic_logits")
        model_settings.resize = model.resize
        model_settings = model.settings if weights else model_settings
        origin = [("Model", str(weights or saved_model or tflite)), *_list_provenance(model if weights else None)]
    out = out or pathlib.Path("report.html")
    inspection = inspect_data(data, out, model_settings, model, results, origin, images_limit, progress=not as_json)
    if as_json:
        print(json.dumps(inspection.to_json()))
    else:
        _print_inspection(inspection)


def _list_provenance(model):
    """Rows for the report's head on the weights that a model was imported from, if it was: what is known from where."""
    if model is None or not model.provenance:
        return []
    from mrcnn_tf.weights.facts import overrides_by_origin

    groups = overrides_by_origin(model.provenance["settings"])
    rows = [(f"By {origin}", ", ".join(overrides)) for origin, overrides in groups.items()]
    return [("Imported from", f"{model.provenance['file']} ({model.provenance['format']})"), *rows]


def _settings(source, overrides, images, split):
    """(`DataConfig`, `ModelConfig`) of a config, or of a json and its folder."""
    from mrcnn_tf.config.load import load_config
    from mrcnn_tf.config.settings import DataConfig, ModelConfig

    if source is None:
        raise UserError("There is nothing to inspect: name a config, or a COCO json with --images FOLDER.")
    if source.lower().endswith(".json"):
        if images is None:
            raise UserError(f"Say where the images of {source} are: --images FOLDER.")
        if overrides or split:
            raise UserError(f"{source} is no config, so it has no settings to change: leave them away.")
        _refuse_panoptic(source, images)
        return DataConfig(str(source), str(images), images_per_batch=1, masks=False, keypoints=False), ModelConfig()
    if images is not None:
        raise UserError(f"{source} is a config, which names its images itself: set data.val.images instead.")
    if split not in (None, *SPLITS):
        raise UserError(f"There is no split '{split}': choose train or val.")
    settings = load_config(source, overrides)
    split = split or ("val" if _has_annotations(settings.data.val) else "train")
    data = getattr(settings.data, split)
    if not _has_annotations(data):
        raise UserError(f"{source} names no annotations: set data.{split}.annotations and data.{split}.images.")
    data.images_per_batch = 1
    return data, settings.model


def _refuse_panoptic(source, images):
    """UserError for a panoptic json, whose objects are in PNGs that only a config names."""
    from mrcnn_tf.datasets.convert.inputs import quote_path
    from mrcnn_tf.datasets.panoptic_json import is_panoptic

    try:
        found = is_panoptic(source)
    except UserError:
        return  # who reads all of it says what is wrong
    if found:
        wanted = {"panoptic": source, "images": images, "panoptic_maps": "FOLDER_OF_ITS_PNGS"}
        settings = " ".join(quote_path(f"data.val.{name}={path}") for name, path in wanted.items())
        raise UserError(f"{source} is a panoptic json: inspect a config, as panoptic_r50_fpn {settings}.")


def _has_annotations(data):
    return data.annotations or data.panoptic or data.semantic_maps


def _diagnose(image, weights, ground_truth, out, as_json):
    if not weights:
        raise UserError("A look at every stage needs the trained model itself: give --weights MODEL.keras.")
    from mrcnn_tf.common.files import atomic_write
    from mrcnn_tf.datasets.image_files import read_image
    from mrcnn_tf.explain.diagnosis.annotated_objects import read_image_annotations
    from mrcnn_tf.explain.diagnosis.diagnose import diagnose

    pixels = read_image(image)
    records = read_image_annotations(ground_truth, image) if ground_truth else None
    diagnosis = diagnose(open_model(weights, None, None), pixels, records)
    with atomic_write(out) as file:
        diagnosis.draw().save(file)
    if as_json:
        print(json.dumps(diagnosis.to_json() | {"picture": str(out)}))
        return
    for sentence in diagnosis.sentences:
        _print_line(sentence)
    console.print(diagnosis.table())
    _print_line(f"Picture: {out}")


def _print_line(text):
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def _print_inspection(inspection):
    statistics, findings, report = inspection.statistics, inspection.findings, inspection.report
    unreadable = f", {report.unreadable} of them unreadable" if report.unreadable else ""
    _print_line(
        f"{statistics.images} images, {statistics.objects} objects, {len(statistics.classes)} classes; "
        f"{report.images} images shown{unreadable}."
    )
    if inspection.regions:
        _print_pixel_shares(inspection.regions.statistics.to_json())
    if inspection.results:
        console.print(inspection.results.table())
    if findings:
        costs = sorted(findings.errors.costs.items(), key=lambda item: -item[1])
        costs = ", ".join(f"{name} {cost:.3f}" for name, cost in costs)
        _print_line(f"AP50 that each kind of error costs: {costs}.")
    _print_line(f"Report: {report.path} ({report.size / 1e6:.1f} MB; open it in a browser)")


def _print_pixel_shares(statistics):
    """Print what share of the pixels is of each class: all things as one first, then stuff, the most frequent first."""
    things, *stuff = statistics["classes"]
    classes = [things, *sorted(stuff, key=lambda record: -record["share"])]
    shares = ", ".join(f"{record['name']} {record['share']:.1%}" for record in classes)
    _print_line(f"Pixels: {shares}; without a class {statistics['unlabelled_share']:.1%}.")
