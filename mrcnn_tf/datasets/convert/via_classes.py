"""Which of a VIA region's attributes is its class."""

from mrcnn_tf.common.errors import UserError

LIKELY = ("class", "class_name", "label", "category", "name", "type", "object")


class RegionClasses:
    """Finds the attribute once and reads the class of each region.

    Args:
        content: the file's json; a project describes its attributes and what their options stand for.
        entries: list of the images' records.
        source: the file, for messages.
        attribute: the attribute's name; None to find it: the only one that has values, or the only likely one.
        class_name: the class of all regions, instead of an attribute.

    Raises:
        UserError: there is no such attribute, none at all, or several.
    """

    def __init__(self, content, entries, source, attribute=None, class_name=None):
        self._class_name = class_name
        if class_name:
            return
        examples = _examples(entries)
        self._attribute = attribute or _only_one(examples, source)
        if self._attribute not in examples:
            known = ", ".join(map(repr, examples)) or "none"
            raise UserError(f"No region of {source} has the attribute {attribute!r}: the file has {known}.")
        described = content.get("_via_attributes") if isinstance(content, dict) else None
        region = described.get("region") if isinstance(described, dict) else None
        attribute = region.get(self._attribute) if isinstance(region, dict) else None
        options = attribute.get("options") if isinstance(attribute, dict) else None
        self._options = options if isinstance(options, dict) else {}

    def label(self, region, where, dataset):
        """The class of a region; None, and a note in the dataset, if it has none or several."""
        if self._class_name:
            return self._class_name
        attributes = region.get("region_attributes")
        chosen = _chosen(attributes.get(self._attribute) if isinstance(attributes, dict) else None)
        if len(chosen) != 1:
            kind, what = ("several_classes", f"is {' and '.join(chosen)}") if chosen else ("no_class", "has no value")
            message = f"{where} in {dataset.source} {what} in {self._attribute!r} and was left out: choose one class."
            dataset.leave_out(kind, dataset.source, message, where)
            return None
        # As in VIA's own COCO export, an option goes by its description where it has one.
        described = self._options.get(chosen[0])
        return described if isinstance(described, str) and described.strip() else chosen[0]


def _examples(entries):
    """dict attribute -> one of its values, of all attributes that some region has a value of."""
    examples = {}
    for entry in entries:
        regions = entry.get("regions") or []
        for region in regions.values() if isinstance(regions, dict) else regions:
            attributes = region.get("region_attributes") if isinstance(region, dict) else None
            for name, value in (attributes if isinstance(attributes, dict) else {}).items():
                if name not in examples and (chosen := _chosen(value)):
                    examples[name] = chosen[0]
    return examples


def _only_one(examples, source):
    likely = [name for name in examples if name.strip().lower() in LIKELY]
    candidates = list(examples) if len(examples) == 1 else likely
    if len(candidates) == 1:
        return candidates[0]
    if not examples:
        raise UserError(
            f"No region of {source} has an attribute with a value: name the class of all by --class-name NAME."
        )
    listed = ", ".join(f"{name!r} (such as {value!r})" for name, value in examples.items())
    raise UserError(
        f"Regions of {source} have several attributes, {listed}: say which is the class by --class-attribute."
    )


def _chosen(value):
    """The options that an attribute's value names: a text is one, a checkbox has any number."""
    if isinstance(value, dict):
        return [name for name, checked in value.items() if checked]
    if isinstance(value, bool) or value is None:
        return []
    return [str(value).strip()] if str(value).strip() else []
