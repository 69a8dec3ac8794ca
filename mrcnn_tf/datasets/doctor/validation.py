"""What the doctor says, for people and for programs."""

import dataclasses
import json
import os

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.config.load import load_config
from mrcnn_tf.datasets.doctor.examination import Examination, examine
from mrcnn_tf.datasets.doctor.findings import Finding
from mrcnn_tf.datasets.doctor.kinds import KINDS
from mrcnn_tf.datasets.doctor.look_alikes import compare
from mrcnn_tf.datasets.doctor.maps import check_map_folder
from mrcnn_tf.datasets.doctor.panoptic import examine_panoptic
from mrcnn_tf.datasets.doctor.reading import check_sources, progress_bars
from mrcnn_tf.datasets.doctor.record_kinds import ERROR, SEVERITIES
from mrcnn_tf.datasets.panoptic import is_panoptic

_HEADINGS = {
    "error": ("Errors: training can't use these as they are", "red"),
    "warning": ("Warnings: training uses these, but something is probably wrong", "yellow"),
    "note": ("Notes", "cyan"),
}
NAMED = 3  # examples in a table


@dataclasses.dataclass
class Report:
    """The findings about one dataset, or about a training and a validation set.

    Attributes:
        examinations: one Examination for each dataset.
        comparison: list of Finding about both together; empty for one dataset.
    """

    examinations: list[Examination]
    comparison: list[Finding]

    @property
    def findings(self):
        """All of them, list of Finding."""
        return [finding for one in self.examinations for finding in one.findings] + self.comparison

    @property
    def counts(self):
        """{severity: number of kinds of problems}."""
        return {level: sum(finding.severity == level for finding in self.findings) for level in SEVERITIES}

    def has_errors(self):
        """Whether there is anything that training can't use."""
        return self.counts[ERROR] > 0

    def to_json(self):
        """Facts and findings with a few examples, as a dict for json."""
        datasets = [
            {"facts": one.facts, "findings": [finding.to_json() for finding in one.findings]}
            for one in self.examinations
        ]
        return {
            "counts": self.counts,
            "datasets": datasets,
            "comparison": [finding.to_json() for finding in self.comparison],
        }

    def write(self, path):
        """Writes `to_json` and every single problem to `path`, whole or not at all."""
        problems = [
            {"severity": finding.severity, **dataclasses.asdict(problem)}
            for finding in self.findings
            for problem in finding.problems
        ]
        with atomic_write(path) as file, open(file, "w", encoding="utf-8") as out:
            json.dump(self.to_json() | {"problems": problems}, out, indent=1, ensure_ascii=False)

    def table(self):
        """Everything for the screen, a rich renderable that fits into 80 columns."""
        parts = []
        for one in self.examinations:
            parts += [_heading(one.facts), *_groups(one.findings, one.source.path), Text()]
        if self.comparison:
            files = " and ".join(os.path.basename(one.source.path) for one in self.examinations)
            parts += [Text(f"{files} together", style="bold"), *_groups(self.comparison), Text()]
        counts = self.counts
        if not self.findings:
            parts.append(Text("Nothing wrong was found.", style="green"))
        else:
            words = (f"{counts[level]} {level if counts[level] == 1 else level + 's'}" for level in SEVERITIES)
            parts.append(Text(f"Kinds of problems: {', '.join(words)}."))
        return Group(*parts)


def _heading(facts):
    """A few lines about a dataset."""
    lines = [f"{_of(facts['usable_images'], facts['images'], 'images')}, {_objects(facts)}"]
    more = [(facts["crowds"], "crowds"), (facts.get("with_keypoints", 0), "with keypoints")]
    more = [f"{count:,} {name}" for count, name in more if count]
    if "largest_image" in facts:
        small, large = ("{} x {}".format(*facts[key]) for key in ("smallest_image", "largest_image"))
        more.append(f"images of {small} pixels" if small == large else f"images of {small} to {large} pixels")
        more.append(f"at most {facts['most_objects']:,} objects in one")
    lines.append(", ".join(more))
    classes = sorted(facts["classes"].items(), key=lambda pair: -pair[1])
    shown = ", ".join(f"{name.split(' ', 1)[1]} {count:,}" for name, count in classes[:6])
    rest = f" and {len(classes) - 6} more" if len(classes) > 6 else ""
    lines.append(f"{len(classes)} {'class' if len(classes) == 1 else 'classes'}: {shown}{rest}")
    title = Text(facts["annotations_file"], style="bold")
    return Group(title, *(Padding(Text(line), (0, 0, 0, 2)) for line in lines if line))


