"""The run's records as lines of json."""

import json
import math
import pathlib

from mrcnn_tf.common.files import replaced


class LogFile:
    """Appends a line of json for each record to a file, complete on the disk's side of this process when it returns.

    Args:
        path: such as log.jsonl.
        step: how many steps the run has behind it. Lines of later steps are cut away, as is one that a killed run left
            unfinished; with 0 the file starts anew.
    """

    def __init__(self, path, step=0):
        self.path = pathlib.Path(path)
        self._torn = False
        if self.path.exists():
            _cut(self.path, step)

    def write(self, record):
        """Appends one record, a dictionary of numbers; one that isn't finite becomes null."""
        finite = {name: value if math.isfinite(value) else None for name, value in record.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = "\n" * self._torn + json.dumps(finite) + "\n"
        self._torn = True  # until all of it is written
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(line)
        self._torn = False


def read_log(path):
    """The records of a log file, without a line that a killed run left unfinished."""
    return [record for _, record in _records(path)]


def _cut(path, step):
    with replaced(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for line, record in _records(path):
            if record["step"] <= step:
                file.write(line)


def _records(path):
    """(line, record) of each whole line."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and "step" in record:
                yield line, record
