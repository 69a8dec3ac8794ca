"""COCO json + image folder -> `CocoIndex`, compiled once and cached.

A large json is streamed, its image files are opened for their headers, and every bad record ends up in a report.
"""

import dataclasses
import os

import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mrcnn_tf.archives import refuse_archive
from mrcnn_tf.categories import as_categories
from mrcnn_tf.data.checks import Checker
from mrcnn_tf.data.image_files import image_frame, inspect_files, visible_size
from mrcnn_tf.data.index import CocoIndex, cache_path, kept_index, report_index
from mrcnn_tf.data.problems import CONSOLE, Problem
from mrcnn_tf.data.records import Annotations
from mrcnn_tf.errors import UserError
from mrcnn_tf.json_stream import stream_arrays

SECTIONS = ("images", "annotations", "categories")


def load_index(config):
    """The usable records of a dataset.

    The first call reads the json and the images' headers and keeps the result in the user's cache folder
    ($MRCNN_TF_CACHE, or mrcnn_tf in $XDG_CACHE_HOME or ~/.cache); later calls only compare the sizes of files with what
    was seen then. Bad records are left out and listed: one line per kind on stderr, all in a json report beside the
    cached file. Images without objects are kept. What `config.masks` or `config.keypoints` has no use for is neither
    asked for nor checked.

    Args:
        config: settings.DataConfig; `annotations`, `images`, `categories`, `max_instances`, `masks` and `keypoints` are
            read; None for one of the last two means True.

    Returns:
        CocoIndex.

    Raises:
        UserError: the json or the folder is missing, the json isn't COCO's, its keypoints aren't those of
            `config.categories`, or no image is usable.
    """
    _check_paths(config)
    path = cache_path(config)
    index = kept_index(path, lambda: _compile(config))
    report_index(index, path, config.annotations, config.max_instances)
    return index


def _check_paths(config):
    refuse_archive(config.annotations, "the json in it as data.*.annotations")
    refuse_archive(config.images, "the folder of images in it as data.*.images")
    if not os.path.isfile(config.annotations):
        raise UserError(f"There is no file {config.annotations!r}: set data.*.annotations to a COCO json.")
    if not os.path.isdir(config.images):
        where = f"set data.*.images to the images of {config.annotations}"
        raise UserError(f"There is no folder {config.images!r}: {where}.")


def _compile(config):
    """(CocoIndex, {image path: bytes}) from the json and the folder."""
    annotations = Annotations(config.annotations, config.masks is not False)
    images, categories = [], []
    percentage = TextColumn("{task.percentage:.0f} %")
    columns = (TextColumn("{task.description}"), BarColumn(), percentage, TimeRemainingColumn())
    with Progress(*columns, console=CONSOLE, transient=CONSOLE.is_terminal) as progress:
        reading = progress.add_task(f"Reading {config.annotations}", total=os.path.getsize(config.annotations))
        takers = {"images": images.append, "annotations": annotations.add, "categories": categories.append}
        for section, record in stream_arrays(
            config.annotations, SECTIONS, lambda done: progress.update(reading, completed=done)
        ):
            takers[section](record)
        annotations.finish()
        categories = _chosen_categories(categories, config)
        files = image_paths(images, config.images)
        checking = progress.add_task("Checking images", total=len(files))
        headers = inspect_files(list(files), lambda number: progress.advance(checking, number))
        headers = dict(zip(files, headers, strict=True))
        fields, skipped, problems = _usable_images(images, headers, config)
        checker = Checker(
            annotations,
            fields["image_ids"],
            fields["heights"],
            fields["widths"],
            skipped,
            categories,
        )
        instances = checker.instances(fields["image_ids"].size)
    problems = problems + annotations.problems + checker.problems
    index = CocoIndex(**fields, **instances, categories=list(categories), problems=problems)
    return index, {path: header.size for path, header in headers.items()}


def _chosen_categories(records, config):
    """The config's categories, else those of the json's records; without keypoints if the config does without."""
    chosen = config.categories or as_categories(records, config.annotations)
    if config.keypoints is False:
        return [dataclasses.replace(category, keypoints=[], skeleton=[]) for category in chosen]
    known = [record for record in records if isinstance(record, dict)]
    for category in chosen:
        # Without names in the json the annotations may still follow the config's; without names here nobody asks.
        names = next((one.get("keypoints") for one in known if one.get("id") == category.id), None)
        if names and category.keypoints and names != category.keypoints:
            raise UserError(
                f"Category {category.name!r} has the keypoints {names} in {config.annotations} and "
                f"{category.keypoints} in the config: give both the same names in the same order."
            )
    return chosen


def image_paths(images, folder):
    """The distinct files that image records name, in order: {path: None}."""
    names = (record.get("file_name") for record in images if isinstance(record, dict))
    return dict.fromkeys(os.path.join(folder, name) for name in names if isinstance(name, str))


def _usable_images(images, headers, config):
    """(the image arrays of a CocoIndex as a dict, ids of images that can't be used, problems)."""
    rows, problems, seen, skipped = [], [], set(), set()
    for record in images:
        row, problem = image_row(record, headers, config, seen)
        if problem:
            problems.append(problem)
            if problem.kind != "duplicate_image" and type(problem.record) is int:
                skipped.add(problem.record)
        else:
            rows.append(row)
        if isinstance(record, dict) and type(record.get("id")) is int:
            seen.add(record["id"])
    ids, files, heights, widths, orientations = zip(*rows, strict=True) if rows else ((),) * 5
    fields = {
        "image_ids": np.array(ids, np.int64),
        "image_files": np.array([os.fsencode(path) for path in files], np.bytes_),
        "record_offsets": np.full(len(ids), -1, np.int64),
        "heights": np.array(heights, np.int32),
        "widths": np.array(widths, np.int32),
        "orientations": np.array(orientations, np.int32),
    }
    return fields, skipped, problems


def image_row(record, headers, config, seen):
    """((id, path, height, width, orientation), None), or (None, Problem)."""

    def problem(kind, what, remedy, file=config.annotations):
        name = record.get("id") if isinstance(record, dict) else None
        where = config.annotations if file == config.annotations else f"{config.annotations} ({file})"
        return None, Problem(kind, name, file, f"Image {name} in {where} {what} and was skipped: {remedy}.")

    whole = isinstance(record, dict) and type(record.get("id")) is int and abs(record["id"]) < 2**63
    if not whole or type(record.get("file_name")) is not str:
        return problem("image_fields", "lacks a whole number as id or a file_name", "add it")
    if record["id"] in seen:
        return problem("duplicate_image", "has an id that was used before", "give it one of its own")
    path = os.path.join(config.images, record["file_name"])
    header = headers[path]
    if header.problem:
        kind, what, remedy = header.problem
        return problem(kind, what, remedy, path)
    height, width = visible_size(header)
    described = (record.get("height", height), record.get("width", width))
    frame = image_frame(header, *described)
    if frame:
        return (record["id"], path, *frame), None
    what = f"is {described[1]} x {described[0]} there and {width} x {height} in the file"
    return problem("image_size", what, "correct width and height, or the file", path)
