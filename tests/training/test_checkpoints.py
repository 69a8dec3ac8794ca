"""Checkpoint files and their folder: kill -9, damage, a full disk, rotation."""

import errno
import io
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
from crashing_writer import arrays_of

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.training import checkpoints as checkpoints_module
from mrcnn_tf.training.checkpoints import Checkpoints, read_checkpoint, read_facts, write_checkpoint

ARRAYS = {
    "model/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "optimizer/0000_iteration": np.array(17, np.int64),
    "state/bytes": np.array([[1, 255]], np.uint8),
    "state/flags": np.array([True, False]),
    "state/none": np.zeros([0, 3], np.float32),
}


def saved(folder, steps, keep=2, figures=None):
    """`Checkpoints` after saving one for each step; `figures` has the AP of some of them."""
    checkpoints = Checkpoints(folder, keep)
    for step in steps:
        facts = {"step": step, "figures": {"val_segm_AP": figures[step]} if figures and step in figures else {}}
        checkpoints.save({"a": np.full([64], step, np.float32)}, facts)
    checkpoints.close()
    return checkpoints


def names(folder):
    return sorted(path.name for path in pathlib.Path(folder).iterdir())


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    facts = {"step": 3, "history": [{"val_segm_AP": 0.1 + 0.2}], "config": {"train": {"seed": 0}}}
    write_checkpoint(tmp_path / "new" / "a.npz", ARRAYS, facts)
    arrays, found = read_checkpoint(tmp_path / "new" / "a.npz")
    assert found == facts == read_facts(tmp_path / "new" / "a.npz")
    assert list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
        np.testing.assert_array_equal(arrays[name], array)
    assert names(tmp_path / "new") == ["a.npz"]


def test_numpy_opens_it_too(tmp_path):
    write_checkpoint(tmp_path / "a.npz", ARRAYS, {})
    with np.load(tmp_path / "a.npz") as opened:
        np.testing.assert_array_equal(opened["model/kernel"], ARRAYS["model/kernel"])


def test_arrays_that_do_not_lie_in_order_are_written_in_order(tmp_path):
    write_checkpoint(tmp_path / "a.npz", {"a": ARRAYS["model/kernel"].T}, {})
    np.testing.assert_array_equal(read_checkpoint(tmp_path / "a.npz")[0]["a"], ARRAYS["model/kernel"].T)


def test_large_arrays_are_written_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints_module, "CHUNK_BYTES", 7)
    write_checkpoint(tmp_path / "a.npz", ARRAYS, {})
    np.testing.assert_array_equal(read_checkpoint(tmp_path / "a.npz")[0]["model/kernel"], ARRAYS["model/kernel"])


def test_no_byte_can_change_unnoticed(tmp_path):
    """Every flipped bit is refused, or lies where it changes nothing that is read."""
    path = tmp_path / "a.npz"
    facts = {"step": 3}
    write_checkpoint(path, {"a": ARRAYS["model/kernel"], "b": ARRAYS["state/bytes"]}, facts)
    whole, refused = path.read_bytes(), 0
    for place in range(len(whole)):
        bent = bytearray(whole)
        bent[place] ^= 1 << place % 8
        path.write_bytes(bent)
        try:
            arrays, found = read_checkpoint(path)
        except UserError as error:
            refused += 1
            assert str(path) in str(error) and str(error).endswith(".") and "\n" not in str(error)
        else:
            assert found == facts and list(arrays) == ["a", "b"]
            np.testing.assert_array_equal(arrays["a"], ARRAYS["model/kernel"])
            np.testing.assert_array_equal(arrays["b"], ARRAYS["state/bytes"])
    assert refused > len(whole) / 2


def test_a_file_that_was_cut_off_is_refused_at_any_length(tmp_path):
    path = tmp_path / "a.npz"
    write_checkpoint(path, {"a": ARRAYS["model/kernel"]}, {"step": 3})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="can't be read"):
            read_checkpoint(path)


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "npz", "json"])
def test_foreign_files_are_refused_in_a_sentence(tmp_path, kind):
    path = tmp_path / "a.npz"
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("hello")
    elif kind == "npz":
        np.savez(path, a=np.zeros(3))
    elif kind == "json":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("facts.json", "[1]")
    with pytest.raises(UserError, match=r"a\.npz.*\.$"):
        read_checkpoint(path)


def test_the_latest_and_the_best_stay(tmp_path):
    checkpoints = saved(tmp_path, [10, 20, 30, 40, 50], keep=2, figures={10: 0.1, 20: 0.3, 30: 0.3, 40: 0.2})
    assert names(tmp_path) == ["step-00000020.npz", "step-00000040.npz", "step-00000050.npz"]
    assert checkpoints.latest().name == "step-00000050.npz"
    assert checkpoints.best().name == "step-00000020.npz"
    again = Checkpoints(tmp_path, 2)
    assert again.best().name == "step-00000020.npz"
    assert read_checkpoint(again.best())[1]["step"] == 20


