"""COCO's json as the formats that are written from it need it, and the new folder that they are written to."""

import contextlib
import dataclasses
import os
import pathlib
import shutil

import numpy as np

from mrcnn_tf.common.categories import UNUSED, parse_categories
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.problems import Problem
from mrcnn_tf.datasets import run_lengths
from mrcnn_tf.datasets.coco_records import count_own_numbers, stream_records
from mrcnn_tf.datasets.coco_segmentations import as_coco_rle, count_rle_pixels
from mrcnn_tf.datasets.convert.inputs import existing_path, quote_path
from mrcnn_tf.datasets.image_files import inspect_file
from mrcnn_tf.datasets.image_folder import ImageFolder, locate_images


@dataclasses.dataclass
class CocoAnnotation:
    """An annotation.

    Attributes:
        segmentation: list of polygons, or a run-length mask; None where there is only a box.
        box: [x, y, width, height], pixels.
        keypoints: list of (x, y, visibility), one for each that its category names; [] where none is labelled.
    """

    id: int
    category_id: int
    segmentation: list | dict | None
    box: list[float]
    crowd: bool
    keypoints: list[tuple[float, float, int]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class CocoImage:
    """An image and its annotations: file_name as in the json, a relative path; width and height in pixels."""

    file_name: str
    width: int
    height: int
    annotations: list[CocoAnnotation] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class CocoJson:
    """The content of a COCO json.

    Attributes:
        source: the file.
        images: list of CocoImage, in the file's order.
        names: dict category id -> name, by id.
        problems: list of Problem, annotations that can't be used.
        own_numbers: see `count_own_numbers`; the images' annotations are without them.
        keypoint_names: dict category id -> names of its keypoints.
        keeps_keypoints: whether the format that it was written to has them.
        folder: of the images, once one was looked for.
    """

    source: str
    images: list[CocoImage]
    names: dict[int, str]
    problems: list[Problem] = dataclasses.field(default_factory=list)
    own_numbers: dict[str, int] = dataclasses.field(default_factory=dict)
    keypoint_names: dict[int, list[str]] = dataclasses.field(default_factory=dict)
    keeps_keypoints: bool = False
    folder: ImageFolder | None = None

    def named_keypoints(self, annotation):
        """list of (name, (x, y, visibility)) of a CocoAnnotation; [] where none of its keypoints is labelled."""
        return list(zip(self.keypoint_names[annotation.category_id], annotation.keypoints, strict=False))

    def leave_out(self, kind, message, record):
        """Notes something that a format can't hold."""
        self.problems.append(Problem(kind, record, self.source, message))

    def leave_out_annotation(self, kind, number, detail):
        """Notes an annotation that a format can't hold; `detail` goes on after its name."""
        self.leave_out(kind, f"Annotation {number} in {self.source} {detail}.", number)

    def note_repeated_names(self):
        """Notes classes of the same name, for formats that know a class by its name alone."""
        first = {}
        for number, name in self.names.items():
            if first.setdefault(name, number) != number and name != UNUSED:
                both = f"Categories {first[name]} and {number} in {self.source} are both called {name!r}"
                message = f"{both}, which makes them one class in this format: give each category a name of its own."
                self.leave_out("repeated_name", message, number)

    def drop_crowds(self):
        """Leaves crowds out and notes them, for formats that can't tell them from objects."""
        for image in self.images:
            for annotation in image.annotations:
                if annotation.crowd:
                    detail = "is a crowd, which the format can't tell, and was left out"
                    self.leave_out_annotation("crowd", annotation.id, detail)
            image.annotations = [annotation for annotation in image.annotations if not annotation.crowd]


def read_coco(path, images=None):
    """A CocoJson; `images` is the folder of the images, where sizes are read that the json doesn't know.

    Raises:
        UserError: the file is missing, packed or isn't COCO's, or an image lacks its size or has a file_name that isn't
            a path below the folder of images.
    """
    path = existing_path(path, "a COCO json")
    if not path.is_file():
        raise UserError(f"{path} is a folder: give the COCO json.")
    sections = {"images": [], "annotations": [], "categories": []}
    for section, record in stream_records(path):
        sections[section].append(record)
    categories = parse_categories(sections["categories"], path)
    names = {category.id: category.name for category in categories}
    locations = locate_images(sections["images"], images) if images else {}
    by_id = {}
    for index, record in enumerate(sections["images"]):
        by_id.setdefault(record.id, _make_image(record, locations.get(index), images, path))
    own_numbers = count_own_numbers(sections["annotations"])
    coco = CocoJson(str(path), list(by_id.values()), names, own_numbers=own_numbers)
    coco.keypoint_names = {category.id: category.keypoints for category in categories}
    pixel_counts = count_rle_pixels([record.rle for record in sections["annotations"]])
    for record, pixels in zip(sections["annotations"], pixel_counts, strict=True):
        _add_annotation(record, pixels, by_id, coco)
    return coco


def _make_image(record, location, folder, path):
    """The CocoImage of an ImageRecord, which may be at an ImageLocation in the `folder` of images."""
    if record.id is None or not record.names:
        raise UserError(f"Image {record.source} in {path} lacks an id or a file_name: add them.")
    file_name, size = record.names[0].replace("\\", "/"), record.size
    if location and (location.is_named or len(location.rivals) == 1):
        file_name = pathlib.Path(os.path.relpath(location.path, folder)).as_posix()
    if size is None and location:
        file = inspect_file(location.path)
        size = None if file.problem else (file.height, file.width)
    if size is None:
        raise UserError(
            f"Image {file_name!r} in {path} has no width and height: give --images the folder of its file, or let "
            f"`mrcnn-tf validate {quote_path(path)} IMAGES --fix --out FOLDER` write a json with those of its file."
        )
    name = pathlib.PurePosixPath(file_name)
    if name.is_absolute() or ".." in name.parts or not name.name or ":" in name.parts[0]:
        raise UserError(f"Image {file_name!r} in {path} isn't a path below a folder: correct its file_name.")
    return CocoImage(file_name, size[1], size[0])


def _add_annotation(record, pixels, images, coco):
    """Adds an AnnotationRecord to its CocoImage, or notes why not; `pixels` is what `count_rle_pixels` says of it."""
    number, image = record.own_id, images.get(record.image_id)
    if "record" in record.faults or image is None or record.category_id not in coco.names:
        detail = "has an image or category that isn't listed and was left out"
        coco.leave_out_annotation("unknown", number, detail)
        return
    fault = record.faults.get("segmentation")
    if fault and fault.kind != "empty_segmentation":
        coco.leave_out_annotation("broken_annotation", number, f"{fault.what} and was left out")
        return
    size = image.height, image.width
    if record.rle and (record.rle.size != size or pixels != image.height * image.width):
        detail = "has an RLE whose size or sum isn't that of its image and was left out"
        coco.leave_out_annotation("broken_annotation", number, detail)
        return
    segmentation = None
    try:
        if record.rle:
            segmentation = run_lengths.as_text(as_coco_rle(record.rle))
        elif record.rings:
            segmentation = [ring.tolist() for ring in record.rings]
        if segmentation and not run_lengths.mask_area(segmentation, image.height, image.width):
            coco.leave_out_annotation("empty_mask", number, "has a mask without a pixel and was left out")
            return
        box = record.box.tolist() if record.box and np.isfinite(record.box).all() else None
        if segmentation and not box:
            box = run_lengths.box_of_rle(run_lengths.as_rle(segmentation, image.height, image.width))
    except Exception as error:  # pycocotools raises whatever its C code makes of a bad record
        coco.leave_out_annotation("broken_annotation", number, f"can't be read ({error or error!r}) and was left out")
        return
    if not box:
        coco.leave_out_annotation("broken_annotation", number, "has neither a bbox nor a mask and was left out")
        return
    keypoints = _read_keypoints(record, coco)
    image.annotations.append(CocoAnnotation(number, record.category_id, segmentation, box, record.crowd, keypoints))


def _read_keypoints(record, coco):
    """An annotation's keypoints, list of (x, y, visibility); [] where none is labelled or, with a note, all are bad."""
    fault, names = record.faults.get("keypoints"), coco.keypoint_names[record.category_id]
    keypoints = list(zip(*[iter(record.keypoints or ())] * 3, strict=False))
    what = fault and fault.what
    if not what and keypoints and not names:
        what = "has keypoints that its category doesn't name"
    elif not what and keypoints and len(record.keypoints) != 3 * len(names):
        what = f"has {len(record.keypoints)} numbers of keypoints for {len(names)} names"
    elif not what and not all(visibility in (0, 1, 2) for _, _, visibility in keypoints):
        what = "has a keypoint whose visibility isn't 0, 1 or 2"
    elif not what and not np.isfinite(keypoints).all():
        what = "has a keypoint with NaN or infinity"
    if what:
        coco.leave_out_annotation("bad_keypoints", record.own_id, f"{what} and lost its keypoints")
        return []
    keypoints = [(x, y, int(visibility)) for x, y, visibility in keypoints]
    return keypoints if any(visibility for _, _, visibility in keypoints) else []


def paint_annotations(coco, image, numbers):
    """An image's objects as one map, where each pixel can belong to one object only.

    Where objects overlap, the smaller one stays, since it would be hidden otherwise.

    Args:
        coco: CocoJson; objects without a mask, or of which nothing is left, are noted in it.
        image: CocoImage.
        numbers: the number of each of its annotations, from 1.

    Returns:
        int32 [H, W], the number of the object on each pixel; 0 is background.
    """
    labels = np.zeros([image.height, image.width], np.int32)
    objects = []
    for annotation, number in zip(image.annotations, numbers, strict=True):
        if annotation.segmentation is None:
            note_box_only(coco, annotation)
        else:
            area = run_lengths.mask_area(annotation.segmentation, image.height, image.width)
            objects.append((area, number, annotation))
    for _, number, annotation in sorted(objects, key=lambda entry: -entry[0]):
        labels[run_lengths.as_pixels(annotation.segmentation, image.height, image.width)] = number
    visible = dict(zip(*np.unique(labels, return_counts=True), strict=True))
    for area, number, annotation in objects:
        if number not in visible:
            coco.leave_out_annotation("hidden", annotation.id, "lies wholly under smaller objects and is lost")
        elif visible[number] < area:
            detail = f"keeps {visible[number]} of its {area} pixels, as smaller objects overlap it"
            coco.leave_out_annotation("overlapped", annotation.id, detail)
    return labels


def note_box_only(coco, annotation):
    """Notes an annotation that masks can't show."""
    coco.leave_out_annotation("no_mask", annotation.id, "has only a box, which a picture of pixels can't show")


@contextlib.contextmanager
def new_folder(path):
    """Gives a temporary folder beside `path` and renames it to `path` when the block ends well.

    Raises UserError if there are files in `path` already.
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


def output_names(coco, suffix):
    """(image, its file name with another suffix) of each image; UserError if two get the same, as a.jpg and a.png."""
    owners = {}
    for image in coco.images:
        name = pathlib.PurePosixPath(image.file_name).with_suffix(suffix)
        if (other := owners.setdefault(name, image)) is not image:
            raise UserError(f"{image.file_name} and {other.file_name} would both become {name}: rename one of them.")
    return [(image, str(name)) for name, image in owners.items()]


def find_image(coco, image, images):
    """The file of a CocoImage in the folder `images`; None, and a note, if it isn't there.

    Raises UserError if no folder was given, or there is none.
    """
    if images is None:
        raise UserError(f"Say where the images of {coco.source} are: --images FOLDER.")
    if not pathlib.Path(images).is_dir():
        raise UserError(f"There is no folder {images}: give --images the folder of the images.")
    if coco.folder is None:
        coco.folder = ImageFolder(images)
    path = coco.folder.find(image.file_name)
    if path is not None:
        return path
    coco.leave_out("missing_image", f"{image.file_name} of {coco.source} isn't in {images}.", image.file_name)
    return None


def copy_image(coco, image, images, target):
    """Puts an image's file at `target`; whether `find_image` has found it."""
    path = find_image(coco, image, images)
    if path is not None:
        link_or_copy(path, target)
    return path is not None


def link_or_copy(path, target):
    """Makes `target` the same file as `path`, by a hard link where the disk allows it, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(os.path.realpath(path), target)
    except OSError:
        shutil.copyfile(path, target)
