"""The classes of a dataset, read from its json or from the manifest beside its TFRecords."""

import dataclasses
import glob
import itertools
import json
import mmap
import pathlib
import re

import numpy as np

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.json_stream import stream_arrays
from mrcnn_tf.common.json_values import parse_integer

# torchvision's name for the ten ids between 1 and 90 that COCO's detection task leaves out: classes without objects.
UNUSED = "N/A"
# Values of a semantic map, uint8: any thing, and a pixel whose class isn't known. Those between, 1 to S, are stuff.
THINGS, IGNORED = 0, 255
MAX_STUFF_CLASSES = IGNORED - THINGS - 1
MAX_LIST_BYTES = 1 << 24  # of the list of categories in a json's text, where it is searched for and not parsed


@dataclasses.dataclass
class Category:
    """A foreground class as the dataset knows it."""

    id: int
    name: str
    keypoints: list[str] = dataclasses.field(default_factory=list)  # their names, in the order of its annotations
    # Pairs of keypoints, numbered from 1 as in COCO, that a picture joins by a line.
    skeleton: list[list[int]] = dataclasses.field(default_factory=list)


def read_categories(path):
    """The list of `Category`s of a COCO json, sorted by id. A large json isn't parsed as a whole.

    Raises:
        UserError: the file is missing, isn't COCO's, or lists no or malformed categories, keypoints or skeletons.
    """
    return parse_categories(_read_category_records(path), path)


def read_panoptic_categories(path):
    """(things, stuff) of a COCO panoptic json: lists of `Category` sorted by id, with and without instances to count.

    One may be empty. A large json isn't parsed as a whole.

    Raises:
        UserError: the file is missing, isn't COCO's, or lists no or malformed categories, or one without `isthing`.
    """
    return split_things_and_stuff(_read_category_records(path), path)


def split_things_and_stuff(records, path):
    """(things, stuff) as `read_panoptic_categories`, from the category records of `path`."""
    categories = parse_categories(records, path)
    is_thing = {parse_integer(record["id"]): parse_isthing(record) for record in records}
    for category in categories:
        if is_thing[category.id] is None:
            raise UserError(
                f"Category {category.id} ({category.name!r}) in {path} has no isthing of 0 or 1: add it, or name the "
                "file as data.*.annotations if it is one of instances."
            )
    things = [category for category in categories if is_thing[category.id]]
    return things, [category for category in categories if not is_thing[category.id]]


def parse_isthing(record):
    """Whether a category record of a panoptic json has instances to count; None where it doesn't say."""
    value = record.get("isthing")
    number = int(value) if isinstance(value, bool) else parse_integer(value)
    return bool(number) if number in (0, 1) else None


def find_record_files(pattern):
    """The sorted TFRecord files, str, of a pattern such as records/train-*.tfrecord; raises UserError for none."""
    files = sorted(path for path in glob.glob(str(pattern), recursive=True) if pathlib.Path(path).is_file())
    if not files:
        raise UserError(f"There is no file {str(pattern)!r}: set data.train.records to a pattern of TFRecord files.")
    return files


def read_record_categories(pattern):
    """The list of `Category`s, sorted by id, of the TFRecords that `mrcnn-tf convert tfrecord` wrote.

    It is read from their manifest: of files such as records/train-*.tfrecord it is records/train.json.

    Raises:
        UserError: no file matches, one has no manifest (others' records carry no list of categories), or two manifests
            differ in their categories.
    """
    first, source = None, None
    for path in dict.fromkeys(manifest_path(file) for file in find_record_files(pattern)):
        if path is None or not path.is_file():
            raise UserError(f"No manifest names the categories of {str(pattern)!r}: set model.categories.")
        categories = _read_manifest_categories(path)
        if first not in (None, categories):
            raise UserError(f"{source} and {path} have other categories: set model.categories or narrow {pattern!r}.")
        first, source = categories, path
    return first


def manifest_path(file):
    """The path of a TFRecord file's manifest, NAME.json beside NAME-00000-of-00010.tfrecord; None for other names."""
    file = pathlib.Path(file)
    match = re.fullmatch(r"(.+)-\d{5}-of-\d{5}", file.stem)
    return file.with_name(f"{match.group(1)}.json") if match else None


