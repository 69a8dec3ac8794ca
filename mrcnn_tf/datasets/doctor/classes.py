"""The categories of a json: malformed, repeated or suspicious ones, and how many objects each has."""

import unicodedata

import numpy as np

from mrcnn_tf.common.categories import UNUSED, Category, parse_categories
from mrcnn_tf.common.errors import UserError

RARE = 10  # objects; with fewer a class will hardly be learnt
IMBALANCE = 50  # times as many objects of one class as of another

# Where no category can be used, annotations are checked against one that none of them can have.
NOBODY = Category(-(2**62), "")


def check_categories(records, path, findings):
    """The usable categories of a json.

    Args:
        records: list, "categories" of the json.
        path: the json.
        findings: Findings, to which what is wrong is added.

    Returns:
        list of `Category` sorted by id, never empty (`NOBODY`).
    """
    usable, names = {}, {}
    for record in records:
        try:
            (category,) = parse_categories([record], path)
        except UserError as error:
            number = record.get("id") if isinstance(record, dict) else None
            findings.add("bad_category", number, str(error))
            continue
        where = f"Category {category.id} ({category.name!r}) in {path}"
        if category.id in usable:
            other = usable[category.id].name
            findings.add("duplicate_category", category.id, f"{where} has the id of {other!r}.")
            continue
        usable[category.id] = category
        _check_name(category, where, names, findings)
        if category.id == 0:
            findings.add("category_zero", 0, f"{where} has the id 0.")
    if not usable:
        findings.add("no_categories", None, f"{path} has no usable category.")
        return [NOBODY]
    return sorted(usable.values(), key=lambda category: category.id)


def _check_name(category, where, names, findings):
    key = unicodedata.normalize("NFKC", category.name).strip().casefold()
    if not key:
        findings.add("unnamed_category", category.id, f"{where} has an empty name.")
    elif key in names and category.name != UNUSED:
        findings.add("repeated_name", category.id, f"{where} is named like category {names[key]}.")
    elif key in ("background", "_background_", "__background__", "bg"):
        findings.add("background_category", category.id, f"{where} means what isn't an object.")
    names.setdefault(key, category.id)


def check_balance(annotated, categories):
    """Adds classes of an `Annotated` without or with few objects.

    Args:
        annotated: Annotated.
        categories: list of K `Category`s.

    Returns:
        [K] int64, usable objects of each; crowds don't count.
    """
    checker, findings = annotated.checker, annotated.findings
    place = checker.place[checker.kept & ~checker.crowd]
    counts = np.bincount(place, minlength=len(categories))
    check_counts(counts, categories, findings, "annotation")
    if checker.kept.any() and not place.size:
        findings.add("all_crowd", None, f"All usable annotations of {findings.file} are crowds.")
    return counts


def check_counts(counts, categories, findings, unit, rare=RARE):
    """Adds classes without or with few objects, and a great imbalance.

    Args:
        counts: [K] int64, usable objects.
        categories: list of K `Category`s.
        findings: Findings.
        unit: what objects are called there, "annotation" or "segment".
        rare: a class with fewer will hardly be learnt; 0 for classes of which the number says nothing.
    """
    for category, count in zip(categories, counts.tolist(), strict=True):
        where = f"Category {category.id} ({category.name!r}) in {findings.file}"
        if count == 0 and category.name != UNUSED and category is not NOBODY:
            findings.add("empty_class", category.id, f"{where} has no usable {unit}.")
        elif 0 < count < rare:
            findings.add("rare_class", category.id, f"{where} has {count} usable {unit}s.")
    if not rare:
        return
    some = np.flatnonzero(counts >= RARE)
    if some.size and counts[some].max() > IMBALANCE * counts[some].min():
        most, least = (int(some[pick]) for pick in (counts[some].argmax(), counts[some].argmin()))
        sentence = (
            f"{categories[most].name!r} has {counts[most]:,} usable {unit}s "
            f"({counts[most] / counts.sum():.0%}), {categories[least].name!r} {counts[least]:,}."
        )
        findings.add("class_imbalance", None, sentence)
        findings.explain("class_imbalance", sentence)
