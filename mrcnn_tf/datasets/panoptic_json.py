"""COCO's panoptic json as columns, and its segments compared with the maps: what is a thing becomes an instance.

Format: https://cocodataset.org/#format-data, "Panoptic Segmentation".
"""

import array
import concurrent.futures
import dataclasses
import math

import numpy as np

from mrcnn_tf.common.categories import IGNORED, THINGS, Category, split_things_and_stuff
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.json_stream import stream_arrays
from mrcnn_tf.common.json_values import parse_flag, parse_integer, parse_number, parse_numbers
from mrcnn_tf.common.problems import Problem, counting_bar
from mrcnn_tf.datasets import map_files
from mrcnn_tf.datasets.annotation_checks import range_indices
from mrcnn_tf.datasets.annotation_columns import BoxColumns
from mrcnn_tf.datasets.coco_records import ImageRecord, stream_records
from mrcnn_tf.datasets.image_files import WORKERS

MOST_SEGMENT_IDS = 1 << 24  # as many as a PNG has colours; 0 is void
NO_CATEGORY = -(1 << 63)  # of a segment whose category_id isn't a whole number
ROUNDING = 1.0  # pixels; a bbox or an area that differs from its pixels' by less was only rounded


@dataclasses.dataclass
class PanopticJson:
    """The well-formed records of a file, A annotations (one to an image) with T segments."""

    path: str  # of the json
    images: list[ImageRecord]
    # Sorted by id: those with and without instances to count.
    things: list[Category]
    stuff: list[Category]
    image_ids: np.ndarray  # [A] int64
    image_names: dict[int, str]  # {image id: the text that stands there for it}, where it's text
    map_names: list[str]  # [A] file names of the PNGs
    # [A + 1] int64; the a-th annotation's segments are those from its a-th to its next number.
    segment_offsets: np.ndarray
    segment_ids: np.ndarray  # [T] int64, 1 to 2^24 - 1, each once in an image
    category_ids: np.ndarray  # [T] int64; NO_CATEGORY where the json has no whole number
    crowd: np.ndarray  # [T] bool
    areas: np.ndarray  # [T] float64 square pixels, NaN where there is none
    boxes: np.ndarray  # [T, 4] float64 pixels x, y, width, height; NaN where there is none
    problems: list[Problem]  # all that was left out

    def name_of_image(self, image_id):
        """An image's id as it stands in the json, for messages and results."""
        return self.image_names.get(image_id, image_id)

    def segments_info(self, index):
        """The segments of the annotation at `index`, as dicts with `id`, `category_id`, `iscrowd`, `area`, `bbox`."""
        rows = slice(*self.segment_offsets[index : index + 2])
        columns = self.segment_ids, self.category_ids, self.crowd.astype(int), self.areas, self.boxes
        names = "id", "category_id", "iscrowd", "area", "bbox"
        segments = zip(*(values[rows].tolist() for values in columns), strict=True)
        return [dict(zip(names, segment, strict=True)) for segment in segments]


def read_panoptic(path, on_progress=None, split_categories=split_things_and_stuff):
    """Reads a panoptic json, however large; its PanopticJson lacks what isn't well formed and lists it in `problems`.

    Args:
        path: of the json.
        on_progress: called with the number of bytes read so far.
        split_categories: a function of the category records and the path that gives the things and the stuff.

    Raises:
        UserError: the file is missing, isn't json, or see `categories.read_panoptic_categories`.
    """
    images, categories, columns = [], [], _AnnotationColumns(str(path))
    collect = {"images": images.append, "annotations": columns.add, "categories": categories.append}
    for section, record in stream_records(path, on_progress, masks=False):
        collect[section](record)
    things, stuff = split_categories(categories, path)
    return PanopticJson(str(path), images, things, stuff, **columns.arrays(), problems=columns.problems)


def is_panoptic(path):
    """Whether a json is one of COCO's panoptic format, which its first annotation tells; raises UserError as above."""
    for _, record in stream_arrays(path, ("annotations",)):
        keys = record if isinstance(record, dict) else {}
        return "segments_info" in keys or ("file_name" in keys and "bbox" not in keys)
    return False


