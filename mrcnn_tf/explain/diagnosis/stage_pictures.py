"""A picture of each stage of a model on one image: every function takes `Stages` and gives a PIL.Image.

Only some of thousands of boxes are drawn, the best ones; the titles say how many there are. Pictures of what training
would teach the model need `compute_stages(..., ground_truth)`.
"""

import numpy as np
from matplotlib import colormaps
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.explain.diagnosis import figure as board
from mrcnn_tf.explain.diagnosis.diagnosis_checks import compute_class_scores
from mrcnn_tf.explain.diagnosis.figure import COLOURS, FONT_SIZE, WHITE_KEY, cycle_colour
from mrcnn_tf.ops.matching import BACKGROUND, IGNORED

MAX_CLASSES = 20  # in a chart
# Without the darkest colours, which would not show.
SCORES = LinearSegmentedColormap.from_list("scores", colormaps["plasma"](np.linspace(0.3, 1, 64)))
TRUTH, POSITIVE, UNUSED, NEGATIVE = "#ffffff", COLOURS[2], COLOURS[1], COLOURS[6]
MAX_TRAINING_BOXES = 60  # of one kind in a picture of what training uses


def draw_all_stages(stages):
    """{name: PIL.Image} of every stage that there is something to show of, in the order of the computation."""
    pictures = {
        "input": draw_input(stages),
        "feature_maps": draw_feature_maps(stages),
        "anchors": draw_anchors(stages),
    }
    if stages.truth is not None:
        pictures["anchor_matches"] = draw_anchor_matches(stages)
    pictures |= {"objectness": draw_objectness(stages), "proposals": draw_proposals(stages)}
    if stages.proposals.pooled_from is not None:
        pictures |= {"proposal_levels": draw_proposal_levels(stages), "roi_bins": draw_roi_bins(stages)}
    pictures |= {
        "class_scores": draw_class_scores(stages),
        "class_boxes": draw_class_boxes(stages),
        "detections": draw_detections(stages),
    }
    if stages.training_rois is not None:
        pictures["training_rois"] = draw_training_rois(stages)
        if "predicted_masks" in stages.training_rois.examples:
            pictures["mask_targets"] = draw_mask_targets(stages)
        if "heatmaps" in stages.training_rois.examples:
            pictures["keypoint_targets"] = draw_keypoint_targets(stages)
    return pictures


def draw_input(stages):
    """The image as it is beside the image as the network gets it: resized, and padded at the right and the bottom."""
    padded = stages.network_input.shape[:2]
    figure, (left, right) = board.make_panels(2, padded)
    height, width = stages.image.shape[:2]
    board.draw_image(left, stages.image, f"original: {width} x {height} pixels")
    h, w = stages.input_size
    title = f"network's input: {w} x {h} pixels in {padded[1]} x {padded[0]}"
    board.draw_image(right, stages.network_input, title)
    board.draw_boxes(right, [[0, 0, w, h]], COLOURS[1], style="dashed")
    board.draw_legend(right, [(COLOURS[1], "the image; what lies beyond is padding", "dashed")])
    return board.render(figure)


def draw_feature_maps(stages):
    """Each map of the backbone and the pyramid: how strongly its cells respond, and their features as colours.

    Cells of like colour have like features: the three principal components of each map's channels are its red, green
    and blue.
    """
    groups = []
    for level in stages.feature_maps:
        if not groups or level.strength.size > groups[-1][-1].strength.size:  # after C5 comes P2
            groups.append([])
        groups[-1].append(level)
    columns = max(map(len, groups))
    figure, panels = board.make_panels(2 * len(groups) * columns, stages.network_input.shape[:2], columns, side=2.6)
    grid = np.array(panels).reshape(len(groups), 2, columns)
    for (upper_row, lower_row), group in zip(grid, groups, strict=True):
        for upper, lower, level in zip(upper_row, lower_row, group, strict=False):
            upper.imshow(np.nan_to_num(level.strength), cmap="inferno")
            board.hide_axes(upper, f"{level.name}, {level.strength.shape[1]} x {level.strength.shape[0]}: strength")
            lower.imshow(level.colours)
            board.hide_axes(lower, "principal components")
        for axes in (*upper_row[len(group) :], *lower_row[len(group) :]):
            axes.remove()
    return board.render(figure)