def _read_manifest_categories(path):
    try:
        records = json.loads(path.read_text(encoding="utf-8"))["categories"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} isn't a manifest of TFRecords ({error!r}): set model.categories.") from error
    return parse_categories(records, path)


def parse_categories(records, path):
    """`Category`s sorted by id from the records of `path`; raises UserError for malformed ones or none at all."""
    categories = sorted((_parse_category(record, path) for record in records), key=lambda category: category.id)
    if not categories:
        raise UserError(f'"categories" in {path} is empty: list the categories of its annotations.')
    for category, following in itertools.pairwise(categories):
        if category.id == following.id:
            raise UserError(f"Category id {category.id} is used twice in {path}: give each category an id of its own.")
    return categories


def as_categories(categories):
    """A list of `Category`s of `Category`s or names; a name's id is its place, from 1."""
    return [
        category if isinstance(category, Category) else Category(number, category)
        for number, category in enumerate(categories, 1)
    ]


def max_keypoints(categories):
    """P, the number of keypoints of the category with the most; 0 if none has any."""
    return max((len(category.keypoints) for category in categories), default=0)


def keypoint_channels(categories):
    """The heatmap channels that a list of K `Category`s needs.

    Categories with the same names in the same order share channels, as animals of one body plan do; any others get
    channels of their own.

    Returns:
        (names, table): the keypoint's name of each channel, and int32 [K + 1, P], the channel of each keypoint of each
        class; -1 beyond a class's own keypoints, and for the background in row 0.
    """
    names, first_channel = [], {}  # the latter by the names of a class's keypoints
    table = np.full([len(categories) + 1, max_keypoints(categories)], -1, np.int32)
    for row, category in enumerate(categories, 1):
        count = len(category.keypoints)
        start = first_channel.setdefault(tuple(category.keypoints), len(names))
        if start == len(names):
            names += category.keypoints
        table[row, :count] = np.arange(start, start + count)
    return names, table


def _parse_category(record, path):
    number = parse_integer(record.get("id")) if isinstance(record, dict) else None
    name = record.get("name") if isinstance(record, dict) else None
    if number is None or not isinstance(name, str | int | float):
        raise UserError(f"Category {record} in {path} lacks a whole number as id or a name: add it.")
    name, names, skeleton = str(name), record.get("keypoints") or [], record.get("skeleton") or []
    where = f"Category {name!r} in {path}"
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise UserError(f"{where} has keypoints that aren't a list of names: give each keypoint a name.")
    repeated = [name for index, name in enumerate(names) if name in names[:index]]
    if repeated:
        raise UserError(f"{where} has two keypoints called {repeated[0]!r}: give each a name of its own.")
    for pair in skeleton if isinstance(skeleton, list) else [skeleton]:
        ends = [parse_integer(end) for end in pair] if isinstance(pair, list) else []
        if len(ends) != 2 or not all(end is not None and 1 <= end <= len(names) for end in ends):
            remedy = f"join two keypoints by their numbers, 1 to {len(names)}" if names else "name its keypoints first"
            raise UserError(f"{where} has {pair!r} in its skeleton: {remedy}.")
    return Category(number, name, names, [[parse_integer(end) for end in pair] for pair in skeleton])


def _read_category_records(path):
    """The list "categories" of a json; large files are parsed only where a search of their text can't find it."""
    records = _search_categories(path)
    return [record for _, record in stream_arrays(path, ("categories",))] if records is None else records


def _search_categories(path):
    """The list after the only "categories" in the file's text, or None if it takes a parser to find it."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            position = text.rfind(b'"categories"')
            if position < 0 or text.find(b'"categories"') != position:
                return None
            match = re.compile(rb'"categories"\s*:\s*(?=\[)').match(text, position)
            if not match:
                return None
            rest = text[match.end() : match.end() + MAX_LIST_BYTES].decode("utf-8", "ignore")
            records = json.JSONDecoder().raw_decode(rest)[0]
            return records if all(isinstance(record, dict) for record in records) else None
    except (OSError, ValueError):  # missing, empty or not json: the parser says so properly
        return None