class _AnnotationColumns:
    """Takes annotation records one at a time."""

    def __init__(self, file):
        self.file = file
        self.problems = []
        self._seen = set()
        self._map_names, self._image_names = [], {}
        self._image_ids, self._counts = array.array("q"), array.array("q")
        self._ids, self._category_ids, self._crowd = array.array("q"), array.array("q"), array.array("b")
        self._areas, self._boxes = array.array("d"), array.array("d")

    def add(self, record):
        """One annotation, an AnnotationRecord: the PNG of an image and its segments."""
        image, record = record.image_id, record.source if isinstance(record.source, dict) else {}
        own_id = record.get("image_id")
        name = f"The annotation of image {own_id} in {self.file}"
        if image is None or not isinstance(record.get("file_name"), str):
            what = f"An annotation in {self.file} (image_id {own_id!r}) lacks an image_id or a file_name"
            self._report("map_annotation", own_id, f"{what} and was skipped: add it.")
        elif not isinstance(record.get("segments_info"), list):
            remedy = "give its list of segments, or name the file as data.*.annotations if it is one of instances"
            self._report("map_annotation", own_id, f"{name} has no segments_info and was skipped: {remedy}.")
        elif image in self._seen:
            self._report("second_map", own_id, f"{name} isn't the first and was skipped: remove it.")
        else:
            self._seen.add(image)
            self._image_ids.append(image)
            if isinstance(own_id, str):
                self._image_names[image] = own_id
            self._map_names.append(record["file_name"])
            count, segment_ids = len(self._ids), set()
            for segment in record["segments_info"]:
                self._add_segment(segment, own_id, segment_ids)
            self._counts.append(len(self._ids) - count)

    def arrays(self):
        """The columns of a PanopticJson, as a dict."""
        return {
            "image_ids": np.asarray(self._image_ids),
            "image_names": self._image_names,
            "map_names": self._map_names,
            "segment_offsets": np.r_[0, np.cumsum(np.asarray(self._counts))].astype(np.int64),
            "segment_ids": np.asarray(self._ids),
            "category_ids": np.asarray(self._category_ids),
            "crowd": np.asarray(self._crowd).astype(bool),
            "areas": np.asarray(self._areas),
            "boxes": np.asarray(self._boxes).reshape(-1, 4),
        }

    def _add_segment(self, record, image, known_ids):
        record = record if isinstance(record, dict) else {}
        number = parse_integer(record.get("id"))
        where = f"Segment {record.get('id')} of image {image} in {self.file}"
        if number is None or not 0 < number < MOST_SEGMENT_IDS:
            remedy = f"give it a whole number from 1 to {MOST_SEGMENT_IDS - 1}, R + 256 G + 65536 B of its pixels"
            self._report("segment_fields", f"{image}/{number}", f"{where} has no usable id and was skipped: {remedy}.")
            return
        if number in known_ids:
            message = f"{where} isn't the first and was skipped: give each segment of an image an id of its own."
            self._report("duplicate_segment", f"{image}/{number}", message)
            return
        known_ids.add(number)
        category = parse_integer(record.get("category_id"))
        if category is None:
            remedy = "give the id of one of the categories"
            what = "has no whole number as category_id and its pixels are ignored"
            self._report("segment_fields", f"{image}/{number}", f"{where} {what}: {remedy}.")
            category = NO_CATEGORY
        self._ids.append(number)
        self._category_ids.append(category)
        self._crowd.append(parse_flag(record.get("iscrowd")))
        self._areas.append(parse_number(record.get("area")))
        box = parse_numbers(record.get("bbox")) or ()
        is_box = len(box) == 4 and all(map(math.isfinite, box))
        self._boxes.extend(box if is_box else [math.nan] * 4)

    def _report(self, kind, record, message):
        self.problems.append(Problem(kind, record, self.file, message))


