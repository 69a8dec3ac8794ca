"""The layers that depend on the number of classes, when the weights know other classes than the model."""

import numpy as np

from mrcnn_tf.categories import UNUSED
from mrcnn_tf.errors import UserError
from mrcnn_tf.weights.own import weight_path
from mrcnn_tf.weights.structure import num_classes

# Class-dependent weights: path -> (values per class, columns before the first class). Columns are the last axis.
COLUMNS = {
    "box_head/class_logits/kernel": (1, 1),
    "box_head/class_logits/bias": (1, 1),
    "box_head/box_deltas/kernel": (4, 0),
    "box_head/box_deltas/bias": (4, 0),
    "mask_head/predictor_kernel": (1, 0),
    "mask_head/predictor_bias": (1, 0),
}


def fit_classes(model, source, arrays, changes, map_classes):
    """Makes the class-dependent `arrays` fit the model's classes, if they don't; `changes` says how.

    They get new initial values, and, with `map_classes`, the values of the classes that both know by name.

    Returns:
        weight path -> why it has a new initial value.

    Raises:
        UserError: `map_classes` and no class in common.
    """
    count = num_classes(arrays)
    if count is None:
        return {}
    own, theirs = ([category.name for category in each] for each in (model.config.categories, source.categories()))
    named = source.converted.categories is not None
    if own == theirs or (not named and len(own) == count):
        return {}
    pairs = _pairs(own, theirs, source) if map_classes else []
    left = {}
    for variable, initializer in model.class_variables():
        path = weight_path(variable)
        if path not in arrays:
            continue
        fresh = np.array(initializer(variable.shape, "float32"))
        if pairs:
            arrays[path] = _mapped(fresh, arrays[path], path, pairs)
            changes[path] = f"{len(pairs)} of {len(own)} classes by name, the others new"
        else:
            arrays[path] = fresh
            left[path] = f"set anew: {count} classes in the file, {len(own)} in the model"
    return left


def _pairs(own, theirs, source):
    """(index in the model, index in the file) of the classes that both know."""
    places = {name.casefold(): index for index, name in enumerate(theirs) if name != UNUSED}
    pairs = [(index, places[name.casefold()]) for index, name in enumerate(own) if name.casefold() in places]
    if not pairs:
        raise UserError(
            f"{source.name} knows none of the model's classes ({', '.join(own[:5])}) by name: load it without mapping."
        )
    return pairs


def _mapped(fresh, array, path, pairs):
    """`fresh` with the columns of the paired classes, and the background's, taken from `array`."""
    size, first = COLUMNS[path]
    fresh[..., :first] = array[..., :first]
    for mine, their in pairs:
        fresh[..., first + mine * size : first + (mine + 1) * size] = array[
            ..., first + their * size : first + (their + 1) * size
        ]
    return fresh
