"""What TF_CONFIG says of the processes of a run."""

import json

import pytest

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.training.strategy import has_several_workers

WORKERS = ["a:1", "b:2"]


@pytest.mark.parametrize(
    ("cluster", "several"),
    [({"worker": WORKERS}, True), ({"chief": ["a:1"], "worker": ["b:2"]}, True), ({"worker": ["a:1"]}, False)],
)
def test_several_addresses_are_several_workers(cluster, several):
    assert has_several_workers(json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}})) is several


def test_without_a_value_there_is_one_process():
    assert not has_several_workers(None) and not has_several_workers("")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "doesn't parse .*give json such as"),
        ('{"cluster": 3}', "doesn't parse"),
        ('{"cluster": {"worker": ["a"]}}', "names no workers as host:port"),
        (json.dumps({"cluster": {"worker": WORKERS}, "task": {"type": "ps", "index": 0}}), "a 'ps', but every process"),
        (json.dumps({"cluster": {"worker": WORKERS}, "task": {"index": 2}}), "worker 2, but names 2 of them"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        has_several_workers(text)
