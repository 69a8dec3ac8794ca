"""COCO's json as the formats that are written from it need it: whole, with an image's annotations beside it."""

import contextlib
import dataclasses
import os
import pathlib
import shutil

from mrcnn_tf.common.categories import parse_categories
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.json_stream import stream_arrays
from mrcnn_tf.common.problems import Problem
from mrcnn_tf.datasets import run_lengths
from mrcnn_tf.datasets.convert.inputs import existing


@dataclasses.dataclass
class Instance:
    """An annotation.

    Attributes:
        id: of the annotation.
        category_id: int.
        segmentation: list of polygons, or a run-length mask; None where there is only a box.
        box: [x, y, width, height], pixels.
        crowd: bool.
    """

    id: int
    category_id: int
    segmentation: list | dict | None
    box: list[float]
    crowd: bool


@dataclasses.dataclass
class Image:
    """An image and its instances: file_name as in the json, a relative path; width and height in pixels."""

    file_name: str
    width: int
    height: int
    instances: list[Instance] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class CocoJson:
    """The content of a COCO json.

    Attributes:
        source: the file.
        images: list of Image, in the file's order.
        names: dict category id -> name, by id.
        problems: list of Problem, annotations that can't be used.
    """

    source: str
    images: list[Image]
    names: dict[int, str]
    problems: list[Problem]

    def leave_out(self, kind, message, record=None):
        """Notes something that a format can't hold."""
        self.problems.append(Problem(kind, record, self.source, message))

    def drop_crowds(self):
        """Leaves crowds out and notes them, for formats that can't tell them from objects."""
        for image in self.images:
            for instance in image.instances:
                if instance.crowd:
                    what = "is a crowd, which the format can't tell, and was left out"
                    self.leave_out("crowd", f"Annotation {instance.id} in {self.source} {what}.", instance.id)
            image.instances = [instance for instance in image.instances if not instance.crowd]


def read_coco(path):
    """A CocoJson.

    Raises:
        UserError: the file is missing, packed or isn't COCO's, or an image lacks its size or has a file_name that isn't
            a path below the folder of images.
    """
    path = existing(path, "a COCO json")
    if not path.is_file():
        raise UserError(f"{path} is a folder: give the COCO json.")
    found = {"images": [], "annotations": [], "categories": []}
    for section, record in stream_arrays(path, tuple(found)):
        found[section].append(record)
    names = {category.id: category.name for category in parse_categories(found["categories"], path)}
    images = {}
    for record in found["images"]:
        images[record.get("id") if isinstance(record, dict) else None] = _image(record, path)
    coco = CocoJson(str(path), list(images.values()), names, [])
    for record in found["annotations"]:
        _add(record, images, coco)
    return coco


def _image(record, path):
    try:
        image = Image(str(record["file_name"]), int(record["width"]), int(record["height"]))
    except (TypeError, KeyError, ValueError):
        raise UserError(f"Image {record} in {path} lacks file_name, width or height: add them.") from None
    place = pathlib.PurePosixPath(image.file_name)
    if place.is_absolute() or ".." in place.parts or not place.name or "\\" in image.file_name:
        raise UserError(f"Image {image.file_name!r} in {path} isn't a path below a folder: correct its file_name.")
    return image


def _add(record, images, coco):
    name = record.get("id") if isinstance(record, dict) else None
    where = f"Annotation {name} in {coco.source}"
    try:
        image, category = images.get(record["image_id"]), record["category_id"]
        if image is None or category not in coco.names:
            coco.leave_out("unknown", f"{where} has an image or category that isn't listed and was left out.", name)
            return
        segmentation = record.get("segmentation") or None
        if isinstance(segmentation, list):
            segmentation = [list(map(float, polygon)) for polygon in segmentation if len(polygon) >= 6] or None
        pixels = None if segmentation is None else run_lengths.area(segmentation, image.height, image.width)
        if pixels == 0:
            coco.leave_out("empty_mask", f"{where} has a mask without a pixel and was left out.", name)
            return
        box = list(map(float, record.get("bbox") or ()))
        if len(box) != 4:
            box = run_lengths.box_of_runs(run_lengths.as_rle(segmentation, image.height, image.width))
    except Exception as error:  # pycocotools raises whatever its C code makes of a bad record
        coco.leave_out("broken_annotation", f"{where} can't be read ({error or error!r}) and was left out.", name)
        return
    image.instances.append(Instance(name, category, segmentation, box, bool(record.get("iscrowd"))))


# A new folder of files, complete or not there at all, and the images that go into it.
#

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
