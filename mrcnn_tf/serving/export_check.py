"""The check of an export: whether the exported model detects what the Keras model detects in the same images.

`check_detections` matches the detections of both models one to one and compares boxes, scores, masks, keypoints, what
other heads give, and the maps of a semantic head with `Tolerances`; the outcome is `Differences`.
"""

import collections
import dataclasses
import itertools

import numpy as np
from rich.table import Table

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.ops.boxes import iou
from mrcnn_tf.ops.masks import paste_window
from mrcnn_tf.results.detections import EncodedMaskDetections

# Another head's number may jump, as an angle does from 360 to 0 degrees, or a class from the likeliest to the next.
OTHERS_SHARE = 0.9
SAME_BOX = 1e-3  # pixels; boxes closer than this are one box, however small, when their IoU says nothing
# Fields of `Differences` by what they are over all images.
COUNTS = ("reference", "exported", "matched", "near_ties", "only_reference", "only_exported")
LARGEST = {"box": " pixels", "keypoint": " pixels", "score": "", "mask": "", "extra": ""}  # with their units
SHARES = {"semantic": "class", "segments": "segment"}  # with what a pixel has the same of


@dataclasses.dataclass(frozen=True)
class Tolerances:
    """How far an exported model's detections may lie from the Keras model's."""

    box: float  # the largest difference of a coordinate, pixels
    keypoint: float  # the same
    score: float  # the largest difference of a probability
    mask: float  # the same
    extra: float  # the difference that OTHERS_SHARE of another head's numbers stay below; see `_extra_difference`
    iou: float = 0.5  # the least at which two boxes of a class are one detection
    matched: float = 1.0  # the least share of either model's detections that the other has too
    pixels: float = 0.999  # the least share of the pixels of the semantic map, and of the segments, that are equal


SAVED_MODEL_TOLERANCES = Tolerances(box=1e-3, keypoint=1e-3, score=1e-5, mask=1e-4, extra=0.01)
ANY = {"box": np.inf, "keypoint": np.inf}
# Another interpreter sums in another order; a coordinate may differ by what the IoU allows.
TFLITE_TOLERANCES = Tolerances(**ANY, score=1e-3, mask=1e-2, extra=0.1, iou=0.99, matched=0.99)
# With fewer digits, sums in another order end elsewhere: an image in a batch and by itself, these operations and those.
# A keypoint is a heatmap's highest cell, which may be another one then, and a pixel's class the likeliest; and what
# another head makes of a number is its own affair.
FLOAT16_TOLERANCES = Tolerances(**ANY, score=0.01, mask=0.05, extra=np.inf, iou=0.95, matched=0.98, pixels=0.99)
BFLOAT16_TOLERANCES = Tolerances(**ANY, score=0.03, mask=0.2, extra=np.inf, iou=0.9, matched=0.95, pixels=0.95)
# What bytes cost is for AP to say: the differences are shown, and nothing is refused.
UNLIMITED = Tolerances(**ANY, score=np.inf, mask=np.inf, extra=np.inf, matched=0.0, pixels=0.0)
TOLERANCES_BY_PRECISION = {
    "float32": SAVED_MODEL_TOLERANCES,
    "float16": FLOAT16_TOLERANCES,
    "bfloat16": BFLOAT16_TOLERANCES,
}
TOLERANCES_BY_QUANTIZATION = {
    "float32": TFLITE_TOLERANCES,
    "float16": FLOAT16_TOLERANCES,
    "dynamic": UNLIMITED,
    "int8": UNLIMITED,
}


