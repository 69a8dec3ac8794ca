"""Writes a mended copy of a json, record by record, and a log of everything that was changed in it."""

import collections
import dataclasses
import json
import os
import pathlib

from rich.table import Table

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.common.json_stream import stream_arrays
from mrcnn_tf.config.load import load_config
from mrcnn_tf.datasets.doctor.examination import examine
from mrcnn_tf.datasets.doctor.kinds import KINDS
from mrcnn_tf.datasets.doctor.plan import (
    as_crowd,
    as_rings,
    make_plan,
    mended_annotation,
    mended_category,
    moved_points,
    unlabelled_keypoints,
)
from mrcnn_tf.datasets.doctor.reading import SECTIONS, progress_bars
from mrcnn_tf.datasets.doctor.validation import Report, forget_named

# Carries out a `Plan` on records as they pass by.
#

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


ROUNDS = 4  # what is brought into form in one may turn out to be wrong in the next
LOG = "fixes.jsonl"


@dataclasses.dataclass
class Repair:
    """What `repair` did.

    Attributes:
        report: the Report on the copies.
        files: {json: its mended copy}.
        log: path of the log: a line of json for each change.
        changed, removed: {kind: number of records}.
    """

    report: Report
    files: dict[str, str]
    log: str
    changed: dict[str, int]
    removed: dict[str, int]

    def to_json(self):
        """As a dict for json."""
        done = {"changed": self.changed, "removed": self.removed, "files": self.files, "log": self.log}
        return done | {"after": self.report.counts}

    def table(self):
        """What was done and what is left, a rich renderable."""
        table = Table(title="Mended", title_justify="left", box=None, pad_edge=False)
        table.add_column("kind")
        for name in ("changed", "removed"):
            table.add_column(name, justify="right")
        for kind in dict.fromkeys([*self.changed, *self.removed]):
            table.add_row(kind, *(f"{done.get(kind, 0):,}" for done in (self.changed, self.removed)))
        counts = self.report.counts
        table.caption = (
            f"Left: {counts['error']} kinds of errors, {counts['warning']} of warnings.\n"
            f"Copy: {', '.join(self.files.values())}\nLog:  {self.log}"
        )
        table.caption_justify, table.caption_style = "left", ""
        return table


def repair(report, out, config="mask_rcnn_r50_fpn", overrides=()):
    """Writes mended copies of the jsons that a `Report` is about, and a log.

    What can't be used is removed, what can be told from the rest of the dataset is corrected (`kinds.KINDS` says how,
    by kind); all else stays as it is, also fields that COCO doesn't know. Image files aren't copied: file names stay
    relative to the same folder.

    Args:
        report: from `validate`.
        out: the folder to write to.
        config, overrides: as for `validate`.

    Returns:
        Repair.

    Raises:
        UserError: a copy would replace a json that is to be mended, or one is a panoptic json.
    """
    for examination in report.examinations:
        if examination.annotated is None:
            raise UserError(
                f"{examination.source.path} is a panoptic json, which no repair knows: correct what the report lists."
            )
    out, settings = pathlib.Path(out), load_config(config, list(overrides))
    targets = _targets(report, out)
    counts = {"changed": collections.Counter(), "removed": collections.Counter()}
    after = []
    with atomic_write(out / LOG) as temporary, open(temporary, "w", encoding="utf-8") as log, progress_bars() as bars:
        for examination, target in zip(report.examinations, targets, strict=True):
            headers = examination.images.headers
            for number in range(1, ROUNDS + 1):
                before = log.tell()
                mender = Mender(make_plan(examination), examination, _logger(log, number, target, counts))
                _write(examination.source.path, target, mender)
                examination = examine(target, examination.source.folder, settings, bars, headers)
                if log.tell() == before or not any(KINDS[one.kind].mended for one in examination.findings):
                    break
            after.append(examination)
    files = {one.source.path: str(target) for one, target in zip(report.examinations, targets, strict=True)}
    forget_named(after)
    mended = Report(after, report.comparison)
    return Repair(mended, files, str(out / LOG), dict(counts["changed"]), dict(counts["removed"]))


def _targets(report, out):
    """The paths to write to, one for each dataset."""
    sources = [pathlib.Path(one.source.path) for one in report.examinations]
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        names = [f"{place}-{source.name}" for place, source in zip(("train", "val"), sources, strict=True)]
    targets = [out / name for name in names]
    for source in sources:
        for target in targets:
            if os.path.realpath(source) == os.path.realpath(target):
                raise UserError(f"The mended copy would replace {source}: give --out another folder.")
    return targets


def _logger(log, number, target, counts):
    """A function that writes a change to the log and counts it."""

    def write(kind, section, position, record, field=None, old=None, new=None):
        action = "changed" if field else "removed"
        counts[action][kind] += 1
        name = record.get("id") if isinstance(record, dict) else None
        entry = {"file": target.name, "round": number, "section": section, "position": position, "id": name}
        entry |= {"kind": kind, "action": action}
        entry |= {"field": field, "from": old, "to": new} if field else {"from": record}
        log.write(json.dumps(entry) + "\n")

    return write


def _write(source, target, mender):
    """Streams the json at `source` through the Mender into `target`."""
    with atomic_write(target) as temporary, open(temporary, "w", encoding="utf-8") as file:
        out = _Writer(file)
        for section, record in stream_arrays(source, SECTIONS, on_other=out.other):
            mended = mender.mend(section, record)
            out.element(section, mended)
        out.end()


class _Writer:
    """A json object written piece by piece, sections that arrive element by element as arrays."""

    def __init__(self, file):
        self._file = file
        self._open = None  # the section being written
        self._written = set()
        self._empty = True  # the section so far
        file.write("{")

    def other(self, name, value):
        self._begin(name)
        self._file.write(json.dumps(value))

    def element(self, section, record):
        """Adds a record; None only begins the section."""
        if section != self._open:
            self._begin(section)
            self._file.write("[")
            self._open, self._empty = section, True
        if record is not None:
            self._file.write(("\n" if self._empty else ",\n") + json.dumps(record))
            self._empty = False

    def end(self):
        for section in SECTIONS:
            if section not in self._written:
                self.element(section, None)
        self._close()
        self._file.write("\n}\n")

    def _begin(self, name):
        self._close()
        self._file.write((",\n" if self._written else "\n") + json.dumps(name) + ": ")
        self._written.add(name)

    def _close(self):
        if self._open:
            self._file.write("]" if self._empty else "\n]")
            self._open = None
