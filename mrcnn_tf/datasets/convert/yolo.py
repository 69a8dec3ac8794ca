"""Ultralytics' YOLO datasets: images/, and beside it labels/ with a text file of each image.

A line is an object: the number of its class from 0, then x and y of an outline's points by turns, as parts of the
image's width and height; or, with five numbers in all, a box's centre, width and height. data.yaml names classes and
splits.
"""

import dataclasses
import math
import pathlib

import yaml

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.problems import show_progress
from mrcnn_tf.datasets.convert.coco import copy_image, new_folder, output_names
from mrcnn_tf.datasets.convert.dataset import DECIMALS, Dataset, number_names, read_names
from mrcnn_tf.datasets.convert.geometry import as_one_polygon
from mrcnn_tf.datasets.convert.inputs import BrokenFile, existing_path, raise_wrong_format, read_text
from mrcnn_tf.datasets.convert.yolo_folders import (
    BOX_FIELDS,
    OTHER,
    LabelFiles,
    find_splits,
    label_folders,
    root_of,
    starts_with_numbers,
)
from mrcnn_tf.datasets.image_folder import ImageFolder

NAME_FILES = ("**/classes.txt", "**/*.names", "**/predefined_classes.txt")
OUTSIDE = 0.1  # how far a part of the image's side may be beyond it; pixels would be farther
DIGITS = 9  # written after the point: a thousandth of a pixel in an image of a million


def read_yolo(source, images=None, names=None, split=None):
    """The Dataset of a YOLO dataset's folder or data.yaml; see `convert` for readers.

    File names are relative to the folder that data.yaml's `path` leads to, if it has one. Broken lines, labels without
    their image and paths that lead nowhere are noted in it. An image without labels has no objects.

    Args:
        names: they replace those of the dataset, by number; those of a COCO json only fix the ids.
        split: "train", "val", "test" or "other", see `yolo_folders`; None for all, if there is only one.

    Raises:
        UserError: also if there are several splits, or no names.
    """
    root, settings, settings_file = find_dataset(source)
    splits = find_splits(root, settings, settings_file)
    labels = LabelFiles(root, sorted({path for paths in splits.images.values() for path in paths}))
    if not settings_file and not any(map(starts_with_numbers, labels.files)):
        raise_wrong_format(source, "yolo")
    unlabelled = _drop_unlabelled_others(splits, labels)
    chosen, image_files = splits.choose(split, settings_file or source)
    classes = names if names and names.numbers else _read_classes(settings, settings_file, root)
    folder = ImageFolder(images or root)
    dataset = Dataset(source, names or classes)
    for name, kind, file, message in splits.notes:
        if name == chosen or not split:
            dataset.leave_out(kind, file, f"{message}.", name)
    if unlabelled:
        message = f"{len(unlabelled)} images outside of the splits, such as {unlabelled[0]}, have no labels"
        remedy = "move them into a split if they show that there is nothing"
        dataset.leave_out("outside_splits", source, f"{message} and were left out: {remedy}.", str(unlabelled[0]))
    pose = PoseFormat.of(settings, settings_file)
    numbers = (names or classes).labels(classes.numbers)
    for path in show_progress(image_files, "YOLO"):
        file = labels.find(path)
        try:
            lines = read_text(file).splitlines() if file else []
        except BrokenFile as error:
            dataset.leave_out("broken_file", path, str(error))
            continue
        image = dataset.add_image_of_size(path, folder, file or path)
        for number, line in enumerate(lines, 1) if image else ():
            if line.strip():
                _read_line(line, f"Line {number}", file, image, numbers, pose, dataset)
    for file in labels.unused(chosen):
        message = f"{file} has no image and was left out: put {file.stem}.jpg or .png into the folder of images."
        dataset.leave_out("missing_image", file, message)
    return dataset


