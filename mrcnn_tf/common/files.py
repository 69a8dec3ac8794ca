"""Writing files whole or not at all, their digests, and where cached ones are kept."""

import contextlib
import hashlib
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


def cache_folder():
    """$MRCNN_TF_CACHE, or the user's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.environ.get("MRCNN_TF_CACHE") or os.path.join(root, "mrcnn_tf")


def sha256(path):
    """The SHA-256 of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
