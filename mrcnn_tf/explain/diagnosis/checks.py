"""States of a model or an image that explain bad detections, each as a sentence with its remedy."""

import dataclasses

import numpy as np

DARK, FLAT = 12, 3  # grey levels: an image's mean, and its standard deviation
ENLARGED, SHRUNK = 3.0, 0.25  # times that an image is resized: beyond, it is unlike what networks are trained on
EQUAL = 0.02  # from 1 / (K + 1): all scores of a classifier that knows nothing
SURE = 0.9  # mean probability of background
FAINT = 0.2  # objectness
HOPELESS = 0.05  # a score that means nothing


def check_finite(model, stages):
    """A sentence on the first weight that isn't finite or, if all are, on the first stage whose output isn't."""
    broken = [weight.path for weight in model.weights if not np.isfinite(_values(weight)).all()]
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        return [
            f"The weight {broken[0]}{more} holds NaN or infinity: training went astray before the model was saved; go "
            "back to an earlier checkpoint and lower the learning rate (train.learning_rate)."
        ]
    if stages.not_finite:
        return [
            f"The first numbers that aren't finite come from {stages.not_finite[0]}: with half precision "
            "(train.precision) try float32; otherwise go back to an earlier checkpoint."
        ]
    return []


def check_training(model):
    """Sentences on weights that were never loaded or never trained."""
    sentences = []
    untrained = [name for name, layer in _predictors(model) if not _values(layer.bias).any()]
    if untrained:
        sentences.append(
            f"The {' and the '.join(untrained)} {'has its' if len(untrained) == 1 else 'have their'} initial bias of "
            "zero, as if never trained: train the model, or load a detector with load_pretrained."
        )
    if _initial_norms(model.backbone):
        frozen = model.config.backbone.norm == "frozen_bn" or model.config.backbone.freeze_at > 0
        why = "is frozen and random, so that nothing can be learned on it" if frozen else "is random"
        sentences.append(
            f"The backbone's normalisations have their initial values: it {why}. Load weights before training, such as "
            "load_pretrained('imagenet') or --weights imagenet."
        )
    return sentences