class MapSegments:
    """The U segments of I images with a map each.

    Of a small set all maps are read and compared with the json: a segment without a pixel is left out, and colours that
    aren't in the json are ignored. Of a large one only those maps are read in which a segment has no bbox or area.

    Args:
        panoptic: PanopticJson.
        maps: map_files.ImageMaps, of I kept images.
        annotations: [I] int64, the indices of their annotations.
        bars: rich Progress.
        thorough: read all maps however many there are, compare the boxes and areas that the json gives with them, and
            make a problem of a map that can't be read, whose segments are left out, and not a UserError.

    Attributes:
        owners: [U] int64, the number of each segment's image.
        ids, category_ids, crowd, boxes, areas: [U, ...], as in PanopticJson, but none of the boxes and areas is NaN.
        problems: list of Problem.
    """

    def __init__(self, panoptic, maps, annotations, bars, thorough=False):
        self._panoptic, self._files, self._thorough = panoptic, maps.files, thorough
        self.problems = []
        counts = np.diff(panoptic.segment_offsets)[annotations]
        self.owners = np.repeat(np.arange(annotations.size), counts)
        rows = range_indices(panoptic.segment_offsets[annotations], counts)
        self._bounds = np.r_[0, np.cumsum(counts)]
        self._images = panoptic.image_ids[annotations]
        columns = (panoptic.segment_ids, panoptic.category_ids, panoptic.crowd, panoptic.boxes, panoptic.areas)
        self.ids, self.category_ids, self.crowd, self.boxes, self.areas = (values[rows] for values in columns)
        self._unlisted = [], []  # numbers of images, and ids that only their maps have
        self._present = np.ones(self.ids.size, bool)
        self._compare(thorough or maps.is_small, bars)
        for name in ("owners", "ids", "category_ids", "crowd", "boxes", "areas"):
            setattr(self, name, getattr(self, name)[self._present])

    def columns(self, classes):
        """The map columns of a CocoIndex, as a dict; `classes` are `semantic_classes`, pixels of all others ignored."""
        category_ids, category_index = np.unique(self.category_ids, return_inverse=True)
        known_classes = np.array([classes.get(category, IGNORED) for category in category_ids.tolist()], np.uint8)
        # Void is a segment of every map.
        images = np.arange(len(self._files))
        owners = np.r_[images, self.owners, np.array(self._unlisted[0], np.int64)]
        ids = np.r_[np.zeros_like(images), self.ids, np.array(self._unlisted[1], np.int64)].astype(np.int32)
        values = np.full(ids.size, IGNORED, np.uint8)
        values[images.size : images.size + self.ids.size] = known_classes[category_index.ravel()]
        order = np.lexsort((ids, owners))
        offsets = np.r_[0, np.cumsum(np.bincount(owners, minlength=images.size))].astype(np.int64)
        return map_files.map_columns(self._files, offsets, ids[order], values[order])

    def things(self, classes):
        """The segments to look for instances in, as SegmentObjects, also of things that `classes` doesn't name."""
        stuff = [category.id for category in self._panoptic.stuff]
        stuff += [category for category, number in classes.items() if number != THINGS]
        return SegmentObjects(self, ~np.isin(self.category_ids, [*stuff, NO_CATEGORY]), self._images, self._panoptic)

    def ignored_stuff(self, classes):
        """A Problem for each category of stuff in the json that `classes` doesn't name."""
        problems, path = [], self._panoptic.path
        for category in self._panoptic.stuff:
            count = int((self.category_ids == category.id).sum()) if category.id not in classes else 0
            if count:
                message = (
                    f"Category {category.id} ({category.name!r}) in {path} isn't among model.stuff and its {count} "
                    "segments are ignored: add it there if pixels are to be classified so."
                )
                problems.append(Problem("unknown_category", category.id, path, message))
        return problems

    def _compare(self, all_maps, bars):
        incomplete = np.isnan(self.boxes).any(axis=1) | np.isnan(self.areas)
        numbers = np.arange(len(self._files)) if all_maps else np.unique(self.owners[incomplete])
        if not numbers.size:
            return
        on_progress = counting_bar(bars, "Checking segments", numbers.size)
        to_measure = np.ones_like(incomplete) if self._thorough else incomplete
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            for comparison in pool.map(lambda number: self._read_map(number, to_measure), numbers.tolist()):
                self._apply_comparison(*comparison)
                on_progress(1)

    def _read_map(self, number, to_measure):
        """(number, `compare_ids`' answer, {row: (box, area)} of segments `to_measure`) from the map of an image.

        The second is the UserError of a map that can't be read.
        """
        first, last = self._bounds[number : number + 2]
        measured = {}
        try:
            pixels = map_files.read_segment_map(self._files[number])
        except UserError as error:
            if self._thorough:
                return number, error, measured
            raise
        for row in (first + np.flatnonzero(to_measure[first:last])).tolist():
            measured[row] = _measure(pixels == self.ids[row])
        return number, map_files.compare_ids(pixels, self.ids[first:last]), measured

    def _apply_comparison(self, number, differences, measured):
        path, json = self._files[number], self._panoptic.path
        image = self._panoptic.name_of_image(int(self._images[number]))
        first, last = self._bounds[number : number + 2]
        if isinstance(differences, UserError):
            self._present[first:last] = False
            self.problems.append(Problem("unreadable_map", image, path, str(differences)))
            return
        unlisted, counts, lacking = differences
        if unlisted.size and np.array_equal(np.sort(_swap_red_and_blue(unlisted)), lacking):
            message = f"The map {path} has red and blue exchanged ({json}) and its segments were skipped"
            self.problems.append(Problem("swapped_colours", image, path, f"{message}: save it as RGB, not BGR."))
            self._present[first:last] = ~np.isin(self.ids[first:last], lacking)
            self._ignore(number, unlisted)
            return
        if unlisted.size:
            self._ignore(number, unlisted)
            name = map_files.describe_unknown_segments(path, unlisted)
            message = f"{name} ({json}), and {counts.sum()} pixels are ignored: {map_files.UNLISTED_REMEDY}."
            self.problems.append(Problem("unknown_segment", f"{image}/{unlisted[0]}", path, message))
        for row in (first + np.flatnonzero(np.isin(self.ids[first:last], lacking))).tolist():
            self._present[row] = False
            what = f"has no pixel in {path} and was skipped"
            self._report("empty_segment", image, row, what, "remove it, or correct its id or the map")
        for row, (box, area) in measured.items():
            if self._present[row]:
                self._complete(image, row, box, area)

    def _ignore(self, number, ids):
        self._unlisted[0].extend([number] * ids.size)
        self._unlisted[1].extend(ids.tolist())

    def _complete(self, image, row, box, area):
        """Fills in what a segment lacks; what it says otherwise than its pixels is noted and stays."""
        no_box, no_area = bool(np.isnan(self.boxes[row]).any()), bool(np.isnan(self.areas[row]))
        if no_box or no_area:
            lacks = "bbox" if no_box else "area"
            self._report(f"missing_{lacks}", image, row, f"has no {lacks}, its pixels' was taken", f"add the {lacks}")
        if no_box:
            self.boxes[row] = box
        elif np.abs(self.boxes[row] - box).max() > ROUNDING:
            self._report_difference("segment_box", "bbox", image, row, self.boxes[row].tolist(), box)
        if no_area:
            self.areas[row] = area
        elif abs(self.areas[row] - area) > ROUNDING:
            self._report_difference("segment_area", "area", image, row, float(self.areas[row]), area)

    def _report_difference(self, kind, name, image, row, value, measured):
        if self._thorough:
            self._report(kind, image, row, f"has the {name} {value}, and its pixels {measured}", f"correct the {name}")

    def _report(self, kind, image, row, what, remedy):
        record, json = f"{image}/{self.ids[row]}", self._panoptic.path
        message = f"Segment {self.ids[row]} of image {image} in {json} {what}: {remedy}."
        self.problems.append(Problem(kind, record, json, message))


