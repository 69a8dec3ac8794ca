"""THE reader of COCO jsons, record by record: instances, keypoints, panoptic and results, from whatever program.

Each element of "images" and "annotations" becomes a record that says what it holds in COCO's own form, what of it can't
be used, and what was read from another form than COCO's. Training, evaluation, validation, conversion, inspection and
diagnosis all take their records from here, so an id, a size, a crowd or an RLE is the same for all of them.
"""

import array
import collections
import dataclasses
import hashlib
import math
import os
import urllib.parse
from typing import Any

from mrcnn_tf.common.json_stream import stream_arrays
from mrcnn_tf.common.json_values import MOST, parse_flag, parse_integer, parse_number, parse_numbers
from mrcnn_tf.datasets import kwcoco
from mrcnn_tf.datasets.coco_segmentations import Fault, Rle, parse_segmentation

SECTIONS = ("images", "annotations", "categories")
LARGEST_FLOAT32 = 3.4028234e38
COCO_FIELDS = {  # of an annotation
    *("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation", "keypoints", "num_keypoints"),
    *("score", "ignore"),
}
_BOX_REMEDY = "give [x, y, width, height]"


@dataclasses.dataclass(slots=True)
class ImageRecord:
    """An element of "images"."""

    source: Any  # as it stands in the json
    id: int | None  # None where it has none; of a text that is no number, `number_of_text`
    names: list[str]  # where its file may be, relative to the folder of images, the likeliest first; empty for no name
    size: tuple[int, int] | None  # (height, width) in pixels; None where the json doesn't know
    loose: list[str]  # keys of values that stand there in another form than COCO's and were read all the same

    @property
    def own_id(self):
        """The id as it stands in the json, for messages and results."""
        return self.source.get("id") if isinstance(self.source, dict) else None

    @property
    def name(self):
        """The id where it is text, else None."""
        return self.own_id if isinstance(self.own_id, str) else None


@dataclasses.dataclass(slots=True)
class AnnotationRecord:
    """An element of "annotations", or of a list of results.

    Its segmentation is `rings` or `rle`; both are empty where it has none or it wasn't asked for.
    """

    source: Any  # as it stands in the json
    id: int | None
    image_id: int | None
    category_id: int | None
    crowd: bool = False
    box: array.array | None = None  # doubles x, y, width, height, as in the json
    area: float = math.nan  # NaN where there is none
    rings: list = dataclasses.field(default_factory=list)  # arrays of doubles [x, y, x, y, ...], three points or more
    rle: Rle | None = None
    keypoints: array.array | None = None  # doubles x, y, visibility by turns; None without any that are numbers
    # {part: Fault} of what can't be used: "record" (nothing of it can), "bbox", "area", "segmentation" and "keypoints";
    # under "polygons" is a list of Faults, of polygons that are left out beside others.
    faults: dict = dataclasses.field(default_factory=dict)
    loose: list[str] = dataclasses.field(default_factory=list)  # as of an ImageRecord

    @property
    def own_id(self):
        """The id as it stands in the json, for messages."""
        return self.source.get("id") if isinstance(self.source, dict) else None


def stream_records(path, on_progress=None, masks=True, sections=SECTIONS):
    """Yields ("images", ImageRecord), ("annotations", AnnotationRecord) and ("categories", dict) of a COCO json.

    They come one by one in the file's order, so that a large file doesn't have to be held.

    Args:
        path: of the json.
        on_progress: called with the number of bytes read so far.
        masks: whether segmentations are wanted; if not, only annotations without a bbox are asked for one.
        sections: which of the three.

    Raises:
        UserError: the file is missing, isn't json, or lacks a section.
    """
    position, keypoint_order = 0, None
    for section, record in stream_arrays(path, sections, on_progress):
        if section == "annotations":
            parsed = parse_annotation(record, masks, position)
            if "keypoints" in parsed.faults and kwcoco.has_named_keypoints(record):
                keypoint_order = keypoint_order or kwcoco.KeypointOrder(path)
                _arrange_keypoints(parsed, keypoint_order)
            yield section, parsed
            position += 1
        else:
            yield section, parse_image(record) if section == "images" else record


def _arrange_keypoints(parsed, order):
    """Gives an AnnotationRecord whose keypoints name themselves COCO's, or a Fault that says why not."""
    try:
        parsed.keypoints = order.arrange(parsed.source["keypoints"], parsed.category_id)
        del parsed.faults["keypoints"]
    except ValueError as error:
        remedy = "list the names of its keypoints there"
        parsed.faults["keypoints"] = Fault("bad_keypoints", f"has keypoints {error}", remedy)


