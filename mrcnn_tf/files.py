"""Writing files whole or not at all."""

import contextlib
import os
import pathlib


@contextlib.contextmanager
def replaced(path):
    """Gives a temporary path beside `path`, with its suffix, and renames it to `path` when the block ends well."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
