"""Problems gathered by kind, and the facts about a dataset that go above them."""

import collections
import dataclasses

import numpy as np

from mrcnn_tf.common.problems import Problem
from mrcnn_tf.datasets.annotation_checks import Checker
from mrcnn_tf.datasets.doctor.kinds import KINDS
from mrcnn_tf.datasets.doctor.masks import Outlines
from mrcnn_tf.datasets.doctor.reading import Records

EXAMPLES = 5  # of each finding, in its json


@dataclasses.dataclass
class Finding:
    """All problems of one kind in one dataset.

    Attributes:
        kind: a key of `kinds.KINDS`.
        severity: "error", "warning" or "note".
        problems: list of Problem, one for each record (none where `Kind.unit` is "dataset").
        of: how many such records the dataset has; 0 where that says nothing.
        summary: a sentence with more figures, or "".
        remedy: what to do.
        advised: the problems' messages end with a remedy of their own, after a colon.
        mended: what `--fix` does; empty where it does nothing.
    """

    kind: str
    severity: str
    problems: list[Problem]
    of: int
    summary: str
    remedy: str
    advised: bool
    mended: str

    @property
    def count(self):
        return len(self.problems)

    @property
    def title(self):
        """Such as "12 of 3,000 annotations (0.4 %) with a bbox outside the image"."""
        kind = KINDS[self.kind]
        if kind.unit == "dataset":
            return f"The dataset {kind.title}"
        units = {"category": "categories"}.get(kind.unit, kind.unit + "s")
        if not self.of:
            return f"{self.count:,} {kind.unit if self.count == 1 else units} {kind.title}"
        return f"{self.count:,} of {self.of:,} {units} ({share(self.count, self.of)}) {kind.title}"

    def sentence(self, problem):
        """What is wrong with one record, without the remedy."""
        return f"{problem.message.rsplit(': ', 1)[0]}." if self.advised else problem.message

    def to_json(self):
        return {
            "kind": self.kind,
            "severity": self.severity,
            "count": self.count,
            "of": self.of,
            "title": self.title,
            "summary": self.summary,
            "remedy": self.remedy,
            "fix": self.mended,
            "examples": [dataclasses.asdict(problem) for problem in self.problems[:EXAMPLES]],
        }


def share(count, of):
    """Such as "12 %"; never 0 % of something, nor 100 % of less than all."""
    percent = 100 * count / of
    if 0 < percent < 0.1:
        return "under 0.1 %"
    digits = 1 if percent < 10 or 99 < percent < 100 else 0
    if percent < 100 and round(percent, digits) == 100:
        return "over 99.9 %"
    return f"{percent:.{digits}f} %"


class Findings:
    """Takes problems in any order and gives them by kind.

    Args:
        file: the json they are about.
        totals: {unit: number of such records in the dataset}.
        mendable: whether `--fix` mends such files.
    """

    def __init__(self, file, totals, mendable=True):
        self.file = file
        self._totals, self._mendable = totals, mendable
        self._problems = collections.defaultdict(list)
        self._more = {}
        self._advised = set()

    def extend(self, problems):
        """Takes a list of Problem from the loader, whose messages end with a remedy."""
        for problem in problems:
            self._problems[problem.kind].append(problem)
            self._advised.add(problem.kind)

    def add(self, kind, record, sentence, file=None):
        """Takes a problem of one record; `sentence` says what is wrong."""
        self._problems[kind].append(Problem(kind, record, file or self.file, sentence))

    def explain(self, kind, summary="", severity=None, remedy=None):
        """More about a kind: figures, and what differs from the catalogue."""
        self._more[kind] = (summary, severity, remedy)

    def __contains__(self, kind):
        return kind in self._problems

    def listed(self):
        """list of Finding, the worst first, in the catalogue's order."""
        found = []
        for kind, entry in KINDS.items():
            if kind in self._problems:
                summary, severity, remedy = self._more.get(kind, ("", None, None))
                of = self._totals.get(entry.unit, 0)
                severity, remedy = severity or entry.severity, remedy or entry.remedy
                advised = kind in self._advised
                mended = entry.mended if self._mendable else ""
                found.append(Finding(kind, severity, self._problems[kind], of, summary, remedy, advised, mended))
        return found


# What is known of the annotations when they are looked at one by one: columns, masks, images, and what is wrong.
#

@dataclasses.dataclass
class Annotated:
    """The annotations of a dataset, T of them with columns.

    Attributes:
        records: reading.Records.
        checker: data.checks.Checker; `kept` says which annotations are usable, `boxes` are their clipped corners.
        outlines: Outlines of all T.
        findings: where problems go.
        rows: {kind: rows of the annotations that have it}.
    """

    records: Records
    checker: Checker
    outlines: Outlines
    findings: Findings
    rows: dict[str, np.ndarray]

    def note(self, kind, chosen, sentence, **columns):
        """A problem for each of the `chosen` [T] bool annotations.

        Args:
            kind: of `annotation_kinds.ANNOTATIONS`.
            chosen: [T] bool.
            sentence: goes on after "Annotation 5 in a.json " and may use {image}, {category} and the `columns` [T] by
                name.
        """
        columns = {"image": self.checker.image_ids, "category": self.checker.category_ids, **columns}
        rows = np.flatnonzero(chosen)
        if rows.size:
            self.rows[kind] = rows
        for row in rows.tolist():
            record, file, name = self.records.whereabouts(row)
            detail = sentence.format(**{key: column[row] for key, column in columns.items()})
            self.findings.add(kind, record, f"{name} {detail}.", file)

    def turn_away(self, kind, chosen, sentence, **columns):
        """As `note`, for annotations that can't be used."""
        chosen = chosen & self.checker.kept
        self.note(kind, chosen, sentence, **columns)
        self.checker.kept &= ~chosen