@dataclasses.dataclass
class Differences:
    """The outcome of `check_detections`, over all images."""

    images: int  # how many were compared
    reference: int  # detections of the Keras model
    exported: int  # detections of the exported model
    matched: int  # those that both have
    # Those that only one has, because their score lies at the threshold or at that of the last detection kept, nearer
    # than the scores' tolerance.
    near_ties: int
    only_reference: int  # the other unmatched ones
    only_exported: int
    iou: float | None  # the least of a matched pair
    # The largest difference of matched pairs, in the units of `Tolerances`; None where nothing was compared.
    box: float | None
    score: float | None
    mask: float | None
    keypoint: float | None
    extra: float | None
    # Where the exported model gives encoded masks, their pixels that no probabilities within the mask's tolerance would
    # give; else None.
    mask_pixels: int | None
    semantic: float | None  # the share, 0..1, of the pixels of the same class; None without semantic maps
    segments: float | None  # the same for the segments after fusion
    tolerances: Tolerances  # what was allowed

    @property
    def matched_share(self):
        """The share, 0..1, of either model's detections that the other has too; the smaller of both."""
        missing = max(self.only_reference, self.only_exported)
        return self.matched / (self.matched + missing) if missing else 1.0

    def to_json(self):
        """The differences as plain dictionaries; a tolerance that allows anything is None."""
        document = dataclasses.asdict(self) | {"matched_share": self.matched_share}
        allowed = document["tolerances"]
        document["tolerances"] = {name: value if np.isfinite(value) else None for name, value in allowed.items()}
        return document

    def table(self):
        """A rich table: detections matched, and the largest differences beside what is allowed."""
        title = f"Exported model and Keras model on {self.images} image{'s' * (self.images != 1)}"
        table = Table("what", title=title, title_justify="left")
        for heading in ("found", "allowed"):
            table.add_column(heading, justify="right")
        table.add_row("detections of the Keras model", str(self.reference), "")
        table.add_row("of the exported model", str(self.exported), "")
        table.add_row("matched", f"{self.matched_share:.2%}", f">= {self.tolerances.matched:.2%}")
        table.add_row("near-ties at the score threshold", str(self.near_ties), "")
        labels = {"box": "boxes, pixels", "score": "scores", "mask": "mask probabilities"}
        for name, label in (
            labels | {"keypoint": "keypoints, pixels", "extra": f"{OTHERS_SHARE:.0%} of other numbers, relative"}
        ).items():
            value, allowed = getattr(self, name), getattr(self.tolerances, name)
            if value is not None:
                table.add_row(label, f"{value:.2g}", f"<= {allowed:g}" if np.isfinite(allowed) else "")
        if self.mask_pixels is not None:
            table.add_row("wrong pixels of encoded masks", str(self.mask_pixels), "0")
        for name, label in SHARES.items():
            if getattr(self, name) is not None:
                allowed = f">= {self.tolerances.pixels:.2%}"
                table.add_row(f"pixels of the same {label}", f"{getattr(self, name):.2%}", allowed)
        return table


def check_detections(reference, exported, tolerances, limits):
    """Compares the detections of an exported model with the Keras model's on the same images.

    Boxes of one class are matched one to one, those of the highest IoU first, so the order of equal scores is free.

    Args:
        reference, exported: lists of `Detections`, one for each image, of the Keras and the exported model.
        tolerances: a `Tolerances`, such as `SAVED_MODEL_TOLERANCES`.
        limits: the `DetectionConfig` of both models: its score_threshold and max_per_image are where a tiny difference
            of scores adds or drops a detection.

    Returns:
        `Differences`.

    Raises:
        UserError: they differ by more than `tolerances`.
    """
    if len(reference) != len(exported):
        raise UserError(f"The exported model answered {len(exported)} of {len(reference)} images: export it again.")
    pairs = enumerate(zip(reference, exported, strict=True))
    by_image = [_compare_image(index, *pair, tolerances, limits) for index, pair in pairs]
    names = (*COUNTS, *LARGEST, *SHARES, "iou", "mask_pixels")
    values = {name: [image[name] for image in by_image] for name in names}  # lists by image
    differences = Differences(
        images=len(by_image),
        **{name: sum(values[name]) for name in COUNTS},
        **{name: _combine(np.max, values[name]) for name in LARGEST},
        iou=_combine(np.min, values["iou"]),
        mask_pixels=_combine(sum, values["mask_pixels"]),
        **{name: _combine(_equal_share, values[name]) for name in SHARES},
        tolerances=tolerances,
    )
    for mistake in _mistakes(differences, values):
        raise UserError(f"{mistake}: don't use the export, and report this with the config.")
    return differences


def _combine(function, values):
    """A function of the values that aren't None; None if there are none. NumPy's extremes put NaN before all."""
    values = [value for value in values if value is not None]
    return function(values) if values else None


def _mistakes(differences, values):
    """Yields what exceeds the tolerances as sentences; `values` are the lists by image, to name the worst one."""
    tolerances = differences.tolerances
    if differences.matched_share < tolerances.matched:
        missing = [max(pair) for pair in zip(values["only_reference"], values["only_exported"], strict=True)]
        yield (
            f"The exported model and the Keras model agree on {differences.matched_share:.2%} of their detections, "
            f"where at least {tolerances.matched:.2%} must match (worst in check image {int(np.argmax(missing))})"
        )
    if differences.mask_pixels:
        yield (
            f"The exported model's encoded masks have {differences.mask_pixels} pixels that the Keras model's "
            "probabilities don't explain"
        )
    for name, label in SHARES.items():
        share = getattr(differences, name)
        if share is not None and share < tolerances.pixels:
            worst = int(np.argmin([1.0 if pixels is None else _equal_share([pixels]) for pixels in values[name]]))
            yield (
                f"The exported model and the Keras model give {share:.2%} of the pixels the same {label}, where at "
                f"least {tolerances.pixels:.2%} must have it (worst in check image {worst})"
            )
    for name, unit in LARGEST.items():
        value, allowed = getattr(differences, name), getattr(tolerances, name)
        if value is not None and not value <= allowed:  # NaN too
            worst = int(np.argmax([-1.0 if difference is None else difference for difference in values[name]]))
            yield (
                f"The exported model's {name} differs from the Keras model's by {value:.3g}{unit} in check image "
                f"{worst}, where {allowed:g} is allowed"
            )