def find_dataset(source):
    """(folder of a dataset, content and path of its data.yaml) of this folder or data.yaml; {} and None without one."""
    source = existing_path(source, "the folder of a YOLO dataset, or its data.yaml")
    file = _find_settings(source)
    settings = _read_settings(file) if file else {}
    return (root_of(settings, file) if file else source), settings, file


def _find_settings(source):
    """data.yaml, or None."""
    if source.is_file():
        if source.suffix.lower() not in (".yaml", ".yml"):
            raise_wrong_format(source, "yolo")
        return source
    files = sorted([*source.glob("*.yaml"), *source.glob("*.yml")])
    files = [path for path in files if path.stem == "data"] or files
    if len(files) > 1:
        # Beside it may lie args.yaml of a training and the like.
        files = [path for path in files if "names" in _read_settings(path)]
    if len(files) > 1:
        listed = ", ".join(path.name for path in files)
        raise UserError(
            f"{source} has several yaml files, {listed}: give the one of the dataset instead of the folder."
        )
    return files[0] if files else None


def _drop_unlabelled_others(splits, labels):
    """Takes images outside of the splits away, if none has labels, such as pictures of curves; gives them."""
    others = splits.images.get(OTHER, [])
    return [] if any(map(labels.find, others)) else splits.images.pop(OTHER, [])


def _read_classes(settings, settings_file, root):
    """The ClassNames of a dataset."""
    if settings.get("names"):
        return number_names(settings, settings_file)
    files = [path for pattern in NAME_FILES for path in sorted(root.glob(pattern))]
    lists = {path: read_names(path) for path in files}
    if not lists:
        raise UserError(
            f"{settings_file or root} doesn't name its classes: list them in a text file, given by --names."
        )
    first = files[0]
    for path, classes in lists.items():
        if classes.numbers != lists[first].numbers:
            raise UserError(f"{first} and {path} list other classes: give the right one by --names.")
    return lists[first]


@dataclasses.dataclass
class PoseFormat:
    """What follows the box in a pose dataset's lines, kpt_shape of its data.yaml.

    Attributes:
        count: keypoints of an object; 0 in other datasets.
        size: numbers of a keypoint: x and y as parts of the image's sides, and its visibility as COCO's where it is 3.
        names: dict class -> the keypoints' names; that of None is for all classes.
    """

    count: int = 0
    size: int = 3
    names: dict[int | None, list[str]] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, settings, file):
        """That of a data.yaml; raises UserError if its kpt_shape or kpt_names can't be."""
        if settings.get("kpt_shape") is None:
            return cls()
        try:
            count, size = map(int, settings["kpt_shape"])
            listed = settings.get("kpt_names") or [f"keypoint_{number}" for number in range(1, count + 1)]
            names = listed if isinstance(listed, dict) else {None: listed}
            names = {number: [str(name) for name in texts] for number, texts in names.items()}
        except (TypeError, ValueError):
            count, size, names = 0, 0, {}
        if count < 1 or size not in (2, 3) or any(len(set(texts)) != count for texts in names.values()):
            remedy = "give the number of keypoints and 2 or 3, and a list of as many names, if any"
            raise UserError(f"{file} has a kpt_shape or kpt_names that can't be: {remedy}.")
        return cls(count, size, names)

    def split(self, values, number, width, height):
        """(values of the class and box, keypoints as `Dataset.add_object` takes them) of the numbers of a line.

        Raises ValueError for another number of them, or a visibility that is none.
        """
        if not self.count or len(values) == BOX_FIELDS:
            return values, None
        if len(values) != BOX_FIELDS + self.count * self.size:
            raise ValueError(f"has {len(values)} numbers, not {BOX_FIELDS + self.count * self.size} as kpt_shape says,")
        names = self.names.get(number) or self.names.get(None) or next(iter(self.names.values()))
        keypoints = {}
        for index, name in enumerate(names):
            x, y, *visibility = values[BOX_FIELDS + index * self.size :][: self.size]
            # Without that number, points that aren't labelled are at 0, 0 or have negative coordinates.
            visible = visibility[0] if visibility else 2 * (min(x, y) >= 0 and max(x, y) > 0)
            if visible not in (0, 1, 2) or not (math.isfinite(x) and math.isfinite(y)):
                raise ValueError(
                    f"has the keypoint {name} with {x:g}, {y:g} and the visibility {visible:g}, which can't be,"
                )
            keypoints[name] = (round(x * width, DECIMALS), round(y * height, DECIMALS), int(visible))
        return values[:BOX_FIELDS], keypoints


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


