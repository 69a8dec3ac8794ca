"""What validation reports: the kinds of problems, the findings about a dataset, and their table on the screen."""

import collections
import dataclasses
import json
import os
import pathlib

import yaml
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.common.problems import Problem

SEVERITIES = ("error", "warning", "note")
EXAMPLES_IN_JSON = 5  # of each finding
MORE_IN_TABLE = 3  # records that the table names after its example
CLASSES_IN_TABLE = 6

_HEADINGS = {
    "error": ("Errors: training can't use these as they are", "red"),
    "warning": ("Warnings: training uses these, but something is probably wrong", "yellow"),
    "note": ("Notes", "cyan"),
}


@dataclasses.dataclass(frozen=True)
class ProblemKind:
    """A kind of problem. `section` is its part of problem_kinds.yaml, whose head explains the other fields."""

    section: str
    severity: str
    unit: str
    title: str
    remedy: str
    fix: str = ""


def _read_kinds():
    text = (pathlib.Path(__file__).parent / "problem_kinds.yaml").read_text(encoding="utf-8")
    sections = yaml.safe_load(text).items()
    return {name: ProblemKind(section, **fields) for section, kinds in sections for name, fields in kinds.items()}


PROBLEM_KINDS = _read_kinds()  # {name: ProblemKind}, in the file's order


@dataclasses.dataclass
class Finding:
    """All problems of one kind in one dataset.

    Attributes:
        kind: a key of PROBLEM_KINDS.
        severity: "error", "warning" or "note".
        problems: list of Problem, one for each record (for the unit "dataset", only one).
        total: how many such records the dataset has; 0 where that says nothing.
        summary: a sentence with more figures, or "".
        remedy: what to do.
        fix: what `--fix` does; empty where it does nothing.
        messages_have_remedy: the problems' messages end with a remedy of their own, after a colon.
    """

    kind: str
    severity: str
    problems: list[Problem]
    total: int
    summary: str
    remedy: str
    fix: str
    messages_have_remedy: bool

    @property
    def count(self):
        return len(self.problems)

    @property
    def title(self):
        """Such as "12 of 3,000 annotations (0.4 %) with a bbox outside the image"."""
        kind = PROBLEM_KINDS[self.kind]
        if kind.unit == "dataset":
            return f"The dataset {kind.title}"
        units = {"category": "categories"}.get(kind.unit, kind.unit + "s")
        if not self.total:
            return f"{self.count:,} {kind.unit if self.count == 1 else units} {kind.title}"
        return f"{self.count:,} of {self.total:,} {units} ({format_percentage(self.count, self.total)}) {kind.title}"

    def sentence(self, problem):
        """What is wrong with one record, without the remedy."""
        return f"{problem.message.rsplit(': ', 1)[0]}." if self.messages_have_remedy else problem.message

    def to_json(self):
        return {
            "kind": self.kind,
            "severity": self.severity,
            "count": self.count,
            "of": self.total,
            "title": self.title,
            "summary": self.summary,
            "remedy": self.remedy,
            "fix": self.fix,
            "examples": [dataclasses.asdict(problem) for problem in self.problems[:EXAMPLES_IN_JSON]],
        }


def format_percentage(count, total):
    """Such as "12 %"; never 0 % of something, nor 100 % of less than all."""
    percent = 100 * count / total
    if 0 < percent < 0.1:
        return "under 0.1 %"
    digits = 1 if percent < 10 or 99 < percent < 100 else 0
    if percent < 100 and round(percent, digits) == 100:
        return "over 99.9 %"
    return f"{percent:.{digits}f} %"


class Findings:
    """Collects the problems of a dataset in any order and gives them by kind.

    Args:
        file: the json they are about.
        totals: {unit: number of such records in the dataset}.
        is_repairable: whether `--fix` repairs such files.
    """

    def __init__(self, file, totals, is_repairable=True):
        self.file = file
        self._totals, self._is_repairable = totals, is_repairable
        self._problems = collections.defaultdict(list)
        self._explanations = {}
        self._with_remedy = set()  # kinds whose messages end with one

    def extend(self, problems):
        """Adds a list of Problem from the loader, whose messages end with a remedy."""
        for problem in problems:
            self._problems[problem.kind].append(problem)
            self._with_remedy.add(problem.kind)

    def add(self, kind, record, sentence, file=None):
        """Adds a problem of one record; `sentence` says what is wrong."""
        self._problems[kind].append(Problem(kind, record, file or self.file, sentence))

    def explain(self, kind, summary="", severity=None, remedy=None):
        """Says more about a kind: figures, and what differs from problem_kinds.yaml."""
        self._explanations[kind] = (summary, severity, remedy)

    def __contains__(self, kind):
        return kind in self._problems

    def to_list(self):
        """list of Finding, in the order of problem_kinds.yaml."""
        findings = []
        for name, kind in PROBLEM_KINDS.items():
            if name in self._problems:
                summary, severity, remedy = self._explanations.get(name, ("", None, None))
                texts = summary, remedy or kind.remedy, kind.fix if self._is_repairable else ""
                problems, total = self._problems[name], self._totals.get(kind.unit, 0)
                has_remedy = name in self._with_remedy
                findings.append(Finding(name, severity or kind.severity, problems, total, *texts, has_remedy))
        return findings


