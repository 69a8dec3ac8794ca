"""The categories of a json: malformed, repeated or suspicious ones, how many objects each has, and how they differ
between training and validation set."""

import unicodedata

import numpy as np

from mrcnn_tf.common.categories import UNUSED, Category, parse_categories
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.json_values import parse_integer

RARE = 10  # objects; with fewer a class will hardly be learnt
IMBALANCE = 50  # times as many objects of one class as of another
BACKGROUND_NAMES = ("background", "_background_", "__background__", "bg")

# Where no category can be used, annotations are checked against one that none of them can have.
PLACEHOLDER_CATEGORY = Category(-(2**62), "")


def check_categories(records, path, findings):
    """The categories of the json at `path`, malformed ones as they are once mended, and what is wrong with them.

    Returns:
        list of `Category` sorted by id, never empty (`PLACEHOLDER_CATEGORY`).
    """
    usable, ids_by_name = {}, {}
    for record in records:
        try:
            (category,) = parse_categories([record], path)
        except UserError as error:
            number = record.get("id") if isinstance(record, dict) else None
            findings.add("bad_category", number, str(error))
            mended = repair_category(record, path)  # its annotations aren't to blame
            if mended is None:
                continue
            (category,) = parse_categories([mended], path)
        where = f"Category {category.id} ({category.name!r}) in {path}"
        if category.id in usable:
            other = usable[category.id].name
            findings.add("duplicate_category", category.id, f"{where} has the id of {other!r}.")
            continue
        usable[category.id] = category
        _check_name(category, where, ids_by_name, findings)
        if category.id == 0:
            findings.add("category_zero", 0, f"{where} has the id 0.")
    if not usable:
        findings.add("no_categories", None, f"{path} has no usable category.")
        return [PLACEHOLDER_CATEGORY]
    return sorted(usable.values(), key=lambda category: category.id)


def repair_category(record, path):
    """A category that can be used, or None where it has no id."""
    number = parse_integer(record.get("id")) if isinstance(record, dict) else None
    if number is None:
        return None
    repaired = dict(record, id=number)
    name = record.get("name")
    if not isinstance(name, str) or not name.strip():
        repaired["name"] = f"class {number}" if name is None or not str(name).strip() else str(name)
    for left_out in ((), ("skeleton",), ("skeleton", "keypoints")):
        attempt = {key: value for key, value in repaired.items() if key not in left_out}
        try:
            parse_categories([attempt], path)
            return attempt
        except UserError:
            continue
    return None


def _check_name(category, where, ids_by_name, findings):
    name = unicodedata.normalize("NFKC", category.name).strip().casefold()
    if not name:
        findings.add("unnamed_category", category.id, f"{where} has an empty name.")
    elif name in ids_by_name and category.name != UNUSED:
        findings.add("repeated_name", category.id, f"{where} is named like category {ids_by_name[name]}.")
    elif name in BACKGROUND_NAMES:
        findings.add("background_category", category.id, f"{where} means what isn't an object.")
    ids_by_name.setdefault(name, category.id)


def check_object_counts(categories, counts, findings, unit, rare=RARE):
    """Adds classes without or with few objects, and a great imbalance.

    Args:
        categories: list of K `Category`s.
        counts: [K] int64, usable objects of each.
        unit: what objects are called there, "annotation" or "segment".
        rare: a class with fewer will hardly be learnt; 0 for classes of which the number says nothing.
    """
    for category, count in zip(categories, counts.tolist(), strict=True):
        where = f"Category {category.id} ({category.name!r}) in {findings.file}"
        if count == 0 and category.name != UNUSED and category is not PLACEHOLDER_CATEGORY:
            findings.add("empty_class", category.id, f"{where} has no usable {unit}.")
        elif 0 < count < rare:
            findings.add("rare_class", category.id, f"{where} has {count} usable {unit}s.")
    if not rare:
        return
    frequent = np.flatnonzero(counts >= RARE)
    if frequent.size and counts[frequent].max() > IMBALANCE * counts[frequent].min():
        most, least = int(frequent[counts[frequent].argmax()]), int(frequent[counts[frequent].argmin()])
        sentence = (
            f"{categories[most].name!r} has {counts[most]:,} usable {unit}s "
            f"({counts[most] / counts.sum():.0%}), {categories[least].name!r} {counts[least]:,}."
        )
        findings.add("class_imbalance", None, sentence)
        findings.explain("class_imbalance", sentence)


def compare_categories(train, val, findings):
    """Adds categories that aren't the same in two `validation.Examination`s."""
    train_names, val_names = (dict(_names(dataset)) for dataset in (train, val))
    for number in sorted(train_names.keys() | val_names.keys()):
        name, val_name = train_names.get(number), val_names.get(number)
        if name != val_name:
            pairs = ((name, train.source.path), (val_name, val.source.path))
            sources = [f"{text!r} in {file}" for text, file in pairs if text is not None]
            absent = "" if len(sources) == 2 else f" and absent from {(train if name is None else val).source.path}"
            findings.add("other_categories", number, f"Category {number} is {' and '.join(sources)}{absent}.")
    train_things, val_things = _thing_ids(train), _thing_ids(val)
    for number in sorted((train_things ^ val_things) & train_names.keys() & val_names.keys()):
        as_thing, as_stuff = (train, val) if number in train_things else (val, train)
        detail = f"is a thing in {as_thing.source.path} and stuff in {as_stuff.source.path}"
        findings.add("other_isthing", number, f"Category {number} ({train_names[number]!r}) {detail}.")


def _names(examination):
    """(id, name) of the usable category records."""
    for record in examination.source.categories:
        number = parse_integer(record.get("id")) if isinstance(record, dict) else None
        if number is not None and isinstance(record.get("name"), str | int | float):
            yield number, str(record["name"])


def _thing_ids(examination):
    """Ids of the categories that a json counts instances of; a json of instances does so for all."""
    if examination.annotations is None:
        return {category.id for category in examination.source.records.things}
    return {number for number, _ in _names(examination)}
