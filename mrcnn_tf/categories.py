"""The classes of a dataset, read from its json."""

import dataclasses
import json
import mmap
import re

from mrcnn_tf.errors import UserError
from mrcnn_tf.json_stream import stream_arrays

# torchvision's name for the ten ids between 1 and 90 that COCO's detection task leaves out: classes without objects.
UNUSED = "N/A"


@dataclasses.dataclass
class Category:
    """A foreground class as the dataset knows it.

    Attributes:
        id, name: of the dataset.
        keypoints: their names, in the order of its annotations; empty for a class without keypoints.
        skeleton: pairs of keypoints, numbered from 1 as in COCO, that a picture joins by a line.
    """

    id: int
    name: str
    keypoints: list[str] = dataclasses.field(default_factory=list)
    skeleton: list[list[int]] = dataclasses.field(default_factory=list)


def read_categories(path):
    """The categories of a COCO json, sorted by id.

    Args:
        path: the json. A large one isn't parsed as a whole.

    Returns:
        list of Category.

    Raises:
        UserError: the file is missing, isn't COCO's, or lists no or malformed categories.
    """
    records = _find_categories(path)
    if records is None:
        records = [record for _, record in stream_arrays(path, ("categories",))]
    return as_categories(records, path)


def as_categories(records, path):
    """`Category`s sorted by id from the records of `path`; raises UserError for malformed ones or none at all."""
    for record in records:
        if not isinstance(record, dict) or type(record.get("id")) is not int or type(record.get("name")) is not str:
            raise UserError(f"Category {record} in {path} lacks a whole number as id or a name: add it.")
    categories = sorted((Category(record["id"], record["name"]) for record in records), key=lambda one: one.id)
    if not categories:
        raise UserError(f'"categories" in {path} is empty: list the categories of its annotations.')
    for one, other in zip(categories, categories[1:], strict=False):
        if one.id == other.id:
            raise UserError(f"Category id {one.id} is used twice in {path}: give each category an id of its own.")
    return categories


def _find_categories(path):
    """The list after the only "categories" in the file's text, or None if it takes a parser to find it."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            place = text.rfind(b'"categories"')
            if place < 0 or text.find(b'"categories"') != place:
                return None
            match = re.compile(rb'"categories"\s*:\s*(?=\[)').match(text, place)
            if not match:
                return None
            rest = text[match.end() : match.end() + (1 << 24)].decode("utf-8", "ignore")
            records = json.JSONDecoder().raw_decode(rest)[0]
            return records if all(isinstance(record, dict) for record in records) else None
    except (OSError, ValueError):  # missing, empty or not json: the parser says so properly
        return None
