"""The picture of a diagnosis: what became of each annotated object, or the best of what was rejected."""

import numpy as np

from mrcnn_tf.explain.diagnosis import figure as board
from mrcnn_tf.explain.diagnosis.fates import (
    BELOW,
    CUT_OFF,
    FATES,
    FOUND,
    MERGED,
    MISCLASSIFIED,
    MISPLACED,
    NO_ANCHOR,
    NO_PROPOSAL,
    SUPPRESSED,
)
from mrcnn_tf.explain.diagnosis.figure import COLOURS

FATE_COLOURS = {
    FOUND: "#00b27d",
    MERGED: "#56b4e9",
    CUT_OFF: "#145ac8",
    SUPPRESSED: "#e69f00",
    MISCLASSIFIED: "#d55e00",
    BELOW: "#f0e442",
    MISPLACED: "#cc79a7",
    NO_PROPOSAL: "#c00030",
    NO_ANCHOR: "#303030",
}
DETECTION = "#ffffff"
REJECTED = 10  # boxes drawn where there are no detections
TAGGED = 40  # objects; more tags would hide the image
HEAT_CELLS = 200  # along the longer side


def draw_diagnosis(diagnosis, heat=True):
    """See `Diagnosis.draw`."""
    stages = diagnosis.stages
    figure, panels = board.panels(1 + heat, stages.image.shape[:2])
    if stages.truth is not None and diagnosis.objects:
        _draw_fates(panels[0], stages, diagnosis.objects)
    else:
        _draw_boxes(panels[0], stages)
    if heat:
        values = proposal_heat(stages)
        board.show(panels[1], stages.image, f"where the {len(stages.proposals.boxes)} proposals lie", pale=0.7)
        drawn = board.heat(panels[1], values, stages.image.shape[:2], (0, 1))
        if stages.truth is not None:
            board.draw_boxes(panels[1], stages.truth.boxes, DETECTION, 1.2)
        board.scale_bar(figure, panels[1], drawn, "best objectness of a proposal over the pixel")
    return board.picture(figure)


def proposal_heat(stages):
    """[h, w] float32: at each place of the image the objectness of the best small proposal over it.

    A proposal fades from its middle to its border, so that large ones don't cover all.
    """
    height, width = stages.image.shape[:2]
    step = max(height, width) / HEAT_CELLS
    x, y = (np.arange(max(1, int(length / step))) * step + step / 2 for length in (width, height))
    values = np.zeros([len(y), len(x)], np.float32)
    for (left, top, right, bottom), objectness in zip(stages.proposals.boxes, stages.proposals.objectness, strict=True):
        across = 1 - np.abs(2 * x - left - right) / max(right - left, step)
        down = 1 - np.abs(2 * y - top - bottom) / max(bottom - top, step)
        columns, rows = np.flatnonzero(across > 0), np.flatnonzero(down > 0)
        if len(rows) and len(columns):
            part = np.ix_(rows, columns)
            values[part] = np.maximum(values[part], objectness * np.minimum.outer(down[rows], across[columns]))
    return values


def _draw_fates(axes, stages, objects):
    counts = {fate: [one for one in objects if one.fate == fate] for fate in FATES}
    board.show(axes, stages.image, f"{len(objects)} annotated objects, {len(stages.detections)} detections", pale=0.25)
    board.draw_boxes(axes, stages.detections.boxes, DETECTION, 1.0, "dashed")
    entries = [("#999999", f"detections: {len(stages.detections)} (white)", "dashed")] * bool(len(stages.detections))
    for fate, own in counts.items():
        if own:
            labels = [str(one.number) for one in own] if len(objects) <= TAGGED else []
            board.draw_boxes(axes, [one.box for one in own], FATE_COLOURS[fate], 2.2, labels=labels)
            entries.append((FATE_COLOURS[fate], f"{fate}: {len(own)}"))
    # The sentences on what was lost name these.
    for place in sorted({one.detection for one in objects if one.fate != FOUND and one.detection is not None}):
        left, _, _, bottom = stages.detections.boxes[place]
        board.tag(axes, left, bottom, f"detection {place}", DETECTION)
    board.legend(axes, entries)


def _draw_boxes(axes, stages):
    """Without ground truth: the detections, or the boxes with the best scores that were rejected."""
    detections, names = stages.detections, [category.name for category in stages.categories]
    if len(detections):
        board.show(axes, stages.image, f"{len(detections)} detections")
        labels = [
            f"{name} {score:.2f}" for name, score in zip(detections.category_names, detections.scores, strict=True)
        ]
        for place in reversed(range(len(detections))):
            colour = COLOURS[(detections.classes[place] - 1) % len(COLOURS)]
            board.draw_boxes(
                axes, detections.boxes[place : place + 1], colour, 1.6, labels=[labels[place]][: place < TAGGED]
            )
        return
    scores = np.nan_to_num(stages.classification.probabilities[:, 1:])
    best = np.argsort(-scores, axis=None, kind="stable")[:REJECTED]
    proposals, classes = np.unravel_index(best, scores.shape)
    board.show(axes, stages.image, f"no detection; the best {len(best)} boxes below the threshold", pale=0.25)
    for proposal, label in reversed(list(zip(proposals, classes, strict=True))):
        box, text = stages.classification.boxes[proposal, label], f"{names[label]} {scores[proposal, label]:.3f}"
        board.draw_boxes(axes, [box], COLOURS[label % len(COLOURS)], 1.6, "dashed", [text])
