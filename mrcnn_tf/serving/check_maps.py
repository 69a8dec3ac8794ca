"""How many pixels of an exported model's maps are those of the Keras model's."""

import collections

import numpy as np

from mrcnn_tf.common.errors import UserError

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
