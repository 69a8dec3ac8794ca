"""Files: written whole or not at all, their digests, the cache folder, and archives where their content is wanted."""

import contextlib
import hashlib
import json
import os
import pathlib
import zipfile

from mrcnn_tf.common.errors import UserError

BLOCK = 1 << 22  # bytes read at a time
# The first bytes of archives by format; a tar file says "ustar" further on.
ARCHIVE_SIGNATURES = {b"PK\x03\x04": "zip", b"\x1f\x8b": "gzip", b"7z\xbc\xaf": "7z", b"Rar!": "rar", b"BZh": "bzip2"}
TAR_SIGNATURE, TAR_SIGNATURE_BYTES = b"ustar", slice(257, 262)


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


def write_json(data, path, indent=None):
    """Writes a json by `atomic_write`."""
    with atomic_write(path) as file:
        file.write_text(json.dumps(data, indent=indent), encoding="utf-8")


def sha256(path):
    """The SHA-256 of a file's content, in hexadecimal digits."""
    return file_digest(path, "sha256")


def file_digest(path, algorithm):
    """The same by a hash of that name in hashlib, such as "md5"."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def cache_folder():
    """$MRCNN_TF_CACHE, or the user's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.environ.get("MRCNN_TF_CACHE") or os.path.join(root, "mrcnn_tf")


def refuse_archive(path, wanted):
    """Raises UserError if a path is that of a zip, tar, gzip, bzip2, 7z or rar file.

    `wanted` is what should be given in its place, such as "the folder of images in it".
    """
    if not os.path.isfile(path):
        return
    with open(path, "rb") as file:
        head = file.read(TAR_SIGNATURE_BYTES.stop)
    formats = (name for signature, name in ARCHIVE_SIGNATURES.items() if head.startswith(signature))
    archive_format = "tar" if head[TAR_SIGNATURE_BYTES] == TAR_SIGNATURE else next(formats, None)
    if archive_format == "zip" and not zipfile.is_zipfile(path):
        raise UserError(f"{path} is only the beginning of a zip: copy or download it again, then unpack it.")
    if archive_format:
        raise UserError(f"{path} is a {archive_format} archive: unpack it and give {wanted}.")
