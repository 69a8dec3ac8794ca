"""Where a YOLO dataset keeps its images, its labels and the names of its classes."""

import dataclasses
import math
import pathlib

import yaml

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.problems import show_progress
from mrcnn_tf.datasets.convert.coco import by_target, image_path, new_folder, put_image
from mrcnn_tf.datasets.convert.dataset import ClassNames, Dataset, numbered_names, read_names
from mrcnn_tf.datasets.convert.geometry import as_one_polygon
from mrcnn_tf.datasets.convert.inputs import (
    BrokenFile,
    ImageFolder,
    existing,
    frame_of,
    image_files,
    read_text,
    refuse_other,
)

SPLITS = ("train", "val", "test")
NAME_FILES = ("classes.txt", "obj.names", "labels/classes.txt")
NO_LABELS = {"classes.txt", "train.txt", "val.txt", "valid.txt", "test.txt"}


@dataclasses.dataclass
class Layout:
    """What there is to read.

    Attributes:
        root: the dataset's folder.
        images: list of Path.
        labels: list of Path, every text file in folders called labels that these images may have.
        numbers: dict number -> name of a class.
        has_keypoints: whether lines go on with keypoints after their box.
    """

    root: pathlib.Path
    images: list[pathlib.Path]
    labels: list[pathlib.Path]
    numbers: dict[int, str]
    has_keypoints: bool


def find_layout(source, names=None, split=None):
    """The Layout of a dataset's folder or data.yaml; see `yolo.read_yolo` for arguments and errors."""
    source = existing(source, "the folder of a YOLO dataset, or its data.yaml")
    settings = _settings_file(source)
    root = settings.parent if settings else source
    content = _read_settings(settings) if settings else {}
    places = _places(content, root)
    if split and split not in places:
        raise UserError(f"{settings or source} has no split {split!r}: it has {', '.join(places) or 'none'}.")
    if not split and len({tuple(found) for found in places.values()}) > 1:
        first = next(iter(places))
        raise UserError(f"{settings} has the splits {', '.join(places)}: convert one at a time by --split {first}.")
    chosen = [place for name in places if split in (None, name) for place in places[name]] or [root]
    images = sorted({path for place in chosen for path in _images_of(place)}, key=lambda path: path.as_posix())
    labels = _label_files(chosen, images)
    if not any(map(_has_numbers, labels)) and not settings:
        refuse_other(source, "yolo")
    return Layout(root, images, labels, _numbers(content, settings, root, names), "kpt_shape" in content)


def label_file(image):
    """The text file of an image: in labels/ where the image's path has images/, beside it where it has none."""
    return _label_folder(image.parent) / f"{image.stem}.txt"


