"""Validates a dataset before it is trained on: all checks in their order, and training and validation set compared."""

import dataclasses
import itertools
import os

import numpy as np

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.problems import CONSOLE, progress_bars
from mrcnn_tf.config.load import load_config
from mrcnn_tf.datasets.annotation_checks import Checker, find_indices
from mrcnn_tf.datasets.coco_index import find_overfull_images
from mrcnn_tf.datasets.doctor.category_checks import check_categories, check_object_counts, compare_categories
from mrcnn_tf.datasets.doctor.coco_source import CocoSource, check_json_and_folder, read_source
from mrcnn_tf.datasets.doctor.coordinate_layouts import LayoutCorrection, correct_layouts
from mrcnn_tf.datasets.doctor.findings import PROBLEM_KINDS, Finding, Findings, Report
from mrcnn_tf.datasets.doctor.image_checks import CheckedImages, check_exif_orientation, check_images
from mrcnn_tf.datasets.doctor.image_copies import check_copies, check_similar, compare_images, make_thumbnails
from mrcnn_tf.datasets.doctor.mask_checks import check_masks, measure_masks
from mrcnn_tf.datasets.doctor.object_checks import CheckedAnnotations, check_anchors, check_keypoints, check_repeats
from mrcnn_tf.datasets.doctor.panoptic_checks import (
    check_label_maps,
    check_map_folder,
    check_segments,
    check_things_and_stuff,
    read_panoptic_source,
)
from mrcnn_tf.datasets.image_files import FULL_CHECK_BYTES
from mrcnn_tf.datasets.panoptic_json import NO_CATEGORY, is_panoptic

FEW_IMAGES = 3000  # near copies among them are always looked for, in about 2 s


@dataclasses.dataclass
class Examination:
    """A dataset, what is wrong with it, and what the repair needs to know.

    Attributes:
        source: CocoSource.
        images: CheckedImages.
        annotations: CheckedAnnotations; None of a panoptic json.
        corrections: list of LayoutCorrection, of records that all give coordinates in another form.
        exchanged: indices of `images` whose width and height have to be exchanged.
        copies: groups of paths of files with the same bytes.
        findings: list of Finding.
        facts: dict for json, what the dataset holds.
        thumbnails: {path: [SIDE, SIDE]} from `make_thumbnails`; None where near copies weren't looked for.
    """

    source: CocoSource
    images: CheckedImages
    annotations: CheckedAnnotations | None
    corrections: list[LayoutCorrection]
    exchanged: np.ndarray
    copies: list[list[str]]
    findings: list[Finding]
    facts: dict
    thumbnails: dict | None = None


def validate(
    annotations, images, val=None, config="mask_rcnn_r50_fpn", overrides=(), maps=None, val_maps=None, similar=False
):
    """Finds what is wrong with a COCO dataset: what training would skip, what is probably a mistake, what to know.

    Nothing is changed and TensorFlow isn't imported.

    Args:
        annotations: a COCO json, of instances or panoptic.
        images: the folder that its file names are relative to.
        val: (json, folder) of the validation set, which is looked over as well and compared: pictures in both, other
            categories. Then all pictures are decoded.
        config: name or path of the config to train by. Its resize rule, anchors, mask head and
            data.train.max_instances decide what is too small, too long or too much.
        overrides: of the config, such as "model.resize.min_size=512".
        maps: the folder of a panoptic json's PNGs or, beside one of instances, of label maps, whose values are ids of
            its categories and of the config's model.stuff. All of them are read.
        val_maps: the same of the validation set.
        similar: look for near copies within a set, too, which decodes all pictures. With `val` and in small sets they
            always are looked for; otherwise the report says that they weren't.

    Returns:
        Report.

    Raises:
        UserError: a file or folder is missing, an archive, or not COCO's; or the config is wrong.
    """
    settings = load_config(config, list(overrides))
    with progress_bars(CONSOLE.is_terminal) as bars:
        train = _examine_any(annotations, images, maps, settings, bars)
        if val is None:
            if similar or _is_small(train):
                find_similar(train, bars)
            return Report([train], [])
        val = _examine_any(*val, val_maps, settings, bars, "--val-maps")
        drop_files_of_other_set([train, val])
        for dataset in (train, val):
            find_similar(dataset, bars)
        findings = Findings(val.source.path, {"image": len(val.source.images)})
        compare_categories(train, val, findings)
        compare_images(train, val, findings)
        return Report([train, val], findings.to_list())


def _is_small(dataset):
    """Whether an Examination's pictures are so few that they are decoded anyway and compared in seconds."""
    sizes = [header.size for header in dataset.images.headers.values()]
    return len(sizes) <= FEW_IMAGES and sum(sizes) <= FULL_CHECK_BYTES