def draw_anchors(stages):
    """The anchors of one cell of each level, in the middle of the image."""
    figure, (axes,) = board.make_panels(1, stages.image.shape[:2])
    count = sum(len(level.anchors) for level in stages.levels)
    board.draw_image(axes, stages.image, f"{count:,} anchors, of one cell each:")
    entries, boxes = [], [_middle_anchors(level) for level in stages.levels]
    for index, (level, anchors) in enumerate(zip(stages.levels, boxes, strict=True)):
        board.draw_boxes(axes, anchors, cycle_colour(index))
        sides = np.sqrt((anchors[:, 2:] - anchors[:, :2]).prod(axis=1))
        span = f"{sides.min():.0f}" + f"-{sides.max():.0f}" * bool(sides.max() > 1.1 * sides.min())
        text = f"{level.name}: {level.cells[1]} x {level.cells[0]} cells, {len(anchors)} anchors of {span} px"
        entries.append((cycle_colour(index), text))
    (left, top), (right, bottom) = np.concatenate(boxes)[:, :2].min(axis=0), np.concatenate(boxes)[:, 2:].max(axis=0)
    height, width = stages.image.shape[:2]
    board.show_region(axes, min(0, left - 2), min(0, top - 2), max(width, right + 2), max(height, bottom + 2))
    board.draw_legend(axes, entries, columns=2)
    return board.render(figure)


