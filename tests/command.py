"""The command as a user runs it, in this process."""

import contextlib
import io
import sys

import pytest

from mrcnn_tf import cli
from mrcnn_tf.cli.options import console


def call(*arguments, status=0):
    """What a command prints on stdout; checks its exit status."""
    printed, old = io.StringIO(), sys.argv
    sys.argv = ["mrcnn-tf", *map(str, arguments)]
    console.file = printed
    try:
        with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as end:
            cli.main()
    finally:
        sys.argv, console.file = old, None
    assert (end.value.code or 0) == status, printed.getvalue()
    return printed.getvalue()
