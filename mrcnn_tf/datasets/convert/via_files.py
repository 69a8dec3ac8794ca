"""VIA's json and csv files, read image by image in little memory, and what they say of their attributes.

A json of VIA 1 or 2 is {key: entry}, or a project that has this under _via_img_metadata and describes the attributes in
_via_attributes, before or after it. An entry has a filename and regions, a list in version 2 and a dict in version 1.
A csv has a line for each region.
"""

import collections
import csv
import json
import sys

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.json_stream import stream_members
from mrcnn_tf.common.problems import CONSOLE, progress_bars, reading_bar
from mrcnn_tf.datasets.convert.inputs import raise_wrong_format

ENTRIES = "_via_img_metadata"
CSV_COLUMNS = ("filename", "region_shape_attributes", "region_attributes")
VIA3 = ("project", "view", "metadata")  # which a project of version 3 has at its top
DELIMITERS = ",;\t"  # the first is VIA's, the others are those of spreadsheets
PROGRESS_LINES = 1000  # of a csv, after which the bar moves


class ViaFile:
    """A json or csv of VIA. It is read twice, as attributes may be described behind the regions.

    Attributes:
        path: the file.
        examples: dict attribute -> one of its values, of all attributes that some region has a value of.

    Raises:
        UserError: the file can't be read or isn't of VIA 1 or 2.
    """

    def __init__(self, path):
        self.path = path
        self.examples = {}
        self._described, self._lines_of = {}, collections.Counter()
        parts_of_via3, has_regions = set(VIA3), False
        for name, value in self._members("VIA's attributes"):
            parts_of_via3.discard(name)
            if name == "_via_attributes":
                self._described = dict_at(value, "region")
            for region in regions_of(value):
                has_regions = True
                for attribute, options in region_attributes(region).items():
                    if attribute not in self.examples and (chosen := chosen_options(options)):
                        self.examples[attribute] = chosen[0]
            has_regions = has_regions or (isinstance(value, dict) and "regions" in value)
        if not has_regions and not parts_of_via3:
            remedy = "export it as COCO there, which keeps rectangles and polygons, and check that"
            raise UserError(f"{path} is of VIA 3, which isn't read: {remedy} by `mrcnn-tf validate`.")
        if not has_regions:
            raise_wrong_format(path, "via")

    def entries(self):
        """Yields (key, value) of each image, which need not be a usable entry; a bar shows the bytes read."""
        for name, value in self._members("VIA"):
            is_entry = isinstance(value, dict) and "regions" in value
            if is_entry or name in (ENTRIES, None) or not name.startswith("_via"):
                yield name, value

    def options(self, attribute):
        """dict of what the options of an attribute stand for; empty where the file doesn't say."""
        return dict_at(self._described, attribute, "options")

    def _members(self, description):
        with progress_bars(CONSOLE.is_terminal) as bars:
            on_progress = reading_bar(bars, description, self.path)
            if self.path.suffix.lower() == ".csv":
                yield from self._csv_entries(on_progress)
            else:
                yield from stream_members(self.path, (ENTRIES,), on_progress)

    def _csv_entries(self, on_progress):
        """Yields (None, entry) of each image. The first time, images are pieces if their lines aren't in a row."""
        left, waiting = self._lines_of.copy(), collections.defaultdict(list)
        is_counted = bool(left)
        for key, region in _csv_regions(self.path, on_progress):
            if not is_counted:
                self._lines_of[key] += 1
                yield None, {"filename": key[0], "regions": region}
                continue
            waiting[key] += region
            left[key] -= 1
            if not left[key]:
                yield None, {"filename": key[0], "regions": waiting.pop(key)}


def _csv_regions(path, on_progress):
    """Yields ((file name, size), list with the region or without one) of each line of a csv."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # an outline has more than the 128 KB of the default
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            delimiter = max(DELIMITERS, key=head.count)
            names = [name.lstrip("#").strip() for name in next(csv.reader([head], delimiter=delimiter), [])]
            if not set(CSV_COLUMNS) <= set(names):
                columns = f"{', '.join(CSV_COLUMNS[:2])} and {CSV_COLUMNS[2]}"
                raise UserError(f"{path} has no columns {columns}, as VIA's csv has: export it from VIA again.")
            for number, row in enumerate(csv.DictReader(file, names, delimiter=delimiter)):
                if number % PROGRESS_LINES == 0:
                    on_progress(file.buffer.tell())
                shape = row["region_shape_attributes"] or ""
                region = {"shape_attributes": shape, "region_attributes": row["region_attributes"] or ""}
                # An image without regions has a line with empty cells.
                yield (row["filename"], row.get("file_size")), [region] if shape.strip() not in ("", "{}") else []
    except UnicodeDecodeError:
        raise UserError(f"{path} isn't UTF-8 text: save it as UTF-8.") from None
    except csv.Error as error:
        raise UserError(f"{path} isn't a readable csv ({error}): export it again.") from None


def regions_of(entry):
    """The regions of an image's entry, a list; empty where something else stands there."""
    regions = entry.get("regions") if isinstance(entry, dict) else None
    regions = list(regions.values()) if isinstance(regions, dict) else regions
    return regions if isinstance(regions, list) else []


def region_attributes(region):
    """dict attribute -> value of a region. A text that isn't a json object is the value of one called as its place."""
    attributes = region.get("region_attributes") if isinstance(region, dict) else None
    if isinstance(attributes, str):
        parsed = parse_object(attributes)
        attributes = {"region_attributes": attributes} if parsed is None else parsed
    return attributes if isinstance(attributes, dict) else {}


def parse_object(text):
    """The json object of a text, as cells of a csv have it; None if it isn't one."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def chosen_options(value):
    """The options that an attribute's value names: a text is one, a checkbox has any number."""
    if isinstance(value, dict):
        return [name for name, is_checked in value.items() if is_checked]
    if isinstance(value, bool) or value is None:
        return []
    return [str(value).strip()] if str(value).strip() else []


def dict_at(content, *keys):
    """The dict under nested keys; an empty one where something else stands there."""
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}
