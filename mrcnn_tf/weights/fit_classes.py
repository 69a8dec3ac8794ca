"""The weights that depend on classes, keypoints or stuff, when a file has others of these than the model."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from mrcnn_tf.common.categories import UNUSED, keypoint_channels
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights.pretrained import weight_path

CLASSES, KEYPOINTS, STUFF = "classes", "keypoints", "stuff classes"  # what the shape of a weight may depend on


@dataclasses.dataclass(frozen=True)
class ClassVariable:
    """A weight of a head whose shape depends on the classes, and where each of them lies along one of its axes.

    Attributes:
        variable, initializer: the weight, and what gives it new values.
        kind: CLASSES, KEYPOINTS or STUFF.
        axis: the one along which they lie.
        size: values of each class.
        first: values before the first class.
        background: the place of the background's, or of all things', one value; None: there is none.
    """

    variable: Any
    initializer: Callable
    kind: str = CLASSES
    axis: int = -1
    size: int = 1
    first: int = 0
    background: int | None = None

    def copy_classes(self, old, new, pairs):
        """Copy the values of paired classes (index in the model, index in the file) and of the background, from the
        file's array `old` to `new`."""
        old, new = np.moveaxis(old, self.axis, -1), np.moveaxis(new, self.axis, -1)
        if self.background is not None:
            new[..., self.background] = old[..., self.background]
        for new_class, old_class in pairs:
            source, target = (self.first + number * self.size for number in (old_class, new_class))
            new[..., target : target + self.size] = old[..., source : source + self.size]


def fit_classes(model, source, arrays, conversions, map_classes):
    """Make the `arrays` that depend on classes, keypoints or stuff fit the model's, if they don't.

    They get new initial values, and, with `map_classes`, the values of the classes, of their keypoints and of the stuff
    that file and model have by the same name (UserError if there are none); `conversions` says so. Returned is weight
    path -> why it has a new initial value.
    """
    converted, variables = source.converted, model.class_variables()
    kinds = {variable.kind for variable in variables}
    names = {}  # kind -> (names in the model, names in the file, whether the file says them)
    if source.categories() and CLASSES in kinds:
        categories = (model.categories, source.categories())
        is_named = converted.categories is not None
        names[CLASSES] = (*([category.name for category in group] for group in categories), is_named)
        names[KEYPOINTS] = (*(keypoint_channels(group)[0] for group in categories), is_named)
    if source.stuff() and STUFF in kinds:
        stuff = ([category.name for category in group] for group in (model.stuff, source.stuff()))
        names[STUFF] = (*stuff, converted.stuff is not None)
    same = {
        kind for kind, (new, old, is_named) in names.items() if new == old or (not is_named and len(new) == len(old))
    }
    if len(same) == len(names):
        return {}
    pairs = dict.fromkeys(names, ())
    if map_classes:
        pairs |= {kind: _pair_names(*names[kind][:2]) for kind in (CLASSES, STUFF) if kind in names}
        if not any(pairs.values()):
            examples = [name for kind in (CLASSES, STUFF) if kind in names for name in names[kind][0]][:5]
            raise UserError(
                f"{source.name} knows none of the model's classes ({', '.join(examples)}) by name: load it without "
                "mapping."
            )
        if CLASSES in names:
            pairs[KEYPOINTS] = _pair_keypoints(*categories, pairs[CLASSES])
    initialized = {}
    for each in variables:
        path, kind = weight_path(each.variable), each.kind
        if path not in arrays or kind in same or kind not in names:
            continue
        new, old = map(len, names[kind][:2])
        values = np.array(each.initializer(each.variable.shape, "float32"))
        if pairs[kind]:
            each.copy_classes(arrays[path], values, pairs[kind])
            conversions[path] = f"{len(pairs[kind])} of {new} {kind} by name, the others new"
        else:
            initialized[path] = f"set anew: {old} {kind} in the file, {new} in the model"
        arrays[path] = values
    return initialized


def _pair_names(new, old):
    """(index in the model, index in the file) of the names that both have."""
    indices = {name.casefold(): index for index, name in enumerate(old) if name != UNUSED}
    return [(index, indices[name.casefold()]) for index, name in enumerate(new) if name.casefold() in indices]


def _pair_keypoints(new, old, class_pairs):
    """(heatmap in the model, heatmap in the file) of the keypoints of paired classes that both have by name."""
    new_channels, old_channels = keypoint_channels(new)[1], keypoint_channels(old)[1]
    pairs = {}
    for new_class, old_class in class_pairs:
        indices = {name: index for index, name in enumerate(old[old_class].keypoints)}
        for index, name in enumerate(new[new_class].keypoints):
            if name in indices:
                channel = int(new_channels[new_class + 1, index])
                pairs.setdefault(channel, int(old_channels[old_class + 1, indices[name]]))
    return list(pairs.items())
