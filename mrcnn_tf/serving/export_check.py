"""Whether an exported model finds what the Keras model finds."""

import collections
import dataclasses

import numpy as np
from rich.table import Table

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.ops.boxes import iou
from mrcnn_tf.ops.masks import paste_window
from mrcnn_tf.results.detections import EncodedMaskDetections

# How many pixels of an exported model's maps are those of the Keras model's.
#

# equal: pixels on which both agree; compared: of how many.
Pixels = collections.namedtuple("Pixels", "equal compared")


def compare_maps(position, reference, exported, mine, theirs, tolerances):
    """The maps of one image in both models.

    Pixels of things are equal if their detections are matched, whatever the segments' numbers; of stuff, if the
    category is the same. Pixels of an instance whose score is so near the fusion's threshold that either model may
    leave it out are not compared, nor those of a class of stuff whose area is so near its limit.

    Args:
        position: of the check image, for errors.
        reference, exported: the `Detections` of the Keras and the exported model.
        mine, theirs: [N], the rows of the matched detections in both.
        tolerances: the `Tolerances`.

    Returns:
        {"semantic": `Pixels`, "segments": `Pixels`}, or None where the models have no such map.

    Raises:
        UserError: one of the models has a map that the other lacks.
    """
    classes = _both(position, "classes", reference.semantic, exported.semantic)
    if classes is None:
        return {"semantic": None, "segments": None}
    found = {"semantic": Pixels(int((classes[0] == classes[1]).sum()), classes[0].size), "segments": None}
    segments = _both(position, "segments", reference.panoptic, exported.panoptic)
    if segments is None:
        return found
    names = collections.defaultdict(lambda: len(names))
    near = _Near(reference.semantics.fusion, tolerances.score, (1 - tolerances.pixels) * classes[0].size)
    labels = [
        _labels(panoptic, names, {row: pair for pair, row in enumerate(rows.tolist())}, side, near)
        for side, (panoptic, rows) in enumerate(zip(segments, (mine, theirs), strict=True))
    ]
    compared = (labels[0] >= 0) & (labels[1] >= 0)
    return found | {"segments": Pixels(int((compared & (labels[0] == labels[1])).sum()), int(compared.sum()))}


def _both(position, name, reference, exported):
    """The pair; None if there is neither."""
    if (reference is None) != (exported is None):
        raise UserError(f"One of the models gives {name} of pixels in check image {position}, the other doesn't: "
                        "export again.")  # fmt: skip
    return None if reference is None else (reference, exported)


class _Near(collections.namedtuple("_Near", "fusion score pixels")):
    """The rules of the fusion, and how much a score and an area may differ between the models."""

    def limit(self, segment):
        """Whether one model may have the segment and the other not."""
        if segment.is_thing:
            return abs(segment.score - self.fusion.score_threshold) <= self.score
        return abs(segment.area - self.fusion.stuff_area) <= self.pixels


def _labels(panoptic, names, pairs, side, near):
    """int [H, W], what each pixel is, one number for the same in both models; -1 where it isn't compared.

    `names` gives a new key the next number, `pairs` the pair of a matched detection's row. Of one that isn't matched,
    the key holds the `side`.
    """
    table = np.zeros(max((segment.id for segment in panoptic.segments), default=0) + 1, int)
    table[0] = names["void"]
    for segment in panoptic.segments:
        if near.limit(segment):
            table[segment.id] = -1
        elif not segment.is_thing:
            table[segment.id] = names["stuff", segment.category.id]
        else:
            alone = "alone", side, segment.instance
            table[segment.id] = names[("pair", pairs[segment.instance]) if segment.instance in pairs else alone]
    return table[panoptic.segment_map]


SAME_PLACE = 1e-3  # pixels; boxes closer than this are one box, however small, when their IoU says nothing


@dataclasses.dataclass(frozen=True)
class Tolerances:
    """How far an exported model's detections may lie from the Keras model's.

    Attributes:
        box, keypoint: the largest difference of a coordinate, pixels.
        score, mask: the largest difference of a probability.
        iou: the least IoU at which two boxes of a class are one detection.
        matched: the least share of either model's detections that the other has too.
        pixels: the least share of the pixels of the semantic map, and of the segments, that are equal.
    """

    box: float
    keypoint: float
    score: float
    mask: float
    iou: float = 0.5
    matched: float = 1.0
    pixels: float = 0.999


