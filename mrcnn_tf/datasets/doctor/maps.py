"""Label maps beside a json of instances: which are missing or of another form, and values that mean nothing."""

import concurrent.futures
import os

import numpy as np

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import refuse_archive
from mrcnn_tf.common.problems import Problem
from mrcnn_tf.datasets import label_maps
from mrcnn_tf.datasets.doctor.images import decode
from mrcnn_tf.datasets.image_files import WORKERS
from mrcnn_tf.datasets.label_maps import label_map_paths, semantic_classes, usable_maps


def check_map_folder(maps):
    """Raises UserError unless there is such a folder."""
    refuse_archive(os.fspath(maps), "the folder of PNGs in it")
    if not os.path.isdir(maps):
        raise UserError(f"There is no folder {maps}: give the one that holds the PNGs of the maps.")


def check_label_maps(source, images, maps, categories, stuff, findings, bars):
    """Adds what is wrong with the label maps of usable images; all of them are read.

    Args:
        source: reading.Source.
        images: image_records.Images.
        maps: the folder.
        categories, stuff: lists of Category.
        findings: Findings.
        bars: rich Progress.

    Raises:
        UserError: there is no stuff, or see `semantic_classes`.
    """
    if not stuff:
        raise UserError(
            f"Nothing names the classes of the label maps in {maps}: give them as "
            '"model.stuff=[{id: 21, name: sky}, ...]", each with the value of its pixels as id.'
        )
    bar, classes = stages(bars), semantic_classes(categories, stuff)
    paths = label_map_paths(os.fspath(maps), source.folder, np.array([os.fsencode(path) for path in images.paths]))
    usable = usable_maps(paths, map_fields(images), source.path, False, bar("maps", len(paths)), decode)
    findings.extend(usable.problems)
    known, seen = np.array([*classes, *label_maps.UNLABELLED]), set()
    on_progress = bar("labels", len(usable.files))
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        found = pool.map(lambda path: _look(path, known), usable.files)
        for number, path, (values, fault) in zip(images.ids[usable.kept].tolist(), usable.files, found, strict=True):
            seen.update(values.tolist())
            if fault:
                findings.extend([Problem(fault[0], number, path, f"Image {number} in {source.path}: {fault[1]}.")])
            on_progress(1)
    for category in stuff:
        if category.id not in seen:
            sentence = f"Category {category.id} ({category.name!r}) of model.stuff has no pixel in {maps}."
            findings.add("empty_class", category.id, sentence)


def _look(path, known):
    """(values [V] in a map, None or (kind, "what: remedy"))."""
    try:
        values = label_maps.values_of(label_maps.read_label_map(path))[0]
    except UserError as error:
        return np.zeros(0, np.int64), ("unreadable_map", str(error).removesuffix("."))
    unknown = np.setdiff1d(values, known)
    return values, ("unknown_label", label_maps.unknown_labels(path, unknown)) if unknown.size else None


def stages(bars):
    """A function of a name and a number of files, that gives a function to call with how many more are done."""

    def stage(name, total):
        task = bars.add_task(f"Looking at {name}", total=total)
        return lambda number: bars.advance(task, number)

    return stage


def map_fields(images):
    """What `usable_maps` needs of `Images`."""
    return {"image_ids": images.ids, "heights": images.heights, "widths": images.widths}
