"""One checkpoint as a file: named arrays and a few facts, whole or recognisably not.

The file is an uncompressed .npz, so `numpy.load` opens it too, with the facts as json in `facts.json`. Zip archives
carry a checksum of each member and their table of contents at the end: one that was cut off or damaged shows.
"""

import contextlib
import io
import json
import os
import pathlib
import struct
import zipfile

import numpy as np

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import replaced

FACTS = "facts.json"
FORMAT = "mrcnn_tf checkpoint 1"
CHUNK = 8 << 20  # bytes; checksum and writing release Python's lock for one at a time
# What zipfile, json and numpy raise for damaged files; a RuntimeError where a flag says that a member is encrypted.
UNREADABLE = (OSError, EOFError, ValueError, KeyError, RuntimeError, struct.error, zipfile.BadZipFile)


def write_checkpoint(path, arrays, facts):
    """Writes a checkpoint under a temporary name, waits until the disk has it, and renames it to `path`.

    Whatever ends the process, `path` holds either what it held before or the whole new checkpoint.

    Args:
        path: ends in .npz; its folder is made if missing.
        arrays: numpy arrays by name, of numpy's own dtypes.
        facts: what json can hold.

    Raises:
        OSError: no space, no permission and the like; `path` is as before.
    """
    path = pathlib.Path(path)
    with replaced(path) as temporary, open(temporary, "wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            content = json.dumps({"format": FORMAT, "arrays": list(arrays), "facts": facts})
            archive.writestr(zipfile.ZipInfo(FACTS), content)
            for name, array in arrays.items():
                _write_array(archive, name, array)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


def _write_array(archive, name, array):
    array = np.ascontiguousarray(array).reshape(np.shape(array))
    data = memoryview(array.reshape(-1).view(np.uint8))
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
        np.lib.format.write_array_header_2_0(member, np.lib.format.header_data_from_array_1_0(array))
        for start in range(0, len(data), CHUNK):
            member.write(data[start : start + CHUNK])


def _sync_folder(folder):
    """Has the disk remember the new name too, where the system can say so of a folder."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_checkpoint(path):
    """(arrays by name, facts) of a checkpoint, its checksums verified; the arrays are read-only.

    Raises:
        UserError: there is no such file, it is damaged, or no checkpoint.
    """
    with _opened(path) as (archive, content):
        return {name: _read_array(archive, name) for name in content["arrays"]}, content["facts"]


def _read_array(archive, name):
    data = archive.read(f"{name}.npy")  # all of it before any is believed: the checksum is compared at the end
    header = io.BytesIO(data)
    np.lib.format.read_magic(header)
    shape, _, dtype = np.lib.format.read_array_header_2_0(header)
    return np.frombuffer(data, dtype, offset=header.tell()).reshape(shape)


def read_facts(path):
    """The facts of a checkpoint alone, without reading the arrays.

    Raises:
        UserError: as `read_checkpoint`, though damage in the arrays goes unnoticed.
    """
    with _opened(path) as (_, content):
        return content["facts"]


def check_whole(path):
    """Compares all checksums of a checkpoint.

    Raises:
        UserError: as `read_checkpoint`.
    """
    with _opened(path) as (archive, content):
        for name in content["arrays"]:
            with archive.open(f"{name}.npy") as member:
                while member.read(CHUNK):
                    pass


@contextlib.contextmanager
def _opened(path):
    """(the archive, what `facts.json` says); a failure to read becomes a UserError, in the block too."""
    if not pathlib.Path(path).is_file():
        raise UserError(f"There is no checkpoint {path}: give a file that training wrote to checkpoints/.")
    try:
        with zipfile.ZipFile(path) as archive:
            content = json.loads(archive.read(FACTS)) if FACTS in archive.namelist() else {}
            if not isinstance(content, dict) or content.get("format") != FORMAT:
                raise UserError(
                    f"{path} isn't a checkpoint of this version of mrcnn_tf: give a file that its training wrote to "
                    "checkpoints/."
                )
            yield archive, content
    except UserError:  # a ValueError, too
        raise
    except UNREADABLE as error:
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        if reason == "File is not a zip file":
            reason = "it is cut off, or no checkpoint at all"
        raise UserError(f"The checkpoint {path} can't be read ({reason}): go on from the one before it.") from error
