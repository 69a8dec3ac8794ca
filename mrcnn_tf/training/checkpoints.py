"""A run's checkpoints: a folder of them, written beside the training and rotated, and each as one file.

A file is an uncompressed .npz, so `numpy.load` opens it too, with facts on the run as json in `facts.json`. Zip
archives carry a checksum of each member and their table of contents at the end: one that was cut off or damaged shows.
"""

import contextlib
import errno
import io
import json
import math
import os
import pathlib
import re
import struct
import threading
import zipfile

import numpy as np

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.common.problems import print_line

FILE_NAME = "step-{:08d}.npz"
FILE_PATTERN = re.compile(r"step-(\d{8,})\.npz")
TEMPORARY_FILES = ".step-*.npz"  # the temporary names of `atomic_write`
REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space there"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "allow writing there"),
}
FACTS_FILE = "facts.json"
FORMAT = "mrcnn_tf checkpoint 1"
CHUNK_BYTES = 8 << 20  # checksum and writing release Python's lock for one at a time
# What zipfile, json and numpy raise for damaged files; a RuntimeError where a flag says that a member is encrypted.
READ_ERRORS = (OSError, EOFError, ValueError, KeyError, RuntimeError, struct.error, zipfile.BadZipFile)


class Checkpoints:
    """The checkpoints in a folder, `step-00000500.npz` and so on: the latest few, and the best.

    `save` returns at once and a thread writes. One process alone writes to a folder.

    Args:
        folder: made with the first checkpoint.
        keep: how many of the latest ones stay.
        monitor: the metric in the facts' "figures" by which the best one is kept besides; None keeps no best.
        writes: whether this process is the one that writes; it clears away what a killed write left.
    """

    def __init__(self, folder, keep=2, monitor="val_segm_AP", writes=True):
        self.folder, self.keep, self.monitor = pathlib.Path(folder), keep, monitor
        self.failure = self._writer = self._arrays = None
        self._scores = {}  # by path
        if writes:
            for leftover in self.folder.glob(TEMPORARY_FILES):
                leftover.unlink(missing_ok=True)

    def save(self, arrays, facts):
        """Start writing a checkpoint and return; wait for the write before, if that still runs.

        A write that fails leaves the older checkpoints, says so in one line on stderr, and training goes on; `failure`
        is that sentence until a write succeeds.

        Args:
            arrays: numpy arrays by name that nobody changes any more (see `snapshot`).
            facts: json values; "step" names the file, and "figures" {name: value} belong to these very weights.
        """
        self.wait()
        self._arrays = arrays
        # Not a daemon: a program that ends lets it finish.
        self._writer = threading.Thread(target=self._write, args=(arrays, facts), name="checkpoint")
        self._writer.start()

    def reclaim(self):
        """The arrays of the last save, written and free for `snapshot` to use their memory again; None before it."""
        self.wait()
        return self._arrays

    def wait(self):
        """Wait until nothing is being written."""
        if self._writer:
            self._writer.join()
            self._writer = None

    def close(self):
        """Wait for the last write; UserError if it failed."""
        self.wait()
        if self.failure:
            raise UserError(self.failure)

    def _write(self, arrays, facts):
        path = self.folder / FILE_NAME.format(facts["step"])
        try:
            write_checkpoint(path, arrays, facts)
            self.failure = None
            self._scores[path] = self._score(facts)
            self._rotate(facts["step"])
        except Exception as error:  # whatever it is: hours of training are worth more than this file
            remedy = REMEDIES.get(getattr(error, "errno", None), "check the disk and the folder")
            reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            older = "the older ones stay" if self._by_step() else "there is no older one"
            self.failure = f"The checkpoint {path} couldn't be written ({reason}) and {older}: {remedy}."
            print_line(f"Warning: {self.failure} Training goes on.")

    def _rotate(self, step):
        """Delete all but the latest few, the best, and what was just written."""
        paths = self._by_step()
        # Later ones are damaged, or of a run that went back behind them: to resume from them would undo this run.
        past = [number for number in paths if number <= step]
        latest = set(past[-self.keep :]) | {step}
        best = self._best_of([paths[number] for number in past])
        for number, path in paths.items():
            if number not in latest and path != best:
                path.unlink(missing_ok=True)
                self._scores.pop(path, None)

    def _by_step(self):
        """Paths by step, in the order of the steps."""
        matches = [(FILE_PATTERN.fullmatch(path.name), path) for path in self.folder.glob("step-*.npz")]
        return {int(match[1]): path for match, path in sorted(matches, key=lambda pair: pair[1]) if match}

    def _score(self, facts):
        value = (facts.get("figures") or {}).get(self.monitor)
        return value if isinstance(value, (int, float)) and math.isfinite(value) else None

    def _best_of(self, paths):
        for path in paths:
            if path not in self._scores:
                try:
                    self._scores[path] = self._score(read_facts(path))
                except UserError:  # not one to keep
                    self._scores[path] = None
        scored = [path for path in paths if self._scores[path] is not None]
        return max(scored, key=self._scores.get, default=None)  # the earliest of equals

    def latest(self):
        """The path of the latest undamaged checkpoint; None if there is none.

        One that is damaged is named in a line on stderr, and passed over for the one before.
        """
        for path in reversed(self._by_step().values()):
            try:
                verify_checksums(path)
            except UserError as error:
                print_line(f"Warning: {error}")
            else:
                return path
        return None

    def best(self):
        """The path of the checkpoint with the best metric, the earliest of equals; None if none has the metric."""
        return self._best_of(list(self._by_step().values()))


