"""Open Images' masks, version 4 to 7: SPLIT-annotations-object-segmentation.csv, and for each row a PNG of an object.

A row has MaskPath, ImageID and LabelName, such as /m/01yrx, which class-descriptions*.csv names. A mask shows the whole
image, black but for the object, at a size of its own.
"""

import collections
import csv
import io

import numpy as np

from mrcnn_tf.common.errors import BrokenFile, UserError
from mrcnn_tf.common.problems import show_progress
from mrcnn_tf.datasets import run_lengths
from mrcnn_tf.datasets.convert.dataset import Dataset
from mrcnn_tf.datasets.convert.inputs import (
    csv_header,
    existing_path,
    is_open_images_csv,
    raise_wrong_format,
    read_text,
)
from mrcnn_tf.datasets.convert.splits import choose_split
from mrcnn_tf.datasets.image_folder import ImageFolder
from mrcnn_tf.datasets.map_files import read_any_map

SPLITS = ("train", "validation", "test")
HEADER = ["LabelName", "DisplayName"]
SIDES_DIFFER = 0.03  # of a mask's ratio of sides and its image's: masks have whole pixels


def read_open_images(source, images=None, names=None, split=None):
    """The Dataset of Open Images' objects with masks; see `convert` for readers.

    Masks are brought to the size of their image by taking the nearest pixel.

    Args:
        source: the folder that holds the csv files and masks, anywhere in it; or the csv of masks, whose
            folder then holds the others.
        split: "train", "validation" or "test", where there are several csv files of masks.
    """
    source = existing_path(source, "the folder of Open Images' csv files and masks")
    root = source if source.is_dir() else source.parent
    file = _find_masks_csv(source, split)
    class_names = _read_class_names(root)
    if not class_names:
        raise UserError(f"{root} has no class-descriptions csv, which names classes such as /m/01yrx: put it there.")
    masks, folder, dataset = ImageFolder(root), ImageFolder(images or root), Dataset(source, names)
    for image_id, rows in show_progress(list(_read_rows(file).items()), "Open Images"):
        path = folder.find(f"{image_id}.jpg")
        frame = dataset.read_frame(path, image_id) if path else None
        if path is None:
            dataset.leave_out_missing(f"{image_id}.jpg", folder, file, image_id)
        if frame:
            pairs = [(row, _read_mask(row, masks, file, dataset)) for row in rows]
            objects = [(row, mask) for row, mask in pairs if mask is not None]
            _add_image(path, frame, folder, objects, class_names, file, dataset)
    return dataset


def _find_masks_csv(source, split):
    files = [source] if source.is_file() else sorted(source.rglob("*.csv"), key=lambda path: path.as_posix())
    files = [path for path in files if is_open_images_csv(path)]
    if not files:
        raise_wrong_format(source, "open-images")
    if len(files) == 1 and split is None:
        return files[0]
    split_of = {}
    for path in files:
        words = [path.name.split("-")[0], *path.parts[::-1]]
        split_of.setdefault(next((word for word in words if word in SPLITS), path.name), path)
    return split_of[choose_split(split_of, split, source)]


def _read_class_names(root):
    """{label: name} of all csv files of classes in a folder, which have two columns and, since version 7, a header.

    Other tools, such as CVAT, write names of their own in place of labels such as /m/01yrx.
    """
    class_names = {}
    for path in sorted(root.rglob("*.csv")):
        header = csv_header(path)
        if len(header) == 2 and (header[0].startswith("/") or "class-descriptions" in path.name):
            rows = csv.reader(io.StringIO(read_text(path)))
            class_names |= {row[0]: row[1].strip() for row in rows if len(row) == 2 and row != HEADER}
    return class_names


def _read_rows(file):
    """{ImageID: list of (line, MaskPath, LabelName)} of a csv of masks."""
    rows = collections.defaultdict(list)
    with open(file, encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        for row in reader:
            rows[row["ImageID"]].append((reader.line_num, row["MaskPath"] or "", row["LabelName"] or ""))
    return rows


def _read_mask(row, masks, file, dataset):
    """bool [h, w] of the PNG of a row; None, and a note, if there is none that can be read."""
    line, name, _ = row
    path = masks.find(name)
    if path is None:
        message = f"{name}, line {line} of {file}, isn't in {masks.root}, and its object was left out: add it."
        dataset.leave_out("missing_mask", file, message, line)
        return None
    try:
        return read_any_map(path) > 0
    except BrokenFile as error:
        dataset.leave_out("unreadable_mask", path, str(error), line)
        return None


def _add_image(path, frame, folder, objects, class_names, file, dataset):
    """Adds an image and its objects, list of (row, mask bool [h, w])."""
    # As seen, or as stored, if masks only fit that.
    sizes = [(frame.width, frame.height), (frame.stored_width, frame.stored_height)]
    width, height = next((size for size in sizes if objects and _has_ratio(objects[0][1], *size)), sizes[0])
    image = dataset.add_image(folder.relative(path), width, height, file)
    for (line, name, label), mask in objects if image else ():
        where = f"Line {line}"
        if not _has_ratio(mask, width, height):
            message = f"{name} is {mask.shape[1]} x {mask.shape[0]} but {path} is {width} x {height}, of another ratio"
            message = f"{message}, and it was left out: put back the image that was labelled."
            dataset.leave_out("other_size", file, message, line)
        elif label not in class_names:
            message = f"{where} of {file} has the class {label!r}, which no class-descriptions csv names"
            dataset.leave_out("unknown_class", file, f"{message}, and was left out: add it there.", line)
        else:
            rle = run_lengths.encode(_resize(mask, width, height))
            dataset.add_object(image, class_names[label], file, where, parts=[rle])


def _has_ratio(mask, width, height):
    ratio = mask.shape[1] * height / (mask.shape[0] * width)
    # A pixel more or less is much of a small side.
    return abs(ratio - 1) <= SIDES_DIFFER + 1 / min(mask.shape)


def _resize(mask, width, height):
    """The mask at another size, bool [height, width]: of each pixel's centre, the nearest pixel."""
    rows, columns = (
        ((np.arange(wanted) + 0.5) * own / wanted).astype(np.int64)
        for wanted, own in zip((height, width), mask.shape, strict=True)
    )
    return mask[rows[:, None], columns]
