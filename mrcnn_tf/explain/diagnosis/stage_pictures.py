"""A picture of each stage of a model on one image: every function takes `Stages` and gives a PIL.Image.

Only some of thousands of boxes are drawn, the best ones; the titles say how many there are.
"""

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import LinearSegmentedColormap

from mrcnn_tf.explain.diagnosis import figure as board
from mrcnn_tf.explain.diagnosis.checks import compute_class_scores
from mrcnn_tf.explain.diagnosis.figure import COLOURS
from mrcnn_tf.explain.diagnosis.target_pictures import (
    draw_keypoint_targets,
    draw_mask_targets,
    draw_matches,
    draw_sampled_rois,
)

CLASSES = 20  # in a chart
SCORES = LinearSegmentedColormap.from_list("scores", colormaps["plasma"](np.linspace(0.3, 1, 64)))  # none is dark


def draw_input(stages):
    """The image as it is beside the image as the network gets it: resized, and padded at the right and the bottom."""
    padded = stages.network_input.shape[:2]
    figure, (left, right) = board.make_panels(2, padded)
    height, width = stages.image.shape[:2]
    board.draw_image(left, stages.image, f"original: {width} x {height} pixels")
    h, w = stages.input_size
    board.draw_image(right, stages.network_input, f"network's input: {w} x {h} pixels in {padded[1]} x {padded[0]}")
    board.draw_boxes(right, [[0, 0, w, h]], COLOURS[1], style="dashed")
    board.draw_legend(right, [(COLOURS[1], "the image; what lies beyond is padding", "dashed")])
    return board.render(figure)


def draw_anchors(stages):
    """The anchors of one cell of each level, in the middle of the image."""
    figure, (axes,) = board.make_panels(1, stages.image.shape[:2])
    board.draw_image(axes, stages.image, f"{sum(len(level.anchors) for level in stages.levels):,} anchors, of one cell each:")
    entries, boxes = [], [_middle_anchors(level) for level in stages.levels]
    for place, (level, anchors) in enumerate(zip(stages.levels, boxes, strict=True)):
        board.draw_boxes(axes, anchors, COLOURS[place % len(COLOURS)])
        sides = np.sqrt((anchors[:, 2:] - anchors[:, :2]).prod(axis=1))
        span = f"{sides.min():.0f}" + f"-{sides.max():.0f}" * bool(sides.max() > 1.1 * sides.min())
        text = f"{level.name}: {level.cells[1]} x {level.cells[0]} cells, {len(anchors)} anchors of {span} px"
        entries.append((COLOURS[place % len(COLOURS)], text))
    reach = np.concatenate(boxes)
    axes.set_xlim(min(0, reach[:, 0].min() - 2), max(stages.image.shape[1], reach[:, 2].max() + 2))
    axes.set_ylim(max(stages.image.shape[0], reach[:, 3].max() + 2), min(0, reach[:, 1].min() - 2))
    board.draw_legend(axes, entries, columns=2)
    return board.render(figure)


