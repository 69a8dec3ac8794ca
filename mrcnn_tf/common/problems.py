"""Bad records of a dataset: counted by kind on the screen, listed in full in a json report."""

import collections
import dataclasses
import json

from rich.console import Console
from rich.progress import track

from mrcnn_tf.common.files import atomic_write

CONSOLE = Console(stderr=True, highlight=False)


@dataclasses.dataclass
class Problem:
    """A record that isn't used as it stands.

    Attributes:
        kind: a short name to count by, e.g. "missing_image".
        record: the id of the image or annotation in the json; None where it has none.
        file: the json or image file.
        message: one sentence with what was done and the remedy.
    """

    kind: str
    record: int | str | None
    file: str
    message: str


def report_problems(problems, path, source):
    """Writes the problems to `path` as json, and a line per kind with one example to stderr; nothing if there are none.

    Args:
        problems: list of Problem.
        path: of the report, written whole or not at all.
        source: what the records belong to, for the heading.
    """
    if not problems:
        return
    counts = collections.Counter(problem.kind for problem in problems)
    examples = {problem.kind: problem.message for problem in reversed(problems)}
    CONSOLE.print(f"{source}: {len(problems)} records are not used as they stand", markup=False, soft_wrap=True)
    for kind, count in counts.most_common():
        CONSOLE.print(f"  {count} x {kind}, e.g. {examples[kind]}", markup=False, soft_wrap=True)
    try:
        with atomic_write(path) as file:
            file.write_text(_as_json(problems, counts), encoding="utf-8")
        CONSOLE.print(f"  all of them: {path}", markup=False, soft_wrap=True)
    except OSError as error:
        CONSOLE.print(f"  the full list can't be written to {path} ({error.strerror})", markup=False, soft_wrap=True)


def _as_json(problems, counts):
    return json.dumps({"counts": counts, "problems": [dataclasses.asdict(problem) for problem in problems]}, indent=1)


# A bar for long loops, where someone is watching.
#

def show_progress(items, what):
    """`items`, a sequence, one after the other; a bar on the terminal says how many are done."""
    return track(items, what, console=CONSOLE, transient=True, disable=not CONSOLE.is_terminal)
