"""Checks annotations against the images, the categories and one another, all records at once, and sorts the rest."""

import numpy as np

from mrcnn_tf.common.problems import Problem
from mrcnn_tf.datasets import run_lengths
from mrcnn_tf.datasets.annotation_columns import BAD_KEYPOINTS, NO_KEYPOINTS
from mrcnn_tf.datasets.polygons import measure_polygons

MIN_SIDE = 1e-3  # pixels; a box with a shorter side can't be trained on
OVERHANG = 0.1  # pixels; a box that leaves the image by less was only rounded
RUNS_AT_ONCE = 1 << 20  # run lengths looked at together; bounds the memory that this takes
KEYPOINT_OVERHANG = 1.0  # pixels; the same of a keypoint at the image's edge
# Of `Annotations`, those taken as they are.
PLAIN_COLUMNS = (
    *("ids", "image_ids", "category_ids", "areas", "ring_counts", "ring_sizes", "run_starts", "run_counts", "runs"),
    *("keypoint_numbers", "keypoint_counts", "keypoints"),
)


class Checker:
    """The columns of `Annotations` as arrays, and which of the T records are still in.

    Args:
        annotations: annotation_columns.AnnotationColumns, finished, or anything with its columns and its `locate`.
        image_ids: [I] int64, the usable images.
        heights, widths: [I] int32 pixels.
        skipped_images: set of the ids of images in the json that aren't usable.
        categories: list of Category; class k is the k-th.

    Attributes:
        kept: [T] bool, the records that can be used.
        image_index, category_index: [T] int64, the indices of a record's image and category; -1 for none.
        problems: list of Problem.
        rows: {kind: list of int}, the rows of the records that `problems` name.
    """

    def __init__(self, annotations, image_ids, heights, widths, skipped_images, categories):
        self._locate, self._image_names = annotations.locate, annotations.image_names
        self.problems = []
        self.rows = {}
        for name in PLAIN_COLUMNS:
            setattr(self, name, np.asarray(getattr(annotations, name)))
        self.kept = np.ones(self.ids.size, bool)
        self.image_index = find_indices(image_ids, self.image_ids)
        self.height, self.width = (np.r_[side, 1][self.image_index].astype(np.float64) for side in (heights, widths))
        known_ids = np.array([category.id for category in categories], np.int64)
        self.category_index = find_indices(known_ids, self.category_ids)
        self.crowd = np.asarray(annotations.crowd).astype(bool)
        self.box_given = np.asarray(annotations.box_given) > 0
        self._box_missing = np.asarray(annotations.box_given) == 0
        self.boxes = np.asarray(annotations.boxes).reshape(-1, 4).copy()
        self.points = np.asarray(annotations.points).reshape(-1, 2)
        self.rle_sizes = np.asarray(annotations.rle_sizes).reshape(-1, 2)
        self.field_values = np.asarray(annotations.field_values).reshape(self.ids.size, len(annotations.field_names))
        self.keypoint_names = [category.keypoints for category in categories]
        self.ring_starts = np.cumsum(self.ring_counts) - self.ring_counts
        self.point_starts = np.cumsum(self.ring_sizes) - self.ring_sizes
        self._check_references(skipped_images)
        self._check_runs()
        self._check_boxes()
        self._check_polygons()
        self._check_keypoint_lists()
        self._check_keypoints()

    def _reject(self, bad, kind, what, remedy):
        """Takes records [T] bool out; `what` may use {image} and {category}."""
        bad = bad & self.kept
        self.kept &= ~bad
        self._report(bad, kind, f"{what} and was skipped", remedy)

    def _report(self, rows, kind, what, remedy, **columns):
        """A problem for each record of `rows` [T]; `what` may also use the `columns` [T] by name."""
        columns = {"image": self.image_ids, "category": self.category_ids, **columns}
        rows = np.flatnonzero(rows).tolist()
        if rows:
            self.rows.setdefault(kind, []).extend(rows)
        for row in rows:
            values = {name: column[row] for name, column in columns.items()}
            values["image"] = self._image_names.get(values["image"], values["image"])
            detail = what.format(**values)
            record, file, name = self._locate(row)
            self.problems.append(Problem(kind, record, file, f"{name} {detail}: {remedy}."))

    def _check_references(self, skipped_images):
        first = np.zeros(self.ids.size, bool)
        first[np.unique(self.ids, return_index=True)[1]] = True
        self._reject(~first, "duplicate_annotation", "has an id that was used before", "give it one of its own")
        skipped = np.isin(self.image_ids, np.array([image for image in skipped_images if abs(image) < 2**63], np.int64))
        what = "belongs to image {image}, which can't be used,"
        self._reject(skipped, "skipped_image", what, "mend the image")
        what = "belongs to image {image}, which isn't among the images,"
        self._reject(self.image_index < 0, "unknown_image", what, "correct image_id or add the image")
        what = "has category {category}, which isn't among the categories,"
        self._reject(self.category_index < 0, "unknown_category", what, "correct category_id or add the category")

    def _check_polygons(self):
        """Takes out records whose polygons can't show anything."""
        boxes, is_flat = measure_polygons(self.points, self.ring_sizes)
        owner = np.repeat(np.arange(self.ids.size), self.ring_counts)
        is_outside = (boxes[:, 2:] <= 0).any(axis=1)
        is_outside |= (boxes[:, 0] >= self.width[owner]) | (boxes[:, 1] >= self.height[owner])
        for kind, rings, what, remedy in (
            ("outside_mask", is_outside, "has a mask wholly outside image {image}", "correct it or the image's size"),
            ("flat_mask", is_flat, "has only polygons whose points lie on one line or in one place", "outline it"),
        ):
            count = np.bincount(owner[rings], minlength=self.ids.size)
            self._reject((count > 0) & (count == self.ring_counts), kind, what, remedy)

    def _check_runs(self):
        rows = np.flatnonzero(self.rle_sizes[:, 0] >= 0)
        if not rows.size:
            return
        starts, counts = self.run_starts[rows], self.run_counts[rows]
        # Compressed masks were decoded in blocks, so the runs aren't in the order of the records.
        order = np.argsort(starts, kind="stable")
        rows, counts = rows[order], counts[order]
        total, inside = np.zeros(rows.size, np.int64), np.zeros(rows.size, np.int64)
        negative = np.zeros(rows.size, bool)
        offsets = np.r_[0, np.cumsum(counts)]
        for first, last in run_lengths.split_into_blocks(counts, RUNS_AT_ONCE):
            runs, block_counts = self.runs[offsets[first] : offsets[last]], counts[first:last]
            owner = np.repeat(np.arange(last - first), block_counts)
            total[first:last] = np.bincount(owner, runs, minlength=last - first)
            negative[first:last] = np.bincount(owner, runs < 0, minlength=last - first) > 0
            inside[first:last] = run_lengths.areas_of_runs(runs, block_counts)
        size = np.stack([self.height[rows], self.width[rows]], axis=1)
        wrong = (self.rle_sizes[rows] != size).any(axis=1) | (total != size.prod(axis=1)) | negative
        bad = np.zeros(self.ids.size, bool)
        bad[rows] = wrong
        what = "has an RLE whose size or sum isn't that of image {image}"
        self._reject(bad, "rle_size", what, "encode the mask at the image's height and width")
        bad[:] = False
        bad[rows] = inside == 0
        self._reject(bad, "empty_segmentation", "has an RLE without a pixel inside", "remove it or draw its mask")

    def _check_boxes(self):
        for row in np.flatnonzero(self.kept & ~self.box_given).tolist():
            self.boxes[row] = self._box_from_segmentation(row)
        self._report(self.kept & self._box_missing, "missing_box", "has no bbox, its mask's was taken", "add the bbox")
        finite = np.isfinite(self.boxes).all(axis=1)
        self._reject(~finite, "nan_coordinate", "has a bbox with NaN or infinity", "give finite pixels")
        degenerate = ~(self.boxes[:, 2:] > MIN_SIDE).all(axis=1)
        what = "has a bbox without a positive width and height"
        self._reject(degenerate, "degenerate_box", what, "give [x, y, width, height] in pixels")

        corners = np.c_[self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:]]
        limit = np.c_[self.width, self.height, self.width, self.height]
        clipped = np.clip(corners, 0.0, limit)
        outside = ~(clipped[:, 2:] - clipped[:, :2] > MIN_SIDE).all(axis=1)
        remedy = "correct the bbox or the image's width and height"
        self._reject(outside, "outside_box", "has a bbox wholly outside image {image}", remedy)
        over = (np.abs(clipped - corners) > OVERHANG).any(axis=1) & self.kept
        self._report(over, "clipped_box", "has a bbox partly outside image {image} and was clipped to it", remedy)
        own_area = (clipped[:, 2:] - clipped[:, :2]).prod(axis=1)
        self.areas = np.where(np.isfinite(self.areas), self.areas, own_area)
        self.boxes = clipped

    def _box_from_segmentation(self, row):
        """[x, y, width, height] around a record's polygons or runs."""
        if self.run_counts[row]:
            runs = self.runs[self.run_starts[row] :][: self.run_counts[row]]
            x1, y1, x2, y2 = run_lengths.box_of_runs(runs, int(self.rle_sizes[row, 0]))
        else:
            first = self.ring_starts[row]
            last = first + self.ring_counts[row] - 1
            points = self.points[self.point_starts[first] : self.point_starts[last] + self.ring_sizes[last]]
            (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return x1, y1, x2 - x1, y2 - y1

    def _check_keypoint_lists(self):
        """Leaves `keypoints` [n, 3] of the records whose list has the right length, and `keypoint_counts` [T]."""
        numbers = self.keypoint_numbers
        expected = np.array([len(names) for names in self.keypoint_names])[self.category_index]
        wanted = self.kept & (expected > 0)
        # A crowd's keypoints are nobody's, so none are expected.
        absent = wanted & (numbers == NO_KEYPOINTS) & ~self.crowd
        what = "has category {category} but no keypoints and is used without them"
        self._report(absent, "missing_keypoints", what, "add x, y and visibility of each, zeros where unknown")
        remedy = "give x, y and visibility of each keypoint as numbers"
        what = "has keypoints that aren't a list of numbers and count as unlabelled"
        self._report(wanted & (numbers == BAD_KEYPOINTS), "bad_keypoints", what, remedy)
        wrong = wanted & (numbers >= 0) & (numbers != 3 * expected)
        what = "has keypoints of {number} numbers, not the {expected} of category {category}, "
        what += "and they count as unlabelled"
        self._report(wrong, "keypoint_count", what, remedy, number=numbers, expected=3 * expected)
        starts = np.cumsum(self.keypoint_counts) - self.keypoint_counts
        self.keypoint_counts = np.where(wanted & ~wrong, self.keypoint_counts, 0)
        self.keypoints = _take_ranges(self.keypoints, starts, self.keypoint_counts).reshape(-1, 3)
        self.keypoint_counts //= 3

    def _check_keypoints(self):
        """Sets what isn't labelled, or not properly, to zeros, and drops the keypoints of records left without any."""
        owner = np.repeat(np.arange(self.ids.size), self.keypoint_counts)
        x, y, visibility = self.keypoints.T
        labelled = visibility != 0
        not_finite = self._has_any(owner, labelled & ~np.isfinite(self.keypoints).all(axis=1))
        what = "has a keypoint with NaN or infinity, so all of its keypoints count as unlabelled"
        self._report(not_finite, "nan_coordinate", what, "give finite pixels")
        unknown = ~np.isin(visibility, (0, 1, 2))
        value = np.zeros(self.ids.size)
        value[owner[unknown]] = visibility[unknown]
        what = "has a keypoint of visibility {value:g}, so all of its keypoints count as unlabelled"
        remedy = "give 0 for unlabelled, 1 for hidden or 2 for visible"
        has_unknown = self._has_any(owner, unknown) & ~not_finite
        self._report(has_unknown, "keypoint_visibility", what, remedy, value=value)
        labelled &= ~(not_finite | has_unknown)[owner]
        right, bottom = self.width[owner] + KEYPOINT_OVERHANG, self.height[owner] + KEYPOINT_OVERHANG
        inside = (x >= -KEYPOINT_OVERHANG) & (x <= right) & (y >= -KEYPOINT_OVERHANG) & (y <= bottom)
        self._report_outside(owner, labelled & ~inside)
        labelled &= inside
        self.keypoints[~labelled] = 0.0
        has_labelled = self._has_any(owner, labelled)
        self.keypoints = self.keypoints[has_labelled[owner]]
        self.keypoint_counts = np.where(has_labelled, self.keypoint_counts, 0)

    def _report_outside(self, owner, outside):
        starts = np.cumsum(self.keypoint_counts) - self.keypoint_counts
        names = {}
        for row, keypoint in zip(owner[outside].tolist(), np.flatnonzero(outside).tolist(), strict=True):
            names.setdefault(row, []).append(self.keypoint_names[self.category_index[row]][keypoint - starts[row]])
        joined = {row: ", ".join(own) for row, own in names.items()}
        what = "has keypoints outside image {image}, which count as unlabelled ({names})"
        remedy = "correct them or the image's width and height"
        self._report(self._has_any(owner, outside), "outside_keypoint", what, remedy, names=joined)

    def _has_any(self, owner, keypoints):
        """Which records [T] have one of the `keypoints` (a bool for each)."""
        return np.bincount(owner[keypoints], minlength=self.ids.size) > 0

    def instances(self, image_count):
        """The records that are left as the instance arrays of a CocoIndex (a dict), sorted by image."""
        rows = np.flatnonzero(self.kept)
        rows = rows[np.argsort(self.image_index[rows], kind="stable")]
        rings = range_indices(self.ring_starts[rows], self.ring_counts[rows])
        keypoint_starts = np.cumsum(self.keypoint_counts) - self.keypoint_counts
        return {
            "instance_offsets": _offsets(np.bincount(self.image_index[rows], minlength=image_count)),
            "classes": (self.category_index[rows] + 1).astype(np.int32),
            "category_ids": self.category_ids[rows],
            "boxes": self.boxes[rows].astype(np.float32),
            "areas": self.areas[rows].astype(np.float32),
            "crowd": self.crowd[rows],
            "annotation_ids": self.ids[rows],
            "ring_offsets": _offsets(self.ring_counts[rows]),
            "point_offsets": _offsets(self.ring_sizes[rings]),
            "points": _take_ranges(self.points, self.point_starts[rings], self.ring_sizes[rings]),
            "run_offsets": _offsets(self.run_counts[rows]),
            "runs": _take_ranges(self.runs, self.run_starts[rows], self.run_counts[rows]).astype(np.int32),
            "keypoint_offsets": _offsets(self.keypoint_counts[rows]),
            "keypoints": self.keypoints[range_indices(keypoint_starts[rows], self.keypoint_counts[rows])],
            "field_values": self.field_values[rows],
        }


def find_indices(values, wanted):
    """[T] int64: where each of `wanted` [T] first stands in `values` [I], -1 for nowhere."""
    if not values.size:
        return np.full(wanted.size, -1)
    order = np.argsort(values, kind="stable")
    at = np.minimum(np.searchsorted(values[order], wanted), values.size - 1)
    return np.where(values[order][at] == wanted, order[at], -1)


def _offsets(counts):
    return np.r_[0, np.cumsum(counts)].astype(np.int64)


def range_indices(starts, counts):
    """The indices start, start + 1, ... of every range, one range after the other."""
    return np.repeat(starts - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())


def _take_ranges(values, starts, counts):
    """values[start : start + count] of every range, joined. Slices, as an index for each value would need more room."""
    slices = [values[start : start + count] for start, count in zip(starts.tolist(), counts.tolist(), strict=True)]
    return np.concatenate(slices) if slices else values[:0].copy()
