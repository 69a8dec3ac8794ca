"""COCO's evaluation protocol, by pycocotools, and its figures as a table and as json."""

import contextlib
import copy
import dataclasses
import io
import json

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Group
from rich.table import Table
from rich.text import Text

from mrcnn_tf.errors import UserError
from mrcnn_tf.evaluation.ground_truth import GroundTruth, read_ground_truth
from mrcnn_tf.files import replaced

# The order of COCOeval.stats. s, m, l: small (< 32^2 pixels), medium and large (> 96^2); AR1: at most 1 detection.
FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
LEFT_OUT_SHOWN = 10


@dataclasses.dataclass
class CocoResults:
    """The figures of one evaluation; None stands for "no ground truth of that kind".

    Attributes:
        images: how many images were evaluated.
        bbox: the 12 `FIGURES` for boxes, 0..1.
        segm: the same for masks; None if the detections or the ground truth have no masks.
        per_class: a dict for each category: `id`, `name`, `bbox_AP`, `bbox_AP50`, `segm_AP`, `segm_AP50`.
        left_out: a sentence for each image, annotation or mask that could not be evaluated.
    """

    images: int
    bbox: dict[str, float | None]
    segm: dict[str, float | None] | None
    per_class: list[dict]
    left_out: list[str]

    def to_json(self):
        """All of it as a plain dict for `json.dump`."""
        return dataclasses.asdict(self)

    def table(self):
        """The figures as a rich renderable: over all classes, per class, and what was left out."""
        whole = Table(title=f"{self.images} images")
        whole.add_column("")
        for heading in ("box", "mask"):
            whole.add_column(heading, justify="right")
        for figure in FIGURES:
            whole.add_row(figure, _text(self.bbox[figure]), _text((self.segm or {}).get(figure)))
        classes = Table(title="Per class")
        classes.add_column("class")
        columns = ("bbox_AP", "bbox_AP50", "segm_AP", "segm_AP50")
        for heading in ("box AP", "box AP50", "mask AP", "mask AP50"):
            classes.add_column(heading, justify="right")
        for row in self.per_class:
            classes.add_row(Text(row["name"]), *(_text(row[column]) for column in columns))
        notes = [Text(sentence) for sentence in self.left_out[:LEFT_OUT_SHOWN]]
        if len(self.left_out) > LEFT_OUT_SHOWN:
            notes.append(Text(f"... and {len(self.left_out) - LEFT_OUT_SHOWN} more, all of them in the json."))
        return Group(whole, classes, *notes)


def evaluate_detections(results, annotations, image_ids=None, categories=None):
    """COCO's figures for detections in COCO's result format.

    Args:
        results: list of dicts as `Detections.to_coco` gives them; it may be empty, which scores 0.
        annotations: path of the COCO json with the ground truth, or the `GroundTruth` read from it.
        image_ids: the images to evaluate; None: all of the json.
        categories: the `Category`s to evaluate; None: all of the json.

    Returns:
        `CocoResults`. Masks are evaluated if the ground truth has any and every detection has one; the area that
        puts a detection among small, medium and large ones is its box's for boxes and its mask's for masks.

    Raises:
        UserError: a detection for an image or category that the json lacks, or with a mask of another size than its
            image; a category of `categories` that the json lacks.
    """
    truth = annotations if isinstance(annotations, GroundTruth) else read_ground_truth(annotations)
    sizes = {image["id"]: [image["height"], image["width"]] for image in truth.images}
    image_ids = list(sizes) if image_ids is None else [int(i) for i in image_ids]
    names = {c["id"]: str(c.get("name", c["id"])) for c in truth.categories}
    if categories is not None:
        for category in categories:
            if category.id not in names:
                raise UserError(
                    f"{truth.source} has no category {category.id} ({category.name}), which the model detects: "
                    "evaluate on annotations with the model's category ids."
                )
        names = {category.id: category.name for category in categories}
    _check(results, sizes, names, truth.source)

    bbox = _run("bbox", truth, results, image_ids, list(names))
    with_masks = any(a["segmentation"] for a in truth.annotations) and all("segmentation" in r for r in results)
    segm = _run("segm", truth, results, image_ids, list(names)) if with_masks else None
    per_class = [{"id": key, "name": name} for key, name in sorted(names.items())]
    for prefix, evaluation in (("bbox", bbox), ("segm", segm)):
        for index, row in enumerate(per_class):
            row[f"{prefix}_AP"] = _class_figure(evaluation, index, slice(None))
            row[f"{prefix}_AP50"] = _class_figure(evaluation, index, slice(0, 1))
    return CocoResults(len(set(image_ids)), _figures(bbox), _figures(segm), per_class, list(truth.left_out))


def write_results(results, path):
    """Writes detections in COCO's result format to a json, under a temporary name until complete; makes the folder."""
    with replaced(path) as file:
        file.write_text(json.dumps(results), encoding="utf-8")


def _check(results, sizes, names, source):
    for result in results:
        image_id, category_id = result["image_id"], result["category_id"]
        if image_id not in sizes:
            raise UserError(f"A detection belongs to image {image_id}, which {source} lacks: evaluate on its own json.")
        if category_id not in names:
            raise UserError(
                f"A detection in image {image_id} is of category {category_id}, which is not evaluated: "
                f"take the category ids of {source}."
            )
        if "segmentation" in result and list(result["segmentation"]["size"]) != sizes[image_id]:
            raise UserError(
                f"A mask detected in image {image_id} is of size {list(result['segmentation']['size'])} but {source} "
                f"says {sizes[image_id]} (height, width): correct the json or the image file."
            )


def _run(kind, truth, results, image_ids, category_ids):
    """A finished COCOeval for "bbox" or "segm", which has printed nothing."""
    annotations = [a for a in truth.annotations if kind == "bbox" or a["segmentation"]]
    detections = []
    for index, result in enumerate(results, start=1):
        if kind == "bbox":
            area = result["bbox"][2] * result["bbox"][3]
        else:
            area = float(coco_mask.area(result["segmentation"]))
        detections.append({**result, "id": index, "area": area, "iscrowd": 0})
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_index(truth, annotations), _index(truth, detections), kind)
        evaluation.params.imgIds = image_ids
        evaluation.params.catIds = category_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _index(truth, annotations):
    """A COCO object without a file. COCO.loadRes would do for detections, but fails where there are none."""
    coco = COCO()
    # COCOeval writes into the annotations that it is given.
    records = [copy.copy(annotation) for annotation in annotations]
    coco.dataset = {"images": truth.images, "categories": truth.categories, "annotations": records}
    coco.createIndex()
    return coco


def _figures(evaluation):
    if evaluation is None:
        return None
    return {name: _known(value) for name, value in zip(FIGURES, evaluation.stats, strict=True)}


def _class_figure(evaluation, index, thresholds):
    """AP of one class: the mean precision over IoU `thresholds` and recalls, all areas, 100 detections per image."""
    if evaluation is None:
        return None
    precision = evaluation.eval["precision"][thresholds, :, index, 0, -1]
    precision = precision[precision > -1]
    return float(precision.mean()) if precision.size else None


def _known(value):
    """None for the -1 by which pycocotools says that there was nothing to find."""
    return None if value < 0 or np.isnan(value) else float(value)


def _text(value):
    return "–" if value is None else f"{value:.3f}"
