import pytest
from sound_dataset import counts
from spoilers import ALONG, CASES, SPOILERS

from mrcnn_tf.datasets.doctor.kinds import COMPARISONS, KINDS, MAPS


def test_a_sound_dataset_is_called_sound(dataset):
    report = dataset.check()
    assert report.findings == []
    facts = report.to_json()["datasets"][0]["facts"]
    assert (facts["images"], facts["annotations"], facts["classes"]) == (3, 12, {"3 细胞": 12})


def test_there_is_a_case_for_every_kind():
    assert set(SPOILERS) == set(KINDS) - set(COMPARISONS) - set(MAPS)  # test_doctor_panoptic.py has those


@pytest.mark.parametrize(("kind", "spoil", "count"), CASES)
def test_what_is_wrong_is_found_and_nothing_else(dataset, kind, spoil, count):
    spoil(dataset)
    found = counts(dataset.check())
    assert found.pop(kind, 0) == count
    assert set(found) <= set(ALONG.get(kind, []))
