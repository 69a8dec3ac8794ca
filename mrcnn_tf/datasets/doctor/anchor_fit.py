"""Objects whose size or shape no anchor of the config has, once their images are resized as the config says."""

import numpy as np

FEW = 0.25  # of the objects, which is more than COCO has at 800 pixels; below it's only worth a note
FINE = 0.05  # of the objects that may stay too small for the anchors that are proposed


def check_anchors(annotated, model):
    """Adds objects of an `Annotated` that overlap with the best anchor less than the RPN's background_iou.

    An anchor right on the object's centre is taken, so that it's about size and shape alone.

    Args:
        annotated: Annotated.
        model: settings.ModelConfig; `resize` and `rpn` are read.
    """
    checker = annotated.checker
    objects = checker.kept & ~checker.crowd
    if not objects.any():
        return
    sides = (checker.boxes[:, 2:] - checker.boxes[:, :2]) * _scale(checker, model.resize)[:, None]
    sides[~objects] = 1.0
    sizes = np.array(model.rpn.anchor_sizes, np.float64)
    small = objects & (sides.prod(axis=1) < sizes.min() ** 2)
    misfit = _best_iou(sides, sizes, model.rpn) < model.rpn.background_iou
    tiny = small & misfit
    ratio = sides.max(axis=1) / sides.min(axis=1)
    long = objects & misfit & ~tiny & (ratio > 4)
    size = [f"{w:.0f} x {h:.0f}" for w, h in sides.tolist()] if (tiny | long).any() else []
    what = "is {size} pixels in the resized image"
    annotated.note("tiny_object", tiny, what + f"; the smallest anchor is {sizes.min():g}", size=size)
    annotated.note("elongated_object", long, what, size=size)
    if tiny.any():
        _explain_tiny(annotated, model, sides[objects], tiny.sum() / objects.sum())
    if long.any() and long.sum() < FEW * objects.sum():
        annotated.findings.explain("elongated_object", severity="note")


def _scale(checker, resize):
    """[T] by how much each annotation's image is enlarged."""
    short, long = np.minimum(checker.height, checker.width), np.maximum(checker.height, checker.width)
    return np.minimum(resize.min_size / short, resize.max_size / long)


def _best_iou(sides, sizes, rpn):
    """[n]: IoU of boxes of `sides` [n, 2] (width, height) with the best anchor around the same centre."""
    best = np.zeros(len(sides))
    for size in sizes:
        for ratio in rpn.aspect_ratios:
            anchor = size / np.sqrt(ratio), size * np.sqrt(ratio)
            shared = np.minimum(sides, anchor).prod(axis=1)
            best = np.maximum(best, shared / (sides.prod(axis=1) + size**2 - shared))
    return best


def _explain_tiny(annotated, model, sides, part):
    sizes = np.array(model.rpn.anchor_sizes, np.float64)
    middle = float(np.median(np.sqrt(sides.prod(axis=1))))
    resize = model.resize
    summary = (
        f"With model.resize.min_size={resize.min_size} and max_size={resize.max_size} half of the objects have sides "
        f"under {middle:.0f} pixels; the smallest anchor is {sizes.min():g}."
    )
    factor = 2
    while factor < 16 and _misfits(sides, sizes / factor, model.rpn) > FINE:
        factor *= 2
    anchors = ",".join(f"{size / factor:g}" for size in sizes)
    remedy = (
        f"set model.rpn.anchor_sizes=[{anchors}], or enlarge images with "
        f"model.resize.min_size={resize.min_size * factor} and model.resize.max_size={resize.max_size * factor}"
    )
    few = part < FEW
    remedy = f"nothing to do if they don't matter; else {remedy}" if few else remedy
    annotated.findings.explain("tiny_object", summary, "note" if few else None, remedy)


def _misfits(sides, sizes, rpn):
    small = sides.prod(axis=1) < sizes.min() ** 2
    return np.mean(small & (_best_iou(sides, sizes, rpn) < rpn.background_iou))