SAVED_MODEL = Tolerances(box=1e-3, keypoint=1e-3, score=1e-5, mask=1e-4)
# Another interpreter sums in another order; a coordinate may differ by what the IoU allows.
TFLITE = Tolerances(box=np.inf, keypoint=np.inf, score=1e-3, mask=1e-2, iou=0.99, matched=0.99)
# With fewer digits, sums in another order end elsewhere: an image in a batch and by itself, these operations and those.
# A keypoint is a heatmap's highest cell, which may be another one then, and a pixel's class the likeliest.
HALF = Tolerances(box=np.inf, keypoint=np.inf, score=0.01, mask=0.05, iou=0.95, matched=0.98, pixels=0.99)
BRAIN = Tolerances(box=np.inf, keypoint=np.inf, score=0.03, mask=0.2, iou=0.9, matched=0.95, pixels=0.95)
BY_PRECISION = {"float32": SAVED_MODEL, "float16": HALF, "bfloat16": BRAIN}
# What bytes cost is for AP to say: the differences are shown, and nothing is refused.
ANY = Tolerances(box=np.inf, keypoint=np.inf, score=np.inf, mask=np.inf, matched=0.0, pixels=0.0)
BY_QUANTIZATION = {"float32": TFLITE, "float16": HALF, "dynamic": ANY, "int8": ANY}


@dataclasses.dataclass
class Differences:
    """The outcome of `check_detections`, over all images.

    Attributes:
        images: how many were compared.
        reference, exported: detections of the Keras model and of the exported one.
        matched: those that both have.
        near_ties: those that only one has, because their score lies at the threshold or at that of the last detection
            kept, nearer than the scores' tolerance.
        only_reference, only_exported: the other unmatched ones.
        iou: the least IoU of a matched pair.
        box, score, mask, keypoint: the largest difference of matched pairs, in the units of `Tolerances`; None where
            nothing was compared.
        mask_pixels: where the exported model gives encoded masks, their pixels that no probabilities within the mask's
            tolerance would give; else None.
        semantic, segments: the share, 0..1, of the pixels whose class is the same in the semantic maps, and whose
            segment is the same after fusion; None without such maps.
        tolerances: what was allowed.
    """

    images: int
    reference: int
    exported: int
    matched: int
    near_ties: int
    only_reference: int
    only_exported: int
    iou: float | None
    box: float | None
    score: float | None
    mask: float | None
    keypoint: float | None
    mask_pixels: int | None
    semantic: float | None
    segments: float | None
    tolerances: Tolerances

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
        table = Table(title=title, title_justify="left")
        table.add_column("what")
        table.add_column("found", justify="right")
        table.add_column("allowed", justify="right")
        table.add_row("detections of the Keras model", str(self.reference), "")
        table.add_row("of the exported model", str(self.exported), "")
        table.add_row("matched", f"{self.matched_share:.2%}", f">= {self.tolerances.matched:.2%}")
        table.add_row("near-ties at the score threshold", str(self.near_ties), "")
        for name, what in (("box", "boxes, pixels"), ("score", "scores"), ("mask", "mask probabilities")):
            self._add_difference(table, name, what)
        self._add_difference(table, "keypoint", "keypoints, pixels")
        if self.mask_pixels is not None:
            table.add_row("wrong pixels of encoded masks", str(self.mask_pixels), "0")
        for value, what in ((self.semantic, "class"), (self.segments, "segment")):
            if value is not None:
                table.add_row(f"pixels of the same {what}", f"{value:.2%}", f">= {self.tolerances.pixels:.2%}")
        return table

    def _add_difference(self, table, name, what):
        value, allowed = getattr(self, name), getattr(self.tolerances, name)
        if value is not None:
            table.add_row(what, f"{value:.2g}", f"<= {allowed:g}" if np.isfinite(allowed) else "")


