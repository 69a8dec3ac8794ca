"""The report: one HTML file with the figures, the pictures and the program that draws them, which needs no network."""

import base64
import bisect
import concurrent.futures
import dataclasses
import datetime
import hashlib
import html
import importlib.resources
import io
import json
import os
import pathlib
import re

from PIL import Image

from mrcnn_tf.common.environment import __version__
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.datasets.image_files import image_frame, inspect_file, read_pixels
from mrcnn_tf.explain.inspection.page_data import TOLERANCES, ObjectRecords, RegionRecords

BUDGET = 19_000_000  # characters of a report of up to `BUDGET_IMAGES` images; one of more may grow with them
BUDGET_IMAGES = 500
OUTLINES = 0.5  # of the budget that objects may take with fine outlines ...
MAX_OUTLINES = 0.8  # ... and with coarse ones, beyond which images are left away
MIN_PICTURE = 3000  # characters of an image's picture that there must be room for
SAMPLE_IMAGES = 24  # from which the size of all outlines, and of all thumbnails, is guessed
SPARE = 0.95  # of the budget for thumbnails, since the rest may be harder to compress than the sample
MAX_CURVES = 200  # classes with curves of their own, the most frequent ones
# (longer side in pixels, JPEG quality) from the best to the smallest; a phone's full width shows about 700 pixels.
THUMBNAIL_SIZES = (
    *((960, 85), (720, 82), (560, 80), (480, 75), (420, 70), (380, 65)),
    *((340, 60), (300, 55), (260, 50), (200, 45), (140, 40), (96, 35)),
)
SCRIPTS = (
    *("dom", "charts", "tables", "overlay", "gallery", "controls"),
    *("regions", "dataset", "model", "panoptic", "report"),
)


@dataclasses.dataclass
class ReportFile:
    """What a report came to."""

    path: pathlib.Path
    images: int  # shown
    unreadable: int  # of these, without a picture
    size: int  # bytes


def write_report(path, title, facts, truth, folder, statistics, findings=None, regions=None, limit=500, on_done=None):
    """Write the report of a dataset or, with findings, of a model, and give the `ReportFile`.

    Args:
        path: of the HTML file.
        title: its heading.
        facts: [(name, value), ...] strings below it, such as where data and model come from.
        truth: the `InstanceGroundTruth`.
        folder: that the file names of its images are relative to.
        statistics: `DatasetStatistics`.
        findings: the `Findings` of a model.
        regions: `RegionData` of data with segments or classes of pixels.
        limit: the most images to show: those with the gravest mistakes, or without a model some from all over the json.
        on_done: called after each picture that is made.

    Raises:
        UserError: not one picture can be read.
    """
    data = _describe(title, facts, truth, statistics, findings)
    sources = [ObjectRecords(truth, findings)]
    if regions:
        sources.append(RegionRecords(regions.shown, regions.findings))
        data["regions"] = _describe_regions(regions, sources[-1], truth)
    region_findings = regions.findings if regions else None
    chosen = _choose_images(truth.images, findings, region_findings, limit)
    room = BUDGET * max(1, min(limit, len(truth.images)) / BUDGET_IMAGES) - len(_to_script_json(data))
    records = _draw_images(sources, chosen, room)
    if region_findings and findings:
        # Images come by the quality of segments; those with objects have a ranking of their own.
        ranks = {ranked.image_id: rank for rank, ranked in enumerate(findings.ranking)}
        for record in records:
            record["rank"] = ranks.get(record["id"], len(ranks))
    if len(records) < len(chosen):
        data["notes"].append("More would make the file too large.")
    room -= sum(map(_json_size, records))
    thumbnails = _make_pictures(chosen[: len(records)], folder, room, on_done)
    unreadable = sum(thumbnail.address is None for thumbnail in thumbnails)
    if unreadable == len(records):
        raise UserError(
            f"No picture of {truth.source} can be shown, the first because {thumbnails[0].problem} "
            f"({os.path.join(folder, records[0]['file'])}): check the folder of the images."
        )
    for record, thumbnail in zip(records, thumbnails, strict=True):
        record |= {"picture": thumbnail.address, "problem": thumbnail.problem, "note": thumbnail.note}
    if unreadable:
        images = f"{unreadable} images" if unreadable > 1 else "1 image"
        data["notes"].append(f"{images} can't be read; grey fields are in their place.")
    with atomic_write(path) as file:
        file.write_text(render_page(title, data | {"images": records}), encoding="utf-8")
    return ReportFile(pathlib.Path(path), len(records), unreadable, os.path.getsize(path))


