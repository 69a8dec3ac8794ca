"""Keypoints of a COCO json and the sigmas of object keypoint similarity (OKS), by which they are compared.

OKS (cocodataset.org, "keypoint evaluation") is the mean over an object's labelled keypoints of
exp(-d^2 / (2 area (2 sigma)^2)), where d is the distance in pixels and sigma the spread of annotators who label that
keypoint, relative to the root of the object's area.
"""

import math

import numpy as np

from mrcnn_tf.common.errors import UserError

# As COCO measured them on 5000 persons that two people labelled.
COCO_SIGMAS = {
    "nose": 0.026,
    "left_eye": 0.025,
    "right_eye": 0.025,
    "left_ear": 0.035,
    "right_ear": 0.035,
    "left_shoulder": 0.079,
    "right_shoulder": 0.079,
    "left_elbow": 0.072,
    "right_elbow": 0.072,
    "left_wrist": 0.062,
    "right_wrist": 0.062,
    "left_hip": 0.107,
    "right_hip": 0.107,
    "left_knee": 0.087,
    "right_knee": 0.087,
    "left_ankle": 0.089,
    "right_ankle": 0.089,
}
OTHER_SIGMA = 0.05  # between COCO's for ears and for wrists


def keypoint_names(records, categories, source):
    """The keypoints of each category that has any, as the json names them or, where it doesn't, the model.

    Args:
        records: "categories" of the json.
        categories: the model's `Category`s; they may be fewer.
        source: the json's path, for messages.

    Returns:
        {category id: list of names}.

    Raises:
        UserError: both name a category's keypoints, and differently.
    """
    names = {}
    for record in records:
        listed = record.get("keypoints")
        names[record["id"]] = [str(name) for name in listed] if isinstance(listed, list) else []
    for category in categories:
        named = names.get(category.id)
        if named and category.keypoints and named != list(category.keypoints):
            raise UserError(
                f"{source} names the keypoints of category {category.id} ({category.name}) {', '.join(named)}, the "
                f"model {', '.join(category.keypoints)}: make both the same, in one order."
            )
        if not named and category.id in names:
            names[category.id] = list(category.keypoints)
    return {category_id: named for category_id, named in names.items() if named}


def read_keypoints(record, count):
    """The keypoints of an annotation that should have `count` of them.

    Returns:
        (3 `count` numbers x, y, v, zeros where they are missing or wrong; what is wrong with them, or ""). An
        annotation without keypoints is no fault: a crowd has none.
    """
    nothing = [0] * (3 * count)
    given = record.get("keypoints")
    if not given:
        return nothing, ""
    if not isinstance(given, list) or len(given) != 3 * count:
        length = f"{len(given)} numbers" if isinstance(given, list) else "no list"
        return nothing, f"its keypoints are {length} instead of {3 * count}, x, y and visibility of each of {count}"
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in given):
        return nothing, "its keypoints are not all numbers"
    if not {*given[2::3]} <= {0, 1, 2}:
        return nothing, "the visibility of a keypoint is not 0, 1 or 2"
    return given, ""


def keypoint_sigmas(names, keypoints, given, source):
    """Sigmas of each category's keypoints: the given ones, COCO's for COCO's keypoints of persons, otherwise 0.05.

    Args:
        names: {category id: name} of those to evaluate.
        keypoints: {category id: names of its keypoints}, as `keypoint_names` gives it.
        given: {category name: list of sigmas}.
        source: the json's path, for messages.

    Returns:
        ({category id: float64 [P]}, a list of sentences about those that nobody measured).

    Raises:
        UserError: `given` names a category that isn't evaluated or has no keypoints, or holds a wrong number of sigmas
            or one that isn't positive.
    """
    for name in given:
        if name not in names.values():
            known = ", ".join(names[category_id] for category_id in keypoints if category_id in names)
            raise UserError(
                f"keypoint_sigmas are given for '{name}', which is no category of {source}: "
                f"{f'those with keypoints are {known}' if known else 'remove them, for none of it has keypoints'}."
            )
    sigmas, guessed = {}, []
    for category_id in sorted(names):
        name, points = names[category_id], keypoints.get(category_id, ())
        if name in given:
            sigmas[category_id] = _checked(given[name], name, points)
        elif points and {*points} == {*COCO_SIGMAS}:
            sigmas[category_id] = np.array([COCO_SIGMAS[point] for point in points])
        elif points:
            sigmas[category_id] = np.full(len(points), OTHER_SIGMA)
            guessed.append(name)
    notes = [
        f"The keypoints of {name} were compared with a sigma of {OTHER_SIGMA} each, for want of measured ones: "
        "data.val.keypoint_sigmas sets others."
        for name in guessed
    ]
    return sigmas, notes


def _checked(values, name, points):
    if not points:
        raise UserError(f"keypoint_sigmas are given for '{name}', which has no keypoints: remove them.")
    if len(values) != len(points):
        raise UserError(f"keypoint_sigmas of '{name}' must be {len(points)}, one for each keypoint, not {len(values)}.")
    for value, point in zip(values, points, strict=True):
        if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
            raise UserError(f"keypoint_sigmas of '{name}' give {value} for {point}: it must be more than 0.")
    return np.array(values, np.float64)