def check_detections(reference, exported, tolerances, limits):
    """Compares the detections of an exported model with the Keras model's on the same images.

    Boxes of one class are matched one to one, those of the highest IoU first, so the order of equal scores is free.

    Args:
        reference, exported: lists of `Detections`, one for each image, of the Keras and the exported model.
        tolerances: a `Tolerances`, such as `SAVED_MODEL` or `TFLITE`.
        limits: the `DetectionConfig` of both models: its score_threshold and max_per_image are where a tiny difference
            of scores adds or drops a detection.

    Returns:
        `Differences`.

    Raises:
        UserError: they differ by more than `tolerances`.
    """
    if len(reference) != len(exported):
        raise UserError(f"The exported model answered {len(exported)} of {len(reference)} images: export it again.")
    found = [
        _compare(position, *pair, tolerances, limits)
        for position, pair in enumerate(zip(reference, exported, strict=True))
    ]
    columns = {name: [one[name] for one in found] for name in (found[0] if found else ())}
    counts = ("reference", "exported", "matched", "near_ties", "only_reference", "only_exported")
    totals = {name: sum(columns.get(name, ())) for name in counts}
    largest = {name: _largest(columns.get(name, ())) for name in ("box", "score", "mask", "keypoint")}
    pixels = [value for value in columns.get("mask_pixels", ()) if value is not None]
    least = _largest([None if value is None else -value for value in columns.get("iou", ())])
    differences = Differences(
        images=len(found),
        **totals,
        iou=None if least is None else -least,
        **largest,
        mask_pixels=sum(pixels) if pixels else None,
        **{name: _share(columns.get(name, ())) for name in ("semantic", "segments")},
        tolerances=tolerances,
    )
    _refuse(differences, columns)
    return differences


def _refuse(differences, columns):
    """Raises UserError for what exceeds the tolerances; `columns` are the lists by image, to name the worst one."""
    tolerances = differences.tolerances
    if differences.matched_share < tolerances.matched:
        missing = [max(pair) for pair in zip(columns["only_reference"], columns["only_exported"], strict=True)]
        raise UserError(
            f"The exported model and the Keras model agree on {differences.matched_share:.2%} of their detections, "
            f"where at least {tolerances.matched:.2%} must match (worst in check image {int(np.argmax(missing))}): "
            "don't use the export, and report this with the config."
        )
    if differences.mask_pixels:
        raise UserError(
            f"The exported model's encoded masks have {differences.mask_pixels} pixels that the Keras model's "
            "probabilities don't explain: don't use the export, and report this with the config."
        )
    for name, what in (("semantic", "class"), ("segments", "segment")):
        value = getattr(differences, name)
        if value is not None and value < tolerances.pixels:
            worst = int(np.argmin([1.0 if one is None else _share([one]) for one in columns[name]]))
            raise UserError(
                f"The exported model and the Keras model give {value:.2%} of the pixels the same {what}, where at "
                f"least {tolerances.pixels:.2%} must have it (worst in check image {worst}): don't use the export, "
                "and report this with the config."
            )
    units = {"box": " pixels", "keypoint": " pixels", "score": "", "mask": ""}
    for name, unit in units.items():
        value, allowed = getattr(differences, name), getattr(tolerances, name)
        if value is not None and not value <= allowed:  # NaN too
            worst = int(np.argmax([-1.0 if one is None else one for one in columns[name]]))
            raise UserError(
                f"The exported model's {name} differs from the Keras model's by {value:.3g}{unit} in check image "
                f"{worst}, where {allowed:g} is allowed: don't use the export, and report this with the config."
            )


def _compare(position, reference, exported, tolerances, limits):
    """The counts and largest differences of one image, by the names of `Differences`."""
    if reference.image_size != exported.image_size:
        raise UserError(
            f"The exported model saw check image {position} as {exported.image_size}, not {reference.image_size}: "
            "give both the same file."
        )
    mine, theirs, overlaps = _match(reference, exported, tolerances.iou)
    alone = _alone(reference, mine), _alone(exported, theirs)
    excused = [
        _near_tie(one.scores[rest], other, tolerances.score, limits)
        for one, rest, other in zip((reference, exported), alone, (exported, reference), strict=True)
    ]
    encoded = isinstance(exported, EncodedMaskDetections)
    probabilities = reference.mask_probabilities, exported.mask_probabilities
    return {
        "reference": len(reference),
        "exported": len(exported),
        "matched": len(mine),
        "near_ties": int(sum(map(np.sum, excused))),
        "only_reference": int((~excused[0]).sum()),
        "only_exported": int((~excused[1]).sum()),
        "iou": float(overlaps.min()) if len(mine) else None,
        "box": _difference(position, "boxes", reference.boxes, exported.boxes, mine, theirs),
        "score": _difference(position, "scores", reference.scores, exported.scores, mine, theirs),
        "mask": None if encoded else _difference(position, "masks", *probabilities, mine, theirs),
        "mask_pixels": _wrong_pixels(reference, exported, mine, theirs, tolerances.mask) if encoded else None,
        "keypoint": _difference(position, "keypoints", _places(reference), _places(exported), mine, theirs),
        **compare_maps(position, reference, exported, mine, theirs, tolerances),
    }