def write_checkpoint(path, arrays, facts):
    """Write a checkpoint under a temporary name, wait until the disk has it, and rename it to `path`.

    Whatever ends the process, and after an OSError too (no space, no permission and the like), `path` holds either what
    it held before or the whole new checkpoint. It ends in .npz, and its folder is made if missing; `arrays` are numpy
    arrays by name, of numpy's own dtypes, and `facts` what json can hold.
    """
    path = pathlib.Path(path)
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            content = json.dumps({"format": FORMAT, "arrays": list(arrays), "facts": facts})
            archive.writestr(zipfile.ZipInfo(FACTS_FILE), content)
            for name, array in arrays.items():
                _write_array(archive, name, array)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


def _write_array(archive, name, array):
    array = np.ascontiguousarray(array).reshape(np.shape(array))
    data = memoryview(array.reshape(-1).view(np.uint8))
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
        np.lib.format.write_array_header_2_0(member, np.lib.format.header_data_from_array_1_0(array))
        for start in range(0, len(data), CHUNK_BYTES):
            member.write(data[start : start + CHUNK_BYTES])


def _sync_folder(folder):
    """Have the disk remember the new name too, where the system can sync a folder."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_checkpoint(path):
    """Read (arrays by name, facts) of a checkpoint, its checksums verified; the arrays are read-only.

    UserError if there is no such file, or it is damaged or no checkpoint.
    """
    with _open_checkpoint(path) as (archive, content):
        return {name: _read_array(archive, name) for name in content["arrays"]}, content["facts"]


def _read_array(archive, name):
    data = archive.read(f"{name}.npy")  # all of it before any is used: the checksum is compared at the end
    header = io.BytesIO(data)
    np.lib.format.read_magic(header)
    shape, _, dtype = np.lib.format.read_array_header_2_0(header)
    return np.frombuffer(data, dtype, offset=header.tell()).reshape(shape)


def read_facts(path):
    """Read the facts of a checkpoint; errors as in `read_checkpoint`, though damage in the arrays goes unnoticed."""
    with _open_checkpoint(path) as (_, content):
        return content["facts"]


def verify_checksums(path):
    """Compare all checksums of a checkpoint; errors as in `read_checkpoint`."""
    with _open_checkpoint(path) as (archive, content):
        for name in content["arrays"]:
            with archive.open(f"{name}.npy") as member:
                while member.read(CHUNK_BYTES):
                    pass


@contextlib.contextmanager
def _open_checkpoint(path):
    """(the archive, what `facts.json` says); a failure to read becomes a UserError, in the block too."""
    if not pathlib.Path(path).is_file():
        raise UserError(f"There is no checkpoint {path}: give a file that training wrote to checkpoints/.")
    try:
        with zipfile.ZipFile(path) as archive:
            content = json.loads(archive.read(FACTS_FILE)) if FACTS_FILE in archive.namelist() else {}
            if not isinstance(content, dict) or content.get("format") != FORMAT:
                raise UserError(
                    f"{path} isn't a checkpoint of this version of mrcnn_tf: give a file that its training wrote to "
                    "checkpoints/."
                )
            yield archive, content
    except UserError:  # a ValueError, too
        raise
    except READ_ERRORS as error:
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        if reason == "File is not a zip file":
            reason = "it is cut off, or no checkpoint at all"
        raise UserError(f"The checkpoint {path} can't be read ({reason}): go on from the one before it.") from error
