import pytest
from sound_dataset import counts
from spoilers import ALONG, CASES, SPOILERS

from mrcnn_tf.datasets.doctor.findings import PROBLEM_KINDS


def test_a_sound_dataset_is_called_sound(dataset):
    report = dataset.check()
    assert report.findings == []
    facts = report.to_json()["datasets"][0]["facts"]
    assert (facts["images"], facts["annotations"], facts["classes"]) == (3, 12, {"3 细胞": 12})


def test_there_is_a_case_for_every_kind():
    others = ("comparison", "maps")  # test_doctor_comparison.py and test_doctor_panoptic.py have those
    assert set(SPOILERS) == {name for name, kind in PROBLEM_KINDS.items() if kind.section not in others}


@pytest.mark.parametrize(("kind", "spoil", "count"), CASES)
def test_what_is_wrong_is_found_and_nothing_else(dataset, kind, spoil, count):
    spoil(dataset)
    found = counts(dataset.check())
    assert found.pop(kind, 0) == count
    assert set(found) <= set(ALONG.get(kind, []))