# The matched detections of one image: their indices [N] in both models' `Detections`, and the IoU [N] of their boxes.
Matches = collections.namedtuple("Matches", "reference exported iou")


def _compare_image(image_index, reference, exported, tolerances, limits):
    """The counts and largest differences of one image, by the names of `Differences`."""
    if reference.image_size != exported.image_size:
        raise UserError(
            f"The exported model saw check image {image_index} as {exported.image_size}, not {reference.image_size}: "
            "give both the same file."
        )
    matches = _match(reference, exported, tolerances.iou)
    only_reference = np.delete(reference.scores, matches.reference)
    only_exported = np.delete(exported.scores, matches.exported)
    missed_by_exported = _near_tie(only_reference, exported, tolerances.score, limits)
    missed_by_reference = _near_tie(only_exported, reference, tolerances.score, limits)
    is_encoded = isinstance(exported, EncodedMaskDetections)
    masks = reference.mask_probabilities, exported.mask_probabilities

    def largest(name, array, other):
        return _largest_difference(image_index, name, array, other, matches)

    return {
        "reference": len(reference),
        "exported": len(exported),
        "matched": len(matches.iou),
        "near_ties": int(missed_by_exported.sum() + missed_by_reference.sum()),
        "only_reference": int((~missed_by_exported).sum()),
        "only_exported": int((~missed_by_reference).sum()),
        "iou": float(matches.iou.min()) if len(matches.iou) else None,
        "box": largest("boxes", reference.boxes, exported.boxes),
        "score": largest("scores", reference.scores, exported.scores),
        "mask": None if is_encoded else largest("masks", *masks),
        "keypoint": largest("keypoints", _positions(reference), _positions(exported)),
        "extra": _extra_difference(image_index, reference, exported, matches),
        "mask_pixels": _count_wrong_pixels(reference, exported, matches, tolerances.mask) if is_encoded else None,
        **_compare_maps(image_index, reference, exported, matches, tolerances),
    }


def _match(reference, exported, least_iou):
    """The `Matches` of two `Detections`, the best overlap first."""
    overlaps = iou(reference.boxes[:, None], exported.boxes[None]).numpy()
    gaps = np.abs(reference.boxes[:, None] - exported.boxes[None]).max(axis=-1)
    likeness = np.where(gaps <= SAME_BOX, np.maximum(overlaps, 1 - gaps), np.nan_to_num(overlaps))
    likeness = np.where(reference.classes[:, None] == exported.classes[None], likeness, -1.0)
    score_gaps = np.abs(reference.scores[:, None] - exported.scores[None])
    pairs = {}  # index in the reference -> in the exported model's
    for flat_index in np.lexsort((score_gaps.ravel(), -likeness.ravel())):
        index, other_index = divmod(int(flat_index), len(exported))
        if likeness[index, other_index] < least_iou:
            break
        if index not in pairs and other_index not in pairs.values():
            pairs[index] = other_index
    indices, other_indices = np.array([*pairs], int), np.array([*pairs.values()], int)
    return Matches(indices, other_indices, likeness[indices, other_indices])


def _near_tie(scores, other, tolerance, limits):
    """Bool [N]: whether a detection of one of these `scores` [N] may have missed the `other` Detections by chance."""
    lowest = limits.score_threshold
    if len(other) and len(other) >= limits.max_per_image:
        lowest = max(lowest, float(other.scores.min()))
    return scores <= lowest + tolerance


def _positions(detections):
    """The keypoints without their scores, [D, P, 2]; None without keypoints."""
    return None if detections.keypoints is None else detections.keypoints[..., :2]


def _extra_difference(image_index, reference, exported, matches):
    """The difference that OTHERS_SHARE of the numbers of each output of other heads stay below, relative to the number
    or to 1, whichever is more; None without such outputs."""
    quantiles = []
    for name in reference.extras.keys() & exported.extras.keys():  # a head may rename an output for its `Detections`
        pair = _matched_pair(image_index, name, reference.extras[name], exported.extras[name], matches)
        if pair:
            differences = np.abs(pair[0] - pair[1]) / np.maximum(np.abs(pair[0]), 1)
            quantiles.append(float(np.quantile(differences, OTHERS_SHARE)))
    return _combine(np.max, quantiles)


def _largest_difference(image_index, name, reference, exported, matches):
    """The largest difference of matched detections; None if there are none, or neither model has such an output."""
    pair = _matched_pair(image_index, name, reference, exported, matches)
    return float(np.abs(pair[0] - pair[1]).max()) if pair else None


