"""One dataset from its json to its findings."""

import dataclasses
import os

import numpy as np

from mrcnn_tf.datasets.annotation_checks import Checker, places
from mrcnn_tf.datasets.coco_index import crowded_images
from mrcnn_tf.datasets.doctor.classes import check_balance, check_categories
from mrcnn_tf.datasets.doctor.findings import Annotated, Finding, Findings
from mrcnn_tf.datasets.doctor.images import Images, check_frames, check_images
from mrcnn_tf.datasets.doctor.kinds import LAYOUTS
from mrcnn_tf.datasets.doctor.layout import Correction, correct_layouts
from mrcnn_tf.datasets.doctor.look_alikes import same_bytes
from mrcnn_tf.datasets.doctor.maps import check_label_maps
from mrcnn_tf.datasets.doctor.masks import check_masks, measure
from mrcnn_tf.datasets.doctor.reading import ABSENT, Source, read_source
from mrcnn_tf.datasets.run_lengths import blocks

# Objects that are marked twice: neighbours in a list sorted by image and left side, compared all at once.
#

SAME_IOU = 0.95  # of the boxes
SAME_AREA = 0.1  # of the masks: how much larger one may be
PAIRS = 1 << 18  # pairs compared together


def check_repeats(annotated):
    """Adds objects of an `Annotated` that mark the same thing as an earlier one in the same image."""
    checker = annotated.checker
    rows = np.flatnonzero(checker.kept)
    again = np.full(checker.ids.size, -1)
    other_class = np.full(checker.ids.size, -1)
    for first, second in _close_pairs(checker.boxes, checker.image, rows):
        areas = annotated.outlines.areas[first], annotated.outlines.areas[second]
        with np.errstate(invalid="ignore"):
            differ = np.abs(areas[0] - areas[1]) > SAME_AREA * np.maximum(*areas)
        same = (checker.crowd[first] == checker.crowd[second]) & ~differ
        first, second = first[same], second[same]
        first, second = np.minimum(first, second), np.maximum(first, second)
        alike = checker.place[first] == checker.place[second]
        again[second[alike]] = first[alike]
        other_class[second[~alike]] = first[~alike]
    sentence = "marks the same object of image {image} as annotation {other}"
    annotated.note("duplicate_object", again >= 0, sentence, other=checker.ids[again])
    conflict = (other_class >= 0) & (again < 0)
    annotated.note("conflicting_object", conflict, sentence + ", with another category", other=checker.ids[other_class])


def _close_pairs(boxes, image, rows):
    """Yields (one, other): rows of the same image whose boxes overlap by `SAME_IOU` or more."""
    if rows.size < 2:
        return
    rows = rows[np.lexsort((boxes[rows, 0], image[rows]))]
    # Boxes that overlap so much begin within 1 - SAME_IOU of the longer one's width; twice that is safe.
    span = 2.0 * (boxes[rows, 2].max() + 1.0)
    left = image[rows] * span + boxes[rows, 0]
    reach = left + 2 * (1 - SAME_IOU) * (boxes[rows, 2] - boxes[rows, 0])
    counts = np.searchsorted(left, reach, side="right") - np.arange(rows.size) - 1
    offsets = np.r_[0, np.cumsum(counts)]
    for start, stop in blocks(counts, PAIRS):
        one = np.repeat(np.arange(start, stop), counts[start:stop])
        other = one + 1 + np.arange(one.size) - np.repeat(offsets[start:stop] - offsets[start], counts[start:stop])
        one, other = rows[one], rows[other]
        near = _iou(boxes[one], boxes[other]) >= SAME_IOU
        yield one[near], other[near]


def _iou(one, other):
    shared = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    shared = np.maximum(shared, 0.0).prod(axis=1)
    union = (one[:, 2:] - one[:, :2]).prod(axis=1) + (other[:, 2:] - other[:, :2]).prod(axis=1) - shared
    return shared / np.maximum(union, 1e-12)


# Keypoints' numbers and names; their places and visibility are the loader's checks.
#

