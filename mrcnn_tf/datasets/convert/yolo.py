"""Ultralytics' YOLO datasets: images/, and beside it labels/ with a text file of each image.

A line is an object: the number of its class from 0, then x and y of an outline's points by turns, as parts of the
image's width and height; or, with five numbers in all, a box's centre, width and height. data.yaml names classes and
splits.
"""

import math

from mrcnn_tf.common.progress import steps
from mrcnn_tf.datasets.convert.class_names import ClassNames
from mrcnn_tf.datasets.convert.dataset import Dataset
from mrcnn_tf.datasets.convert.pictures import ImageFolder, frame_of
from mrcnn_tf.datasets.convert.reading import BrokenFile, read_text
from mrcnn_tf.datasets.convert.yolo_layout import find_layout, label_file

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
    for path in steps(layout.images, "YOLO"):
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
