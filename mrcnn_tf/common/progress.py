"""A bar for long loops, where someone is watching."""

from rich.progress import track

from mrcnn_tf.common.problems import CONSOLE


def steps(items, what):
    """`items`, a sequence, one after the other; a bar on the terminal says how many are done."""
    return track(items, what, console=CONSOLE, transient=True, disable=not CONSOLE.is_terminal)