def number_of_text(text):
    """The number that stands for an id that is a name, such as Cityscapes' and Mapillary's; the same in all files."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1


def parse_id(value):
    """The whole number of an image or annotation: its own, or that of its name; None where it has neither."""
    number = parse_integer(value)
    if number is not None:
        return number
    if isinstance(value, str) and value.strip():
        return number_of_text(value)
    return number_of_text(str(value)) if type(value) is int else None


def parse_image(record):
    """The ImageRecord of an element of "images"."""
    if not isinstance(record, dict):
        return ImageRecord(record, None, [], None, [])
    loose = ["id"] if _is_loose_id(record.get("id")) else []
    size = parse_size(record.get("height"), record.get("width"))
    return ImageRecord(record, parse_id(record.get("id")), _file_names(record), size, loose)


def _is_loose_id(value):
    """Whether an id is a whole number that stands there as a float or as text."""
    return type(value) is not int and parse_integer(value) is not None


def _file_names(record):
    """The places that an image record names for its file."""
    names = []
    for key in ("file_name", "coco_url", "flickr_url"):  # LVIS has only addresses, of which the last part is the file
        value = record.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or not _can_be_file(value):
            continue
        if "://" in value:
            parts = urllib.parse.unquote(value.split("?")[0]).split("://", 1)[1].split("/")
            names += filter(_can_be_file, ["/".join(parts[-2:]), parts[-1]])  # with its folder first, such as val2017
        else:
            names.append(value)
    assets = record.get("assets") or record.get("auxiliary")  # kwcoco's, of which an image by itself has one
    if not names and isinstance(assets, list) and len(assets) == 1 and isinstance(assets[0], dict):
        names += _file_names(assets[0])
    return list(dict.fromkeys(names))


def _can_be_file(name):
    """Whether a file may have a name; none has that of a folder, NUL, or half of a pair of UTF-16."""
    try:
        return b"\0" not in os.fsencode(name) and name.strip().replace("\\", "/").split("/")[-1] not in ("", ".", "..")
    except UnicodeEncodeError:
        return False


def parse_size(height, width):
    """(height, width) in pixels; None where one isn't a positive whole number and so not known."""
    sides = []
    for side in (height, width):
        if type(side) is float and side.is_integer():
            side = int(side)
        if type(side) is not int or not 0 < side < 1 << 31:
            return None
        sides.append(side)
    return tuple(sides)


def parse_annotation(record, masks=True, position=0):
    """The AnnotationRecord of an element of "annotations".

    `masks` is as of `stream_records`. A record without an id gets a negative one, of its `position` there, from 0.
    """
    if not isinstance(record, dict):
        fault = Fault("annotation_fields", "isn't a json object", "remove it")
        return AnnotationRecord(record, None, None, None, faults={"record": fault})
    number, image, category = record.get("id"), record.get("image_id"), record.get("category_id")
    if type(number) is type(image) is type(category) is int and max(abs(number), abs(image), abs(category)) < MOST:
        parsed = AnnotationRecord(record, number, image, category)
    else:
        parsed = AnnotationRecord(record, parse_id(number), parse_id(image), parse_integer(category))
        _check_ids(parsed, position)
    _parse_plain_fields(record, parsed)
    if masks or parsed.box is None:
        _parse_segmentation(record.get("segmentation"), parsed)
    return parsed


def _check_ids(parsed, position):
    """Numbers a record without an id, and notes ids that are missing or stand there in another form."""
    record = parsed.source
    parsed.loose += [key for key in ("id", "image_id", "category_id") if _is_loose_id(record.get(key))]
    if parsed.id is None:
        parsed.id = -1 - position
        parsed.loose.append("id")
    if None not in (parsed.image_id, parsed.category_id):
        return
    what, remedy = "lacks a whole number as category_id, or an image_id", "add it"
    if "segments_info" in record:
        what, remedy = "is one of COCO's panoptic format", "name the file as data.*.panoptic"
    parsed.faults["record"] = Fault("annotation_fields", what, remedy)


def _parse_plain_fields(record, parsed):
    """Box, area, crowd and keypoints."""
    box = record.get("bbox")
    if box:
        parsed.box = parse_numbers(box)
        if parsed.box is None:
            parsed.faults["bbox"] = Fault("bad_box", "has a bbox that isn't numbers", _BOX_REMEDY)
        elif len(parsed.box) != 4:
            parsed.faults["bbox"] = Fault("bad_box", f"has a bbox of {len(parsed.box)} numbers", _BOX_REMEDY)
            parsed.box = None
        elif isinstance(box, str) or str in map(type, box):
            parsed.loose.append("bbox")
    area = record.get("area")
    if type(area) in (float, int):
        parsed.area = float(area) if abs(area) < 1e300 else math.nan
    elif area is not None:
        parsed.area = parse_number(area)
        if math.isnan(parsed.area):
            parsed.faults["area"] = Fault("bad_area", "has an area that isn't a number", "give square pixels")
        else:
            parsed.loose.append("area")
    crowd = record.get("iscrowd", 0)
    parsed.crowd = bool(crowd) if type(crowd) is int else parse_flag(crowd)
    keypoints = record.get("keypoints")
    if keypoints:
        parsed.keypoints = parse_numbers(keypoints)
        if parsed.keypoints is None:
            remedy = "give x, y and visibility of each keypoint as numbers"
            parsed.faults["keypoints"] = Fault("bad_keypoints", "has keypoints that aren't a list of numbers", remedy)
            return
        if isinstance(keypoints, str) or str in map(type, keypoints):
            parsed.loose.append("keypoints")
        if not math.isfinite(sum(parsed.keypoints)):
            _clear_unlabelled(parsed.keypoints)


def _clear_unlabelled(keypoints):
    """Sets x and y of unlabelled keypoints to zero, as COCO has them, where a program left NaN there."""
    for place in range(2, len(keypoints), 3):
        if keypoints[place] == 0:
            keypoints[place - 2] = keypoints[place - 1] = 0.0


def _parse_segmentation(value, parsed):
    segmentation = parse_segmentation(value)
    parsed.rings, parsed.rle = segmentation.rings, segmentation.rle
    if segmentation.fault:
        parsed.faults["segmentation"] = segmentation.fault
    if segmentation.left_out:
        parsed.faults["polygons"] = segmentation.left_out
    if segmentation.is_loose:
        parsed.loose.append("segmentation")


def count_own_numbers(records):
    """How many AnnotationRecords have a finite number under each key that isn't COCO's, a dict in order of the keys.

    These are what `DataConfig.fields` may name.
    """
    counts = collections.Counter()
    for record in records:
        source = record.source
        if isinstance(source, dict):
            own = ((key, source[key]) for key in source.keys() - COCO_FIELDS)
            counts.update(key for key, value in own if isinstance(value, int | float) and abs(value) <= LARGEST_FLOAT32)
    return dict(sorted(counts.items()))