class SegmentObjects(BoxColumns):
    """Segments as the columns that `Checker` takes from a json's annotations, see `AnnotationColumns`.

    Attributes:
        ids: [N] int64, 0, 1, ...
        segment_ids: [N] int64, as in the json.
        problems: an empty list.
    """

    def __init__(self, segments, kept, images, panoptic):
        self.segment_ids, self.category_ids = segments.ids[kept], segments.category_ids[kept]
        super().__init__(self.segment_ids.size)
        self._panoptic, self._file, self.problems = panoptic, panoptic.path, []
        self.image_ids, self.image_names = images[segments.owners[kept]], panoptic.image_names
        self.crowd, self.boxes, self.areas = segments.crowd[kept], segments.boxes[kept], segments.areas[kept]

    def locate(self, row):
        """See `annotation_columns.AnnotationColumns.locate`."""
        segment, image = self.segment_ids[row], self._panoptic.name_of_image(int(self.image_ids[row]))
        return f"{image}/{segment}", self._file, f"Segment {segment} of image {image} in {self._file}"


def _swap_red_and_blue(ids):
    """The ids of colours whose red and blue are exchanged."""
    return (ids & 255) << 16 | ids & 0xFF00 | ids >> 16


def _measure(mask):
    """([x, y, width, height], area) of a mask [H, W]; zeros where it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return [0.0] * 4, 0.0
    size = columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]
    return [float(columns[0]), float(rows[0]), *map(float, size)], float(mask.sum())
