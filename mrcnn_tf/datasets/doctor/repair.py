"""Writes a repaired copy of a json, record by record, and a log of everything that was changed in it."""

import collections
import dataclasses
import json
import os
import pathlib

import numpy as np
from rich.table import Table

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.common.json_stream import stream_arrays
from mrcnn_tf.common.json_values import parse_flag
from mrcnn_tf.common.problems import CONSOLE, progress_bars
from mrcnn_tf.config.load import load_config
from mrcnn_tf.datasets.coco_records import SECTIONS, parse_id
from mrcnn_tf.datasets.doctor.category_checks import repair_category
from mrcnn_tf.datasets.doctor.findings import PROBLEM_KINDS, Report
from mrcnn_tf.datasets.doctor.repair_plan import in_coco_form, make_plan, polygons_of
from mrcnn_tf.datasets.doctor.validation import drop_files_of_other_set, examine, find_similar

ROUNDS = 4  # what is brought into form in one may turn out to be wrong in the next
LOG = "fixes.jsonl"


@dataclasses.dataclass
class RepairResult:
    """What `repair` did.

    Attributes:
        report: the Report on the copies.
        files: {json: its repaired copy}.
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
        has_changes = self.changed or self.removed
        title = "Mended" if has_changes else "Nothing to mend"
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, show_header=bool(has_changes))
        table.add_column("kind")
        for name in ("changed", "removed"):
            table.add_column(name, justify="right")
        for kind in dict.fromkeys([*self.changed, *self.removed]):
            table.add_row(kind, *(f"{counts.get(kind, 0):,}" for counts in (self.changed, self.removed)))
        counts = self.report.counts
        table.caption = (
            f"Left: {counts['error']} kinds of errors, {counts['warning']} of warnings.\n"
            f"Copy: {', '.join(self.files.values())}\nLog:  {self.log}"
        )
        table.caption_justify, table.caption_style = "left", ""
        return table


def repair(report, out, config="mask_rcnn_r50_fpn", overrides=()):
    """Writes repaired copies of the jsons that a `Report` is about, and a log.

    What can't be used is removed, what can be told from the rest of the dataset is corrected (problem_kinds.yaml says
    how, by kind); all else stays as it is, also fields that COCO doesn't know. Image files aren't copied: file names
    stay relative to the same folder.

    Args:
        report: from `validate`.
        out: the folder to write to.
        config, overrides: as for `validate`.

    Returns:
        RepairResult.

    Raises:
        UserError: a copy would replace a json that is to be repaired, or one is a panoptic json.
    """
    for examination in report.examinations:
        if examination.annotations is None:
            raise UserError(
                f"{examination.source.path} is a panoptic json, which no repair knows: correct what the report lists."
            )
    out, settings = pathlib.Path(out), load_config(config, list(overrides))
    targets = _target_paths(report, out)
    counts = {"changed": collections.Counter(), "removed": collections.Counter()}
    repaired = []
    with (
        atomic_write(out / LOG) as temporary,
        open(temporary, "w", encoding="utf-8") as log,
        progress_bars(CONSOLE.is_terminal) as bars,
    ):
        for examination, target in zip(report.examinations, targets, strict=True):
            headers, thumbnails = examination.images.headers, examination.thumbnails
            for number in range(1, ROUNDS + 1):
                log_end = log.tell()
                fixer = RecordFixer(make_plan(examination), examination, _make_logger(log, number, target, counts))
                _write_repaired(examination.source.path, target, fixer)
                examination = examine(target, examination.source.folder, settings, bars, headers)
                can_go_on = any(PROBLEM_KINDS[finding.kind].fix for finding in examination.findings)
                if log.tell() == log_end or not can_go_on:
                    break
            if thumbnails is not None:
                find_similar(examination, bars, thumbnails)
            repaired.append(examination)
    paths = (examination.source.path for examination in report.examinations)
    files = {path: str(target) for path, target in zip(paths, targets, strict=True)}
    drop_files_of_other_set(repaired)
    changed, removed = dict(counts["changed"]), dict(counts["removed"])
    return RepairResult(Report(repaired, report.comparison), files, str(out / LOG), changed, removed)


def _target_paths(report, out):
    """The paths to write to, one for each dataset."""
    sources = [pathlib.Path(examination.source.path) for examination in report.examinations]
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        names = [f"{split}-{source.name}" for split, source in zip(("train", "val"), sources, strict=True)]
    targets = [out / name for name in names]
    for source in sources:
        for target in targets:
            if os.path.realpath(source) == os.path.realpath(target):
                raise UserError(f"The mended copy would replace {source}: give --out another folder.")
    return targets


def _make_logger(log, round_number, target, counts):
    """A function that writes a change to the log and counts it."""

    def write(kind, section, position, record, field=None, old=None, new=None):
        action = "changed" if field else "removed"
        counts[action][kind] += 1
        number = record.get("id") if isinstance(record, dict) else None
        entry = {"file": target.name, "round": round_number, "section": section, "position": position, "id": number}
        entry |= {"kind": kind, "action": action}
        entry |= {"field": field, "from": old, "to": new} if field else {"from": record}
        log.write(json.dumps(entry) + "\n")

    return write


class RecordFixer:
    """Carries out a RepairPlan of an Examination on the records of its json, which have to come in the file's order.

    `log` is a function(kind, section, position, record, field, old, new) that is told of each change; without a field
    the record is removed.
    """

    def __init__(self, plan, examination, log):
        self._plan, self._log, self._path = plan, log, examination.source.path
        self._positions = dict.fromkeys(SECTIONS, 0)
        self._used_categories = set(examination.source.records.category_ids)
        findings = (finding for finding in examination.findings if finding.kind == "background_category")
        self._background = {problem.record for finding in findings for problem in finding.problems}
        self._category_ids = set()

    def fix(self, section, record):
        """The record as it should be, or None if it is removed."""
        position = self._positions[section]
        self._positions[section] += 1
        methods = {"images": self._fix_image, "annotations": self._fix_annotation, "categories": self._fix_category}
        return methods[section](position, record)

    def _set(self, kind, section, position, record, **fields):
        """Changes fields of the record in place."""
        for field, value in fields.items():
            old = record.get(field)
            if type(old) is not type(value) or old != value:
                record[field] = value
                self._log(kind, section, position, record, field, old, value)

    def _replace(self, kind, section, position, record, repaired):
        """The repaired record; each field that differs is logged."""
        for field in dict.fromkeys([*record, *repaired]):
            old, new = record.get(field), repaired.get(field)
            if (field in record) != (field in repaired) or type(old) is not type(new) or old != new:
                self._log(kind, section, position, record, field, old, new)
        return repaired

    def _fix_image(self, position, record):
        kind = self._plan.removals["images"].get(position)
        if kind:
            return self._log(kind, "images", position, record)
        for kind, field, value in self._plan.changes["images"].get(position, []):
            self._set(kind, "images", position, record, **{field: value})
        return record

    def _fix_annotation(self, position, record):
        plan = self._plan
        image_id = parse_id(record.get("image_id")) if isinstance(record, dict) else None
        merged = plan.merged_images.get(image_id)
        kind = plan.removals["annotations"].get(position)
        kind = kind or plan.removed_images.get(image_id) or plan.removed_images.get(merged)
        if kind:
            return self._log(kind, "annotations", position, record)
        if position in plan.loose:
            fields = in_coco_form(record, plan.next_id)
            plan.next_id += fields.get("id") == plan.next_id
            self._set(plan.loose[position], "annotations", position, record, **fields)
        if merged is not None:
            self._set("shared_file", "annotations", position, record, image_id=merged)
        self._convert_layout(position, record)
        if position in plan.flat_polygons:
            flat, polygons = plan.flat_polygons[position], polygons_of(record)
            polygons = [polygon for number, polygon in enumerate(polygons) if number not in flat]
            self._set("flat_polygon", "annotations", position, record, segmentation=polygons)
        for kind, field, value in plan.changes["annotations"].get(position, []):
            self._set(kind, "annotations", position, record, **{field: value})
        if position in plan.cleared_keypoints:
            kind, cleared = plan.cleared_keypoints[position]
            self._set(kind, "annotations", position, record, **_clear_keypoints(record, cleared))
        if record.get("iscrowd", 0) not in (0, 1):
            self._set("crowd_value", "annotations", position, record, iscrowd=int(parse_flag(record["iscrowd"])))
        return record

    def _convert_layout(self, position, record):
        for kind, width, height in self._plan.layouts.get(position, []):
            if kind.endswith("polygons"):
                polygons = polygons_of(record)
                polygons = [_convert_points(polygon, kind, width, height) for polygon in polygons]
                self._set(kind, "annotations", position, record, segmentation=polygons)
            else:
                keypoints = list(record["keypoints"])
                for start in range(0, len(keypoints), 3):
                    if keypoints[start + 2] > 0:
                        keypoints[start : start + 2] = _convert_points(keypoints[start:][:2], kind, width, height)
                self._set(kind, "annotations", position, record, keypoints=keypoints)

    def _fix_category(self, position, record):
        repaired = repair_category(record, self._path)
        if repaired is None:
            return self._log("bad_category", "categories", position, record)
        number = repaired["id"]
        if number in self._category_ids:
            return self._log("duplicate_category", "categories", position, record)
        self._category_ids.add(number)
        if number in self._background and number not in self._used_categories:
            return self._log("background_category", "categories", position, record)
        only_unnamed = isinstance(record.get("name"), str) and repaired | {"name": record["name"]} == record
        kind = "unnamed_category" if only_unnamed else "bad_category"
        return self._replace(kind, "categories", position, record, repaired)


def _convert_points(coordinates, kind, width, height):
    """x and y by turns, read otherwise.

    Args:
        coordinates: list of numbers.
        kind: swapped_... exchanges x and y, normalised_... multiplies by the image's sides.
        width, height: pixels of the image.
    """
    if kind.startswith("swapped"):
        return [number for pair in zip(coordinates[1::2], coordinates[::2], strict=True) for number in pair]
    return [round(number * (height if index % 2 else width), 2) for index, number in enumerate(coordinates)]


def _clear_keypoints(record, cleared):
    """{"keypoints", "num_keypoints"} of an annotation with some keypoints set to zero.

    Args:
        record: the annotation; keypoints that aren't a list of the right length are all replaced.
        cleared: [P] bool, the keypoints that count as unlabelled.
    """
    keypoints = record.get("keypoints")
    is_complete = isinstance(keypoints, list) and len(keypoints) == 3 * len(cleared)
    keypoints = list(keypoints) if is_complete else [0] * (3 * len(cleared))
    for index in np.flatnonzero(cleared).tolist():
        keypoints[3 * index : 3 * index + 3] = [0, 0, 0]
    return {"keypoints": keypoints, "num_keypoints": sum(visibility > 0 for visibility in keypoints[2::3])}


def _write_repaired(source, target, fixer):
    """Streams the json at `source` through the RecordFixer into `target`."""
    with atomic_write(target) as temporary, open(temporary, "w", encoding="utf-8") as file:
        writer = _JsonWriter(file)
        for section, record in stream_arrays(source, SECTIONS, on_other=writer.write_value):
            writer.write_record(section, fixer.fix(section, record))
        writer.finish()


class _JsonWriter:
    """Writes a json object piece by piece, sections that arrive record by record as arrays."""

    def __init__(self, file):
        self._file, self._section, self._is_empty = file, None, True  # the section being written, if any
        self._written = set()
        file.write("{")

    def write_value(self, name, value):
        self._begin(name, json.dumps(value))

    def write_record(self, section, record):
        """Adds a record; None only begins the section."""
        if section != self._section:
            self._begin(section, "[")
            self._section, self._is_empty = section, True
        if record is not None:
            self._file.write(("\n" if self._is_empty else ",\n") + json.dumps(record))
            self._is_empty = False

    def finish(self):
        for section in SECTIONS:
            if section not in self._written:
                self.write_record(section, None)
        self._end_section()
        self._file.write("\n}\n")

    def _begin(self, name, text):
        self._end_section()
        self._file.write((",\n" if self._written else "\n") + json.dumps(name) + ": " + text)
        self._written.add(name)

    def _end_section(self):
        if self._section:
            self._file.write("]" if self._is_empty else "\n]")
            self._section = None
