"""Keypoints' numbers and names; their places and visibility are the loader's checks."""

import numpy as np

from mrcnn_tf.datasets.doctor.reading import ABSENT


def check_keypoints(annotated):
    """Adds annotations of an `Annotated` whose num_keypoints is wrong or whose category names no keypoints."""
    checker, records = annotated.checker, annotated.records
    numbers = np.asarray(records.keypoint_numbers)
    expected = np.array([len(names) for names in checker.keypoint_names] or [0])[checker.place]
    annotated.note(
        "unnamed_keypoints",
        checker.kept & (expected == 0) & (numbers > 0),
        "has {given} numbers of keypoints, and category {category} names none",
        given=numbers,
    )
    # The checker has set those to zero that can't be used, and reports them.
    reported = np.zeros(checker.ids.size, bool)
    for kind in ("outside_keypoint", "keypoint_visibility", "keypoint_count", "bad_keypoints", "nan_coordinate"):
        reported[checker.rows.get(kind, [])] = True
    owner = np.repeat(np.arange(checker.ids.size), checker.keypoint_counts)
    labelled = np.bincount(owner[checker.keypoints[:, 2] > 0], minlength=checker.ids.size)
    total = np.asarray(records.keypoint_totals)
    wrong = checker.kept & (expected > 0) & (numbers >= 0) & (total != ABSENT) & (total != labelled) & ~reported
    sentence = "has num_keypoints {given} and {wanted} labelled keypoints"
    annotated.note("keypoint_number", wrong, sentence, given=total, wanted=labelled)