def _middle_anchors(level):
    rows, columns = level.cells
    per_cell = len(level.anchors) // (rows * columns)
    first = (rows // 2 * columns + columns // 2) * per_cell
    return level.anchors[first : first + per_cell]


def draw_anchor_matches(stages):
    """The annotated objects, the anchors that learn them, and some of those that are ignored or learn background."""
    _require(stages.anchor_matches, "ground_truth")
    anchors, matches = np.concatenate([level.anchors for level in stages.levels]), stages.anchor_matches.matches
    figure, (left, right) = board.make_panels(2, stages.image.shape[:2], side=5.4)
    positive = np.flatnonzero(matches >= 0)
    title = f"{len(positive)} anchors learn the {len(stages.truth)} objects"
    board.draw_image(left, stages.image, title, pale=0.25)
    board.draw_boxes(left, anchors[_thin_out(positive, MAX_TRAINING_BOXES)], POSITIVE, 1.2)
    board.draw_boxes(left, stages.truth.boxes, TRUTH, 2.0)
    board.draw_legend(left, [(WHITE_KEY, "annotated (white)"), (POSITIVE, f"positive: {len(positive):,}")])
    board.draw_image(right, stages.image, "some of the others", pale=0.25)
    entries = []
    for name, value, colour, count in (
        ("ignored", IGNORED, UNUSED, MAX_TRAINING_BOXES),
        ("background", BACKGROUND, NEGATIVE, MAX_TRAINING_BOXES // 4),
    ):
        indices = np.flatnonzero(matches == value)
        board.draw_boxes(right, anchors[_thin_out(indices, count)], colour, 1.0)
        entries.append((colour, f"{name}: {len(indices):,}"))
    board.draw_boxes(right, stages.truth.boxes, TRUTH, 2.0)
    board.draw_legend(right, entries)
    return board.render(figure)


def _thin_out(indices, count):
    """Up to `count` of them, evenly spread."""
    return indices[np.linspace(0, max(len(indices) - 1, 0), min(len(indices), count)).round().astype(int)]


def draw_objectness(stages):
    """The RPN's objectness on each level, of the best anchor of each cell."""
    height, width = stages.image.shape[:2]
    pixels = np.array([height, width]) / stages.input_size  # of the original image per pixel of the input
    figure, panels = board.make_panels(len(stages.levels), (height, width), columns=3, side=3.6)
    for axes, level in zip(panels, stages.levels, strict=True):
        values = np.nan_to_num(level.objectness).reshape(*level.cells, -1).max(axis=-1)
        board.draw_image(axes, stages.image, f"{level.name}: best {values.max():.2f}", pale=0.7)
        # The cells of padding lie beyond the image.
        heatmap = board.draw_heatmap(axes, values, np.array(level.cells) * level.stride * pixels)
        board.show_region(axes, 0, 0, width, height)
    board.draw_scale_bar(figure, panels[min(2, len(panels) - 1)], heatmap, "objectness")
    return board.render(figure)


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
    _draw_scored_boxes(figure, panels, stages.image, titles, boxes, scores, "objectness")
    return board.render(figure)


def _draw_scored_boxes(figure, panels, image, titles, boxes, scores, label):
    """Boxes coloured by their scores in each panel, the best on top, and one colour bar."""
    all_scores = np.concatenate(scores)
    low, high = (float(all_scores.min()), float(all_scores.max())) if len(all_scores) else (0.0, 1.0)
    low = min(low, high - 0.05)
    for axes, title, panel_boxes, panel_scores in zip(panels, titles, boxes, scores, strict=True):
        board.draw_image(axes, image, title, pale=0.35)
        for index in np.argsort(panel_scores, kind="stable"):
            colour = SCORES((panel_scores[index] - low) / (high - low))
            board.draw_boxes(axes, panel_boxes[index : index + 1], colour, 1.3, rim="black")
        mappable = axes.scatter([], [], c=[], cmap=SCORES, vmin=low, vmax=high)
    board.draw_scale_bar(figure, panels[-1], mappable, label)


def draw_proposal_levels(stages, count=12):
    """The best proposals of each level: of each map that the box head's features are cut from."""
    proposals = stages.proposals
    _require_roi_layer(stages)
    figure, (axes,) = board.make_panels(1, stages.image.shape[:2])
    title = f"the best {count} proposals of each level that they are pooled from"
    board.draw_image(axes, stages.image, title, pale=0.35)
    entries = []
    for index, level in enumerate(stages.levels):
        pooled = np.flatnonzero(proposals.pooled_from == index)
        if len(pooled):
            board.draw_boxes(axes, proposals.boxes[pooled[:count]], cycle_colour(index), 1.2)
            entries.append((cycle_colour(index), f"{level.name}: {len(pooled)} of {len(proposals.boxes)}"))
    board.draw_legend(axes, entries)
    return board.render(figure)


def draw_training_rois(stages):
    """The RoIs that the heads would learn from: positives in the colour of their class, negatives apart."""
    _require(stages.training_rois, "ground_truth")
    rois, count = stages.training_rois, MAX_TRAINING_BOXES
    figure, (left, right) = board.make_panels(2, stages.image.shape[:2], side=5.4)
    board.draw_image(left, stages.image, f"{rois.positive.sum()} positive RoIs", pale=0.25)
    board.draw_boxes(left, stages.truth.boxes, TRUTH, 2.0)
    entries = [(WHITE_KEY, "annotated (white)")]
    for index, label in enumerate(np.unique(rois.classes[rois.positive])):
        of_class = np.flatnonzero(rois.positive & (rois.classes == label))
        board.draw_boxes(left, rois.boxes[of_class[:count]], cycle_colour(index), 1.2)
        entries.append((cycle_colour(index), f"{stages.categories[label - 1].name}: {len(of_class)}"))
    board.draw_legend(left, entries)
    negative = np.flatnonzero(~rois.positive)
    board.draw_image(right, stages.image, f"{len(negative)} negative RoIs", pale=0.25)
    board.draw_boxes(right, rois.boxes[negative[:count]], NEGATIVE, 1.0)
    board.draw_legend(right, [(NEGATIVE, f"learn background, {min(count, len(negative))} drawn")])
    return board.render(figure)


def draw_roi_bins(stages):
    """The bins of a few RoIs and where in them the map is sampled, each RoI enlarged."""
    _require_roi_layer(stages)
    if not stages.roi_bins:
        figure, (axes,) = board.make_panels(1, stages.image.shape[:2])
        board.draw_image(axes, stages.image, "no proposal to sample")
        return board.render(figure)
    figure, panels = board.make_panels(len(stages.roi_bins), (1, 1), columns=3, side=3.8)
    for axes, roi in zip(panels, stages.roi_bins, strict=True):
        (width, height), bins = roi.box[2:] - roi.box[:2], len(roi.edges_x) - 1
        title = f"{roi.level}: {width:.0f} x {height:.0f} pixels, {bins} x {bins} bins"
        board.draw_image(axes, stages.image, title)
        lines = [((x, roi.edges_y[0]), (x, roi.edges_y[-1])) for x in roi.edges_x]
        lines += [((roi.edges_x[0], y), (roi.edges_x[-1], y)) for y in roi.edges_y]
        axes.add_collection(LineCollection(lines, colors="white", linewidths=0.8, alpha=0.8))
        x, y = np.meshgrid(roi.x, roi.y)
        axes.scatter(x, y, s=9, c=COLOURS[1], edgecolors="black", linewidths=0.4)
        board.draw_boxes(axes, [roi.box], COLOURS[0])
        centre, half = (roi.box[:2] + roi.box[2:]) / 2, 1.4 * max(width, height, 2) / 2  # a fifth of the RoI around it
        axes.set_facecolor("#dddddd")
        board.show_region(axes, *(centre - half), *(centre + half))
    board.draw_legend(panels[-1], [(COLOURS[0], "RoI"), (COLOURS[1], "samples"), ("#cccccc", "bins")])
    return board.render(figure)


def draw_class_scores(stages):
    """The best score of each class over all proposals, against the threshold."""
    rows = compute_class_scores(stages)[:MAX_CLASSES]
    figure = Figure(figsize=(6.4, 0.9 + 0.28 * len(rows)), facecolor="white")
    axes = figure.add_subplot()
    threshold = stages.limits.score_threshold
    scores = [row.best_score or 0 for row in rows]
    colours = [COLOURS[2] if score > threshold else COLOURS[5] for score in scores]
    axes.barh(range(len(rows)), scores, color=colours, height=0.7)
    axes.axvline(threshold, color="black", linewidth=1, linestyle="dashed")
    for index, (row, score) in enumerate(zip(rows, scores, strict=True)):
        text = f" {score:.3f}, {row.above_threshold} above, {row.detections} detected"
        axes.text(score, index, text, va="center", fontsize=FONT_SIZE - 1)
    axes.set_yticks(range(len(rows)), [row.category for row in rows], fontsize=FONT_SIZE)
    axes.set_xlim(0, 1.35 * max([*scores, threshold, 1e-3]))
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= 1])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    more = f", the best {len(rows)} of {len(stages.categories)} classes" if len(stages.categories) > len(rows) else ""
    title = f"best score of each class{more} (dashed: threshold {threshold:g})"
    axes.set_title(title, fontsize=FONT_SIZE + 1, loc="left")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return board.render(figure)


