"""One dataset from its json to its findings."""

import dataclasses
import os

import numpy as np

from mrcnn_tf.datasets.checks import Checker, places
from mrcnn_tf.datasets.doctor.anchor_fit import check_anchors
from mrcnn_tf.datasets.doctor.annotated import Annotated
from mrcnn_tf.datasets.doctor.classes import check_balance, check_categories
from mrcnn_tf.datasets.doctor.findings import Finding, Findings
from mrcnn_tf.datasets.doctor.frames import check_frames
from mrcnn_tf.datasets.doctor.image_records import Images, check_images
from mrcnn_tf.datasets.doctor.keypoints import check_keypoints
from mrcnn_tf.datasets.doctor.kinds import LAYOUTS
from mrcnn_tf.datasets.doctor.label_maps import check_label_maps
from mrcnn_tf.datasets.doctor.layout import Correction, correct_layouts
from mrcnn_tf.datasets.doctor.masks import check_masks
from mrcnn_tf.datasets.doctor.outlines import measure
from mrcnn_tf.datasets.doctor.pictures import same_bytes
from mrcnn_tf.datasets.doctor.reading import Source, read_source
from mrcnn_tf.datasets.doctor.repeats import check_repeats
from mrcnn_tf.datasets.index import crowded_images


@dataclasses.dataclass
class Examination:
    """A dataset, what is wrong with it, and what the repair needs to know.

    Attributes:
        source: reading.Source.
        images: image_records.Images.
        annotated: Annotated; None of a panoptic json.
        corrections: list of layout.Correction, of records that all give coordinates in another form.
        exchanged: rows of `images` whose width and height have to be exchanged.
        copies: groups of paths of files with the same bytes.
        findings: list of Finding, the worst kinds first.
        facts: dict for json, what the dataset holds.
    """

    source: Source
    images: Images
    annotated: Annotated
    corrections: list[Correction]
    exchanged: np.ndarray
    copies: list[list[str]]
    findings: list[Finding]
    facts: dict


def examine(path, folder, config, bars, headers, maps=None):
    """Looks for everything that can be wrong with one dataset.

    Args:
        path: a COCO json.
        folder: the images.
        config: settings.Config; the resize rule, the anchors, whether there is a mask head, and
            data.train.max_instances are read.
        bars: rich Progress.
        headers: {path: ImageFile} that are known already, from an earlier examination.
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
    images = check_images(source, findings, bars, headers)
    copies = check_copies(images, records, findings)
    if maps:
        check_label_maps(source, images, maps, categories, config.model.stuff, findings, bars)

    checking = bars.add_task("Checking annotations", total=None)
    outlines = measure(records)
    image = places(images.ids, np.asarray(records.image_ids))
    exchanged = check_frames(images, records, outlines, image, findings)
    sides = [np.r_[side.astype(np.float64), np.nan][image] for side in (images.widths, images.heights)]
    corrections = correct_layouts(records, outlines, *sides)
    checker = Checker(records, images.ids, images.heights, images.widths, images.skipped, categories)
    annotated = Annotated(records, checker, outlines, findings, {})
    for correction in corrections:
        _report_layout(correction, annotated)
    findings.extend(records.problems)
    findings.extend(checker.problems)
    check_masks(annotated)
    check_repeats(annotated)
    check_keypoints(annotated)
    check_anchors(annotated, config.model)
    counts = check_balance(annotated, categories)
    per_image = _check_numbers(annotated, images, config.data.train.max_instances)
    bars.remove_task(checking)
    facts = _facts(source, images, annotated, categories, counts, per_image)
    return Examination(source, images, annotated, corrections, exchanged, copies, findings.listed(), facts)


def _check_numbers(annotated, images, max_instances):
    """Adds images with too many objects or none; returns the usable annotations of each image, [I] int64."""
    checker, findings = annotated.checker, annotated.findings
    per_image = np.bincount(checker.image[checker.kept], minlength=images.ids.size)
    findings.extend(crowded_images(images.ids, per_image, findings.file, max_instances))
    for row in np.flatnonzero(per_image == 0).tolist():
        sentence = f"Image {images.ids[row]} in {findings.file} has no usable annotation."
        findings.add("empty_image", int(images.ids[row]), sentence, images.paths[row])
    if not annotated.records.count:
        findings.add("no_annotations", None, f"{findings.file} lists no annotation.")
    return per_image


def check_copies(images, records, findings):
    """Adds images whose files have the same bytes; returns the groups of paths, those with most annotations first."""
    used = {os.path.normpath(path): row for row, path in reversed(list(enumerate(images.paths)))}
    groups = same_bytes({path: images.headers[images.paths[row]] for path, row in used.items()})
    owned = np.bincount(places(images.ids, np.asarray(records.image_ids)) + 1, minlength=images.ids.size + 1)[1:]
    for group in groups:
        group.sort(key=lambda path: (-owned[used[path]], used[path]))
        for path in group[1:]:
            number = int(images.ids[used[path]])
            sentence = f"Image {number} in {findings.file} ({path}) is the same picture as {group[0]}."
            findings.add("duplicate_picture", number, sentence, path)
    return groups


def _report_layout(correction, annotated):
    records = annotated.records
    for row in correction.rows.tolist():
        number, file, name = records.whereabouts(row)
        annotated.findings.add(correction.kind, number, f"{name} was read {correction.reading}.", file)
    remedy = f"{LAYOUTS[correction.kind].remedy}; --fix does it"
    summary = f"Below they are taken {correction.reading}."
    annotated.findings.explain(correction.kind, summary, None, remedy)


def _facts(source, images, annotated, categories, counts, per_image):
    """What the dataset holds, for json."""
    checker = annotated.checker
    keypoints = int((checker.keypoint_counts[checker.kept] > 0).sum())
    facts = {
        "annotations_file": source.path,
        "images_folder": source.folder,
        "images": len(source.images),
        "usable_images": int(images.ids.size),
        "empty_images": int((per_image == 0).sum()),
        "annotations": source.records.count,
        "usable_annotations": int(checker.kept.sum()),
        "crowds": int((checker.kept & checker.crowd).sum()),
        "polygons": int((checker.kept & (checker.ring_counts > 0)).sum()),
        "run_lengths": int((checker.kept & (checker.run_counts > 0)).sum()),
        "with_keypoints": keypoints,
        "classes": {f"{one.id} {one.name}": int(count) for one, count in zip(categories, counts, strict=True)},
    }
    return facts | size_facts(images, per_image)


def size_facts(images, per_image):
    """The part about sizes, of images [I] with so many objects each; without images nothing."""
    sizes = np.stack([images.widths, images.heights], axis=1)
    if not images.ids.size:
        return {}
    areas = sizes.prod(axis=1, dtype=np.int64)
    smallest, largest = sizes[areas.argmin()].tolist(), sizes[areas.argmax()].tolist()
    return {"smallest_image": smallest, "largest_image": largest, "most_objects": int(per_image.max(initial=0))}