def _label_folder(folder):
    parts = list(folder.parts)
    for place in range(len(parts) - 1, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return pathlib.Path(*parts)


def _label_files(places, images):
    """Text files in the folders where those of the images are, and in all called labels; sorted list of Path."""
    folders = {_label_folder(image.parent) for image in images}
    below = {_label_folder(place) for place in places if place.is_dir()}
    found = {path for folder in folders for path in folder.glob("*.txt")}
    found |= {path for folder in below for path in folder.rglob("*.txt") if "labels" in path.parts}
    return sorted(path for path in found if path.name not in NO_LABELS)


def _settings_file(source):
    if source.is_file():
        if source.suffix.lower() not in (".yaml", ".yml"):
            refuse_other(source, "yolo")
        return source
    found = sorted([*source.glob("*.yaml"), *source.glob("*.yml")])
    named = [path for path in found if path.stem == "data"] or found
    if len(named) > 1:
        raise UserError(f"{source} has several yaml files: give the one of the dataset instead of the folder.")
    return named[0] if named else None


def _read_settings(path):
    try:
        content = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        raise BrokenFile(f"{path} isn't valid yaml{line}: correct it.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} isn't the yaml of a YOLO dataset: it should have names, train and val.")
    return content


def _places(content, root):
    """dict split -> list of the folders and lists of images that exist."""
    base = pathlib.Path(str(content.get("path") or "."))
    bases = [base, root / base, root] if content.get("path") else [root]
    places = {}
    for split in SPLITS:
        values = content.get(split) or []
        found = [_resolve(str(value), bases) for value in (values if isinstance(values, list) else [values])]
        found = [path for path in found if path]
        if found:
            places[split] = found
    return places


def _resolve(value, bases):
    # Roboflow's data.yaml says ../train/images of a folder that lies beside it.
    for text in (value, value.removeprefix("../")):
        for base in bases:
            if (path := base / text).exists():
                return path
    return None


def _images_of(place):
    if place.is_dir():
        return image_files(place)
    lines = [line.strip() for line in read_text(place).splitlines() if line.strip()]
    return [path if path.is_absolute() else place.parent / path for path in map(pathlib.Path, lines)]


def _numbers(content, settings, root, names):
    if names and names.numbers:
        return names.numbers
    if content.get("names"):
        return numbered_names(content, settings).numbers
    for name in NAME_FILES:
        if (root / name).is_file():
            return read_names(root / name).numbers
    raise UserError(f"{settings or root} doesn't name its classes: list them in a text file, given by --names.")


def _has_numbers(path):
    try:
        words = read_text(path).split()[:5]
        return len([float(word) for word in words]) == 5
    except (BrokenFile, ValueError):
        return False


# Ultralytics' YOLO datasets: images/, and beside it labels/ with a text file of each image.
#
# A line is an object: the number of its class from 0, then x and y of an outline's points by turns, as parts of the
# image's width and height; or, with five numbers in all, a box's centre, width and height. data.yaml names classes and
# splits.
#

OUTSIDE = 0.1  # how far a part of the image's side may be beyond it; pixels would be farther
POSE_FIELDS = 5  # numbers of a line before its keypoints


def read_yolo(source, images=None, names=None, split=None):
    """The objects of a YOLO dataset.

    Args:
        source: its folder, or its data.yaml.
        images: the folder that file names will be relative to; None for the dataset's.
        names: ClassNames that replace those of the dataset, by number; those of a COCO json only fix the ids.
        split: "train", "val" or another that data.yaml names; None for all, if there is only one.

    Returns:
        Dataset. Broken lines, labels without their image and the keypoints of pose datasets are noted in it. An image
        without labels has no objects.

    Raises:
        UserError: the source isn't there, is packed or isn't YOLO's, there are several splits, or no names.
    """
    layout = find_layout(source, names, split)
    folder = ImageFolder(images or layout.root)
    numbers = layout.numbers
    dataset = Dataset(source, names or ClassNames(list(enumerate(numbers.values(), 1)), numbers))
    labels = set()
    for path in show_progress(layout.images, "YOLO"):
        file = label_file(path)
        labels.add(file)
        try:
            frame = frame_of(path)
            lines = read_text(file).splitlines() if file.is_file() else []
        except BrokenFile as error:
            kind = "unreadable_image" if str(path) in str(error) else "broken_file"
            dataset.leave_out(kind, path, str(error))
            continue
        picture = dataset.add_picture(folder.relative(path), frame.width, frame.height, file)
        for number, line in enumerate(lines, 1) if picture else ():
            if line.strip():
                _read_line(line, f"Line {number}", file, numbers, picture, layout.has_keypoints, dataset)
    for file in layout.labels:
        if file not in labels:
            message = f"{file} has no image and was left out: put {file.stem}.jpg or .png into the folder of images."
            dataset.leave_out("missing_image", file, message)
    return dataset


def _read_line(line, where, file, numbers, picture, has_keypoints, dataset):
    """Adds the object of a line, or notes why not."""
    try:
        values = [float(word) for word in line.split()]
        number = int(values[0])
        if number != values[0]:
            raise ValueError(f"{line.split()[0]} is no class")
    except (ValueError, OverflowError) as error:
        message = f"{where} of {file} isn't a row of numbers ({error}) and was left out: correct it."
        dataset.leave_out("broken_line", file, message, where)
        return
    if has_keypoints and len(values) > POSE_FIELDS:
        message = f"{where} of {file} has keypoints, which were left out; its box was kept."
        dataset.leave_out("keypoints", file, message, where)
        values = values[:POSE_FIELDS]
    problem = _line_problem(values)
    if number not in numbers:
        problem = "unknown_class", f"has class {number}, which data.yaml doesn't name,"
    if problem:
        dataset.leave_out(problem[0], file, f"{where} of {file} {problem[1]} and was left out: correct it.", where)
        return
    scaled = [value * (picture.height if place % 2 else picture.width) for place, value in enumerate(values[1:])]
    if len(values) == 5:
        x, y, width, height = scaled
        dataset.add_object(picture, numbers[number], file, where, box=[x - width / 2, y - height / 2, width, height])
    else:
        dataset.add_object(picture, numbers[number], file, where, parts=[scaled])


def _line_problem(values):
    """(kind, what is wrong) with the numbers of a line; None if nothing is."""
    if len(values) < 5 or len(values) % 2 == 0:
        return "broken_line", f"has {len(values)} numbers, not 5 for a box or 7, 9, 11, ... for an outline,"
    if not all(map(math.isfinite, values)):
        return "broken_line", "has a number that isn't finite"
    if not all(-OUTSIDE <= value <= 1 + OUTSIDE for value in values[1:]):
        return "not_normalised", "has coordinates that aren't parts of the image's sides, from 0 to 1,"
    return None


# COCO's json to a YOLO dataset for segmentation. See `yolo` for the format.
#

DIGITS = 9  # after the point: a thousandth of a pixel in an image of a million


def write_yolo(coco, out, images=None, copy_images=False):
    """Writes data.yaml and labels/ with a text file for each image.

    A line can't have several parts or holes, so these become one outline with ways between them, as Ultralytics' own
    converter has it. Where no object has a mask, lines are boxes; a mixture would make Ultralytics forget the outlines,
    so objects that have only a box are left out then.

    Args:
        coco: coco_json.CocoJson; what is left out is noted in it: crowds, boxes among outlines and, with `copy_images`,
            images that aren't there.
        out: a new folder.
        images: the folder of the images, for `copy_images`.
        copy_images: put the images into images/ beside labels/.

    Raises:
        UserError: `out` has files already, there is no folder of images, or two images would get the same labels.
    """
    numbers = {category: number for number, category in enumerate(coco.names)}
    coco.drop_crowds()
    targets = by_target(coco, ".txt")
    outlined = any(one.segmentation is not None for image in coco.images for one in image.instances)
    with new_folder(out) as folder:
        for image, target in show_progress(targets, "YOLO"):
            if copy_images:
                path = image_path(coco, image, images)
                if path is None:
                    continue
                put_image(path, folder / "images" / image.file_name)
            file = folder / "labels" / target
            file.parent.mkdir(parents=True, exist_ok=True)
            lines = [_line(instance, image, numbers) for instance in _wanted(image, coco, outlined)]
            file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        content = {"train": "images", "val": "images", "names": dict(enumerate(coco.names.values()))}
        text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
        (folder / "data.yaml").write_text(text, encoding="utf-8")


def _wanted(image, coco, outlined):
    for instance in image.instances:
        if outlined and instance.segmentation is None:
            message = f"Annotation {instance.id} in {coco.source} has only a box among outlines and was left out."
            coco.leave_out("no_mask", message, instance.id)
        else:
            yield instance


def _line(instance, image, numbers):
    if instance.segmentation is None:
        x, y, width, height = instance.box
        values = [x + width / 2, y + height / 2, width, height]
    else:
        values = as_one_polygon(instance.segmentation, image.height, image.width)
    parts = [value / (image.height if place % 2 else image.width) for place, value in enumerate(values)]
    return " ".join([str(numbers[instance.category_id]), *(f"{part:.{DIGITS}f}" for part in parts)])
