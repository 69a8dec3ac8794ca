"""Counts of the boxes that each step leaves, and checks of model and image whose sentences explain bad detections."""

import dataclasses

import numpy as np

from mrcnn_tf.explain.diagnosis.forward import find_box_head

# Grey levels: the mean of a very dark image, and the standard deviation of one that is almost one colour.
DARK_MEAN, FLAT_DEVIATION = 12, 3
ENLARGED, SHRUNK = 3.0, 0.25  # times that an image is resized: beyond, it is unlike what networks are trained on
UNIFORM_TOLERANCE = 0.02  # from 1 / (K + 1), which all scores of an untrained classifier are
SURE_BACKGROUND = 0.9  # mean probability of background
LOW_OBJECTNESS = 0.2
MEANINGLESS_SCORE = 0.05


@dataclasses.dataclass
class BoxCounts:
    """How many boxes each step leaves of one image."""

    anchors: int  # of all levels
    candidates: int  # the best of each level that are usable
    rpn_survivors: int  # what the RPN's suppression leaves of them
    proposals: int  # the best of these, the RoIs of the box head
    best_objectness: float | None  # of a proposal, 0..1; None without any
    scores: int  # one for each proposal and class
    above_threshold: int  # of these, with a box that is large enough
    class_survivors: int  # what suppression within each class leaves of them
    detections: int  # the best of these
    best_score: float | None  # of all scores; None without any, as the two that follow
    best_category: str | None  # its class
    background: float | None  # the mean probability of background over the proposals


def count_boxes(stages):
    """The `BoxCounts` of `Stages`."""
    classification, proposals = stages.classification, stages.proposals
    scores = np.nan_to_num(classification.probabilities[:, 1:])
    best = np.unravel_index(scores.argmax(), scores.shape) if scores.size else None
    return BoxCounts(
        anchors=sum(len(level.anchors) for level in stages.levels),
        candidates=int(stages.candidates.usable.sum()),
        rpn_survivors=len(stages.candidates.kept),
        proposals=len(proposals.boxes),
        best_objectness=float(proposals.objectness.max()) if len(proposals.boxes) else None,
        scores=scores.size,
        above_threshold=int(classification.usable.sum()),
        class_survivors=len(classification.kept),
        detections=len(stages.detections),
        best_score=float(scores[best]) if best else None,
        best_category=stages.categories[best[1]].name if best else None,
        background=float(np.nan_to_num(classification.probabilities[:, 0]).mean()) if scores.size else None,
    )


def describe_counts(counts, limits):
    """Two sentences: from anchors to proposals, and from scores to detections."""
    best = "" if counts.best_objectness is None else f" (best objectness {counts.best_objectness:.2f})"
    rpn = (
        f"RPN: {counts.anchors:,} anchors, of which the best {counts.candidates:,} are candidates; suppression leaves "
        f"{counts.rpn_survivors:,}, and the best {counts.proposals:,} are proposals{best}."
    )
    box_head = (
        f"Box head: {counts.scores:,} scores, {counts.above_threshold:,} above the threshold of "
        f"{limits.score_threshold:g}; suppression leaves {counts.class_survivors:,}, and the best "
        f"{counts.detections:,} are detections."
    )
    return [rpn, box_head] if counts.scores else [rpn]


@dataclasses.dataclass
class ClassScores:
    """Of one class: the best score before the threshold (None without proposals), and the boxes each step leaves."""

    category: str
    best_score: float | None
    above_threshold: int
    class_survivors: int
    detections: int


def compute_class_scores(stages):
    """A `ClassScores` for each class, best score first."""
    classification, classes = stages.classification, len(stages.categories)
    scores = np.nan_to_num(classification.probabilities[:, 1:])
    columns = (
        scores.max(axis=0).tolist() if len(scores) else [None] * classes,
        classification.usable.sum(axis=0).tolist(),
        np.bincount(classification.kept % classes, minlength=classes).tolist(),
        np.bincount(stages.detections.classes - 1, minlength=classes).tolist(),
    )
    names = [category.name for category in stages.categories]
    rows = [ClassScores(*row) for row in zip(names, *columns, strict=True)]
    return sorted(rows, key=lambda row: -(row.best_score or 0))


def check_finite(model, stages):
    """A sentence on the first weight that isn't finite or, if all are, on the first stage whose output isn't."""
    broken = [weight.path for weight in model.weights if not np.isfinite(_values(weight)).all()]
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        return [
            f"The weight {broken[0]}{more} holds NaN or infinity: training went astray before the model was saved; go "
            "back to an earlier checkpoint and lower the learning rate (train.learning_rate)."
        ]
    if stages.non_finite:
        return [
            f"The first numbers that aren't finite come from {stages.non_finite[0]}: with half precision "
            "(train.precision) try float32; otherwise go back to an earlier checkpoint."
        ]
    return []


def check_training(model):
    """Sentences on weights that were never loaded or never trained."""
    sentences = []
    layers = {"RPN's objectness": model.rpn.head.objectness}
    classifier = getattr(find_box_head(model), "class_logits", None)
    layers |= {"box head's classifier": classifier} if classifier else {}
    untrained = [name for name, layer in layers.items() if not _values(layer.bias).any()]
    if untrained:
        sentences.append(
            f"The {' and the '.join(untrained)} {'has its' if len(untrained) == 1 else 'have their'} initial bias of "
            "zero, as if never trained: train the model, or load a detector with load_pretrained."
        )
    if _has_initial_norms(getattr(model.features, "backbone", model.features)):
        frozen = getattr(model.features, "needs_weights", False)
        why = "is frozen and random, so that nothing can be learned on it" if frozen else "is random"
        sentences.append(
            f"The backbone's normalisations have their initial values: it {why}. Load weights before training, such as "
            "load_pretrained('imagenet') or --weights imagenet."
        )
    return sentences