def _middle_anchors(level):
    rows, columns = level.cells
    per_cell = len(level.anchors) // (rows * columns)
    first = (rows // 2 * columns + columns // 2) * per_cell
    return level.anchors[first : first + per_cell]


def draw_objectness(stages):
    """The RPN's objectness on each level, of the best anchor of each cell."""
    size = stages.image.shape[:2]
    figure, panels = board.make_panels(len(stages.levels), size, columns=3, side=3.6)
    drawn = None
    for axes, level in zip(panels, stages.levels, strict=True):
        values = np.nan_to_num(level.objectness).reshape(*level.cells, -1).max(axis=-1)
        board.draw_image(axes, stages.image, f"{level.name}: best {values.max():.2f}", pale=0.7)
        drawn = board.draw_heatmap(axes, values, _covered(stages, level), (0, 1))
        axes.set_xlim(0, size[1])
        axes.set_ylim(size[0], 0)
    board.draw_scale_bar(figure, panels[min(2, len(panels) - 1)], drawn, "objectness")
    return board.render(figure)


def _covered(stages, level):
    """(H, W) of a level's cells in pixels of the original image; padding makes it larger than the image."""
    scale = np.array(stages.image.shape[:2]) / stages.input_size
    return tuple(np.array(level.cells) * level.stride * scale)


def draw_proposals(stages, count=50):
    """The RPN's best candidates before suppression, beside the best proposals after it, coloured by objectness."""
    candidates, proposals = stages.candidates, stages.proposals
    figure, panels = board.make_panels(2, stages.image.shape[:2], side=5.4)
    order = np.argsort(-np.where(candidates.usable, candidates.objectness, -1), kind="stable")
    order = order[: min(count, int(candidates.usable.sum()))]
    titles = (
        f"{candidates.usable.sum():,} candidates, the best {len(order)}",
        f"{len(proposals.boxes):,} proposals after NMS, the best {min(count, len(proposals.boxes))}",
    )
    boxes = candidates.boxes[order], proposals.boxes[:count]
    scores = candidates.objectness[order], proposals.objectness[:count]
    _scored_panels(figure, panels, stages, titles, boxes, scores, "objectness")
    return board.render(figure)


def _scored_panels(figure, panels, stages, titles, boxes, scores, what):
    """Boxes coloured by their scores in each panel, the best on top, and one colour bar."""
    known = np.concatenate(scores)
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    low = min(low, high - 0.05)
    drawn = None
    for axes, title, own, values in zip(panels, titles, boxes, scores, strict=True):
        board.draw_image(axes, stages.image, title, pale=0.35)
        for place in np.argsort(values, kind="stable"):
            colour = SCORES((values[place] - low) / (high - low))
            board.draw_boxes(axes, own[place : place + 1], colour, 1.3, rim="black")
        drawn = axes.scatter([], [], c=[], cmap=SCORES, vmin=low, vmax=high)
    board.draw_scale_bar(figure, panels[-1], drawn, what)


def draw_levels(stages, count=12):
    """The best proposals of each level: of each map that the box head's features are cut from."""
    proposals = stages.proposals
    figure, (axes,) = board.make_panels(1, stages.image.shape[:2])
    board.draw_image(axes, stages.image, f"the best {count} proposals of each level that they are pooled from", pale=0.35)
    entries = []
    for place, level in enumerate(stages.levels):
        own = np.flatnonzero(proposals.pooled_from == place)
        if len(own):
            board.draw_boxes(axes, proposals.boxes[own[:count]], COLOURS[place % len(COLOURS)], 1.2)
            entries.append((COLOURS[place % len(COLOURS)], f"{level.name}: {len(own)} of {len(proposals.boxes)}"))
    board.draw_legend(axes, entries)
    return board.render(figure)


def draw_samples(stages):
    """The bins of a few RoIs and where in them the map is sampled, each RoI enlarged."""
    if not stages.samples:
        figure, (axes,) = board.make_panels(1, stages.image.shape[:2])
        board.draw_image(axes, stages.image, "no proposal to sample")
        return board.render(figure)
    figure, panels = board.make_panels(len(stages.samples), (1, 1), columns=3, side=3.8)
    for axes, roi in zip(panels, stages.samples, strict=True):
        (width, height), bins = roi.box[2:] - roi.box[:2], len(roi.edges_x) - 1
        board.draw_image(axes, stages.image, f"{roi.level}: {width:.0f} x {height:.0f} pixels, {bins} x {bins} bins")
        lines = [((x, roi.edges_y[0]), (x, roi.edges_y[-1])) for x in roi.edges_x]
        lines += [((roi.edges_x[0], y), (roi.edges_x[-1], y)) for y in roi.edges_y]
        axes.add_collection(board.LineCollection(lines, colors="white", linewidths=0.8, alpha=0.8))
        x, y = np.meshgrid(roi.x, roi.y)
        axes.scatter(x, y, s=9, c=COLOURS[1], edgecolors="black", linewidths=0.4)
        board.draw_boxes(axes, [roi.box], COLOURS[0])
        _zoom(axes, roi.box)
    board.draw_legend(panels[-1], [(COLOURS[0], "RoI"), (COLOURS[1], "samples"), ("#cccccc", "bins")])
    return board.render(figure)


def _zoom(axes, box, margin=0.2):
    """Shows a square around a box."""
    centre, side = (box[:2] + box[2:]) / 2, (1 + 2 * margin) * max(box[2] - box[0], box[3] - box[1], 2) / 2
    axes.set_facecolor("#dddddd")
    axes.set_xlim(centre[0] - side, centre[0] + side)
    axes.set_ylim(centre[1] + side, centre[1] - side)


def draw_class_scores(stages):
    """The best score of each class over all proposals, against the threshold."""
    rows = compute_class_scores(stages)[:CLASSES]
    figure = board.Figure(figsize=(6.4, 0.9 + 0.28 * len(rows)), facecolor="white")
    axes = figure.add_subplot()
    threshold = stages.limits.score_threshold
    scores = [row.best_score or 0 for row in rows]
    colours = [COLOURS[2] if score > threshold else COLOURS[5] for score in scores]
    axes.barh(range(len(rows)), scores, color=colours, height=0.7)
    axes.axvline(threshold, color="black", linewidth=1, linestyle="dashed")
    for place, (row, score) in enumerate(zip(rows, scores, strict=True)):
        text = f" {score:.3f}, {row.above_threshold} above, {row.detections} detected"
        axes.text(score, place, text, va="center", fontsize=board.TEXT - 1)
    axes.set_yticks(range(len(rows)), [row.category for row in rows], fontsize=board.TEXT)
    axes.set_xlim(0, 1.35 * max([*scores, threshold, 1e-3]))
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= 1])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    more = f", the best {len(rows)} of {len(stages.categories)} classes" if len(stages.categories) > len(rows) else ""
    title = f"best score of each class{more} (dashed: threshold {threshold:g})"
    axes.set_title(title, fontsize=board.TEXT + 1, loc="left")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return board.render(figure)


