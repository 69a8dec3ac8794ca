"""A new folder of files, complete or not there at all, and the images that go into it."""

import contextlib
import os
import pathlib
import shutil

from mrcnn_tf.common.errors import UserError


@contextlib.contextmanager
def new_folder(path):
    """Gives a temporary folder beside `path` and renames it to `path` when the block ends well.

    Raises:
        UserError: there are files in `path` already.
    """
    path = pathlib.Path(os.path.abspath(path))
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise UserError(f"{path} exists already: name a new folder by --out.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.mkdir()
        yield temporary
        if path.is_dir():
            path.rmdir()
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def image_path(coco, image, images):
    """The file of a coco_json.Image in the folder `images`; None, and a note, if it isn't there.

    Raises:
        UserError: no folder was given, or there is none.
    """
    if images is None:
        raise UserError(f"Say where the images of {coco.source} are: --images FOLDER.")
    if not pathlib.Path(images).is_dir():
        raise UserError(f"There is no folder {images}: give --images the folder of the images.")
    path = pathlib.Path(images) / image.file_name
    if path.is_file():
        return path
    coco.leave_out("missing_image", f"{image.file_name} of {coco.source} isn't in {images}.", image.file_name)
    return None


def put_image(path, target):
    """Makes `target` the same file as `path`, by a hard link where the disk allows it, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(os.path.realpath(path), target)
    except OSError:
        shutil.copyfile(path, target)


def by_target(coco, suffix):
    """(image, file name with another suffix) of each image.

    Raises:
        UserError: two images would get the same file, as a.jpg and a.png.
    """
    owners = {}
    for image in coco.images:
        target = pathlib.PurePosixPath(image.file_name).with_suffix(suffix)
        if (other := owners.setdefault(target, image)) is not image:
            raise UserError(f"{image.file_name} and {other.file_name} would both become {target}: rename one of them.")
    return [(image, str(target)) for target, image in owners.items()]