def _match(reference, exported, least):
    """Indices [N] of the matched detections in both, and the IoU [N] of their boxes."""
    overlaps = iou(reference.boxes[:, None], exported.boxes[None]).numpy()
    gaps = np.abs(reference.boxes[:, None] - exported.boxes[None]).max(axis=-1)
    likeness = np.where(gaps <= SAME_PLACE, np.maximum(overlaps, 1 - gaps), np.nan_to_num(overlaps))
    likeness = np.where(reference.classes[:, None] == exported.classes[None], likeness, -1.0)
    score_gaps = np.abs(reference.scores[:, None] - exported.scores[None])
    mine, theirs = [], []
    for flat in np.lexsort((score_gaps.ravel(), -likeness.ravel())):
        one, other = divmod(int(flat), len(exported))
        if likeness[one, other] < least:
            break
        if one not in mine and other not in theirs:
            mine.append(one)
            theirs.append(other)
    mine, theirs = np.array(mine, int), np.array(theirs, int)
    return mine, theirs, likeness[mine, theirs]


def _alone(detections, matched):
    return np.setdiff1d(np.arange(len(detections)), matched)


def _near_tie(scores, other, tolerance, limits):
    """Bool [N]: whether a detection of one of these `scores` [N] may have missed the `other` Detections by chance."""
    last = limits.score_threshold
    if len(other) and len(other) >= limits.max_per_image:
        last = max(last, float(other.scores.min()))
    return scores <= last + tolerance


def _places(detections):
    return None if detections.keypoints is None else detections.keypoints[..., :2]


def _difference(position, name, reference, exported, mine, theirs):
    """The largest difference of the matched rows; None if there are none, or neither model has such an output."""
    if (reference is None) != (exported is None):
        raise UserError(f"One of the models gives {name} in check image {position}, the other doesn't: export again.")
    if reference is None or not len(mine):
        return None
    if reference.shape[1:] != exported.shape[1:]:
        raise UserError(
            f"The exported model's {name} are {list(exported.shape[1:])} each in check image {position}, the Keras "
            f"model's {list(reference.shape[1:])}: export this model again."
        )
    return float(np.abs(reference[mine] - exported[theirs]).max())


def _wrong_pixels(reference, exported, mine, theirs, tolerance):
    """How many pixels of the encoded masks aren't what the reference's probabilities, +- tolerance, give in the
    exported boxes: a box's tiny difference may move the mask by a whole pixel, and that isn't the mask's error."""
    wrong, size = 0, exported.image_size
    for one, other in zip(mine, theirs, strict=True):
        whole = exported.mask(other)
        most, least = (
            paste_window(
                reference.mask_probabilities[one], exported.boxes[other], *size, reference.mask_rule, threshold
            )
            for threshold in (0.5 - tolerance, 0.5 + tolerance)
        )
        bottom, right = most.top + most.pixels.shape[0], most.left + most.pixels.shape[1]
        part = whole[most.top : bottom, most.left : right]
        wrong += int(whole.sum() - part.sum() + (part & ~most.pixels).sum() + (least.pixels & ~part).sum())
    return wrong


def _largest(values):
    """The largest of those that aren't None, NaN before all; None if there are none."""
    values = [value for value in values if value is not None]
    return float(np.max(values)) if values else None


def _share(pixels):
    """The share of equal pixels over some `Pixels`, None left out; None if there are none but those."""
    pixels = [one for one in pixels if one is not None]
    if not pixels:
        return None
    compared = sum(one.compared for one in pixels)
    return sum(one.equal for one in pixels) / compared if compared else 1.0
