"""The keypoints of converted objects: which ones a class has, and their form in COCO's json."""

import json
import math

VISIBLE, OCCLUDED, UNLABELLED = 2, 1, 0  # COCO's third number of a keypoint


class ClassKeypoints:
    """The names of each class's keypoints, in the order of first appearance unless a COCO json fixed them.

    Args:
        fixed: dict category id -> (names, skeleton) that no name is added to; None to collect names.
    """

    def __init__(self, fixed=None):
        self._is_fixed = fixed is not None
        self._numbers = {}  # by category id: dict name -> place
        self._skeletons = {}
        for category, (names, skeleton) in (fixed or {}).items():
            self._numbers[category] = {name: place for place, name in enumerate(names)}
            self._skeletons[category] = skeleton

    def add(self, category, names, edges=()):
        """Adds names of a class's keypoints and pairs of names that a picture joins by a line, unless all are fixed."""
        if self._is_fixed:
            return
        numbers = self._numbers.setdefault(category, {})
        for name in names:
            numbers.setdefault(name, len(numbers))
        skeleton = self._skeletons.setdefault(category, [])
        for first, second in edges:
            pair = [numbers.get(first, -1) + 1, numbers.get(second, -1) + 1]  # COCO counts from 1
            if all(pair) and pair not in skeleton:
                skeleton.append(pair)

    def split(self, category, keypoints):
        """A class's keypoints, a dict by name, as (those that it has, what is wrong with each of the others).

        The latter is a list of (name, a kind to count by, sentence), for keypoints that aren't among the fixed names or
        whose coordinates aren't numbers.
        """
        known, problems = {}, []
        for name, (x, y, visibility) in keypoints.items():
            if self._is_fixed and name not in self._numbers.get(category, {}):
                detail = f"has the keypoint {name!r}, which its class lacks in --names, and lost it: add it there"
                problems.append((name, "unknown_keypoint", detail))
            elif not (math.isfinite(x) and math.isfinite(y)):
                detail = f"has the keypoint {name!r} without finite coordinates and lost it: draw it again"
                problems.append((name, "bad_keypoint", detail))
            else:
                known[name] = [float(x), float(y), visibility] if visibility != UNLABELLED else [0, 0, UNLABELLED]
        return known, problems

    def as_category_fields(self, category):
        """What a class's record in COCO's json says of its keypoints, a dict; {} if it has none."""
        names = list(self._numbers.get(category, ()))
        skeleton = self._skeletons.get(category)
        return ({"keypoints": names} if names else {}) | ({"skeleton": skeleton} if names and skeleton else {})

    def complete(self, text):
        """An annotation's json text with COCO's list of numbers for its class's keypoints, zeros for those it lacks.

        In `text` they are a dict by name, or not there.
        """
        if not any(self._numbers.values()):
            return text
        record = json.loads(text)
        numbers = self._numbers.get(record["category_id"])
        if not numbers:
            return text
        keypoints = record.pop("keypoints", {})
        record["keypoints"] = [value for name in numbers for value in keypoints.get(name, (0, 0, UNLABELLED))]
        record["num_keypoints"] = sum(visibility > UNLABELLED for _, _, visibility in keypoints.values())
        return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def fixed_keypoints(records):
    """dict category id -> (names, skeleton) of a COCO json's category records, for `ClassKeypoints`.

    Raises ValueError for names that aren't a list of different texts, TypeError and KeyError for other records.
    """
    fixed = {}
    for record in records:
        names = record.get("keypoints") or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"keypoints {names!r}")
        if len(set(names)) < len(names):
            raise ValueError(f"keypoints that repeat a name, {names!r}")
        fixed[int(record["id"])] = names, record.get("skeleton") or []
    return fixed