def draw_class_boxes(stages, count=50):
    """The boxes above the threshold before suppression within their class, beside the detections that it leaves."""
    classification, classes = stages.classification, len(stages.categories)
    usable = np.flatnonzero(classification.usable.ravel())
    scores = classification.probabilities[:, 1:].ravel()
    best = usable[np.argsort(-scores[usable], kind="stable")][:count]
    behind = np.unique(best // classes)
    figure, (left, *others) = board.make_panels(3, stages.image.shape[:2], side=4.6)
    board.draw_image(left, stages.image, f"the {len(behind)} proposals behind the boxes", pale=0.35)
    board.draw_boxes(left, stages.proposals.boxes[behind], COLOURS[0], 1.1)
    titles = (
        f"{len(usable)} boxes above {stages.limits.score_threshold:g}, the best {len(best)}",
        f"{len(stages.detections)} after NMS, the detections",
    )
    boxes = classification.boxes.reshape(-1, 4)[best], stages.detections.boxes[:count]
    scores = scores[best], stages.detections.scores[:count]
    _draw_scored_boxes(figure, others, stages.image, titles, boxes, scores, "score")
    return board.render(figure)


def draw_detections(stages, min_score=0.0):
    """The detections, as `Detections.draw` has them."""
    return Image.fromarray(stages.detections.draw(stages.image, min_score))


def draw_mask_targets(stages, count=8):
    """Positive RoIs, the mask head's target in each, and what it predicts for the right class."""
    _require(stages.training_rois, "ground_truth")
    rois, examples = stages.training_rois, stages.training_rois.examples
    _require(examples.get("predicted_masks"), "masks")
    chosen = _take_turns(rois.objects[rois.positive], count)
    figure, panels = board.make_panels(3 * len(chosen), (1, 1), columns=len(chosen), side=1.9)
    for index, roi in enumerate(chosen):
        crop, *masks = panels[index :: len(chosen)]
        _draw_crop(crop, stages, roi)
        for axes, values in zip(masks, (examples["mask_targets"][roi], examples["predicted_masks"][roi]), strict=True):
            axes.imshow(values, vmin=0, vmax=1, cmap="gray", aspect="auto")
            board.hide_axes(axes)
    _name_rows(panels[:: len(chosen)], ("RoI", "target", "predicted"))
    return board.render(figure)


def draw_keypoint_targets(stages, count=6):
    """Positive RoIs with the cells that their keypoints lie in, over the heatmaps that the model predicts."""
    _require(stages.training_rois, "ground_truth")
    rois, examples = stages.training_rois, stages.training_rois.examples
    _require(examples.get("heatmaps"), "keypoints")
    cells, labelled, heatmaps = (examples[name] for name in ("keypoint_cells", "keypoint_valid", "heatmaps"))
    chosen = _take_turns(np.where(labelled.any(axis=1), rois.objects[rois.positive], -1), count)
    figure, panels = board.make_panels(2 * len(chosen), (1, 1), columns=len(chosen), side=2.6)
    side = heatmaps.shape[-1]
    for upper, lower, roi in zip(panels[: len(chosen)], panels[len(chosen) :], chosen, strict=True):
        _draw_crop(upper, stages, roi)
        keypoints = np.flatnonzero(labelled[roi])
        # Softmaxes whose maximum is set to 1: over thousands of cells the probabilities themselves are tiny.
        heat = [np.exp(logits - logits.max()) for logits in heatmaps[roi, keypoints]]
        lower.imshow(np.max([np.zeros([side, side]), *heat], axis=0), vmin=0, vmax=1, cmap="inferno", aspect="auto")
        board.hide_axes(lower)
        left, top, right, bottom = rois.boxes[roi]
        for keypoint in keypoints:
            y, x = divmod(int(cells[roi, keypoint]), side)
            style = {"marker": "P", "s": 55, "c": cycle_colour(keypoint), "edgecolors": "white"}
            lower.scatter(x, y, **style)
            upper.scatter(left + (x + 0.5) / side * (right - left), top + (y + 0.5) / side * (bottom - top), **style)
    _name_rows(panels[:: len(chosen)], ("RoI and targets", "predicted heat"))
    return board.render(figure)


def _take_turns(objects, count):
    """Up to `count` indices of `objects` [p], one of each object first, and so on by turns; those of -1 last."""
    turn = np.array([(objects[:index] == owner).sum() for index, owner in enumerate(objects)])
    return np.lexsort((np.arange(len(objects)), turn, objects < 0))[:count]


def _draw_crop(axes, stages, roi):
    """The image inside a training RoI."""
    rois = stages.training_rois
    board.draw_image(axes, stages.image, stages.categories[rois.classes[roi] - 1].name)
    axes.set_aspect("auto")
    board.show_region(axes, *rois.boxes[roi])


def _name_rows(first_column, names):
    for axes, name in zip(first_column, names, strict=True):
        axes.set_ylabel(name, fontsize=FONT_SIZE)


def _require(value, source):
    if value is None:
        raise UserError(f"This picture needs {source}: compute the stages with the image's annotations that have it.")


def _require_roi_layer(stages):
    if stages.proposals.pooled_from is None:
        raise UserError("This picture shows what a RoILayer reads, and the box head has a pooling layer of your own.")
