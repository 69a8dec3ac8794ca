"""Several things wrong at once: nothing crashes, and the mended copy has no errors."""

import copy
import json

import numpy as np
import pytest
from sound_dataset import Dataset, counts
from spoilers import SPOILERS

from mrcnn_tf.datasets.doctor import repair

# A copy can't have what nothing is left of.
LEFT = {"no_images", "no_annotations", "no_categories", "all_crowd"}


@pytest.mark.parametrize("seed", range(40))
def test_mixtures_are_mended(tmp_path, seed):
    rng = np.random.default_rng(seed)
    dataset = Dataset(tmp_path)
    for kind in rng.choice(list(SPOILERS), 4, replace=False).tolist():
        cases = SPOILERS[kind]
        try:
            cases[int(rng.integers(len(cases)))][0](dataset)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError, OSError):
            continue  # it can't be done to what the one before has left
    report = dataset.check()
    json.dumps(report.to_json())
    fixed = repair(report, tmp_path / "mended")
    left = {kind for kind in counts(fixed.report) if fixed.report.has_errors()}
    assert not left or left & LEFT


VALUES = [None, True, "x", "3", -1, 0, 1.5, 1e400, 10**30, [], {}, [[]], [None], [[1, 2], [3, 4], [5, 6]], {"size": 3}]


@pytest.mark.parametrize("seed", range(60))
def test_any_value_in_any_field(tmp_path, seed):
    rng = np.random.default_rng(seed)
    dataset = Dataset(tmp_path)
    for _ in range(6):
        records = [dataset.records, dataset.annotations, dataset.categories][int(rng.integers(3))]
        record = records[int(rng.integers(len(records)))]
        fields = [*record, "keypoints", "num_keypoints"] if isinstance(record, dict) else []
        if not fields or rng.random() < 0.05:
            records[int(rng.integers(len(records)))] = copy.deepcopy(VALUES[int(rng.integers(len(VALUES)))])
            continue
        record[fields[int(rng.integers(len(fields)))]] = copy.deepcopy(VALUES[int(rng.integers(len(VALUES)))])
    report = dataset.check()
    json.dumps(report.to_json())
    fixed = repair(report, tmp_path / "mended")
    left = {kind for kind in counts(fixed.report) if fixed.report.has_errors()}
    assert not left or left & LEFT
