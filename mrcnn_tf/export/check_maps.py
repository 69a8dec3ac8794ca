"""How many pixels of an exported model's maps are those of the Keras model's."""

import collections

import numpy as np

from mrcnn_tf.errors import UserError

# equal: pixels on which both agree; compared: of how many.
Pixels = collections.namedtuple("Pixels", "equal compared")


def compare_maps(position, reference, exported, mine, theirs, tolerance):
    """The maps of one image in both models.

    Pixels of things are equal if their detections are matched, whatever the segments' numbers; of stuff, if the
    category is the same. Pixels of an instance whose score is so near the fusion's threshold that either model may
    leave it out are not compared.

    Args:
        position: of the check image, for errors.
        reference, exported: the `Detections` of the Keras and the exported model.
        mine, theirs: [N], the rows of the matched detections in both.
        tolerance: of a score.

    Returns:
        {"semantic": `Pixels`, "segments": `Pixels`}, or None where the models have no such map.

    Raises:
        UserError: one of the models has a map that the other lacks.
    """
    classes = _both(position, "classes", reference.semantic, exported.semantic)
    if classes is None:
        return {"semantic": None, "segments": None}
    found = {"semantic": Pixels(int((classes[0] == classes[1]).sum()), classes[0].size), "segments": None}
    if bool(len(reference)) != bool(len(exported)):
        # Without masks, boxes can't be fused with stuff, and none can.
        return found
    segments = _both(position, "segments", reference.panoptic, exported.panoptic)
    if segments is None:
        return found
    names = collections.defaultdict(lambda: len(names))
    threshold = reference.semantics.fusion.score_threshold
    labels = [
        _labels(panoptic, names, {row: pair for pair, row in enumerate(rows.tolist())}, side, threshold, tolerance)
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


def _labels(panoptic, names, pairs, side, threshold, tolerance):
    """int [H, W], what each pixel is, one number for the same in both models; -1 where it isn't compared.

    `names` gives a new key the next number, `pairs` the pair of a matched detection's row. Of one that isn't matched,
    the key holds the `side`.
    """
    table = np.zeros(max((segment.id for segment in panoptic.segments), default=0) + 1, int)
    table[0] = names["void"]
    for segment in panoptic.segments:
        if not segment.is_thing:
            table[segment.id] = names["stuff", segment.category.id]
        elif abs(segment.score - threshold) <= tolerance:
            table[segment.id] = -1
        else:
            alone = "alone", side, segment.instance
            table[segment.id] = names[("pair", pairs[segment.instance]) if segment.instance in pairs else alone]
    return table[panoptic.segment_map]