def test_a_better_one_takes_the_place_of_the_best(tmp_path):
    saved(tmp_path, [10, 20, 30], keep=1, figures={10: 0.1, 20: 0.05})
    assert names(tmp_path) == ["step-00000010.npz", "step-00000030.npz"]
    saved(tmp_path, [40, 50], keep=1, figures={40: 0.2})
    assert names(tmp_path) == ["step-00000040.npz", "step-00000050.npz"]


def test_without_figures_only_the_latest_stay(tmp_path):
    checkpoints = saved(tmp_path, range(10, 50, 10), keep=3, figures={10: float("nan")})
    assert names(tmp_path) == ["step-00000020.npz", "step-00000030.npz", "step-00000040.npz"]
    assert checkpoints.best() is None


def test_a_run_that_went_back_is_not_resumed_from_what_came_later(tmp_path):
    saved(tmp_path, [10, 20, 90], keep=3)
    checkpoints = saved(tmp_path, [30], keep=3)
    assert checkpoints.latest().name == "step-00000030.npz"


def test_a_damaged_latest_is_passed_over_and_named(tmp_path, capsys):
    checkpoints = saved(tmp_path, [10, 20, 30], keep=3)
    for name in ("step-00000030.npz", "step-00000020.npz"):
        content = bytearray((tmp_path / name).read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / name).write_bytes(content)
    assert checkpoints.latest().name == "step-00000010.npz"
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "step-00000030.npz" in lines[0] and "step-00000020.npz" in lines[1]


def test_an_empty_or_missing_folder_has_no_checkpoint(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        assert Checkpoints(folder).latest() is None and Checkpoints(folder).best() is None


def test_what_a_killed_write_left_is_cleared_away_by_the_process_that_writes(tmp_path):
    saved(tmp_path, [10])
    leftover = tmp_path / ".step-00000020.4242.npz"
    leftover.write_bytes(b"half")
    assert Checkpoints(tmp_path, writes=False).latest().name == "step-00000010.npz" and leftover.exists()
    assert Checkpoints(tmp_path).latest().name == "step-00000010.npz" and not leftover.exists()


def test_saving_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    checkpoints, disk = Checkpoints(tmp_path), []

    def slow(handle):
        time.sleep(0.3)
        disk.append(checkpoints.latest())

    monkeypatch.setattr(checkpoints_module.os, "fsync", slow)
    checkpoints.save({"a": np.zeros(3)}, {"step": 1})
    assert not disk
    assert list(checkpoints.reclaim()) == ["a"]
    assert disk[0] is None and checkpoints.latest().name == "step-00000001.npz"  # named after the disk has it


class FileOnFullDisk(io.FileIO):
    """Takes `room` bytes and then fails as a full disk does."""

    room = 0

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.name)
        return super().write(data)


@pytest.mark.parametrize("room", [0, 100, 1000, 100_000])
def test_a_full_disk_leaves_the_older_ones_and_training_goes_on(tmp_path, monkeypatch, capsys, room):
    saved(tmp_path, [10, 20])
    with monkeypatch.context() as patch:
        patch.setattr(FileOnFullDisk, "room", room)
        patch.setattr(checkpoints_module, "open", FileOnFullDisk, raising=False)
        checkpoints = Checkpoints(tmp_path)
        checkpoints.save({"a": np.zeros([100_000], np.float32)}, {"step": 30})
        with pytest.raises(UserError, match=r"step-00000030.*No space left on device.*free some space"):
            checkpoints.close()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "step-00000030.npz" in said and "Training goes on" in said
    assert names(tmp_path) == ["step-00000010.npz", "step-00000020.npz"]
    checkpoints.save({"a": np.zeros([100_000], np.float32)}, {"step": 30})
    checkpoints.close()
    assert checkpoints.latest().name == "step-00000030.npz"


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path, capsys):
    (tmp_path / "checkpoints").write_text("")
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save({"a": np.zeros(3)}, {"step": 1})
    with pytest.raises(UserError, match="there is no older one"):
        checkpoints.close()
    assert capsys.readouterr().err.count("\n") == 1


def start_writer(folder, step):
    """A process that saves step after step, once it has got through the first."""
    script = str(pathlib.Path(__file__).parent / "crashing_writer.py")
    process = subprocess.Popen([sys.executable, script, str(folder), str(step)])
    while not (folder / f"step-{step:08d}.npz").exists():
        assert process.poll() is None
        time.sleep(0.005)
    return process


def test_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    """Each process goes on from what the one before left, as a run does, and is killed in the middle of its writes."""
    random.seed(3)
    step, interrupted = 0, 0
    for _ in range(8):
        process = start_writer(tmp_path, step + 1)
        time.sleep(random.uniform(0.0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait()
        interrupted += bool(list(tmp_path.glob(".step-*")))
        checkpoints = Checkpoints(tmp_path)
        assert not list(tmp_path.glob(".*"))
        arrays, facts = read_checkpoint(checkpoints.latest())
        assert facts["step"] > step
        step, expected = facts["step"], arrays_of(facts["step"])
        assert list(arrays) == list(expected)
        assert all((array == expected[name]).all() for name, array in arrays.items())
        assert len(names(tmp_path)) <= 4  # two, the best, and one that was to be deleted
    assert interrupted
