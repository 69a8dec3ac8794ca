"""A training set beside a validation set: pictures that are in both, and categories that aren't."""

from mrcnn_tf.datasets.doctor.findings import Findings
from mrcnn_tf.datasets.doctor.pictures import look_alikes, same_bytes, thumbnails


def compare(train, val, bars):
    """Looks for what makes results on a validation set wrong.

    Args:
        train, val: `Examination`s.
        bars: rich Progress.

    Returns:
        list of Finding about the validation set.
    """
    totals = {"image": len(val.source.images)}
    findings = Findings(val.source.path, totals)
    _compare_categories(train, val, findings)
    leaked = _compare_bytes(train, val, findings)
    rest = [row for row in range(val.images.ids.size) if row not in leaked]
    paths = [val.images.paths[row] for row in rest]
    looking = bars.add_task("Comparing pictures", total=len(paths) + len(train.images.paths))
    mine = thumbnails(paths, lambda number: bars.advance(looking, number))
    theirs = thumbnails(train.images.paths, lambda number: bars.advance(looking, number))
    for one, other in look_alikes(mine, theirs).tolist():
        number = int(val.images.ids[rest[one]])
        sentence = f"Image {number} in {val.source.path} ({paths[one]}) looks like {train.images.paths[other]}."
        findings.add("leaked_copy", number, sentence, paths[one])
    return findings.listed()


def _compare_bytes(train, val, findings):
    """Rows of validation images that are in the training set."""
    training = dict.fromkeys(train.images.paths)
    both = {path: one.images.headers[path] for one in (train, val) for path in one.images.paths}
    twin = {path: path for path in training}
    for group in same_bytes(both):
        source = next((path for path in group if path in training), None)
        twin.update((path, source) for path in group if source)
    leaked = {row for row, path in enumerate(val.images.paths) if path in twin}
    for row in sorted(leaked):
        path, number = val.images.paths[row], int(val.images.ids[row])
        sentence = f"Image {number} in {val.source.path} ({path}) is {twin[path]} of {train.source.path}."
        findings.add("leaked_image", number, sentence, path)
    return leaked


def _compare_categories(train, val, findings):
    names = [_names(one) for one in (train, val)]
    for number in sorted(names[0].keys() | names[1].keys()):
        mine, theirs = names[0].get(number), names[1].get(number)
        if mine != theirs:
            given = ((mine, train.source.path), (theirs, val.source.path))
            words = [f"{name!r} in {file}" for name, file in given if name is not None]
            missing = "" if len(words) == 2 else f" and absent from {(train if mine is None else val).source.path}"
            findings.add("other_categories", number, f"Category {number} is {' and '.join(words)}{missing}.")
    for number in sorted(_things(train) ^ _things(val)):
        if number in names[0] and number in names[1]:
            here, there = (train, val) if number in _things(train) else (val, train)
            words = f"is a thing in {here.source.path} and stuff in {there.source.path}"
            findings.add("other_isthing", number, f"Category {number} ({names[0][number]!r}) {words}.")


def _things(examination):
    """Ids of the categories that a json counts instances of, as one of instances does of all."""
    if examination.annotated is None:
        return {category.id for category in examination.source.records.things}
    return set(_names(examination))


def _names(examination):
    """{id: name} of the usable categories."""
    records = (one for one in examination.source.categories if isinstance(one, dict))
    return {one["id"]: one["name"] for one in records if type(one.get("id")) is int and type(one.get("name")) is str}
