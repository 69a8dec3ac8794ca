"""Pictures of what training would teach the model on one image: they need `look(..., ground_truth)`."""

import numpy as np

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.explain.diagnosis import figure as board
from mrcnn_tf.explain.diagnosis.annotated_objects import (
    BELOW_THRESHOLD,
    CUT_OFF,
    DETECTED,
    MERGED,
    MISCLASSIFIED,
    MISPLACED,
    NO_ANCHOR,
    NO_PROPOSAL,
    STATUSES,
    SUPPRESSED,
)
from mrcnn_tf.explain.diagnosis.figure import COLOURS
from mrcnn_tf.ops.matching import BACKGROUND, IGNORED

TRUTH, POSITIVE, UNUSED, NEGATIVE = "#ffffff", COLOURS[2], COLOURS[1], COLOURS[6]


def draw_matches(stages, count=60):
    """The annotated objects, the anchors that learn them, and some of those that are ignored or learn background."""
    _need(stages.matches, "ground_truth")
    anchors = np.concatenate([level.anchors for level in stages.levels])
    matches = stages.matches.matches
    groups = {
        "positive": (np.flatnonzero(matches >= 0), POSITIVE),
        "ignored": (np.flatnonzero(matches == IGNORED), UNUSED),
        "background": (np.flatnonzero(matches == BACKGROUND), NEGATIVE),
    }
    size = stages.image.shape[:2]
    figure, panels = board.make_panels(2, size, side=5.4)
    positive, colour = groups.pop("positive")
    board.draw_image(panels[0], stages.image, f"{len(positive)} anchors learn the {len(stages.truth)} objects", pale=0.25)
    board.draw_boxes(panels[0], anchors[_some(positive, count)], colour, 1.2)
    board.draw_boxes(panels[0], stages.truth.boxes, TRUTH, 2.0)
    board.draw_legend(panels[0], [("#999999", "annotated (white)"), (colour, f"positive: {len(positive):,}")])
    board.draw_image(panels[1], stages.image, "some of the others", pale=0.25)
    for few, (name, (which, colour)) in zip((count, count // 4), groups.items(), strict=True):
        board.draw_boxes(panels[1], anchors[_some(which, few)], colour, 1.0)
        groups[name] = colour, f"{name}: {len(which):,}"
    board.draw_boxes(panels[1], stages.truth.boxes, TRUTH, 2.0)
    board.draw_legend(panels[1], groups.values())
    return board.render(figure)


def draw_sampled_rois(stages, count=60):
    """The RoIs that the heads would learn from: positives in the colour of their class, negatives apart."""
    _need(stages.sampled, "ground_truth")
    sampled, size = stages.sampled, stages.image.shape[:2]
    figure, panels = board.make_panels(2, size, side=5.4)
    classes = np.unique(sampled.classes[sampled.positive])
    board.draw_image(panels[0], stages.image, f"{sampled.positive.sum()} positive RoIs", pale=0.25)
    board.draw_boxes(panels[0], stages.truth.boxes, TRUTH, 2.0)
    entries = [("#999999", "annotated (white)")]
    for place, label in enumerate(classes):
        own = np.flatnonzero(sampled.positive & (sampled.classes == label))
        board.draw_boxes(panels[0], sampled.boxes[own[:count]], COLOURS[place % len(COLOURS)], 1.2)
        entries.append((COLOURS[place % len(COLOURS)], f"{stages.categories[label - 1].name}: {len(own)}"))
    board.draw_legend(panels[0], entries)
    negative = np.flatnonzero(~sampled.positive)
    board.draw_image(panels[1], stages.image, f"{len(negative)} negative RoIs", pale=0.25)
    board.draw_boxes(panels[1], sampled.boxes[negative[:count]], NEGATIVE, 1.0)
    board.draw_legend(panels[1], [(NEGATIVE, f"learn background, {min(count, len(negative))} drawn")])
    return board.render(figure)


def draw_mask_targets(stages, count=8):
    """Positive RoIs, what the mask head should say in each, and what it says of the right class."""
    _need(stages.sampled, "ground_truth")
    _need(stages.sampled.masks, "masks")
    sampled = stages.sampled
    chosen = _spread(sampled.truth[sampled.positive], count)
    figure, panels = board.make_panels(3 * len(chosen), (1, 1), columns=len(chosen), side=1.9)
    for place, roi in enumerate(chosen):
        column = panels[place :: len(chosen)]
        _crop(column[0], stages, roi)
        for axes, values in zip(column[1:], (sampled.mask_targets[roi], sampled.masks[roi]), strict=True):
            axes.imshow(values, vmin=0, vmax=1, cmap="gray", aspect="auto")
            board.hide_axes(axes)
    _row_names(panels[:: len(chosen)], ("RoI", "target", "predicted"))
    return board.render(figure)


def draw_keypoint_targets(stages, count=6):
    """Positive RoIs with the cells that their keypoints lie in, over the heatmaps that the model predicts."""
    _need(stages.sampled, "ground_truth")
    sampled = stages.sampled
    _need(sampled.heatmaps, "keypoints")
    labelled = sampled.keypoint_counts.any(axis=1)
    chosen = _spread(np.where(labelled, sampled.truth[sampled.positive], -1), count)
    figure, panels = board.make_panels(2 * len(chosen), (1, 1), columns=len(chosen), side=2.6)
    for place, roi in enumerate(chosen):
        upper, lower = panels[place], panels[len(chosen) + place]
        _crop(upper, stages, roi)
        points = np.flatnonzero(sampled.keypoint_counts[roi])
        heat = [_probabilities(sampled.heatmaps[roi, point]) for point in points]
        side = sampled.heatmaps.shape[-1]
        lower.imshow(np.max([np.zeros([side, side]), *heat], axis=0), vmin=0, vmax=1, cmap="inferno", aspect="auto")
        board.hide_axes(lower)
        left, top, right, bottom = sampled.boxes[roi]
        for point in points:
            y, x = divmod(int(sampled.keypoint_cells[roi, point]), side)
            style = {"marker": "P", "s": 55, "c": COLOURS[point % len(COLOURS)], "edgecolors": "white"}
            lower.scatter(x, y, **style)
            upper.scatter(left + (x + 0.5) / side * (right - left), top + (y + 0.5) / side * (bottom - top), **style)
    _row_names(panels[:: len(chosen)], ("RoI and targets", "predicted heat"))
    return board.render(figure)


def _probabilities(logits):
    """A heatmap's softmax, its maximum set to 1: over thousands of cells the numbers themselves are tiny."""
    return np.exp(logits - logits.max())


def _crop(axes, stages, roi):
    """The image inside a sampled RoI."""
    sampled = stages.sampled
    left, top, right, bottom = sampled.boxes[roi]
    board.draw_image(axes, stages.image, stages.categories[sampled.classes[roi] - 1].name)
    axes.set_aspect("auto")
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)


def _row_names(first, names):
    for axes, name in zip(first, names, strict=True):
        axes.set_ylabel(name, fontsize=board.TEXT)


def _some(indices, count):
    """Up to `count` of them, evenly spread."""
    return indices[np.linspace(0, max(len(indices) - 1, 0), min(len(indices), count)).round().astype(int)]


def _spread(truth, count):
    """Up to `count` positions of `truth` [p], one of each object first, and so on by turns; those of -1 last."""
    turn = np.array([(truth[:place] == owner).sum() for place, owner in enumerate(truth)])
    return np.lexsort((np.arange(len(truth)), turn, truth < 0))[:count]


def _need(value, what):
    if value is None:
        raise UserError(
            f"This picture needs what look() finds with {what}: give it the image's annotations with {what}."
        )


# The picture of a diagnosis: what became of each annotated object, or the best of what was rejected.
#

STATUS_COLOURS = {
    DETECTED: "#00b27d",
    MERGED: "#56b4e9",
    CUT_OFF: "#145ac8",
    SUPPRESSED: "#e69f00",
    MISCLASSIFIED: "#d55e00",
    BELOW_THRESHOLD: "#f0e442",
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
    figure, panels = board.make_panels(1 + heat, stages.image.shape[:2])
    if stages.truth is not None and diagnosis.objects:
        _draw_fates(panels[0], stages, diagnosis.objects)
    else:
        _draw_boxes(panels[0], stages)
    if heat:
        values = compute_proposal_heatmap(stages)
        board.draw_image(panels[1], stages.image, f"where the {len(stages.proposals.boxes)} proposals lie", pale=0.7)
        drawn = board.draw_heatmap(panels[1], values, stages.image.shape[:2], (0, 1))
        if stages.truth is not None:
            board.draw_boxes(panels[1], stages.truth.boxes, DETECTION, 1.2)
        board.draw_scale_bar(figure, panels[1], drawn, "best objectness of a proposal over the pixel")
    return board.render(figure)


def compute_proposal_heatmap(stages):
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
    counts = {fate: [one for one in objects if one.fate == fate] for fate in STATUSES}
    board.draw_image(axes, stages.image, f"{len(objects)} annotated objects, {len(stages.detections)} detections", pale=0.25)
    board.draw_boxes(axes, stages.detections.boxes, DETECTION, 1.0, "dashed")
    entries = [("#999999", f"detections: {len(stages.detections)} (white)", "dashed")] * bool(len(stages.detections))
    for fate, own in counts.items():
        if own:
            labels = [str(one.number) for one in own] if len(objects) <= TAGGED else []
            board.draw_boxes(axes, [one.box for one in own], STATUS_COLOURS[fate], 2.2, labels=labels)
            entries.append((STATUS_COLOURS[fate], f"{fate}: {len(own)}"))
    # The sentences on what was lost name these.
    for place in sorted({one.detection for one in objects if one.fate != DETECTED and one.detection is not None}):
        left, _, _, bottom = stages.detections.boxes[place]
        board.draw_tag(axes, left, bottom, f"detection {place}", DETECTION)
    board.draw_legend(axes, entries)


def _draw_boxes(axes, stages):
    """Without ground truth: the detections, or the boxes with the best scores that were rejected."""
    detections, names = stages.detections, [category.name for category in stages.categories]
    if len(detections):
        board.draw_image(axes, stages.image, f"{len(detections)} detections")
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
    board.draw_image(axes, stages.image, f"no detection; the best {len(best)} boxes below the threshold", pale=0.25)
    for proposal, label in reversed(list(zip(proposals, classes, strict=True))):
        box, text = stages.classification.boxes[proposal, label], f"{names[label]} {scores[proposal, label]:.3f}"
        board.draw_boxes(axes, [box], COLOURS[label % len(COLOURS)], 1.6, "dashed", [text])
