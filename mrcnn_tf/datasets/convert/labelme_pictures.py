"""The picture that a labelme json was drawn on: a file that it names or that is called like it, or its own imageData.

labelme shows imageData where there is one, and the file that imagePath names where it is null; the size that the json
states counts for neither. So a file of another size than imageData isn't what was labelled.
"""

import base64
import dataclasses
import filecmp
import os
import pathlib

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.common.json_values import parse_integer
from mrcnn_tf.datasets.convert.coco import link_or_copy
from mrcnn_tf.datasets.convert.inputs import read_json
from mrcnn_tf.datasets.image_files import inspect_bytes, inspect_file
from mrcnn_tf.datasets.image_folder import find_image_files

SUFFIX_OF_FORMAT = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "BMP": ".bmp", "GIF": ".gif"}
SUFFIX_OF_FORMAT |= {"TIFF": ".tif", "WEBP": ".webp"}


@dataclasses.dataclass
class Picture:
    """What an image of the dataset is made of.

    Attributes:
        file_name: relative to the folder of images, with slashes.
        width, height: pixels of the frame that was labelled.
        file: the image file, or the json that holds it.
    """

    file_name: str
    width: int
    height: int
    file: pathlib.Path


class PictureFinder:
    """Finds the pictures of labelme's jsons, and writes out those that only a json holds.

    Args:
        folder: ImageFolder.
        root: the folder of the jsons, pathlib.Path.
        dataset: Dataset that notes are for.
        extracted: the folder for images, if some have to be written out; None to leave those out.

    Attributes:
        written: the image files in that folder from before, normalised paths.
    """

    def __init__(self, folder, root, dataset, extracted=None):
        self.folder, self.root, self.dataset = folder, root, dataset
        self.extracted = None if extracted is None else pathlib.Path(extracted)
        # What an earlier run wrote may lie among the images, but isn't what jsons name.
        written = find_image_files(self.extracted) if self.extracted and self.extracted.is_dir() else ()
        self.written = frozenset(os.path.normpath(path) for path in written)

    def find(self, file, content):
        """The Picture of a json, `file`, with that content; None and a note if there is none that fits.

        Also gives the image files that the json is about, list of Path, whether they fit or not.
        """
        path, image = self._find_file(file, content)
        files = [path] if path else []
        inside, size = self._look_inside(file, content), _stated_size(content)
        if inside and size and not inside.fits(*size):
            stated = f"{file} says that its picture is {size[0]} x {size[1]}, but its imageData is"
            self._note("wrong_size", file, f"{stated} {inside.width} x {inside.height}, which counts.")
            size = None
        if inside and not size:
            size = inside.width, inside.height
        if image and (size is None or image.fits(*size)):
            width, height = size or (image.width, image.height)
            return Picture(self.folder.relative(path), width, height, path), files
        if inside and self.extracted:
            if path:
                what = f"is {image.width} x {image.height}" if image else "can't be read"
                drawn = f"{path} {what}, but {file} was drawn on its imageData of {size[0]} x {size[1]}"
                self._note("other_picture", file, f"{drawn}, which was used in its place.")
            return Picture(self._free_name(file, SUFFIX_OF_FORMAT[inside.format]), *size, file), files
        self._note_missing(file, content, path, image, size, inside)
        return None, files

    def write(self, pictures):
        """Puts all images into one folder if some Picture of a list is inside a json; gives that folder, or None.

        Raises UserError if another file of the name is there.
        """
        if not any(_is_json(picture.file) for picture in pictures):
            return None
        for picture in pictures:
            target = self.extracted / picture.file_name
            if not _is_json(picture.file):
                is_there = target.exists()
                is_same = is_there and filecmp.cmp(picture.file, target, shallow=False)
                if not is_there:
                    link_or_copy(picture.file, target)
            else:
                data, is_there = _decode(read_json(picture.file)["imageData"]), target.exists()
                is_same = is_there and target.read_bytes() == data
                if not is_there:
                    with atomic_write(target) as temporary:
                        temporary.write_bytes(data)
            if is_there and not is_same:
                remedy = f"move the folder {self.extracted} away, or name another json by --out"
                raise UserError(f"{target} is there already and isn't the picture of {picture.file}: {remedy}.")
        return self.extracted

    def _find_file(self, file, content):
        """(path, ImageFile) of the image of a json; (path, None) if it can't be read, (None, None) if there is none."""
        name, paths = content.get("imagePath"), []
        if isinstance(name, str) and name:
            paths.append(self.folder.find(name, file.parent))
            paths += self._only_candidate(name)
        paths += self._only_candidate(file.with_suffix("").as_posix())
        unreadable = None
        for path in paths:
            if path is None or os.path.normpath(path) in self.written:
                continue
            image = inspect_file(path)
            if not image.problem:
                return path, image
            # imagePath may name the json itself, as in labelme's own tutorial.
            unreadable = unreadable or (None if _is_json(path) else path)
        return unreadable, None

    def _only_candidate(self, name):
        paths = self.folder.candidates(name, self.written)
        return paths if len(paths) == 1 else []

    def _look_inside(self, file, content):
        """The ImageFile of a json's imageData; None, and a note if it's damaged."""
        if not content.get("imageData"):
            return None
        try:
            image = inspect_bytes(_decode(content["imageData"]))
        except ValueError as error:
            image, reason = None, f"isn't base64 ({error})"
        if image and image.problem:
            image, reason = None, image.problem[1]
        elif image and image.format not in SUFFIX_OF_FORMAT:
            image, reason = None, f"is of the format {image.format}, which isn't trained on"
        if image is None:
            message = f"The imageData of {file} {reason} and isn't used: put the image beside the json."
            self._note("broken_image_data", file, message)
        return image

    def _free_name(self, file, suffix):
        """The file_name of a picture out of a json: the json's own, unless an image file has it."""
        name = file.relative_to(self.root).with_suffix(suffix)
        if (self.folder.root / name).exists():
            name = name.with_stem(f"{name.stem}_imageData")
        return name.as_posix()

    def _note_missing(self, file, content, path, image, size, inside):
        name = content.get("imagePath")
        if path is None and inside:
            message = f"The picture of {file} is in the json alone, which was left out: write it to a file beside it."
            self._note("missing_image", file, message)
        elif path is None:
            rivals = self.folder.candidates(file.with_suffix("").as_posix(), self.written)
            names = " or ".join(self.folder.relative(rival) for rival in rivals)
            remedy = f"say in imagePath whether it is {names}" if rivals else "put the image beside it"
            message = f"{file} belongs to {name}, which isn't there, and was left out: {remedy}."
            self._note("missing_image", file, message)
        elif image is None:
            self.dataset.read_frame(path)
        else:
            message = f"{path} is {image.width} x {image.height} but {file} was drawn on {size[0]} x {size[1]}"
            remedy = "put back the image that was labelled, or correct imageWidth and imageHeight in the json"
            self._note("other_size", file, f"{message} and was left out: {remedy}.")

    def _note(self, kind, file, message):
        self.dataset.leave_out(kind, file, message)


def _is_json(path):
    return path.suffix.lower() == ".json"


def _stated_size(content):
    """(width, height) as a json states it; None where it doesn't: null, 0, -1 or no number."""
    size = parse_integer(content.get("imageWidth")), parse_integer(content.get("imageHeight"))
    return size if all(side is not None and side > 0 for side in size) else None


def _decode(text):
    """The bytes of a picture in base64, which may be written as a data URL."""
    try:
        return base64.b64decode(text.rpartition(",")[2])
    except (AttributeError, TypeError) as error:
        raise ValueError(str(error)) from None