def _read_line(line, where, file, image, numbers, pose, dataset):
    """Adds the object of a line, or notes why not. `numbers`: dict class number -> what `Dataset` knows it by."""

    def leave_out(kind, detail):
        dataset.leave_out_record(kind, file, where, f"{detail} and was left out: correct it")

    try:
        values = [float(word) for word in line.split()]
        number = int(values[0])
        if number != values[0]:
            raise ValueError(f"{line.split()[0]} is no class")
    except (ValueError, OverflowError) as error:
        leave_out("broken_line", f"isn't a row of numbers ({error})")
        return
    try:
        values, keypoints = pose.split(values, number, image.width, image.height)
    except ValueError as error:
        leave_out("broken_line", str(error))
        return
    problem = _line_problem(values)
    if number not in numbers:
        problem = "unknown_class", f"has class {number}, which data.yaml doesn't name,"
    if problem:
        leave_out(*problem)
        return
    scaled = [value * (image.height if index % 2 else image.width) for index, value in enumerate(values[1:])]
    if len(values) == BOX_FIELDS:
        x, y, width, height = scaled
        shape = {"box": [x - width / 2, y - height / 2, width, height]}
    else:
        shape = {"parts": [scaled]}
    dataset.add_object(image, numbers[number], file, where, keypoints=keypoints, **shape)


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
    so objects that have only a box are left out then. Where all are boxes of classes with as many keypoints, lines are
    those of a pose dataset; otherwise keypoints are left out.

    Crowds are left out, too, and `copy_images` puts images into images/ beside labels/. See `convert` for writers.
    """
    coco.drop_crowds()
    names = output_names(coco, ".txt")
    numbers = {category: number for number, category in enumerate(coco.names)}
    annotations = [annotation for image in coco.images for annotation in image.annotations]
    has_outlines = any(annotation.segmentation is not None for annotation in annotations)
    counts = {len(coco.keypoint_names[annotation.category_id]) for annotation in annotations}
    is_pose = not has_outlines and len(counts) == 1 and any(annotation.keypoints for annotation in annotations)
    coco.keeps_keypoints, keypoint_count = is_pose, counts.pop() if is_pose else 0
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
                    lines.append(_make_line(annotation, image, numbers, keypoint_count))
            file = folder / label_folders(pathlib.Path("images", name).parent)[0] / pathlib.Path(name).name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        content = {"train": "images", "val": "images", "names": dict(enumerate(coco.names.values()))}
        if is_pose:
            named = {numbers[key]: names for key, names in coco.keypoint_names.items() if len(names) == keypoint_count}
            content |= {"kpt_shape": [keypoint_count, 3], "kpt_names": named}
        text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
        (folder / "data.yaml").write_text(text, encoding="utf-8")


def _make_line(annotation, image, numbers, keypoint_count):
    if annotation.segmentation is None:
        x, y, width, height = annotation.box
        values = [x + width / 2, y + height / 2, width, height]
    else:
        values = as_one_polygon(annotation.segmentation, image.height, image.width)
    sides = image.width, image.height
    parts = [f"{value / sides[index % 2]:.{DIGITS}f}" for index, value in enumerate(values)]
    keypoints = annotation.keypoints or [(0, 0, 0)] * keypoint_count
    for *point, visibility in keypoints if keypoint_count else ():
        parts += [f"{value / side:.{DIGITS}f}" for value, side in zip(point, sides, strict=True)] + [str(visibility)]
    return " ".join([str(numbers[annotation.category_id]), *parts])
