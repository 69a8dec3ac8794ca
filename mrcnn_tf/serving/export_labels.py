"""labels.json, written and read: an exported model's classes, and what else a client needs to read its outputs.

It lies in a SavedModel's assets folder, and a TFLite file carries it inside (`interpreter.append_metadata`).
"""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from mrcnn_tf.common.categories import Category, parse_categories
from mrcnn_tf.common.environment import __version__
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import PanopticConfig, ResizeConfig
from mrcnn_tf.results.output_spec import OutputSpec
from mrcnn_tf.serving.export_setup import detection_limits

MASK_RULES = ("torchvision", "detectron2")  # of `Detections`
# What an export gives in place of an output of the model, and that output.
STANDS_FOR = {
    "masks_rle_bytes": "masks",
    "semantic": "semantic_logits",
    "semantic_png_bytes": "semantic_logits",
}


def labels_document(model, export_options, outputs=None):
    """The content of labels.json.

    Args:
        model: a `MaskRCNN`.
        export_options: what the export chose, such as precision and input_size, a dictionary of plain JSON.
        outputs: an `OutputSpec` of each output of the export; None for those of the model.

    Returns:
        A dictionary of plain JSON: `categories`, each with its `class` 1..K, `id`, `name`, `keypoints` and `skeleton`;
        `stuff`, each with its `class` 1..S, `id` and `name`, [] where pixels get no classes; `panoptic`, the rules by
        which it is fused with the instances, None where it isn't; `outputs`, each with what an `OutputSpec` says;
        `mask_rule` and `keypoint_offset` as in `Detections`; `resize`, `pixel_mean` and `pixel_std`, what the model
        does to an image by itself; `max_detections`, 0 of a model without boxes; `score_threshold`; `provenance`, what
        is known of the weights that were imported, see `MaskRCNN`; the versions `mrcnn_tf` and `tensorflow`; and
        `export_options`.
    """
    import tensorflow as tf

    things, stuff = enumerate(model.categories, 1), enumerate(model.stuff, 1)
    nothing, limits = detect_nothing(model), detection_limits(model)
    classifies_pixels = model.gives("semantic_logits")
    return {
        "categories": [{"class": number} | dataclasses.asdict(category) for number, category in things],
        "stuff": [{"class": n, "id": each.id, "name": each.name} for n, each in stuff if classifies_pixels],
        "panoptic": model.fusion and dataclasses.asdict(model.fusion),
        "outputs": [
            dataclasses.asdict(spec) | {"shape": list(spec.shape)}
            for spec in (model.output_specs if outputs is None else outputs)
        ],
        "mask_rule": nothing.mask_rule,
        "keypoint_offset": nothing.keypoint_offset,
        "resize": dataclasses.asdict(model.resize),
        "pixel_mean": list(model.preprocess.mean),
        "pixel_std": list(model.preprocess.std),
        "max_detections": limits.max_per_image if model.gives("boxes") else 0,
        "score_threshold": limits.score_threshold,
        "provenance": model.provenance,
        "mrcnn_tf": __version__,
        "tensorflow": tf.__version__,
        **export_options,
    }


def detect_nothing(model):
    """A model's `Detections` of an image with nothing in it, which have the rules that its heads give them."""
    shapes = {spec.name: [side or 1 for side in spec.shape] for spec in model.output_specs}
    rows = {
        spec.name: np.zeros([0] * spec.per_detection + shapes[spec.name], spec.dtype) for spec in model.output_specs
    }
    return model.as_detections(rows, (1, 1))


def labels_text(model):
    """The content of labels.txt, the names of the classes of things: line n is class n."""
    return "".join(" ".join(category.name.split()) + "\n" for category in model.categories)


def write_assets(model, folder, export_options, outputs=None):
    """Writes labels.json (`labels_document`) and labels.txt (`labels_text`) into the assets of a version's folder."""
    assets = pathlib.Path(folder) / "assets"
    assets.mkdir(parents=True, exist_ok=True)
    document = json.dumps(labels_document(model, export_options, outputs), indent=1, ensure_ascii=False)
    (assets / "labels.json").write_text(document + "\n", encoding="utf-8")
    (assets / "labels.txt").write_text(labels_text(model), encoding="utf-8")


@dataclasses.dataclass
class ExportLabels:
    """What a client must know about an exported model."""

    categories: list[Category]  # K, class 1 first
    stuff: list[Category]  # S, class 1 first; [] where pixels get no classes
    fusion: PanopticConfig | None  # how instances and stuff are fused; None where they aren't
    outputs: list[OutputSpec]
    mask_rule: str  # as in `Detections`
    keypoint_offset: float  # as in `Detections`
    resize: ResizeConfig  # what the model does to an image by itself
    document: dict[str, Any]  # all of labels.json

    def gives(self, *names):
        """Whether the model gives outputs of all these names, as `MaskRCNN.gives`, in whatever form it gives them."""
        return {STANDS_FOR.get(spec.name, spec.name) for spec in self.outputs}.issuperset(names)


def read_labels(source):
    """The `ExportLabels` of an exported model, from its labels.json.

    Args:
        source: that file, its content as a dictionary, or a folder of a SavedModel or of its versions (the latest).

    Raises:
        UserError: there is no such file, or it isn't one that `mrcnn-tf export` wrote.
    """
    if isinstance(source, dict):
        return _parse_labels(source, "the model's labels")
    path = pathlib.Path(source)
    if path.is_dir():
        path = latest_version(path) / "assets" / "labels.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} can't be read as labels.json ({error}): give the file from the assets folder of the export."
        ) from error
    return _parse_labels(document, path)


def latest_version(folder):
    """The path of the SavedModel in a folder: itself, or its highest version; raises UserError if there is none."""
    folder = pathlib.Path(folder)
    if (folder / "saved_model.pb").is_file():
        return folder
    versions = [path for path in folder.glob("*/") if path.name.isdigit() and (path / "saved_model.pb").is_file()]
    if not versions:
        raise UserError(f"There is no SavedModel in {folder}: give the folder that mrcnn-tf export saved-model wrote.")
    return max(versions, key=lambda path: int(path.name))


def _parse_labels(document, source):
    try:
        things, stuff = document["categories"], document.get("stuff")  # which older exports lack
        stuff = _parse_classes(stuff, source) if stuff else []
        if document["mask_rule"] not in MASK_RULES:
            raise ValueError(f"a mask_rule of {document['mask_rule']!r}")
        return ExportLabels(
            categories=_parse_classes(things, source) if things or not stuff else [],  # stuff alone has none
            stuff=stuff,
            fusion=PanopticConfig(**document["panoptic"]) if stuff and document["panoptic"] else None,
            outputs=[OutputSpec(**each | {"shape": tuple(each["shape"])}) for each in document["outputs"]],
            mask_rule=document["mask_rule"],
            keypoint_offset=float(document["keypoint_offset"]),
            resize=ResizeConfig(**document["resize"]),
            document=document,
        )
    except UserError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{source} isn't what mrcnn-tf export writes ({error!r}): give labels.json from the export's assets."
        ) from error


def _parse_classes(records, source):
    """The `Category`s of records, class 1 first."""
    records = sorted(records, key=lambda record: record["class"])
    if [record["class"] for record in records] != list(range(1, len(records) + 1)):
        raise ValueError("its classes aren't 1, 2, 3, ...")
    by_id = {category.id: category for category in parse_categories(records, source)}
    return [by_id[record["id"]] for record in records]
