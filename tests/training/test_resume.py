"""A run that is interrupted and killed ends with the bits of one that wasn't."""

import json
import signal

import numpy as np
import pytest
from runs import finish, last_state, records, signal_at_step, start


@pytest.fixture(scope="module")
def cut(run_config, tmp_path_factory):
    """(folder, what each process printed) of a run that Ctrl-C stops, kill -9 ends, and a third process completes."""
    out = tmp_path_factory.mktemp("cut") / "run"
    process = start(run_config, out)
    signal_at_step(process, out, 2, signal.SIGINT)
    printed = [finish(process, status=130)]
    other = finish(start(run_config, out, "--resume", "train.learning_rate=0.1"), status=2)
    process = start(run_config, out, "--resume")
    signal_at_step(process, out, 7)
    finish(process, status=-signal.SIGKILL)
    (out / "checkpoints" / ".step-00000099.npz").write_bytes(b"half")  # as a killed write leaves it
    return out, [*printed, other, finish(start(run_config, out, "--resume"))]


def test_the_state_is_the_same_to_the_bit(cut, uncut):
    arrays, facts = last_state(cut[0])
    expected, _ = last_state(uncut)
    assert facts["step"] == 8 and arrays.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(arrays[name], values, err_msg=name)


def test_the_curves_and_the_history_are_the_same(cut, uncut):
    assert records(cut[0]) == records(uncut)
    assert [record["step"] for record in records(uncut)] == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8]
    clocks = {"images_per_second", "input_wait"}
    histories = [json.loads((folder / "history.json").read_text()) for folder in (cut[0], uncut)]
    kept = [[{k: v for k, v in epoch.items() if k not in clocks} for epoch in history] for history in histories]
    assert kept[0] == kept[1] and len(kept[0]) == 2


def test_ctrl_c_says_how_to_go_on_and_another_config_what_differs(cut):
    interrupted, refused, _ = cut[1]
    assert "--resume" in interrupted.splitlines()[-1] and "Traceback" not in interrupted
    last = refused.strip().splitlines()[-1]
    assert "train.learning_rate: 0.002 -> 0.1" in last and "--force" in last and "Traceback" not in refused


def test_nothing_is_left_but_whole_files(cut):
    names = sorted(path.name for path in cut[0].iterdir())
    expected = ["best.keras", "checkpoints", "config.yaml", "history.json", "log.jsonl", "model.keras", "tensorboard"]
    assert names == expected
    assert all(path.name.startswith("step-") for path in (cut[0] / "checkpoints").iterdir())
