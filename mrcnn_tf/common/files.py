"""Archives that are given where what lies in them is wanted, whole ones and the first half of a download."""

import contextlib
import hashlib
import os
import pathlib
import zipfile

from mrcnn_tf.common.errors import UserError

# Writing files whole or not at all, their digests, and where cached ones are kept.
#

@contextlib.contextmanager
def atomic_write(path):
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


_BEGINNINGS = {b"PK\x03\x04": "zip", b"\x1f\x8b": "gzip", b"7z\xbc\xaf": "7z", b"Rar!": "rar", b"BZh": "bzip2"}
_TAR_MARK = slice(257, 262)  # where a tar file says "ustar"


def refuse_archive(path, wanted):
    """Does nothing unless `path` is an archive.

    Args:
        path: of a file, a folder or nothing.
        wanted: what should be given in its place, such as "the folder of images in it".

    Raises:
        UserError: it is a zip, tar, gzip, bzip2, 7z or rar file.
    """
    if not os.path.isfile(path):
        return
    with open(path, "rb") as file:
        head = file.read(300)
    kinds = (name for beginning, name in _BEGINNINGS.items() if head.startswith(beginning))
    kind = "tar" if head[_TAR_MARK] == b"ustar" else next(kinds, None)
    if kind == "zip" and not zipfile.is_zipfile(path):
        raise UserError(f"{path} is only the beginning of a zip: copy or download it again, then unpack it.")
    if kind:
        raise UserError(f"{path} is a {kind} archive: unpack it and give {wanted}.")
