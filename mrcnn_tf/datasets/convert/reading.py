"""Text files of datasets, with sentences that name the file and the line of what is wrong in it."""

import json
import os
import pathlib
import xml.etree.ElementTree as ElementTree

from mrcnn_tf.common.archives import refuse_archive
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.problems import CONSOLE

LARGE = 100 << 20  # bytes
MEMORY = 7  # that a json takes, of its own size


class BrokenFile(UserError):
    """A file that can't be parsed; the others of its folder aren't concerned."""


def existing(path, what):
    """`path` as a pathlib.Path.

    Args:
        path: file or folder.
        what: what should be there, such as "a folder of labelme files".

    Raises:
        UserError: there is nothing, or an archive, which has to be unpacked or was cut off.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise UserError(f"There is no {path}: give {what}.")
    refuse_archive(path, what)
    return path


def read_text(path):
    """The text of a UTF-8 file; raises BrokenFile."""
    try:
        return pathlib.Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise BrokenFile(f"{path} isn't UTF-8 text (line {line}): save it as UTF-8.") from None
    except OSError as error:
        raise BrokenFile(f"{path} can't be read ({error.strerror}).") from None


def read_json(path):
    """The content of a json file; raises BrokenFile."""
    size = os.path.getsize(path)
    if size > LARGE:
        needs = f"this takes a while, and up to {MEMORY * size / 2**30:.1f} GiB of memory"
        CONSOLE.print(f"Reading {path}, {size / 2**20:.0f} MiB: {needs}.", markup=False, soft_wrap=True)
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise BrokenFile(
            f"{path} isn't valid json ({error.msg}, line {error.lineno}): save it again, it may have been cut off."
        ) from None


def read_xml(path):
    """The root element of an xml file; raises BrokenFile."""
    try:
        return ElementTree.fromstring(read_text(path))
    except ElementTree.ParseError as error:
        raise BrokenFile(
            f"{path} isn't valid xml (line {error.position[0]}): save it again, it may have been cut off."
        ) from None
