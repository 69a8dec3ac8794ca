"""Ultralytics' YOLO datasets: images/, and beside it labels/ with a text file of each image.

A line is an object: the number of its class from 0, then x and y of an outline's points by turns, as parts of the
image's width and height; or, with five numbers in all, a box's centre, width and height. data.yaml names classes and
splits.
"""

import math
import pathlib

import yaml

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.problems import show_progress
from mrcnn_tf.datasets.convert.coco import copy_image, new_folder, output_names
from mrcnn_tf.datasets.convert.dataset import ClassNames, Dataset, number_names, read_names
from mrcnn_tf.datasets.convert.geometry import as_one_polygon
from mrcnn_tf.datasets.convert.inputs import (
    BrokenFile,
    existing_path,
    raise_wrong_format,
    read_frame,
    read_text,
)
from mrcnn_tf.datasets.image_folder import ImageFolder, find_image_files

SPLITS = ("train", "val", "test")
NAME_FILES = ("classes.txt", "obj.names", "labels/classes.txt")
NO_LABELS = {"classes.txt", "train.txt", "val.txt", "valid.txt", "test.txt"}
BOX_FIELDS = 5  # numbers of a line with a box: class, centre, width and height
OUTSIDE = 0.1  # how far a part of the image's side may be beyond it; pixels would be farther
DIGITS = 9  # written after the point: a thousandth of a pixel in an image of a million


def read_yolo(source, images=None, names=None, split=None):
    """The Dataset of a YOLO dataset's folder or data.yaml; see `convert` for readers.

    Broken lines, labels without their image and the keypoints of pose datasets are noted in it. An image without labels
    has no objects.

    Args:
        names: they replace those of the dataset, by number; those of a COCO json only fix the ids.
        split: "train", "val" or another that data.yaml names; None for all, if there is only one.

    Raises:
        UserError: also if there are several splits, or no names.
    """
    source = existing_path(source, "the folder of a YOLO dataset, or its data.yaml")
    settings_file = _find_settings(source)
    root = settings_file.parent if settings_file else source
    settings = _read_settings(settings_file) if settings_file else {}
    places = _chosen_places(settings, settings_file or source, root, split)
    image_files = sorted({path for place in places for path in _images_of(place)}, key=lambda path: path.as_posix())
    label_files = _find_labels(places, image_files)
    if not any(map(_starts_with_numbers, label_files)) and not settings_file:
        raise_wrong_format(source, "yolo")
    classes, has_keypoints = _class_numbers(settings, settings_file, root, names), "kpt_shape" in settings
    folder = ImageFolder(images or root)
    dataset = Dataset(source, names or ClassNames(list(enumerate(classes.values(), 1)), classes))
    used_labels = set()
    for path in show_progress(image_files, "YOLO"):
        file = _label_folder(path.parent) / f"{path.stem}.txt"
        used_labels.add(file)
        try:
            frame = read_frame(path)
            lines = read_text(file).splitlines() if file.is_file() else []
        except BrokenFile as error:
            kind = "unreadable_image" if str(path) in str(error) else "broken_file"
            dataset.leave_out(kind, path, str(error))
            continue
        image = dataset.add_image(folder.relative(path), frame.width, frame.height, file)
        for number, line in enumerate(lines, 1) if image else ():
            if line.strip():
                _read_line(line, f"Line {number}", file, image, classes, has_keypoints, dataset)
    for file in label_files:
        if file not in used_labels:
            message = f"{file} has no image and was left out: put {file.stem}.jpg or .png into the folder of images."
            dataset.leave_out("missing_image", file, message)
    return dataset


def _find_settings(source):
    """data.yaml, or None."""
    if source.is_file():
        if source.suffix.lower() not in (".yaml", ".yml"):
            raise_wrong_format(source, "yolo")
        return source
    files = sorted([*source.glob("*.yaml"), *source.glob("*.yml")])
    files = [path for path in files if path.stem == "data"] or files
    if len(files) > 1:
        raise UserError(f"{source} has several yaml files: give the one of the dataset instead of the folder.")
    return files[0] if files else None


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


def _chosen_places(settings, source, root, split):
    """The folders and lists of images of the split; list of Path."""
    base = pathlib.Path(str(settings.get("path") or "."))
    bases = [base, root / base, root] if settings.get("path") else [root]
    places = {}
    for name in SPLITS:
        values = settings.get(name) or []
        values = values if isinstance(values, list) else [values]
        existing = [path for path in (_resolve(str(value), bases) for value in values) if path]
        if existing:
            places[name] = existing
    if split and split not in places:
        raise UserError(f"{source} has no split {split!r}: it has {', '.join(places) or 'none'}.")
    if not split and len(set(map(tuple, places.values()))) > 1:
        remedy = f"convert one at a time by --split {next(iter(places))}"
        raise UserError(f"{source} has the splits {', '.join(places)}: {remedy}.")
    return [path for name in places if split in (None, name) for path in places[name]] or [root]


def _resolve(value, bases):
    # Roboflow's data.yaml says ../train/images of a folder that lies beside it.
    for text in (value, value.removeprefix("../")):
        for base in bases:
            if (path := base / text).exists():
                return path
    return None