def render_page(title, data):
    """The page's HTML, of the window's title and what `page/report.js` reads, json types."""
    files = importlib.resources.files("mrcnn_tf.explain.inspection") / "page"
    style = files.joinpath("style.css").read_text(encoding="utf-8")
    scripts = [files.joinpath(f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    script = '"use strict";\n' + "\n".join(scripts)
    values = {
        "title": html.escape(title),
        # The browser is told to run and load nothing but these two and the pictures within the file.
        "policy": f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'",
        "style": style,
        "script": script,
        "data": _to_script_json(data),
    }
    template = files.joinpath("report.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match.group(1)], template)


def _to_script_json(data):
    """Json that can't end the script element it stands in: every "<" is written as an escape, non-ASCII too."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _json_size(record):
    return len(json.dumps(record, separators=(",", ":")))


def _digest(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


def _describe(title, facts, truth, statistics, findings):
    """Everything but the images and regions."""
    classes = [
        {"id": c["id"], "name": str(c.get("name", c["id"])), "skeleton": _skeleton(c)}
        for c in sorted(truth.categories, key=lambda category: category["id"])
    ]
    return {
        "title": title,
        "facts": facts,
        "made": datetime.date.today().isoformat(),
        "version": __version__,
        "classes": classes,
        "statistics": statistics.to_json(),
        "findings": _describe_findings(findings) if findings else None,
        "notes": [],
    }


def _skeleton(category):
    skeleton = category.get("skeleton")
    pairs = skeleton if isinstance(skeleton, list) else []
    return [pair for pair in pairs if isinstance(pair, list) and len(pair) == 2]


def _describe_findings(findings):
    curves = findings.curves.to_json()
    frequent = sorted(curves["classes"], key=lambda row: -row["truths"])[:MAX_CURVES]
    curves["classes"] = sorted(frequent, key=lambda row: row["id"])
    return findings.to_json() | {"curves": curves, "kind": findings.overlaps.kind}


def _describe_regions(regions, records, truth):
    results = regions.results and regions.results.to_json()
    return {
        "classes": records.classes(),
        "segments": regions.shown.has_segments,
        "objects": regions.truth.has_segments and regions.truth.source == truth.source,
        "statistics": regions.statistics.to_json(),
        "figures": results and {name: results[name] for name in ("panoptic", "semantic", "notes")},
    }


def _choose_images(images, findings, region_findings, limit):
    """The image records to show, in their order on the page."""
    if not findings and not region_findings:
        count = min(limit, len(images))
        return [images[index * len(images) // count] for index in range(count)]
    if region_findings:
        worst, judged = region_findings.ranking, ()
    else:
        worst, judged = [ranked.image_id for ranked in findings.ranking], set(findings.overlaps.image_ids)
    rest = {image["id"]: image for image in images}
    worst = [rest.pop(image_id) for image_id in worst if image_id in rest]
    return (worst + sorted(rest.values(), key=lambda image: image["id"] not in judged))[:limit]


def _draw_images(sources, images, room):
    """The images' records with outlines as fine as the room allows; fewer of them if there is too little.

    `sources` are `ObjectRecords` and, where there are regions, `RegionRecords`.
    """

    def draw(image, tolerance):
        return {key: value for source in sources for key, value in source.of_image(image, tolerance).items()}

    sample = images[:: -(-len(images) // SAMPLE_IMAGES)]
    share = OUTLINES * room / len(images)
    for tolerance in TOLERANCES:
        if sum(_json_size(draw(image, tolerance)) for image in sample) <= share * len(sample):
            break
    records, size = [], 0
    for image in images:
        records.append(draw(image, tolerance))
        size += _json_size(records[-1])
        full = size > MAX_OUTLINES * room or size + MIN_PICTURE * len(records) > room
        if full and len(records) > 1:
            return records[:-1]
    return records


@dataclasses.dataclass
class Thumbnail:
    """A JPEG as a `data:` address, or None with the reason in `problem`; `note` says what else is odd about it."""

    address: str | None
    problem: str = ""
    note: str = ""


def _make_pictures(images, folder, room, on_done):
    """A `Thumbnail` of each image record."""
    named = [image for image in images if image.get("file_name") and isinstance(image["file_name"], str)]
    paths = [os.path.join(folder, image["file_name"]) for image in named]
    made = encode_thumbnails(paths, [(image["height"], image["width"]) for image in named], room, on_done)
    by_id = {image["id"]: thumbnail for image, thumbnail in zip(named, made, strict=True)}
    return [by_id.get(image["id"]) or Thumbnail(None, "the json gives it no file_name") for image in images]


def encode_thumbnails(paths, frames, budget, on_done=None):
    """A `Thumbnail` of each image file, which together stay within a budget.

    Args:
        paths: image files.
        frames: a (height, width) for each, the pixels that the dataset's coordinates count.
        budget: characters of all addresses together.
        on_done: called after each of them.
    """
    pairs = list(zip(paths, frames, strict=True))
    choice = _guess_size(pairs[:: -(-len(pairs) // SAMPLE_IMAGES) or 1], SPARE * budget / max(1, len(pairs)))
    while True:
        thumbnails = []
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for thumbnail in pool.map(lambda pair, size=THUMBNAIL_SIZES[choice]: encode_thumbnail(*pair, *size), pairs):
                thumbnails.append(thumbnail)
                if on_done:
                    on_done()
        size = sum(len(thumbnail.address or "") for thumbnail in thumbnails)
        if choice == len(THUMBNAIL_SIZES) - 1 or size <= budget:
            return thumbnails
        choice += 1


def encode_thumbnail(path, frame, side, quality):
    """A file as a `Thumbnail` of at most `side` pixels; never enlarged. An unreadable one is no error.

    Args:
        path: the image file.
        frame: (height, width) as the dataset has it. An EXIF orientation is applied unless that is the size of the
            image without it.
        side, quality: of the JPEG.
    """
    picture, remark = _read_picture(path, frame, side)
    if picture is None:
        return Thumbnail(None, remark)
    return Thumbnail(_to_address(picture, frame, side, quality), "", remark)


def _guess_size(pairs, share):
    """Index of the first of `THUMBNAIL_SIZES` whose thumbnails of these files have `share` characters on average."""
    pictures = [(_read_picture(path, frame, THUMBNAIL_SIZES[0][0])[0], frame) for path, frame in pairs]
    pictures = [(picture, frame) for picture, frame in pictures if picture]

    def fits(size):
        return sum(len(_to_address(*picture, *size)) for picture in pictures) <= share * len(pictures)

    return min(bisect.bisect_left(THUMBNAIL_SIZES, True, key=fits), len(THUMBNAIL_SIZES) - 1)


def _read_picture(path, frame, side):
    """(PIL image of at most `side` pixels in the frame's proportions, a remark), or (None, what is wrong)."""
    image = inspect_file(path)
    if image.problem:
        return None, f"the file {image.problem[1]}"
    fitting = image_frame(image, *frame)
    try:
        pixels = read_pixels(path, fitting[2] if fitting else image.orientation, side)
    except OSError:
        return None, "the file is cut off or damaged"
    remark = "" if fitting else f"the file has {image.width} x {image.height} pixels, the json says otherwise"
    return _shrink(Image.fromarray(pixels), frame, side), remark


def _shrink(picture, frame, side):
    scale = min(1, side / max(frame))
    size = max(1, round(frame[1] * scale)), max(1, round(frame[0] * scale))
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _to_address(picture, frame, side, quality):
    buffer = io.BytesIO()
    _shrink(picture, frame, side).save(buffer, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
