"""The layers that depend on classes and keypoints, when the weights know others than the model."""

import numpy as np

from mrcnn_tf.common.categories import UNUSED, keypoint_channels
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights.own import weight_path
from mrcnn_tf.weights.structure import num_classes, num_stuff

CLASSES, KEYPOINTS, STUFF = "classes", "keypoints", "stuff classes"
OWN_KINDS = {"keypoint_head": KEYPOINTS, "semantic_head": STUFF}  # of the other heads: CLASSES


def fit_classes(model, source, arrays, changes, map_classes):
    """Makes the `arrays` that depend on classes, keypoints or stuff fit the model's, if they don't; `changes` says how.

    They get new initial values, and, with `map_classes`, the values of the classes, of their keypoints and of the stuff
    that both know by name.

    Returns:
        weight path -> why it has a new initial value.

    Raises:
        UserError: `map_classes`, and no class and no stuff in common.
    """
    names, named = {}, {}
    if num_classes(arrays) is not None and model.config.box_head:
        both = model.config.categories, source.categories()
        names[CLASSES] = [[category.name for category in each] for each in both]
        names[KEYPOINTS] = [keypoint_channels(each)[0] for each in both]
        named[CLASSES] = named[KEYPOINTS] = source.converted.categories is not None
    if num_stuff(arrays) is not None and model.config.semantic_head:
        names[STUFF] = [[category.name for category in each] for each in (model.config.stuff, source.stuff())]
        named[STUFF] = source.converted.stuff is not None
    same = {
        what: own == theirs or (not named[what] and len(own) == len(theirs)) for what, (own, theirs) in names.items()
    }
    if all(same.values()):
        return {}
    pairs = dict.fromkeys(names, ())
    if map_classes:
        pairs |= {what: _pairs(*names[what]) for what in (CLASSES, STUFF) if what in names}
        _refuse_strangers(names, pairs, source)
        if CLASSES in names:
            pairs[KEYPOINTS] = _keypoint_pairs(*both, pairs[CLASSES])
    left = {}
    for variable, initializer in model.class_variables():
        path = weight_path(variable)
        what = OWN_KINDS.get(path.split("/")[0], CLASSES)
        if path not in arrays or same[what]:
            continue
        own, theirs = map(len, names[what])
        fresh = np.array(initializer(variable.shape, "float32"))
        if pairs[what]:
            _copy(fresh, arrays[path], path, pairs[what], model.config.mask_head)
            changes[path] = f"{len(pairs[what])} of {own} {what} by name, the others new"
        else:
            left[path] = f"set anew: {theirs} {what} in the file, {own} in the model"
        arrays[path] = fresh
    return left


def _pairs(own, theirs):
    """(index in the model, index in the file) of the classes that both know."""
    places = {name.casefold(): index for index, name in enumerate(theirs) if name != UNUSED}
    return [(index, places[name.casefold()]) for index, name in enumerate(own) if name.casefold() in places]


def _refuse_strangers(names, pairs, source):
    if not any(pairs.values()):
        own = [name for what in (CLASSES, STUFF) for name in names.get(what, [()])[0]]
        raise UserError(
            f"{source.name} knows none of the model's classes ({', '.join(own[:5])}) by name: load it without mapping."
        )


def _keypoint_pairs(own, theirs, classes):
    """(heatmap in the model, heatmap in the file) of the keypoints of paired classes that both know by name."""
    tables, pairs = [keypoint_channels(each)[1] for each in (own, theirs)], {}
    for mine, their in classes:
        places = {name: index for index, name in enumerate(theirs[their].keypoints)}
        for index, name in enumerate(own[mine].keypoints):
            if name in places:
                pairs.setdefault(int(tables[0][mine + 1, index]), int(tables[1][their + 1, places[name]]))
    return list(pairs.items())


def _copy(fresh, array, path, pairs, mask_head):
    """Puts what `array` has for the paired classes or keypoints, and for the background, in its place in `fresh`."""
    if path.startswith("keypoint_head/"):
        axis = 2 if path.endswith("kernel") else 0  # of [4, 4, P, channels]
        fresh, array, size, first, background = np.moveaxis(fresh, axis, -1), np.moveaxis(array, axis, -1), 1, 0, None
    else:
        size, first, background = _columns(path, mask_head)
    if background is not None:
        fresh[..., background] = array[..., background]
    for mine, their in pairs:
        source = slice(first + their * size, first + (their + 1) * size)
        fresh[..., first + mine * size : first + (mine + 1) * size] = array[..., source]


def _columns(path, mask_head):
    """(values per class, columns before the first class, the background's column) of a weight's last axis."""
    if path.startswith(("box_head/class_logits/", "semantic_head/")):  # the background, or all things, come first
        return 1, 1, 0
    if path.startswith("box_head/box_deltas/"):
        return 4, 0, None
    if mask_head.fcs:
        return (2 * mask_head.pool_size) ** 2, 0, None
    return 1, 0, -1 if mask_head.activation == "softmax" else None
