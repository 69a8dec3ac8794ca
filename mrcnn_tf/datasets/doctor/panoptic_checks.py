"""Panoptic jsons and their PNGs of segment ids, and label maps, PNGs of category ids, beside a json of instances."""

import concurrent.futures
import dataclasses
import itertools
import os

import numpy as np

from mrcnn_tf.common.categories import parse_isthing
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import refuse_archive
from mrcnn_tf.common.json_values import parse_integer
from mrcnn_tf.common.problems import Problem, counting_bar, reading_bar
from mrcnn_tf.datasets import map_files
from mrcnn_tf.datasets.annotation_checks import Checker
from mrcnn_tf.datasets.doctor.category_checks import PLACEHOLDER_CATEGORY, check_categories
from mrcnn_tf.datasets.doctor.coco_source import CocoSource, describe_read_error
from mrcnn_tf.datasets.image_files import WORKERS
from mrcnn_tf.datasets.panoptic_json import MapSegments, read_panoptic

# Problems that the loader finds in instances, in the words for segments. A clipped box isn't its pixels' either.
_SEGMENT_KINDS = {
    "unknown_category": "segment_category",
    "outside_box": "segment_outside",
    "degenerate_box": "segment_outside",
    "clipped_box": None,
}


def check_map_folder(maps):
    """Raises UserError unless there is such a folder."""
    refuse_archive(os.fspath(maps), "the folder of PNGs in it")
    if not os.path.isdir(maps):
        raise UserError(f"There is no folder {maps}: give the one that holds the PNGs of the maps.")


def check_label_maps(source, images, maps, categories, stuff, findings, bars):
    """Adds what is wrong with the label maps of usable images, in the folder `maps`; all of them are read.

    Their values are ids of `categories` and `stuff`, lists of Category.

    Raises:
        UserError: there is no stuff, or see `semantic_classes`.
    """
    if not stuff:
        raise UserError(
            f"Nothing names the classes of the label maps in {maps}: give them as "
            '"model.stuff=[{id: 21, name: sky}, ...]", each with the value of its pixels as id.'
        )
    classes = map_files.semantic_classes(categories, stuff)
    image_files = np.array([os.fsencode(path) for path in images.paths])
    paths = map_files.label_map_paths(os.fspath(maps), source.folder, image_files)
    usable = _check_map_files(paths, images, source, False, bars)
    findings.extend(usable.problems)
    known, seen = np.array([*classes, *map_files.UNLABELLED]), set()
    on_progress = counting_bar(bars, "Looking at labels", len(usable.files))
    own_ids = itertools.compress(images.own_ids, usable.kept)
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        results = pool.map(lambda path: _read_labels(path, known), usable.files)
        for number, path, (values, fault) in zip(own_ids, usable.files, results, strict=True):
            seen.update(values.tolist())
            if fault:
                kind, sentence = fault
                findings.extend([Problem(kind, number, path, f"Image {number} in {source.path}: {sentence}.")])
            on_progress(1)
    for category in stuff:
        if category.id not in seen:
            sentence = f"Category {category.id} ({category.name!r}) of model.stuff has no pixel in {maps}."
            findings.add("empty_class", category.id, sentence)


def _read_labels(path, known):
    """(values [V] in a map, None or (kind, "what is wrong: remedy"))."""
    try:
        values = map_files.count_values(map_files.read_label_map(path))[0]
    except UserError as error:
        return np.zeros(0, np.int64), ("unreadable_map", str(error).removesuffix("."))
    unknown = np.setdiff1d(values, known)
    return values, ("unknown_label", map_files.describe_unknown_labels(path, unknown)) if unknown.size else None


def _check_map_files(paths, images, source, segments, bars):
    """`map_files.check_maps` for CheckedImages."""
    names = np.array([own_id.encode() if isinstance(own_id, str) else b"" for own_id in images.own_ids], np.bytes_)
    fields = {"image_ids": images.ids, "image_names": names, "heights": images.heights, "widths": images.widths}
    on_progress = counting_bar(bars, "Looking at maps", len(paths))
    return map_files.check_maps(paths, fields, source.path, segments, on_progress)


def read_panoptic_source(path, folder, bars):
    """The CocoSource of a panoptic json, whose categories are neither things nor stuff yet; raises as `read_source`."""
    path, folder, categories = os.fspath(path), os.fspath(folder), []

    def keep(records, path):
        categories.extend(records)
        return [], []

    try:
        panoptic = read_panoptic(path, reading_bar(bars, f"Reading {os.path.basename(path)}", path), keep)
    except UserError as error:
        raise describe_read_error(path, error) from None
    return CocoSource(path, folder, panoptic.images, categories, panoptic)


def check_things_and_stuff(source, findings):
    """The usable categories of a panoptic json, (things, stuff); those that don't say what they are count as things."""
    usable = check_categories(source.categories, source.path, findings)
    records = (record for record in reversed(source.categories) if isinstance(record, dict))
    isthing = {parse_integer(record.get("id")): parse_isthing(record) for record in records}
    things, stuff = [], []
    for category in usable if usable != [PLACEHOLDER_CATEGORY] else []:
        if isthing[category.id] is None:
            where = f"Category {category.id} ({category.name!r}) in {source.path}"
            findings.add("missing_isthing", category.id, f"{where} has no isthing of 0 or 1.")
        (stuff if isthing[category.id] is False else things).append(category)
    is_clear = "missing_isthing" not in findings and things + stuff
    if is_clear and not stuff:
        findings.add("no_stuff", None, f"{source.path} has no category with isthing 0.")
    if is_clear and not things:
        findings.add("no_things", None, f"{source.path} has no category with isthing 1.")
    return things, stuff


def check_segments(source, images, maps, findings, bars):
    """Adds what is wrong with the segments of a panoptic json and their PNGs in the folder `maps`, which are all read.

    The PanopticJson has its things and stuff by now.

    Returns:
        ([I] bool, the images whose PNG can be used; Checker of the segments of things, its images being those;
        [things + stuff] int64, usable segments of each category, crowds left out).
    """
    panoptic = source.records
    classes = map_files.semantic_classes(panoptic.things, panoptic.stuff)
    paths, annotations = map_files.segment_map_paths(panoptic, os.fspath(maps), images.ids)
    usable = _check_map_files(paths, images, source, True, bars)
    segments = MapSegments(panoptic, usable, annotations[usable.kept], bars, thorough=True)
    frames = (side[usable.kept] for side in (images.ids, images.heights, images.widths))
    checker = Checker(segments.things(classes), *frames, set(), panoptic.things or [PLACEHOLDER_CATEGORY])
    problems = panoptic.problems + map_files.find_orphan_annotations(panoptic)
    for problem in problems + usable.problems + segments.problems + checker.problems:
        kind = _SEGMENT_KINDS.get(problem.kind, problem.kind)
        findings.extend([dataclasses.replace(problem, kind=kind)] if kind else [])
    counted = checker.kept & ~checker.crowd
    things = np.bincount(checker.category_index[counted], minlength=len(panoptic.things))[: len(panoptic.things)]
    stuff = [(segments.category_ids == category.id).sum() for category in panoptic.stuff]
    return usable.kept, checker, np.r_[things, np.array(stuff, np.int64)]
