"""The splits of a dataset: what folders and lists of images are called by them, and the one that is converted."""

import re

from mrcnn_tf.common.errors import UserError

SPLIT_OF_WORD = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
# As folders and lists are called: train, valid, images_test, train2017, obj_train_data.
_NAME = re.compile(
    rf"(?:(?:obj|images?|labels?)[_-]?)?({'|'.join(SPLIT_OF_WORD)})(?:ing)?(?:20\d\d)?"
    r"(?:[_-]?(?:data|images?|labels?|set))?",
    re.IGNORECASE,
)


def split_of_name(name):
    """ "train", "val" or "test" for the name of a folder or list; None for others."""
    match = _NAME.fullmatch(name)
    return SPLIT_OF_WORD[match[1].lower()] if match else None


def split_of(path, root):
    """The split that a folder of a file's path below `root` is called by; None if there is none."""
    folders = path.relative_to(root).parent.parts if path.is_relative_to(root) else ()
    return next(filter(None, map(split_of_name, folders)), None)


def choose_split(names, split, source, note=""):
    """The split of a dataset to read: the one that is asked for or the only one; None where there is none.

    Args:
        names: those of the splits that `source` holds, in any iterable.
        split: the one that is asked for, or None.
        note: what a message says after the names.

    Raises:
        UserError: there is no such split, or several are there and none is named: what a model is tested on must never
            end in the json that it is trained on.
    """
    names = list(dict.fromkeys(names))
    listed = f"{', '.join(names)}{note}"
    if split is None and len(names) > 1:
        raise UserError(f"{source} has the splits {listed}: convert one at a time by --split {names[0]}.")
    if split is not None and split not in names:
        has = f"it has {listed}" if names else f"it has none{note}, so leave --split out"
        raise UserError(f"{source} has no split {split!r}: {has}.")
    return names[0] if split is None and names else split