def _objects(facts):
    if "segments" in facts:
        return f"{_of(facts['usable_segments'], facts['segments'], 'segments')} ({facts['things']:,} of things)"
    masks = [(facts["polygons"], "polygons"), (facts["run_lengths"], "run lengths")]
    how = " and ".join(f"{count:,} as {name}" for count, name in masks if count) or "none with a mask"
    return f"{_of(facts['usable_annotations'], facts['annotations'], 'annotations')} ({how})"


def _of(usable, count, name):
    name = name[:-1] if count == 1 else name
    return f"{count:,} {name}" if usable == count else f"{usable:,} of {count:,} {name} usable"


def _groups(findings, file=""):
    """Headings and tables; that a record is in `file` goes without saying."""
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
            table.add_row(Text("-", style=style), _cell(finding, file))
        yield table


def _cell(finding, file):
    """A finding in three or four lines."""
    lines = [Text(f"{finding.title}  ", style="bold").append(f"[{finding.kind}]", style="dim not bold")]
    first, *others = finding.problems[: NAMED + 1]
    example = finding.sentence(first).replace(f" in {file}", "") if file else finding.sentence(first)
    names = [str(one.record) for one in others if one.record is not None]
    more = f" Also {', '.join(names)}{' ...' if finding.count > NAMED + 1 else ''}" if names else ""
    if finding.summary:
        lines.append(Text(finding.summary))
    if KINDS[finding.kind].unit != "dataset":
        lines.append(Text(f"E.g. {example}{more}"))
    elif not finding.summary:
        lines.append(Text(example))
    lines.append(Text("What to do: ", style="dim").append(finding.remedy + ".", style="not dim"))
    if finding.mended:
        lines.append(Text("--fix: ", style="dim").append(finding.mended + ".", style="not dim"))
    return Group(*lines)


# Looks a dataset over before it is trained on.
#

def validate(
    annotations,
    images,
    val=None,
    config="mask_rcnn_r50_fpn",
    overrides=(),
    headers=None,
    maps=None,
    val_maps=None,
):
    """Finds what is wrong with a COCO dataset: what training would skip, what is probably a mistake, what to know.

    Nothing is changed and TensorFlow isn't imported.

    Args:
        annotations: a COCO json, of instances or panoptic.
        images: the folder that its file names are relative to.
        val: (json, folder) of the validation set, which is looked over as well and compared: pictures in both, other
            categories. Then all pictures are decoded.
        config: name or path of the config to train by. Its resize rule, anchors, mask head and
            data.train.max_instances decide what is too small, too long or too much.
        overrides: of the config, such as "model.resize.min_size=512".
        headers: {path: data.image_files.ImageFile} of image files that an earlier examination has looked at.
        maps: the folder of a panoptic json's PNGs or, beside one of instances, of label maps, whose values are ids of
            its categories and of the config's model.stuff. All of them are read.
        val_maps: the same of the validation set.

    Returns:
        Report.

    Raises:
        UserError: a file or folder is missing, an archive, or not COCO's; or the config is wrong.
    """
    settings = load_config(config, list(overrides))
    with progress_bars() as bars:
        examinations = [_examine(annotations, images, maps, settings, bars, headers or {})]
        if val is None:
            return Report(examinations, [])
        examinations.append(_examine(*val, val_maps, settings, bars, headers or {}))
        forget_named(examinations)
        return Report(examinations, compare(*examinations, bars))


def _examine(annotations, images, maps, settings, bars, headers):
    check_sources(os.fspath(annotations), os.fspath(images))
    if maps:
        check_map_folder(maps)
    try:
        panoptic = is_panoptic(annotations)
    except UserError:
        panoptic = False  # whoever reads all of it says what is wrong
    if not panoptic:
        return examine(annotations, images, settings, bars, headers, maps)
    if not maps:
        raise UserError(f"{annotations} is a panoptic json: name the folder of its PNGs with --maps or --val-maps.")
    return examine_panoptic(annotations, images, maps, settings, bars, headers)


def forget_named(examinations):
    """Takes files that one json doesn't name but the other does out of the findings: both may share a folder."""
    named = {os.path.realpath(path) for one in examinations for path in one.images.headers}
    for one in examinations:
        for finding in one.findings:
            if finding.kind == "unlisted_file":
                finding.problems = [each for each in finding.problems if os.path.realpath(each.file) not in named]
        one.findings = [finding for finding in one.findings if finding.problems]