def check_keypoints(annotated):
    """Adds annotations of an `Annotated` whose num_keypoints is wrong or whose category names no keypoints."""
    checker, records = annotated.checker, annotated.records
    numbers = np.asarray(records.keypoint_numbers)
    expected = np.array([len(names) for names in checker.keypoint_names] or [0])[checker.place]
    annotated.note(
        "unnamed_keypoints",
        checker.kept & (expected == 0) & (numbers > 0),
        "has {given} numbers of keypoints, and category {category} names none",
        given=numbers,
    )
    # The checker has set those to zero that can't be used, and reports them.
    reported = np.zeros(checker.ids.size, bool)
    for kind in ("outside_keypoint", "keypoint_visibility", "keypoint_count", "bad_keypoints", "nan_coordinate"):
        reported[checker.rows.get(kind, [])] = True
    owner = np.repeat(np.arange(checker.ids.size), checker.keypoint_counts)
    labelled = np.bincount(owner[checker.keypoints[:, 2] > 0], minlength=checker.ids.size)
    total = np.asarray(records.keypoint_totals)
    wrong = checker.kept & (expected > 0) & (numbers >= 0) & (total != ABSENT) & (total != labelled) & ~reported
    sentence = "has num_keypoints {given} and {wanted} labelled keypoints"
    annotated.note("keypoint_number", wrong, sentence, given=total, wanted=labelled)


# Objects whose size or shape no anchor of the config has, once their images are resized as the config says.
#

FEW = 0.25  # of the objects, which is more than COCO has at 800 pixels; below it's only worth a note
FINE = 0.05  # of the objects that may stay too small for the anchors that are proposed


def check_anchors(annotated, model):
    """Adds objects of an `Annotated` that overlap with the best anchor less than the RPN's background_iou.

    An anchor right on the object's centre is taken, so that it's about size and shape alone.

    Args:
        annotated: Annotated.
        model: settings.ModelConfig; `resize` and `rpn` are read.
    """
    checker = annotated.checker
    objects = checker.kept & ~checker.crowd
    if not objects.any():
        return
    sides = (checker.boxes[:, 2:] - checker.boxes[:, :2]) * _scale(checker, model.resize)[:, None]
    sides[~objects] = 1.0
    sizes = np.array(model.rpn.anchor_sizes, np.float64)
    small = objects & (sides.prod(axis=1) < sizes.min() ** 2)
    misfit = _best_iou(sides, sizes, model.rpn) < model.rpn.background_iou
    tiny = small & misfit
    ratio = sides.max(axis=1) / sides.min(axis=1)
    long = objects & misfit & ~tiny & (ratio > 4)
    size = [f"{w:.0f} x {h:.0f}" for w, h in sides.tolist()] if (tiny | long).any() else []
    what = "is {size} pixels in the resized image"
    annotated.note("tiny_object", tiny, what + f"; the smallest anchor is {sizes.min():g}", size=size)
    annotated.note("elongated_object", long, what, size=size)
    if tiny.any():
        _explain_tiny(annotated, model, sides[objects], tiny.sum() / objects.sum())
    if long.any() and long.sum() < FEW * objects.sum():
        annotated.findings.explain("elongated_object", severity="note")


def _scale(checker, resize):
    """[T] by how much each annotation's image is enlarged."""
    short, long = np.minimum(checker.height, checker.width), np.maximum(checker.height, checker.width)
    return np.minimum(resize.min_size / short, resize.max_size / long)


def _best_iou(sides, sizes, rpn):
    """[n]: IoU of boxes of `sides` [n, 2] (width, height) with the best anchor around the same centre."""
    best = np.zeros(len(sides))
    for size in sizes:
        for ratio in rpn.aspect_ratios:
            anchor = size / np.sqrt(ratio), size * np.sqrt(ratio)
            shared = np.minimum(sides, anchor).prod(axis=1)
            best = np.maximum(best, shared / (sides.prod(axis=1) + size**2 - shared))
    return best


def _explain_tiny(annotated, model, sides, part):
    sizes = np.array(model.rpn.anchor_sizes, np.float64)
    middle = float(np.median(np.sqrt(sides.prod(axis=1))))
    resize = model.resize
    summary = (
        f"With model.resize.min_size={resize.min_size} and max_size={resize.max_size} half of the objects have sides "
        f"under {middle:.0f} pixels; the smallest anchor is {sizes.min():g}."
    )
    factor = 2
    while factor < 16 and _misfits(sides, sizes / factor, model.rpn) > FINE:
        factor *= 2
    anchors = ",".join(f"{size / factor:g}" for size in sizes)
    remedy = (
        f"set model.rpn.anchor_sizes=[{anchors}], or enlarge images with "
        f"model.resize.min_size={resize.min_size * factor} and model.resize.max_size={resize.max_size * factor}"
    )
    few = part < FEW
    remedy = f"nothing to do if they don't matter; else {remedy}" if few else remedy
    annotated.findings.explain("tiny_object", summary, "note" if few else None, remedy)


def _misfits(sides, sizes, rpn):
    small = sides.prod(axis=1) < sizes.min() ** 2
    return np.mean(small & (_best_iou(sides, sizes, rpn) < rpn.background_iou))


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