def _values(weight):
    return np.asarray(weight).astype(np.float32)


def _has_initial_norms(backbone):
    """Whether every normalisation of the backbone has its initial scale, shift and, if it has any, statistics."""
    values = {"gamma": 1, "beta": 0, "moving_mean": 0, "moving_variance": 1}
    norms = [weight for weight in backbone.weights if weight.name in values]
    return bool(norms) and all((_values(weight) == values[weight.name]).all() for weight in norms)


def check_image(stages):
    """Sentences on images that no model can see much in."""
    sentences, image = [], stages.image
    height, width = image.shape[:2]
    if image.std() < FLAT_DEVIATION:
        sentences.append(
            f"The image is almost one colour (grey levels {image.min()} to {image.max()}): was it read as it should "
            "be, as uint8 0 to 255?"
        )
    elif image.mean() < DARK_MEAN:
        sentences.append(
            f"The image is very dark (mean {image.mean():.0f} of 255): pixels of more than 8 bits must be stretched to "
            "0 to 255 first, and pixels of 0 to 1 multiplied by 255."
        )
    if stages.scale > ENLARGED:
        sentences.append(
            f"The image of {width} x {height} pixels is enlarged {stages.scale:.1f} times: objects look blurred and "
            "perhaps larger than in training; give the original, or set model.resize.min_size near the images' own "
            "size."
        )
    if stages.scale < SHRUNK:
        sentences.append(
            f"The image of {width} x {height} pixels is shrunk to {stages.input_size[1]} x {stages.input_size[0]}, and "
            f"an object of {32 / stages.scale:.0f} pixels becomes one of 32: cut it into tiles, or raise "
            "model.resize.min_size and model.resize.max_size."
        )
    return sentences


def check_scores(stages, counts, steps=None):
    """Sentences on what the RPN and the box head say of the image.

    Args:
        stages: `Stages`.
        counts: their `BoxCounts`.
        steps: of training that the model had, None where unknown.
    """
    if stages.truth is not None and not len(stages.truth):
        return []  # without objects there should be no detection
    if not counts.proposals:
        return ["There is no proposal at all, so the box head has nothing to look at."]
    sentences = []
    if counts.best_objectness < LOW_OBJECTNESS:
        sentences.append(
            f"The RPN sees nothing that looks like an object (best objectness {counts.best_objectness:.2f}): is the "
            "image like those of the training, in RGB order and of the same size? Else train longer."
        )
    trained = f" ({steps:,} steps)" if steps else ""
    probabilities = stages.classification.probabilities
    uniform = 1 / probabilities.shape[1]
    deviation = max(probabilities.std(axis=0).max(), np.abs(probabilities.mean(axis=0) - uniform).max())
    if deviation < UNIFORM_TOLERANCE:
        sentences.append(
            f"Every class scores about {uniform:.2f}, one in {probabilities.shape[1]}: the box head hasn't learned to "
            f"tell them apart; was the model trained{trained}, and were its weights loaded?"
        )
    elif not counts.above_threshold and counts.background > SURE_BACKGROUND:
        sentences.append(
            f"The box head takes every proposal for background (probability {counts.background:.2f} on average): if "
            f"there are objects, it hasn't learned them; train longer{trained}, raise the learning rate if the loss "
            "stands still, and check the annotations (mrcnn-tf validate)."
        )
    if not counts.above_threshold:
        sentences.append(_explain_threshold(counts, stages.limits.score_threshold))
    return sentences


def _explain_threshold(counts, threshold):
    start = f"The best score, {counts.best_score:.3f} of '{counts.best_category}', isn't above the threshold of"
    if counts.best_score < min(threshold / 2, MEANINGLESS_SCORE):
        return f"{start} {threshold:g}, nor near it: lowering it would show boxes that mean nothing."
    lower = counts.best_score * 0.95
    digit = 10.0 ** np.floor(np.log10(lower))
    lower = float(f"{np.floor(lower / digit) * digit:.1g}")  # a round number clearly below the score
    return f"{start} {threshold:g}: lower model.detections.score_threshold (to {lower:g}, say) or train longer."


def check_sizes(stages):
    """Sentences on annotated objects that are much smaller than the smallest or larger than the largest anchor."""
    if stages.truth is None or not len(stages.truth):
        return []
    sides = _box_sides(stages.truth.boxes)
    anchors = np.concatenate([_box_sides(level.anchors) for level in stages.levels])
    smallest, largest = anchors.min(), anchors.max()
    sentences = []
    for outside, extreme, words, remedy in (
        (sides < smallest / 2, smallest, "smaller than half the smallest", "lower model.rpn.anchor_sizes or raise"),
        (sides > largest * 2, largest, "larger than twice the largest", "raise model.rpn.anchor_sizes or lower"),
    ):
        if outside.any():
            sentences.append(
                f"{outside.sum()} of {len(sides)} objects are {words} anchor ({extreme:.0f} pixels of this image): "
                f"{remedy} model.resize.min_size, and train again."
            )
    return sentences


def _box_sides(boxes):
    """Square roots [N] of the areas of boxes [N, 4]."""
    return np.sqrt(np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1))