def _matched_pair(image_index, name, reference, exported, matches):
    """An output of the matched detections in both models; None if there are none, or neither has such an output."""
    if not _both_have(f"{name} in check image {image_index}", reference, exported) or not len(matches.iou):
        return None
    if reference.shape[1:] != exported.shape[1:]:
        raise UserError(
            f"The exported model's {name} are {list(exported.shape[1:])} each in check image {image_index}, the Keras "
            f"model's {list(reference.shape[1:])}: export this model again."
        )
    return reference[matches.reference], exported[matches.exported]


def _both_have(description, reference, exported):
    """Whether both models have an output; raises UserError if only one has."""
    if (reference is None) != (exported is None):
        raise UserError(f"One of the models gives {description}, the other doesn't: export again.")
    return reference is not None


def _count_wrong_pixels(reference, exported, matches, tolerance):
    """How many pixels of the encoded masks aren't what the reference's probabilities, +- tolerance, give in the
    exported boxes: a box's tiny difference may move the mask by a whole pixel, and that isn't the mask's error."""
    wrong, size = 0, exported.image_size
    for index, other_index in zip(matches.reference, matches.exported, strict=True):
        mask = exported.mask(other_index)
        largest, smallest = (
            paste_window(
                reference.mask_probabilities[index], exported.boxes[other_index], *size, reference.mask_rule, threshold
            )
            for threshold in (0.5 - tolerance, 0.5 + tolerance)
        )
        bottom, right = largest.top + largest.pixels.shape[0], largest.left + largest.pixels.shape[1]
        window = mask[largest.top : bottom, largest.left : right]
        wrong += int(mask.sum() - window.sum() + (window & ~largest.pixels).sum() + (smallest.pixels & ~window).sum())
    return wrong


Pixels = collections.namedtuple("Pixels", "equal compared")  # how many are the same in both models' maps, of how many


def _equal_share(pixels):
    """The share of equal pixels over some `Pixels`."""
    compared = sum(image.compared for image in pixels)
    return sum(image.equal for image in pixels) / compared if compared else 1.0


def _compare_maps(image_index, reference, exported, matches, tolerances):
    """The maps of one image in both models: {"semantic": `Pixels`, "segments": `Pixels`}, or None without such a map.

    Pixels of things are equal if their detections are matched, whatever the segments' numbers; of stuff, if the
    category is the same. Pixels of an instance whose score is so near the fusion's threshold that either model may
    leave it out are not compared, nor those of a class of stuff whose area is so near its limit.
    """
    compared = {"semantic": None, "segments": None}
    classes = reference.semantic, exported.semantic
    if not _both_have(f"classes of pixels in check image {image_index}", *classes):
        return compared
    compared["semantic"] = Pixels(int((classes[0] == classes[1]).sum()), classes[0].size)
    if not _both_have(f"segments of pixels in check image {image_index}", reference.panoptic, exported.panoptic):
        return compared
    fusion, area_tolerance = reference.semantics.fusion, (1 - tolerances.pixels) * classes[0].size

    def is_near_limit(segment):
        """Whether one model may have the segment and the other not."""
        if segment.is_thing:
            return abs(segment.score - fusion.score_threshold) <= tolerances.score
        return abs(segment.area - fusion.stuff_area) <= area_tolerance

    numbers = collections.defaultdict(itertools.count().__next__)  # one number for what is the same in both models
    reference_map = _number_pixels(reference.panoptic, numbers, matches.reference, "reference", is_near_limit)
    exported_map = _number_pixels(exported.panoptic, numbers, matches.exported, "exported", is_near_limit)
    is_compared = (reference_map >= 0) & (exported_map >= 0)
    compared["segments"] = Pixels(int((is_compared & (reference_map == exported_map)).sum()), int(is_compared.sum()))
    return compared


def _number_pixels(panoptic, numbers, matched, model_name, is_near_limit):
    """int [H, W], the number of what each pixel of one model's segments is; -1 where it isn't compared.

    `numbers` gives a new key the next number; `matched` [N] are the indices of the matched detections; the key of one
    that isn't matched holds the `model_name`.
    """
    match_of_detection = {index: match for match, index in enumerate(matched.tolist())}
    table = np.zeros(max((segment.id for segment in panoptic.segments), default=0) + 1, int)
    table[0] = numbers["void"]
    for segment in panoptic.segments:
        if is_near_limit(segment):
            table[segment.id] = -1
        elif not segment.is_thing:
            table[segment.id] = numbers["stuff", segment.category.id]
        elif segment.instance in match_of_detection:
            table[segment.id] = numbers["match", match_of_detection[segment.instance]]
        else:
            table[segment.id] = numbers["unmatched", model_name, segment.instance]
    return table[panoptic.segment_map]