def _images_of(place):
    """The images of a folder, or of a file that lists them."""
    if place.is_dir():
        return find_image_files(place)
    lines = [line.strip() for line in read_text(place).splitlines() if line.strip()]
    return [path if path.is_absolute() else place.parent / path for path in map(pathlib.Path, lines)]


def _find_labels(places, images):
    """Text files in the folders where those of the images are, and in all called labels; sorted list of Path."""
    folders = {_label_folder(image.parent) for image in images}
    files = {path for folder in folders for path in folder.glob("*.txt")}
    folders = {_label_folder(place) for place in places if place.is_dir()}
    files |= {path for folder in folders for path in folder.rglob("*.txt") if "labels" in path.parts}
    return sorted(path for path in files if path.name not in NO_LABELS)


def _label_folder(folder):
    """Where the text files of a folder's images are: in labels/ where its path has images/, else beside them."""
    parts = list(folder.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return pathlib.Path(*parts)


def _starts_with_numbers(path):
    try:
        words = read_text(path).split()[:BOX_FIELDS]
        return len([float(word) for word in words]) == BOX_FIELDS
    except (BrokenFile, ValueError):
        return False


def _class_numbers(settings, settings_file, root, names):
    """dict number -> name of a class."""
    if names and names.numbers:
        return names.numbers
    if settings.get("names"):
        return number_names(settings, settings_file).numbers
    for name in NAME_FILES:
        if (root / name).is_file():
            return read_names(root / name).numbers
    raise UserError(f"{settings_file or root} doesn't name its classes: list them in a text file, given by --names.")


def _read_line(line, where, file, image, classes, has_keypoints, dataset):
    """Adds the object of a line, or notes why not."""

    def leave_out(kind, detail):
        dataset.leave_out(kind, file, f"{where} of {file} {detail}.", where)

    try:
        values = [float(word) for word in line.split()]
        number = int(values[0])
        if number != values[0]:
            raise ValueError(f"{line.split()[0]} is no class")
    except (ValueError, OverflowError) as error:
        leave_out("broken_line", f"isn't a row of numbers ({error}) and was left out: correct it")
        return
    if has_keypoints and len(values) > BOX_FIELDS:
        leave_out("keypoints", "has keypoints, which were left out; its box was kept")
        values = values[:BOX_FIELDS]
    problem = _line_problem(values)
    if number not in classes:
        problem = "unknown_class", f"has class {number}, which data.yaml doesn't name,"
    if problem:
        kind, detail = problem
        leave_out(kind, f"{detail} and was left out: correct it")
        return
    scaled = [value * (image.height if index % 2 else image.width) for index, value in enumerate(values[1:])]
    if len(values) == BOX_FIELDS:
        x, y, width, height = scaled
        shape = {"box": [x - width / 2, y - height / 2, width, height]}
    else:
        shape = {"parts": [scaled]}
    dataset.add_object(image, classes[number], file, where, **shape)


def _line_problem(values):
    """(kind, what is wrong) with the numbers of a line; None if nothing is."""
    if len(values) < BOX_FIELDS or len(values) % 2 == 0:
        return "broken_line", f"has {len(values)} numbers, not 5 for a box or 7, 9, 11, ... for an outline,"
    if not all(map(math.isfinite, values)):
        return "broken_line", "has a number that isn't finite"
    if not all(-OUTSIDE <= value <= 1 + OUTSIDE for value in values[1:]):
        return "not_normalised", "has coordinates that aren't parts of the image's sides, from 0 to 1,"
    return None


def write_yolo(coco, out, images=None, copy_images=False):
    """Writes data.yaml and labels/ with a text file for each image.

    A line can't have several parts or holes, so these become one outline with ways between them, as Ultralytics' own
    converter has it. Where no object has a mask, lines are boxes; a mixture would make Ultralytics forget the outlines,
    so objects that have only a box are left out then.

    Crowds are left out, too, and `copy_images` puts images into images/ beside labels/. See `convert` for writers.
    """
    coco.drop_crowds()
    names = output_names(coco, ".txt")
    numbers = {category: number for number, category in enumerate(coco.names)}
    annotations = (annotation for image in coco.images for annotation in image.annotations)
    has_outlines = any(annotation.segmentation is not None for annotation in annotations)
    with new_folder(out) as folder:
        for image, name in show_progress(names, "YOLO"):
            if copy_images and not copy_image(coco, image, images, folder / "images" / image.file_name):
                continue
            lines = []
            for annotation in image.annotations:
                if has_outlines and annotation.segmentation is None:
                    detail = "has only a box among outlines and was left out"
                    coco.leave_out_annotation("no_mask", annotation.id, detail)
                else:
                    lines.append(_make_line(annotation, image, numbers))
            file = folder / "labels" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        content = {"train": "images", "val": "images", "names": dict(enumerate(coco.names.values()))}
        text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
        (folder / "data.yaml").write_text(text, encoding="utf-8")


def _make_line(annotation, image, numbers):
    if annotation.segmentation is None:
        x, y, width, height = annotation.box
        values = [x + width / 2, y + height / 2, width, height]
    else:
        values = as_one_polygon(annotation.segmentation, image.height, image.width)
    parts = [value / (image.height if index % 2 else image.width) for index, value in enumerate(values)]
    return " ".join([str(numbers[annotation.category_id]), *(f"{part:.{DIGITS}f}" for part in parts)])
