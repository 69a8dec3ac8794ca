"""The masks that training sees beside pycocotools': the same objects of a COCO json, cropped to the same boxes.

What is compared: training keeps S x S cells of an instance's box (`DataConfig.mask_size`), each with its occupancy.
pycocotools paints the whole image; of its mask, constant within each pixel, a cell's occupancy is the share of the cell
that it covers. Both are cut at a half, and IoU counts cells. In objects smaller than S pixels many cells lie in one
pixel, so that a mask that is off by one pixel loses as much of its IoU here as it does in the image.
"""

import contextlib
import dataclasses
import io
import math
import os
import tempfile

import numpy as np
from pycocotools.coco import COCO

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import DataConfig
from mrcnn_tf.datasets.coco_records import parse_annotation
from mrcnn_tf.datasets.doctor import repair, validate
from mrcnn_tf.datasets.read_coco import load_index


@dataclasses.dataclass
class CropComparison:
    """How well the objects of a json agree.

    Attributes:
        reference: the json that pycocotools read: the given one or, where it can't, a copy by `validate --fix`.
        ious: {id of the annotation: IoU of the two S x S masks}.
        unmatched: objects that training uses and `reference` doesn't have; those without an id can't be found again.
        crowds: objects that aren't compared, since nobody trains on their masks.
    """

    reference: str
    ious: dict[int, float]
    unmatched: int
    crowds: int

    def to_json(self):
        """As a dict for json; figures are None where nothing was compared."""
        ious = list(self.ious.values())
        worst = min(self.ious, key=self.ious.get, default=None)
        figures = {"mean": float(np.mean(ious)) if ious else None, "min": min(ious, default=None), "worst": worst}
        counts = {"objects": len(ious), "unmatched": self.unmatched, "crowds": self.crowds}
        return {"reference": self.reference} | counts | figures


def compare_crops(annotations, images, limit=None):
    """The `CropComparison` of a COCO json of instances and its folder of images.

    Args:
        limit: the most images to look at, the first ones of the json.

    Raises:
        UserError: see `load_index`; or no object has a mask.
    """
    config = DataConfig(annotations=os.fspath(annotations), images=os.fspath(images))
    index = load_index(config)
    numbers = range(min(index.image_ids.size, limit or index.image_ids.size))
    rows = [row for row in range(int(index.instance_offsets[len(numbers)])) if not index.crowd[row]]
    if not rows:
        raise UserError(f"{annotations} has no object with a mask in these images: there is nothing to compare.")
    reference, coco, records = _open_for_pycocotools(config, index.annotation_ids[rows].tolist())
    ious, unmatched = {}, 0
    for number, crops in zip(numbers, _training_crops(index, config, numbers), strict=True):
        for row, crop in enumerate(crops, int(index.instance_offsets[number])):
            annotation_id = int(index.annotation_ids[row])
            if index.crowd[row]:
                continue
            if annotation_id not in records:
                unmatched += 1
                continue
            mask = coco.annToMask(records[annotation_id])
            expected = cell_occupancy(mask, index.boxes[row].astype(np.float64), config.mask_size)
            ious[annotation_id] = _iou(crop >= 0.5, expected >= 0.5)
    crowds = int(index.crowd[: index.instance_offsets[len(numbers)]].sum())
    return CropComparison(reference, ious, unmatched, crowds)


def cell_occupancy(mask, box, size):
    """[size, size] float64: the share of each cell of a box (x1, y1, x2, y2) that a mask [H, W] of pixels covers.

    Beyond the image's edge nothing is known; boxes end there.
    """

    def weights(low, high, extent):
        edges = np.linspace(low, high, size + 1)[:, None]
        pixels = np.arange(extent)
        covered = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
        return np.maximum(covered, 0.0) / (edges[1] - edges[0])

    x1, y1, x2, y2 = box
    left, top, right, bottom = math.floor(x1), math.floor(y1), math.ceil(x2), math.ceil(y2)
    part = mask[top:bottom, left:right].astype(np.float64)
    down = weights(y1 - top, y2 - top, part.shape[0])
    return down @ part @ weights(x1 - left, x2 - left, part.shape[1]).T


def _training_crops(index, config, numbers):
    """Yields the crops [N, S, S] in 0..1 of each image."""
    import tensorflow as tf

    from mrcnn_tf.data.loader import SampleLoader

    loader = SampleLoader(index, config)
    load = tf.function(lambda number: loader.load(number).masks, input_signature=[tf.TensorSpec([], tf.int64)])
    for number in numbers:
        yield load(tf.constant(number, tf.int64)).numpy() / 255.0


def _open_for_pycocotools(config, wanted):
    """(what it is, pycocotools' COCO, {id as training has it: record}) of a json in which it can draw the `wanted`."""
    path = config.annotations
    try:
        coco, records = _open(path)
        for number in wanted:
            coco.annToRLE(records[number])
        return path, coco, records
    except Exception:  # pycocotools raises whatever it runs into
        with tempfile.TemporaryDirectory() as folder:
            repaired = repair(validate(path, config.images), folder)
            return f"{path}, mended by validate --fix", *_open(repaired.files[path])


def _open(path):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(path)
    records = {}
    for position, record in enumerate(coco.dataset["annotations"]):
        records.setdefault(parse_annotation(record, False, position).id, record)
    return coco, records


def _iou(one, other):
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 1.0