def check_image(stages):
    """Sentences on images that no model can see much in."""
    sentences, image = [], stages.image
    height, width = image.shape[:2]
    if image.std() < FLAT:
        sentences.append(
            f"The image is almost one colour (grey levels {image.min()} to {image.max()}): was it read as it should "
            "be, as uint8 0 to 255?"
        )
    elif image.mean() < DARK:
        sentences.append(
            f"The image is very dark (mean {image.mean():.0f} of 255): pixels of more than 8 bits must be stretched to "
            "0 to 255 first, and pixels of 0 to 1 multiplied by 255."
        )
    if stages.scale > ENLARGED:
        sentences.append(
            f"The image of {width} x {height} pixels is enlarged {stages.scale:.1f} times: objects look blurred "
            "and perhaps larger than in training; give the original, or set "
            "model.resize.min_size near the images' own size."
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
        counts: their `Counts`.
        steps: of training that the model had, None where unknown.
    """
    if stages.truth is not None and not len(stages.truth):
        return []  # nothing is what there should be
    if not counts.proposals:
        return ["There is no proposal at all, so the box head has nothing to look at."]
    sentences = []
    if counts.best_objectness < FAINT:
        sentences.append(
            f"The RPN sees nothing that looks like an object (best objectness {counts.best_objectness:.2f}): is the "
            "image like those of the training, in RGB order and of the same size? Else train longer."
        )
    trained = f" ({steps:,} steps)" if steps else ""
    probabilities = stages.classification.probabilities
    share = 1 / probabilities.shape[1]
    if probabilities.std(axis=0).max() < EQUAL and np.abs(probabilities.mean(axis=0) - share).max() < EQUAL:
        sentences.append(
            f"Every class scores about {share:.2f}, one in {probabilities.shape[1]}: the box head hasn't learned to "
            f"tell them apart; was the model trained{trained}, and were its weights loaded?"
        )
    elif not counts.above_threshold and counts.background > SURE:
        sentences.append(
            f"The box head takes every proposal for background (probability {counts.background:.2f} on average): if "
            f"there are objects, it hasn't learned them; train longer{trained}, raise the learning rate if the loss "
            "stands still, and check the annotations (mrcnn-tf validate)."
        )
    if not counts.above_threshold:
        sentences.append(_best_below(counts, stages.limits.score_threshold))
    return sentences


def _best_below(counts, threshold):
    best = f"The best score, {counts.best_score:.3f} of '{counts.best_category}', isn't above the threshold of"
    if counts.best_score < min(threshold / 2, HOPELESS):
        return f"{best} {threshold:g}, nor near it: lowering it would show boxes that mean nothing."
    lower = _below(counts.best_score)
    return f"{best} {threshold:g}: lower model.detections.score_threshold (to {lower:g}, say) or train longer."


def check_sizes(stages):
    """A sentence on annotated objects that are smaller than the smallest or larger than the largest anchor."""
    if stages.truth is None or not len(stages.truth):
        return []
    sides, anchors = (
        _sides(stages.truth.boxes),
        [_sides(level.anchors) for level in stages.levels if len(level.anchors)],
    )
    smallest, largest = min(each.min() for each in anchors), max(each.max() for each in anchors)
    sentences = []
    for few, extreme, what, remedy in (
        (sides < smallest / 2, smallest, "smaller than half the smallest", "lower model.rpn.anchor_sizes or raise"),
        (sides > largest * 2, largest, "larger than twice the largest", "raise model.rpn.anchor_sizes or lower"),
    ):
        if few.any():
            sentences.append(
                f"{few.sum()} of {len(sides)} objects are {what} anchor ({extreme:.0f} pixels of this image): {remedy} "
                "model.resize.min_size, and train again."
            )
    return sentences


def _below(score):
    """A round number clearly below a positive score: one digit that counts."""
    score *= 0.95
    digit = 10.0 ** np.floor(np.log10(score))
    return float(f"{np.floor(score / digit) * digit:.1g}")


def _sides(boxes):
    """Square roots [N] of the areas of boxes [N, 4]."""
    return np.sqrt(np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1))


def _values(weight):
    return np.asarray(weight).astype(np.float32)


def _predictors(model):
    return [("RPN's objectness", model.rpn.head.objectness), ("box head's classifier", model.box_head.class_logits)]


def _initial_norms(backbone):
    """Whether every normalisation of the backbone has its initial scale, shift and, if it has any, statistics."""
    values = {"gamma": 1, "beta": 0, "moving_mean": 0, "moving_variance": 1}
    norms = [weight for weight in backbone.weights if weight.name in values]
    return bool(norms) and all((_values(weight) == values[weight.name]).all() for weight in norms)


# How many boxes each step leaves, and the best scores before the threshold.
#

@dataclasses.dataclass
class BoxCounts:
    """How many boxes each step leaves of one image.

    Attributes:
        anchors: of all levels.
        candidates: the best of each level that are usable.
        rpn_survivors: what the RPN's suppression leaves of them.
        proposals: the best of these, the RoIs of the box head.
        best_objectness: of a proposal, 0..1; None without any.
        scores: one for each proposal and class.
        above_threshold: of these, with a box that is large enough.
        class_survivors: what suppression within each class leaves of them.
        detections: the best of these.
        best_score: of all scores; None without any.
        best_category: its class.
        background: the mean probability of background over the proposals; None without any.
    """

    anchors: int
    candidates: int
    rpn_survivors: int
    proposals: int
    best_objectness: float | None
    scores: int
    above_threshold: int
    class_survivors: int
    detections: int
    best_score: float | None
    best_category: str | None
    background: float | None


@dataclasses.dataclass
class ClassScores:
    """Of one class: the best score before the threshold (None without proposals), and the boxes each step leaves."""

    category: str
    best_score: float | None
    above_threshold: int
    class_survivors: int
    detections: int


def count_boxes(stages):
    """The `Counts` of `Stages`."""
    found, probabilities = stages.classification, stages.classification.probabilities
    objects = np.nan_to_num(probabilities[:, 1:])
    best = np.unravel_index(objects.argmax(), objects.shape) if objects.size else None
    return BoxCounts(
        anchors=sum(len(level.anchors) for level in stages.levels),
        candidates=int(stages.candidates.usable.sum()),
        rpn_survivors=len(stages.candidates.kept),
        proposals=len(stages.proposals.boxes),
        best_objectness=float(stages.proposals.objectness.max()) if len(stages.proposals.boxes) else None,
        scores=objects.size,
        above_threshold=int(found.usable.sum()),
        class_survivors=len(found.kept),
        detections=len(stages.detections),
        best_score=float(objects[best]) if best else None,
        best_category=stages.categories[best[1]].name if best else None,
        background=float(np.nan_to_num(probabilities[:, 0]).mean()) if objects.size else None,
    )


def compute_class_scores(stages):
    """A `ClassScores` for each class, best score first."""
    found, classes = stages.classification, len(stages.categories)
    left = np.bincount(found.kept % classes, minlength=classes)
    detected = np.bincount(stages.detections.classes - 1, minlength=classes)
    rows = []
    for place, category in enumerate(stages.categories):
        scores = np.nan_to_num(found.probabilities[:, place + 1])
        best = float(scores.max()) if len(scores) else None
        above = int(found.usable[:, place].sum())
        rows.append(ClassScores(category.name, best, above, int(left[place]), int(detected[place])))
    return sorted(rows, key=lambda row: -(row.best_score or 0))


def describe_counts(counts, limits):
    """Two sentences: from anchors to proposals, and from scores to detections."""
    best = "" if counts.best_objectness is None else f" (best objectness {counts.best_objectness:.2f})"
    first = (
        f"RPN: {counts.anchors:,} anchors, of which the best {counts.candidates:,} are candidates; suppression leaves "
        f"{counts.rpn_survivors:,}, and the best {counts.proposals:,} are proposals{best}."
    )
    if not counts.scores:
        return [first]
    second = (
        f"Box head: {counts.scores:,} scores, {counts.above_threshold:,} above the threshold of "
        f"{limits.score_threshold:g}; suppression leaves {counts.class_survivors:,}, and the best "
        f"{counts.detections:,} are detections."
    )
    return [first, second]
