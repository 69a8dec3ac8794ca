"""The folder of a run's checkpoints: written beside the training, rotated, the best kept."""

import errno
import math
import pathlib
import re
import threading

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.problems import CONSOLE
from mrcnn_tf.training.checkpoint_file import check_whole, read_checkpoint, read_facts, write_checkpoint

NAME = "step-{:08d}.npz"
PATTERN = re.compile(r"step-(\d{8,})\.npz")
LEFTOVERS = ".step-*.npz"  # the temporary names of `files.replaced`
REMEDIES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there",
    errno.EACCES: "allow writing there",
    errno.EPERM: "allow writing there",
    errno.EROFS: "allow writing there",
}


class Checkpoints:
    """`step-00000500.npz` and so on in one folder: the latest few, and the best.

    `save` returns at once and a thread writes. Of one folder, one process writes.

    Args:
        folder: made with the first checkpoint.
        keep: how many of the latest ones stay.
        figure: the name in the facts' "figures" by which the best one is kept besides; None keeps no best.
        writes: whether this process is the one that writes; it clears away what a killed write left.

    Attributes:
        failure: the sentence on the last write if that failed; None otherwise.
    """

    def __init__(self, folder, keep=2, figure="val_segm_AP", writes=True):
        self.folder, self.keep, self.figure = pathlib.Path(folder), keep, figure
        self.failure = None
        self._writer = self._arrays = None
        self._scores = {}  # by path
        if writes:
            for leftover in self.folder.glob(LEFTOVERS):
                leftover.unlink(missing_ok=True)

    def save(self, arrays, facts):
        """Starts writing a checkpoint and returns; waits for the write before, if that still runs.

        A write that fails leaves the older checkpoints, says so in one line on stderr, and training goes on.

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
        """Returns when nothing is being written."""
        if self._writer:
            self._writer.join()
            self._writer = None

    def close(self):
        """Waits for the last write.

        Raises:
            UserError: it failed.
        """
        self.wait()
        if self.failure:
            raise UserError(self.failure)

    def _write(self, arrays, facts):
        path = self.folder / NAME.format(facts["step"])
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
            CONSOLE.print(f"Warning: {self.failure} Training goes on.", markup=False, soft_wrap=True)

    def _rotate(self, step):
        """Deletes all but the latest few, the best, and what was just written."""
        found = self._by_step()
        # Later ones are damaged, or of a run that went back behind them: to resume from them would undo this run.
        past = [number for number in found if number <= step]
        kept = set(past[-self.keep :]) | {step}
        best = self._best_of([found[number] for number in past])
        for number, path in found.items():
            if number not in kept and path != best:
                path.unlink(missing_ok=True)
                self._scores.pop(path, None)

    def _by_step(self):
        """Paths by step, in the order of the steps."""
        matches = [(PATTERN.fullmatch(path.name), path) for path in self.folder.glob("step-*.npz")]
        return {int(match[1]): path for match, path in sorted(matches, key=lambda pair: pair[1]) if match}

    def _score(self, facts):
        value = (facts.get("figures") or {}).get(self.figure)
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
        """The path of the latest checkpoint that is whole; None if there is none.

        One that is damaged is named in a line on stderr, and passed over for the one before.
        """
        for path in reversed(self._by_step().values()):
            try:
                check_whole(path)
            except UserError as error:
                CONSOLE.print(f"Warning: {error}", markup=False, soft_wrap=True)
            else:
                return path
        return None

    def best(self):
        """The path of the checkpoint with the highest figure, the earliest of equals; None if none has the figure."""
        return self._best_of(list(self._by_step().values()))

    def load(self, path):
        """(arrays by name, facts) of a checkpoint.

        Raises:
            UserError: no such file, damaged, or no checkpoint.
        """
        return read_checkpoint(path)
