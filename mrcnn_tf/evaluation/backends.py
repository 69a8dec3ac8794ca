"""Who does the counting of COCO's protocol: pycocotools, the reference, or hotcoco, which gives the same sooner."""

import contextlib
import io
import warnings

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mrcnn_tf.common.errors import UserError

BACKENDS = ("pycocotools", "hotcoco")


def check_backend(name):
    """Raises UserError for a backend that doesn't exist or isn't installed."""
    if name not in BACKENDS:
        raise UserError(f"There is no COCO backend '{name}': choose one of {', '.join(BACKENDS)}.")
    if name == "hotcoco":
        _import_hotcoco()


def run_backend(name, kind, truth, detections, image_ids, category_ids, sigmas=None):
    """A finished COCOeval, summarized by pycocotools whoever counted.

    Args:
        name: one of `BACKENDS`.
        kind: "bbox", "segm" or "keypoints".
        truth, detections: COCO datasets as dicts of images, categories and annotations; the annotations are written to.
        image_ids, category_ids: those to evaluate.
        sigmas: [P] float64 of keypoints.
    """
    check_backend(name)
    with contextlib.redirect_stdout(io.StringIO()):
        sides = [_index(truth), _index(detections)] if name == "pycocotools" else [None, None]
        evaluation = COCOeval(*sides, kind)
        evaluation.params.imgIds = sorted(set(image_ids))
        evaluation.params.catIds = sorted(set(category_ids))
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = sigmas
        if name == "pycocotools":
            evaluation.evaluate()
            evaluation.accumulate()
        else:
            evaluation.eval = _hotcoco(truth, detections, evaluation.params)
        evaluation.summarize()
    return evaluation


def _index(dataset):
    """A COCO object without a file. COCO.loadRes would do for detections, but fails where there are none."""
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco


def _hotcoco(truth, detections, params):
    """{"precision", "recall"} as COCOeval.accumulate has them."""
    hotcoco = _import_hotcoco()
    evaluation = hotcoco.COCOeval(hotcoco.COCO(truth), hotcoco.COCO(detections), params.iouType)
    evaluation.params.imgIds = [int(i) for i in params.imgIds]
    evaluation.params.catIds = [int(i) for i in params.catIds]
    if params.iouType == "keypoints":
        evaluation.params.kpt_oks_sigmas = params.kpt_oks_sigmas.tolist()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "hotcoco: kpt_oks_sigmas differ")  # they are meant to
        evaluation.evaluate()
        evaluation.accumulate()
    return {name: np.asarray(evaluation.eval[name]) for name in ("precision", "recall")}


def _import_hotcoco():
    try:
        import hotcoco
    except ImportError as error:
        raise UserError(
            "COCO figures by hotcoco need a package that isn't there: pip install 'mrcnn-tf[coco]', or set "
            "data.val.coco_backend=pycocotools."
        ) from error
    return hotcoco
