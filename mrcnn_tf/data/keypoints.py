"""What a dataset's keypoints mean for training: how a mirrored image renames them, and which images have enough."""

import re

import numpy as np

from mrcnn_tf.common.categories import max_keypoints
from mrcnn_tf.common.errors import UserError

# The words for a side, wherever writers of names put a word's beginning and end: left_eye, leftEye, eyeLeft, l_eye,
# lEye, LEye, eye.L, eyeL. Short forms need a clear end on both sides; "Left" can't be part of another word.
_SIDE = re.compile(
    r"(?<![A-Za-z])(?:left|right)|Left|Right|(?<![A-Z])(?:LEFT|RIGHT)"
    r"|(?<![A-Za-z0-9])[lr](?![a-z0-9])|(?<![A-Za-z0-9])[LR](?=[A-Z][a-z]|[^A-Za-z0-9]|$)|(?<=[a-z])[LR](?![A-Za-z0-9])"
)
# Without such an end (lknee, LKNE, eyeleft, L1) it takes the other side's name to tell that a side is meant.
_MERGED_SIDE = re.compile(r"^[lrLR]|(?:left|right|LEFT|RIGHT)$")
_OPPOSITE = {"left": "right", "Left": "Right", "LEFT": "RIGHT", "l": "r", "L": "R"}
_OPPOSITE |= {right: left for left, right in _OPPOSITE.items()}


def mirrored_keypoints(names):
    """Which keypoint takes each one's place in a mirrored image: left ones and right ones exchange.

    Args:
        names: P distinct keypoint names. A side is "left" or "right" in any case, or l or r, at the name's beginning or
            end or as one of its words, set off by signs or by capitals. Names without a side stay.

    Returns:
        list of P places; the mirrored image's p-th keypoint was the original's `result[p]`-th.

    Raises:
        UserError: a name's other side isn't among the names.
    """
    return [names.index(_opposite(name, names)) for name in names]


def _opposite(name, names):
    def exchange(match):
        return _OPPOSITE[match[0]]

    other = _SIDE.sub(exchange, name)
    if other == name:
        merged = _MERGED_SIDE.sub(exchange, name)
        return merged if merged in names and not _SIDE.search(merged) else name
    if other not in names:
        raise UserError(
            f"Keypoint {name!r} has no {other!r} to exchange with in a mirrored image: "
            "set augment.horizontal_flip=0 and augment.vertical_flip=0 or rename it."
        )
    return other


def mirror_table(categories, config):
    """`mirrored_keypoints` of every class.

    Args:
        categories: list of K `Category`s.
        config: settings.AugmentConfig; if it mirrors nothing, the names needn't have sides.

    Returns:
        int32 [K + 1, P]; each place is its own where a class has no keypoint, and for the background in row 0.

    Raises:
        UserError: see `mirrored_keypoints`.
    """
    most = max_keypoints(categories)
    table = np.tile(np.arange(most, dtype=np.int32), [len(categories) + 1, 1])
    if config.horizontal_flip > 0 or config.vertical_flip > 0:
        for row, category in enumerate(categories, 1):
            table[row, : len(category.keypoints)] = mirrored_keypoints(category.keypoints)
    return table


def labelled_keypoints(index):
    """[I] int64: how many labelled keypoints the instances of each of the `CocoIndex`'s images have, without crowds."""
    owner = np.repeat(np.arange(index.classes.size), np.diff(index.keypoint_offsets))
    labelled = (index.keypoints[:, 2] > 0) & ~index.crowd[owner]
    image = np.repeat(np.arange(index.image_ids.size), np.diff(index.instance_offsets))
    return np.bincount(image[owner[labelled]], minlength=index.image_ids.size)


def images_to_train_on(index, config):
    """The images that have the labelled keypoints which `config` asks for.

    Args:
        index: CocoIndex.
        config: settings.DataConfig; `keypoints` and `min_keypoints` are read.

    Returns:
        int64 numbers of the images, rising; all of them where nothing is asked for.

    Raises:
        UserError: there are no such images, or not a single labelled keypoint for a keypoint head to learn from.
    """
    labelled = labelled_keypoints(index)
    wanted = config.keypoints or max_keypoints(index.categories)
    if wanted and not labelled.any():
        raise UserError(
            f"No annotation of {config.annotations} has a labelled keypoint to train on: name keypoints in its "
            "categories and label them, or train without them (model.keypoint_head=null, data.train.keypoints=false)."
        )
    rows = np.flatnonzero(labelled >= config.min_keypoints)
    if not rows.size:
        raise UserError(
            f"No image of {config.annotations} has {config.min_keypoints} labelled keypoints: "
            "lower data.train.min_keypoints or give annotations and their categories keypoints."
        )
    return rows
