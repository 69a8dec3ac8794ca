"""What a long run tells on stderr: bad records of a dataset, counted by kind and listed in a json, and its progress."""

import collections
import dataclasses
import os

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, track

from mrcnn_tf.common.files import write_json

CONSOLE = Console(stderr=True, highlight=False)


@dataclasses.dataclass
class Problem:
    """A record that isn't used as it stands."""

    kind: str  # a short name to count by, e.g. "missing_image"
    record: int | str | None  # the id of the image or annotation in the json; None where it has none
    file: str  # the json or image file
    message: str  # one sentence with what was done and the remedy


def report_problems(problems, path, source):
    """Writes a list of `Problem` to `path` as json, and a line per kind with one example to stderr; nothing for none.

    The json is written whole or not at all; `source` is what the records belong to, for the heading on stderr.
    """
    if not problems:
        return
    counts = collections.Counter(problem.kind for problem in problems)
    examples = {problem.kind: problem.message for problem in reversed(problems)}
    print_line(f"{source}: {len(problems)} records are not used as they stand")
    for kind, count in counts.most_common():
        print_line(f"  {count} x {kind}, e.g. {examples[kind]}")
    document = {"counts": counts, "problems": [dataclasses.asdict(problem) for problem in problems]}
    try:
        write_json(document, path, indent=1)
        print_line(f"  all of them: {path}")
    except OSError as error:
        print_line(f"  the full list can't be written to {path} ({error.strerror})")


def print_line(line):
    """Print a line on stderr as it is: without markup, and wrapped by the terminal alone."""
    CONSOLE.print(line, markup=False, soft_wrap=True)


def show_progress(items, description):
    """Yields the items of a sequence; a bar, where stderr is a terminal, says how many are done."""
    return track(items, description, console=CONSOLE, transient=True, disable=not CONSOLE.is_terminal)


def progress_bars(is_shown=True):
    """A rich Progress on stderr, whose bars go when it ends."""
    percentage = TextColumn("{task.percentage:.0f} %")
    columns = TextColumn("{task.description}"), BarColumn(), percentage, TimeRemainingColumn()
    return Progress(*columns, console=CONSOLE, transient=CONSOLE.is_terminal, disable=not is_shown)


def reading_bar(bars, description, path):
    """A function of the bytes of a file read so far, which moves a new bar."""
    task = bars.add_task(description, total=os.path.getsize(path))
    return lambda done: bars.update(task, completed=done)


def counting_bar(bars, description, total):
    """A function of how many more are done, which moves a new bar."""
    task = bars.add_task(description, total=total)
    return lambda number: bars.advance(task, number)
