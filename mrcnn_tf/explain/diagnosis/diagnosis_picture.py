"""The picture of a diagnosis: what became of each annotated object, or the best of what was rejected."""

import numpy as np

from mrcnn_tf.explain.diagnosis import figure as board
from mrcnn_tf.explain.diagnosis import lost_objects
from mrcnn_tf.explain.diagnosis.figure import WHITE_KEY, cycle_colour

STATUS_COLOURS = {
    lost_objects.DETECTED: "#00b27d",
    lost_objects.MERGED: "#56b4e9",
    lost_objects.CUT_OFF: "#145ac8",
    lost_objects.SUPPRESSED: "#e69f00",
    lost_objects.MISCLASSIFIED: "#d55e00",
    lost_objects.BELOW_THRESHOLD: "#f0e442",
    lost_objects.MISPLACED: "#cc79a7",
    lost_objects.NO_PROPOSAL: "#c00030",
    lost_objects.NO_ANCHOR: "#303030",
}
WHITE = "#ffffff"  # of detections beside coloured objects
MAX_REJECTED = 10  # boxes drawn where there are no detections
MAX_TAGS = 40  # more would hide the image
HEATMAP_CELLS = 200  # along the longer side


def draw_diagnosis(diagnosis, heat=True):
    """See `Diagnosis.draw`."""
    stages = diagnosis.stages
    figure, panels = board.make_panels(1 + heat, stages.image.shape[:2])
    if diagnosis.objects:
        _draw_objects(panels[0], stages, diagnosis.objects)
    elif len(stages.detections):
        _draw_detections(panels[0], stages)
    else:
        _draw_rejected(panels[0], stages)
    if heat:
        title = f"where the {len(stages.proposals.boxes)} proposals lie"
        board.draw_image(panels[1], stages.image, title, pale=0.7)
        heatmap = board.draw_heatmap(panels[1], compute_proposal_heatmap(stages), stages.image.shape[:2])
        if stages.truth is not None:
            board.draw_boxes(panels[1], stages.truth.boxes, WHITE, 1.2)
        board.draw_scale_bar(figure, panels[1], heatmap, "best objectness of a proposal over the pixel")
    return board.render(figure)


def compute_proposal_heatmap(stages):
    """[h, w] float32: at each place of the image the objectness of the best small proposal over it.

    A proposal fades from its middle to its border, so that large ones don't cover all.
    """
    height, width = stages.image.shape[:2]
    step = max(height, width) / HEATMAP_CELLS
    x, y = (np.arange(max(1, int(length / step))) * step + step / 2 for length in (width, height))
    values = np.zeros([len(y), len(x)], np.float32)
    for (left, top, right, bottom), objectness in zip(stages.proposals.boxes, stages.proposals.objectness, strict=True):
        across = 1 - np.abs(2 * x - left - right) / max(right - left, step)
        down = 1 - np.abs(2 * y - top - bottom) / max(bottom - top, step)
        inside = np.ix_(np.flatnonzero(down > 0), np.flatnonzero(across > 0))
        faded = objectness * np.minimum.outer(down[down > 0], across[across > 0])
        values[inside] = np.maximum(values[inside], faded)
    return values


def _draw_objects(axes, stages, objects):
    detections = stages.detections
    board.draw_image(axes, stages.image, f"{len(objects)} annotated objects, {len(detections)} detections", pale=0.25)
    board.draw_boxes(axes, detections.boxes, WHITE, 1.0, "dashed")
    entries = [(WHITE_KEY, f"detections: {len(detections)} (white)", "dashed")] * bool(len(detections))
    for status, colour in STATUS_COLOURS.items():
        group = [obj for obj in objects if obj.status == status]
        if group:
            labels = [str(obj.number) for obj in group] if len(objects) <= MAX_TAGS else []
            board.draw_boxes(axes, [obj.box for obj in group], colour, 2.2, labels=labels)
            entries.append((colour, f"{status}: {len(group)}"))
    # The sentences on lost objects name these.
    lost = [obj for obj in objects if obj.status != lost_objects.DETECTED]
    for detection in sorted({obj.detection for obj in lost if obj.detection is not None}):
        left, _, _, bottom = detections.boxes[detection]
        board.draw_tag(axes, left, bottom, f"detection {detection}", WHITE)
    board.draw_legend(axes, entries)


def _draw_detections(axes, stages):
    detections = stages.detections
    board.draw_image(axes, stages.image, f"{len(detections)} detections")
    for index in reversed(range(len(detections))):  # the best on top
        colour = cycle_colour(detections.classes[index] - 1)
        labels = [detections.label(index)][: index < MAX_TAGS]
        board.draw_boxes(axes, detections.boxes[index : index + 1], colour, 1.6, labels=labels)


def _draw_rejected(axes, stages):
    """The boxes with the best scores below the threshold."""
    scores = np.nan_to_num(stages.classification.probabilities[:, 1:])
    best = np.argsort(-scores, axis=None, kind="stable")[:MAX_REJECTED]
    board.draw_image(axes, stages.image, f"no detection; the best {len(best)} boxes below the threshold", pale=0.25)
    for proposal, label in reversed(list(zip(*np.unravel_index(best, scores.shape), strict=True))):
        text = f"{stages.categories[label].name} {scores[proposal, label]:.3f}"
        box = stages.classification.boxes[proposal, label]
        board.draw_boxes(axes, [box], cycle_colour(label), 1.6, "dashed", [text])
