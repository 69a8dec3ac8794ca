"""One panoptic dataset from its json and PNGs to its findings."""

import dataclasses
import os

import numpy as np

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.annotation_checks import Checker
from mrcnn_tf.datasets.coco_index import crowded_images
from mrcnn_tf.datasets.doctor.classes import NOBODY, check_categories, check_counts
from mrcnn_tf.datasets.doctor.examination import Examination, check_copies, size_facts
from mrcnn_tf.datasets.doctor.findings import Findings
from mrcnn_tf.datasets.doctor.images import check_images, decode
from mrcnn_tf.datasets.doctor.maps import map_fields, stages
from mrcnn_tf.datasets.doctor.reading import Source, check_sources, explain_failure
from mrcnn_tf.datasets.label_maps import segment_map_paths, semantic_classes, strangers, usable_maps
from mrcnn_tf.datasets.panoptic import NO_CATEGORY, MapSegments, read_panoptic

# What the loader calls segments' problems in the words for annotations. A clipped box isn't its pixels' either.
_NAMES = {
    "unknown_category": "segment_category",
    "outside_box": "segment_outside",
    "degenerate_box": "segment_outside",
    "clipped_box": None,
}


def examine_panoptic(path, folder, maps, config, bars, headers):
    """Looks for everything that can be wrong with a panoptic dataset; all of its PNGs are read.

    Args:
        path: a COCO panoptic json.
        folder: the images.
        maps: the folder of the PNGs.
        config: settings.Config; data.train.max_instances is read.
        bars: rich Progress.
        headers: {path: ImageFile} of images that are known already.

    Returns:
        Examination, without what only a repair needs: `annotated` is None.

    Raises:
        UserError: the json or a folder is missing, an archive, or not COCO's, or there is more stuff than a byte can
            number.
    """
    source = _read(path, folder, bars)
    panoptic = source.records
    skipped = [problem.kind for problem in panoptic.problems]
    lost = skipped.count("duplicate_segment") + skipped.count("segment_fields")
    totals = {
        "image": len(source.images),
        "annotation": len(panoptic.map_names) + skipped.count("map_annotation") + skipped.count("second_map"),
        "category": len(source.categories),
        "segment": panoptic.segment_ids.size + lost - int((panoptic.category_ids == NO_CATEGORY).sum()),
    }
    findings = Findings(source.path, totals, mendable=False)
    things, stuff = _things_and_stuff(source, findings)
    panoptic.things, panoptic.stuff = things, stuff
    images = check_images(source, findings, bars, headers)
    copies = check_copies(images, panoptic, findings)

    bar, classes = stages(bars), semantic_classes(things, stuff)
    paths, annotations = segment_map_paths(panoptic, os.fspath(maps), images.ids)
    usable = usable_maps(paths, map_fields(images), source.path, True, bar("maps", len(paths)), decode)
    segments = MapSegments(panoptic, usable, annotations[usable.kept], bar, thorough=True)
    frames = (side[usable.kept] for side in (images.ids, images.heights, images.widths))
    checker = Checker(segments.things(classes), *frames, set(), things or [NOBODY])
    problems = panoptic.problems + strangers(panoptic) + usable.problems + segments.problems + checker.problems
    for problem in problems:
        kind = _NAMES.get(problem.kind, problem.kind)
        findings.extend([dataclasses.replace(problem, kind=kind)] if kind else [])

    kept = checker.kept & ~checker.crowd
    numbers = [np.bincount(checker.place[kept], minlength=len(things))[: len(things)]]
    numbers.append(np.array([(segments.category_ids == one.id).sum() for one in stuff], np.int64))
    check_counts(numbers[0], things, findings, "segment")
    check_counts(numbers[1], stuff, findings, "segment", rare=0)
    per_image = np.bincount(checker.image[checker.kept], minlength=int(usable.kept.sum()))
    ids = images.ids[usable.kept]
    findings.extend(crowded_images(ids, per_image, source.path, config.data.train.max_instances))
    if not panoptic.map_names:
        findings.add("no_annotations", None, f"{source.path} lists no annotation.")
    classes = zip(things + stuff, np.concatenate(numbers).tolist(), strict=True)
    facts = {
        "annotations_file": source.path,
        "images_folder": source.folder,
        "maps_folder": os.fspath(maps),
        "images": len(source.images),
        "usable_images": int(usable.kept.sum()),
        "segments": totals["segment"],
        "usable_segments": int(checker.kept.sum() + numbers[1].sum()),
        "things": int(checker.kept.sum()),
        "crowds": int((checker.kept & checker.crowd).sum()),
        "classes": {f"{one.id} {one.name}": count for one, count in classes},
    }
    facts |= size_facts(images, per_image)
    return Examination(source, images, None, [], np.zeros(0, np.int64), copies, findings.listed(), facts)


def _read(path, folder, bars):
    """The Source; its records are a PanopticJson in which no category is a thing or stuff yet."""
    path, folder = os.fspath(path), os.fspath(folder)
    check_sources(path, folder)
    categories = []

    def keep(records, path):
        categories.extend(records)
        return [], []

    reading = bars.add_task(f"Reading {os.path.basename(path)}", total=os.path.getsize(path))
    try:
        panoptic = read_panoptic(path, lambda done: bars.update(reading, completed=done), keep)
    except UserError as error:
        raise explain_failure(path, error) from None
    return Source(path, folder, panoptic.images, categories, panoptic)


def _things_and_stuff(source, findings):
    """The usable categories, two lists; those that don't say what they are count as things."""
    usable = check_categories(source.categories, source.path, findings)
    records = (record for record in reversed(source.categories) if isinstance(record, dict))
    kinds = {record["id"]: record.get("isthing") for record in records if type(record.get("id")) is int}
    things, stuff = [], []
    for category in usable if usable != [NOBODY] else []:
        if kinds[category.id] not in (0, 1):
            where = f"Category {category.id} ({category.name!r}) in {source.path}"
            findings.add("missing_isthing", category.id, f"{where} has no isthing of 0 or 1.")
        (stuff if kinds[category.id] == 0 else things).append(category)
    unclear = "missing_isthing" in findings or not things + stuff
    if not stuff and not unclear:
        findings.add("no_stuff", None, f"{source.path} has no category with isthing 0.")
    if not things and not unclear:
        findings.add("no_things", None, f"{source.path} has no category with isthing 1.")
    return things, stuff
