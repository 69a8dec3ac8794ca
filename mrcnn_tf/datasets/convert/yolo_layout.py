"""Where a YOLO dataset keeps its images, its labels and the names of its classes."""

import dataclasses
import pathlib

import yaml

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.convert.class_names import numbered_names, read_names
from mrcnn_tf.datasets.convert.guess import refuse_other
from mrcnn_tf.datasets.convert.pictures import image_files
from mrcnn_tf.datasets.convert.reading import BrokenFile, existing, read_text

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
