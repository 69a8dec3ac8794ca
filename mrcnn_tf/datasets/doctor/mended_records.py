"""Carries out a `Plan` on records as they pass by."""

from mrcnn_tf.datasets.doctor.mending import (
    as_crowd,
    as_rings,
    mended_annotation,
    mended_category,
    moved_points,
    unlabelled_keypoints,
)
from mrcnn_tf.datasets.doctor.reading import SECTIONS


class Mender:
    """Mends the records of one json, which have to come in the order of the file.

    Args:
        plan: Plan.
        examination: the Examination that it was made from.
        log: function(kind, section, position, record, field, old, new) that is told of each change; without a field the
            record is removed.
    """

    def __init__(self, plan, examination, log):
        self._plan, self._log, self._path = plan, log, examination.source.path
        self._next = dict.fromkeys(SECTIONS, 0)
        self._used = set(examination.source.records.category_ids)
        self._background = {
            problem.record
            for finding in examination.findings
            if finding.kind == "background_category"
            for problem in finding.problems
        }
        self._category_ids = set()

    def mend(self, section, record):
        """The record as it should be, or None if it goes."""
        position = self._next[section]
        self._next[section] += 1
        mend = {"images": self._image, "annotations": self._annotation, "categories": self._category}
        return mend[section](position, record)

    def _set(self, kind, section, position, record, **fields):
        """Changes fields of the record in place."""
        for field, value in fields.items():
            old = record.get(field)
            if type(old) is not type(value) or old != value:
                record[field] = value
                self._log(kind, section, position, record, field, old, value)

    def _image(self, position, record):
        kind = self._plan.drop["images"].get(position)
        if kind:
            return self._log(kind, "images", position, record)
        for kind, field, value in self._plan.change["images"].get(position, []):
            self._set(kind, "images", position, record, **{field: value})
        return record

    def _annotation(self, position, record):
        plan = self._plan
        kind = plan.rejected.get(position)
        if kind:
            mended = mended_annotation(record, kind, plan.image_ids, plan.next_id)
            if mended is None:
                return self._log(kind, "annotations", position, record)
            plan.next_id += mended["id"] == plan.next_id
            record = self._changed(kind, "annotations", position, record, mended)
        kind = plan.drop["annotations"].get(position) or plan.dropped_images.get(record["image_id"])
        joined = plan.joined.get(record["image_id"])
        kind = kind or plan.dropped_images.get(joined)
        if kind:
            return self._log(kind, "annotations", position, record)
        if joined is not None:
            self._set("shared_file", "annotations", position, record, image_id=joined)
        self._move_points(position, record)
        if position in plan.rings:
            rings = [ring for n, ring in enumerate(as_rings(record["segmentation"])) if n not in plan.rings[position]]
            self._set("flat_polygon", "annotations", position, record, segmentation=rings)
        for kind, field, value in plan.change["annotations"].get(position, []):
            self._set(kind, "annotations", position, record, **{field: value})
        if position in plan.unlabelled:
            kind, zero = plan.unlabelled[position]
            fields = unlabelled_keypoints(record, zero)
            self._set(kind, "annotations", position, record, **fields)
        if record.get("iscrowd", 0) not in (0, 1):
            self._set("crowd_value", "annotations", position, record, iscrowd=as_crowd(record["iscrowd"]))
        return record

    def _changed(self, kind, section, position, record, mended):
        """The mended record; each field that differs is logged."""
        for field in dict.fromkeys([*record, *mended]):
            old, new = record.get(field), mended.get(field)
            if (field in record) != (field in mended) or type(old) is not type(new) or old != new:
                self._log(kind, section, position, record, field, old, new)
        return mended

    def _move_points(self, position, record):
        for kind, width, height in self._plan.layouts.get(position, []):
            if kind.endswith("polygons"):
                rings = [moved_points(ring, kind, width, height) for ring in as_rings(record["segmentation"])]
                self._set(kind, "annotations", position, record, segmentation=rings)
            else:
                triples = [record["keypoints"][place : place + 3] for place in range(0, len(record["keypoints"]), 3)]
                moved = [
                    [*moved_points(one[:2], kind, width, height), one[2]] if one[2] > 0 else one for one in triples
                ]
                keypoints = [number for one in moved for number in one]
                self._set(kind, "annotations", position, record, keypoints=keypoints)

    def _category(self, position, record):
        mended = mended_category(record, self._path)
        if mended is None:
            return self._log("bad_category", "categories", position, record)
        number = mended["id"]
        if number in self._category_ids:
            return self._log("duplicate_category", "categories", position, record)
        self._category_ids.add(number)
        if number in self._background and number not in self._used:
            return self._log("background_category", "categories", position, record)
        only_unnamed = isinstance(record.get("name"), str) and mended | {"name": record["name"]} == record
        kind = "unnamed_category" if only_unnamed else "bad_category"
        return self._changed(kind, "categories", position, record, mended)