def find_similar(dataset, bars, thumbnails=None):
    """Adds an Examination's thumbnails, but those known already, and its near copies."""
    known = thumbnails or {}
    new = make_thumbnails([path for path in dataset.images.paths if path not in known], bars)
    dataset.thumbnails = known | new
    dataset.facts["similar_pictures_sought"] = True
    findings = Findings(dataset.source.path, {"image": len(dataset.source.images)})
    check_similar(dataset.images, dataset.copies, dataset.thumbnails, findings)
    order = list(PROBLEM_KINDS)
    dataset.findings = sorted(dataset.findings + findings.to_list(), key=lambda finding: order.index(finding.kind))


def drop_files_of_other_set(examinations):
    """Drops the findings about files that one json doesn't name but the other does: both may share a folder."""
    named = {os.path.realpath(path) for dataset in examinations for path in dataset.images.headers}
    for dataset in examinations:
        for finding in dataset.findings:
            if finding.kind == "unlisted_file":
                finding.problems = [
                    problem for problem in finding.problems if os.path.realpath(problem.file) not in named
                ]
        dataset.findings = [finding for finding in dataset.findings if finding.problems]


def _examine_any(annotations, images, maps, settings, bars, option="--maps"):
    check_json_and_folder(os.fspath(annotations), os.fspath(images))
    if maps:
        check_map_folder(maps)
    try:
        is_of_segments = is_panoptic(annotations)
    except UserError:
        is_of_segments = False  # `examine` reads all of it and says what is wrong
    if not is_of_segments:
        return examine(annotations, images, settings, bars, maps=maps)
    if not maps:
        raise UserError(f"{annotations} is a panoptic json: name the folder of its PNGs with {option}.")
    return _examine_panoptic(annotations, images, maps, settings, bars)


def examine(path, folder, config, bars, headers=None, maps=None):
    """Checks one dataset of instances.

    Args:
        path: a COCO json.
        folder: the images.
        config: settings.Config; the resize rule, the anchors, whether there is a mask head, and
            data.train.max_instances are read.
        headers: those that are known already, from an earlier examination.
        maps: the folder of label maps, whose values are ids of the json's categories or of model.stuff; None: without.

    Returns:
        Examination.

    Raises:
        UserError: see `read_source` and `check_label_maps`.
    """
    source = read_source(path, folder, config.model.mask_head is not None, bars)
    records = source.records
    totals = {"image": len(source.images), "annotation": records.count, "category": len(source.categories)}
    findings = Findings(source.path, totals)
    categories = check_categories(source.categories, source.path, findings)
    images = check_images(source, findings, bars, headers or {})
    copies = check_copies(images, records, findings)
    if maps:
        check_label_maps(source, images, maps, categories, config.model.stuff, findings, bars)

    task = bars.add_task("Checking annotations", total=None)
    masks = measure_masks(records)
    image_index = find_indices(images.ids, np.asarray(records.image_ids))
    exchanged = check_exif_orientation(images, records, masks, image_index, findings)
    sides = np.stack([np.r_[side, np.nan][image_index] for side in (images.widths, images.heights)], axis=1)
    corrections = correct_layouts(records, masks, sides)
    checker = Checker(records, images.ids, images.heights, images.widths, images.skipped, categories)
    annotations = CheckedAnnotations(records, checker, masks, findings)
    for correction in corrections:
        _report_correction(correction, annotations)
    findings.extend(records.problems)
    findings.extend(checker.problems)
    check_masks(annotations)
    check_repeats(annotations)
    check_keypoints(annotations)
    check_anchors(annotations, config.model)
    classes = checker.category_index[checker.kept & ~checker.crowd]
    object_counts = np.bincount(classes, minlength=len(categories))
    check_object_counts(categories, object_counts, findings, "annotation")
    if checker.kept.any() and not classes.size:
        findings.add("all_crowd", None, f"All usable annotations of {findings.file} are crowds.")
    per_image = _check_image_counts(annotations, images, config.data.train.max_instances)
    bars.remove_task(task)
    facts = _facts(source, images, annotations, categories, object_counts, per_image)
    return Examination(source, images, annotations, corrections, exchanged, copies, findings.to_list(), facts)


def _report_correction(correction, annotations):
    for row in correction.rows.tolist():
        number, file, name = annotations.records.locate(row)
        annotations.findings.add(correction.kind, number, f"{name} was read {correction.reading}.", file)
    remedy = f"{PROBLEM_KINDS[correction.kind].remedy}; --fix does it"
    annotations.findings.explain(correction.kind, f"Below they are taken {correction.reading}.", None, remedy)