@dataclasses.dataclass
class Report:
    """The findings about one dataset, or about a training and a validation set.

    Attributes:
        examinations: one `validation.Examination` for each dataset.
        comparison: list of Finding about both together; empty for one dataset.
    """

    examinations: list
    comparison: list[Finding]

    @property
    def findings(self):
        """All of them, list of Finding."""
        return [finding for dataset in self.examinations for finding in dataset.findings] + self.comparison

    @property
    def counts(self):
        """{severity: number of kinds of problems}."""
        return {level: sum(finding.severity == level for finding in self.findings) for level in SEVERITIES}

    def has_errors(self):
        """Whether there is anything that training can't use."""
        return self.counts["error"] > 0

    def to_json(self):
        """Facts and findings with a few examples, as a dict for json."""
        datasets = [
            {"facts": dataset.facts, "findings": [finding.to_json() for finding in dataset.findings]}
            for dataset in self.examinations
        ]
        comparison = [finding.to_json() for finding in self.comparison]
        return {"counts": self.counts, "datasets": datasets, "comparison": comparison}

    def write(self, path):
        """Writes `to_json` and every single problem to `path`, whole or not at all."""
        problems = [
            {"severity": finding.severity, **dataclasses.asdict(problem)}
            for finding in self.findings
            for problem in finding.problems
        ]
        with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
            json.dump(self.to_json() | {"problems": problems}, file, indent=1, ensure_ascii=False)

    def table(self):
        """Everything for the screen, a rich renderable that fits into 80 columns."""
        blocks = []
        for dataset in self.examinations:
            blocks += [_dataset_heading(dataset.facts), *_tables(dataset.findings, dataset.source.path), Text()]
        if self.comparison:
            files = " and ".join(os.path.basename(dataset.source.path) for dataset in self.examinations)
            blocks += [Text(f"{files} together", style="bold"), *_tables(self.comparison), Text()]
        if not self.findings:
            blocks.append(Text("Nothing wrong was found.", style="green"))
        else:
            counts = (f"{count} {level if count == 1 else level + 's'}" for level, count in self.counts.items())
            blocks.append(Text(f"Kinds of problems: {', '.join(counts)}."))
        return Group(*blocks)


def _dataset_heading(facts):
    """A few lines about a dataset."""
    details = [(facts["crowds"], "crowds"), (facts.get("with_keypoints", 0), "with keypoints")]
    details = [f"{count:,} {name}" for count, name in details if count]
    if "largest_image" in facts:
        small, large = ("{} x {}".format(*facts[key]) for key in ("smallest_image", "largest_image"))
        details.append(f"images of {small} pixels" if small == large else f"images of {small} to {large} pixels")
        details.append(f"at most {facts['most_objects']:,} objects in one")
    classes = sorted(facts["classes"].items(), key=lambda pair: -pair[1])
    shown = ", ".join(f"{name.split(' ', 1)[1]} {count:,}" for name, count in classes[:CLASSES_IN_TABLE])
    others = len(classes) - CLASSES_IN_TABLE
    lines = [
        f"{_usable_count(facts['usable_images'], facts['images'], 'images')}, {_object_count(facts)}",
        ", ".join(details),
        f"{len(classes)} {'class' if len(classes) == 1 else 'classes'}: {shown}"
        + (f" and {others} more" if others > 0 else ""),
        "" if facts.get("similar_pictures_sought", True) else "Near copies weren't looked for: add --similar.",
    ]
    title = Text(facts["annotations_file"], style="bold")
    return Group(title, *(Padding(Text(line), (0, 0, 0, 2)) for line in lines if line))


def _object_count(facts):
    if "segments" in facts:
        segments = _usable_count(facts["usable_segments"], facts["segments"], "segments")
        return f"{segments} ({facts['things']:,} of things)"
    masks = [(facts["polygons"], "polygons"), (facts["run_lengths"], "run lengths")]
    forms = " and ".join(f"{count:,} as {name}" for count, name in masks if count) or "none with a mask"
    return f"{_usable_count(facts['usable_annotations'], facts['annotations'], 'annotations')} ({forms})"


def _usable_count(usable, count, plural):
    name = plural[:-1] if count == 1 else plural
    return f"{count:,} {name}" if usable == count else f"{usable:,} of {count:,} {name} usable"


def _tables(findings, file=""):
    """Headings and tables by severity; that a record is in `file` isn't repeated."""
    for level in SEVERITIES:
        chosen = [finding for finding in findings if finding.severity == level]
        if not chosen:
            continue
        heading, style = _HEADINGS[level]
        yield Text()
        yield Text(heading, style=f"bold {style}")
        table = Table(show_header=False, box=None, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column(width=1)
        table.add_column(overflow="fold")
        for finding in chosen:
            table.add_row(Text("-", style=style), _table_cell(finding, file))
        yield table


def _table_cell(finding, file):
    """A finding in three or four lines."""
    lines = [Text(f"{finding.title}  ", style="bold").append(f"[{finding.kind}]", style="dim not bold")]
    first, *others = finding.problems[: MORE_IN_TABLE + 1]
    example = finding.sentence(first).replace(f" in {file}", "") if file else finding.sentence(first)
    ids = [str(problem.record) for problem in others if problem.record is not None]
    more = f" Also {', '.join(ids)}{' ...' if finding.count > MORE_IN_TABLE + 1 else ''}" if ids else ""
    if finding.summary:
        lines.append(Text(finding.summary))
    if PROBLEM_KINDS[finding.kind].unit != "dataset":
        lines.append(Text(f"E.g. {example}{more}"))
    elif not finding.summary:
        lines.append(Text(example))
    lines.append(Text("What to do: ", style="dim").append(finding.remedy + ".", style="not dim"))
    if finding.fix:
        lines.append(Text("--fix: ", style="dim").append(finding.fix + ".", style="not dim"))
    return Group(*lines)
