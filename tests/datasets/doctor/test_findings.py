"""The kinds of problems in problem_kinds.yaml are those that the code reports."""

import ast
import dataclasses
import pathlib
import re

import pytest

import mrcnn_tf
from mrcnn_tf.datasets.doctor.findings import PROBLEM_KINDS, SEVERITIES, format_percentage
from mrcnn_tf.datasets.doctor.panoptic_checks import _SEGMENT_KINDS

DATASETS = pathlib.Path(mrcnn_tf.__file__).parent / "datasets"
FILES = [*DATASETS.glob("*.py"), *(DATASETS / "doctor").glob("*.py")]
# Functions that make a problem of the kind that one of their arguments names.
REPORTING = {"add", "note", "reject", "explain", "Problem", "problem", "_note", "_reject", "_differ"}
NAME = re.compile(r"[a-z]+(_[a-z]+)+")
# Put together from two words: f"{habit}_polygons", "missing_image" of a map, f"missing_{field}".
COMPOSED = {
    *("normalised_polygons", "swapped_polygons", "normalised_keypoints", "swapped_keypoints"),
    *("missing_map", "truncated_map", "missing_bbox", "missing_area"),
}


def texts(node):
    return {child.value for child in ast.walk(node) if isinstance(child, ast.Constant) and isinstance(child.value, str)}


def names_in(path, reported):
    """All texts in a module that look like a kind's name; only those of reported problems if asked for."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not reported:
        return texts(tree)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    calls = [call for call in calls if getattr(call.func, "attr", getattr(call.func, "id", "")) in REPORTING]
    arguments = [argument for call in calls for argument in call.args]
    return {name for argument in arguments for name in texts(argument) if NAME.fullmatch(name)}


def test_every_kind_in_the_file_is_reported():
    in_code = set().union(*(names_in(path, reported=False) for path in FILES)) | COMPOSED
    assert set(PROBLEM_KINDS) - in_code == set()


def test_every_reported_kind_is_in_the_file():
    reported = set().union(*(names_in(path, reported=True) for path in FILES))
    assert len(reported) > 50
    assert {_SEGMENT_KINDS.get(name, name) or "clipped_box" for name in reported} - set(PROBLEM_KINDS) == set()
    assert {kind for kind in _SEGMENT_KINDS.values() if kind} | COMPOSED <= set(PROBLEM_KINDS)


def test_the_file_says_all_of_every_kind():
    for kind in PROBLEM_KINDS.values():
        assert all(isinstance(value, str) for value in dataclasses.astuple(kind))
        assert kind.severity in SEVERITIES and kind.title and kind.remedy
        assert kind.unit in ("image", "annotation", "segment", "category", "file", "dataset")
        assert not kind.remedy.endswith(".") and not kind.fix.endswith(".")


@pytest.mark.parametrize(
    ("count", "total", "text"),
    [(1, 3000, "under 0.1 %"), (12, 3000, "0.4 %"), (2999, 3000, "over 99.9 %"), (3, 3, "100 %"), (1, 2, "50 %")],
)
def test_percentages_are_never_rounded_to_nothing_or_all(count, total, text):
    assert format_percentage(count, total) == text