def _check_image_counts(annotations, images, max_instances):
    """Adds images with too many objects or none; returns the usable annotations of each image, [I] int64."""
    checker, findings = annotations.checker, annotations.findings
    per_image = np.bincount(checker.image_index[checker.kept], minlength=images.ids.size)
    findings.extend(find_overfull_images(images.own_ids, per_image, findings.file, max_instances))
    for index in np.flatnonzero(per_image == 0).tolist():
        sentence = f"Image {images.own_ids[index]} in {findings.file} has no usable annotation."
        findings.add("empty_image", images.own_ids[index], sentence, images.paths[index])
    if not annotations.records.count:
        findings.add("no_annotations", None, f"{findings.file} lists no annotation.")
    return per_image


def _facts(source, images, annotations, categories, object_counts, per_image):
    """What the dataset holds, for json."""
    checker = annotations.checker
    return {
        "annotations_file": source.path,
        "images_folder": source.folder,
        "images": len(source.images),
        "similar_pictures_sought": False,
        "usable_images": int(images.ids.size),
        "empty_images": int((per_image == 0).sum()),
        "annotations": source.records.count,
        "usable_annotations": int(checker.kept.sum()),
        "crowds": int((checker.kept & checker.crowd).sum()),
        "polygons": int((checker.kept & (checker.ring_counts > 0)).sum()),
        "run_lengths": int((checker.kept & (checker.run_counts > 0)).sum()),
        "with_keypoints": int((checker.keypoint_counts[checker.kept] > 0).sum()),
        **_class_and_size_facts(categories, object_counts, images, per_image),
    }


def _class_and_size_facts(categories, counts, images, per_image):
    """Facts about categories and their usable objects, and images [I] with so many objects each, if there are any."""
    facts = {
        "classes": {
            f"{category.id} {category.name}": n for category, n in zip(categories, counts.tolist(), strict=True)
        }
    }
    if images.ids.size:
        sizes = np.stack([images.widths, images.heights], axis=1)
        areas = sizes.prod(axis=1, dtype=np.int64)
        facts["smallest_image"], facts["largest_image"] = sizes[[areas.argmin(), areas.argmax()]].tolist()
        facts["most_objects"] = int(per_image.max(initial=0))
    return facts


def _examine_panoptic(path, folder, maps, config, bars):
    """Checks one panoptic dataset, as `examine`; all PNGs in the folder `maps` are read."""
    source = read_panoptic_source(path, folder, bars)
    panoptic = source.records
    skipped = [problem.kind for problem in panoptic.problems]
    unread = skipped.count("duplicate_segment") + skipped.count("segment_fields")
    totals = {
        "image": len(source.images),
        "annotation": len(panoptic.map_names) + skipped.count("map_annotation") + skipped.count("second_map"),
        "category": len(source.categories),
        "segment": panoptic.segment_ids.size + unread - int((panoptic.category_ids == NO_CATEGORY).sum()),
    }
    findings = Findings(source.path, totals, is_repairable=False)
    panoptic.things, panoptic.stuff = check_things_and_stuff(source, findings)
    images = check_images(source, findings, bars, headers={})
    copies = check_copies(images, panoptic, findings)
    has_map, checker, counts = check_segments(source, images, maps, findings, bars)
    things, stuff = panoptic.things, panoptic.stuff
    check_object_counts(things, counts[: len(things)], findings, "segment")
    check_object_counts(stuff, counts[len(things) :], findings, "segment", rare=0)
    per_image = np.bincount(checker.image_index[checker.kept], minlength=int(has_map.sum()))
    max_instances = config.data.train.max_instances
    mapped_ids = list(itertools.compress(images.own_ids, has_map))
    findings.extend(find_overfull_images(mapped_ids, per_image, source.path, max_instances))
    if not panoptic.map_names:
        findings.add("no_annotations", None, f"{source.path} lists no annotation.")
    facts = {
        "annotations_file": source.path,
        "images_folder": source.folder,
        "maps_folder": os.fspath(maps),
        "images": len(source.images),
        "similar_pictures_sought": False,
        "usable_images": int(has_map.sum()),
        "segments": totals["segment"],
        "usable_segments": int(checker.kept.sum() + counts[len(things) :].sum()),
        "things": int(checker.kept.sum()),
        "crowds": int((checker.kept & checker.crowd).sum()),
        **_class_and_size_facts(things + stuff, counts, images, per_image),
    }
    return Examination(source, images, None, [], np.zeros(0, np.int64), copies, findings.to_list(), facts)