def draw_boxes(stages, count=50):
    """The boxes above the threshold before suppression within their class, beside the detections that it leaves."""
    found, classes = stages.classification, len(stages.categories)
    usable = np.flatnonzero(found.usable.ravel())
    scores = found.probabilities[:, 1:].ravel()
    best = usable[np.argsort(-scores[usable], kind="stable")][:count]
    figure, panels = board.make_panels(3, stages.image.shape[:2], side=4.6)
    left, *others = panels
    board.draw_image(left, stages.image, f"the {len(set(best // classes))} proposals behind the boxes", pale=0.35)
    board.draw_boxes(left, stages.proposals.boxes[sorted(set(best // classes))], COLOURS[0], 1.1)
    titles = (
        f"{len(usable)} boxes above {stages.limits.score_threshold:g}, the best {len(best)}",
        f"{len(stages.detections)} after NMS, the detections",
    )
    boxes = found.boxes.reshape(-1, 4)[best], stages.detections.boxes[:count]
    _scored_panels(figure, others, stages, titles, boxes, (scores[best], stages.detections.scores[:count]), "score")
    return board.render(figure)


def draw_detections(stages, min_score=0.0):
    """The detections, as `Detections.draw` has them."""
    return board.Image.fromarray(stages.detections.draw(stages.image, min_score))


def draw_activations(stages):
    """Each map of the backbone and the pyramid: how strongly its cells respond, and their features as colours.

    Cells of like colour have like features: the three principal components of each map's channels are its red, green
    and blue.
    """
    groups = [[one for one in stages.maps if one.name.startswith(letter)] for letter in "CP"]
    groups = [group for group in groups if group]
    columns = max(map(len, groups))
    figure, panels = board.make_panels(2 * len(groups) * columns, stages.network_input.shape[:2], columns, side=2.6)
    for row, group in enumerate(groups):
        for place in range(columns):
            upper, lower = panels[2 * row * columns + place], panels[(2 * row + 1) * columns + place]
            if place >= len(group):
                upper.remove()
                lower.remove()
                continue
            one = group[place]
            upper.imshow(np.nan_to_num(one.strength), cmap="inferno")
            board.hide_axes(upper, f"{one.name}, {one.strength.shape[1]} x {one.strength.shape[0]}: strength")
            lower.imshow(one.colours)
            board.hide_axes(lower, "principal components")
    return board.render(figure)


def draw_all_stages(stages):
    """{name: PIL.Image} of every stage that there is something to show of, in the order of the computation."""
    pictures = {"input": draw_input(stages), "activations": draw_activations(stages), "anchors": draw_anchors(stages)}
    if stages.truth is not None:
        pictures["matches"] = draw_matches(stages)
    pictures |= {
        "objectness": draw_objectness(stages),
        "proposals": draw_proposals(stages),
        "levels": draw_levels(stages),
        "samples": draw_samples(stages),
        "class_scores": draw_class_scores(stages),
        "boxes": draw_boxes(stages),
        "detections": draw_detections(stages),
    }
    if stages.sampled is not None:
        pictures["sampled_rois"] = draw_sampled_rois(stages)
        if stages.sampled.masks is not None:
            pictures["mask_targets"] = draw_mask_targets(stages)
        if stages.sampled.heatmaps is not None:
            pictures["keypoint_targets"] = draw_keypoint_targets(stages)
    return pictures
