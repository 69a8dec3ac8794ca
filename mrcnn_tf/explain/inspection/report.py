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
import re

from PIL import Image, ImageOps

from mrcnn_tf.common.environment import __version__
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.datasets.image_files import rgb_pixels
from mrcnn_tf.explain.inspection.page_data import TOLERANCES, ObjectRecords, RegionRecords

# Small JPEGs of a dataset's images, as large as a page's budget allows.
#

# (longer side in pixels, JPEG quality) from the best to the smallest; a phone's full width shows about 700 pixels.
THUMBNAIL_SIZES = (
    (960, 85),
    (720, 82),
    (560, 80),
    (480, 75),
    (420, 70),
    (380, 65),
    (340, 60),
    (300, 55),
    (260, 50),
    (200, 45),
    (140, 40),
    (96, 35),
)
SAMPLE_IMAGES = 24  # images from which the sizes of all are guessed
SPARE = 0.95  # of the budget, since the rest may be harder to compress than the sample


@dataclasses.dataclass
class Thumbnail:
    """A JPEG as a `data:` address, or None with the reason in `problem`; `note` says what else is odd about it."""

    address: str | None
    problem: str = ""
    note: str = ""


def make_thumbnails(paths, frames, budget, on_done=None):
    """Thumbnails of image files that together stay within a budget.

    Args:
        paths: image files.
        frames: a (height, width) for each, the pixels that the dataset's coordinates count.
        budget: characters of all addresses together.
        on_done: called after each of them.

    Returns:
        list of Thumbnail, in the paths' order.
    """
    pairs = list(zip(paths, frames, strict=True))
    choice = _fitting(pairs[:: -(-len(pairs) // SAMPLE_IMAGES) or 1], SPARE * budget / max(1, len(pairs)))
    while True:
        made = []
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for one in pool.map(lambda pair, choice=choice: make_thumbnail(*pair, *THUMBNAIL_SIZES[choice]), pairs):
                made.append(one)
                if on_done:
                    on_done()
        if choice == len(THUMBNAIL_SIZES) - 1 or sum(len(one.address or "") for one in made) <= budget:
            return made
        choice += 1


def make_thumbnail(path, frame, side, quality):
    """A file as a `Thumbnail` of at most `side` pixels; never enlarged. An unreadable one is no error.

    Args:
        path: the image file.
        frame: (height, width) as the dataset has it. An EXIF orientation is applied unless that is the size of the
            image without it.
        side, quality: of the JPEG.
    """
    picture, remark = _read(path, frame, side)
    if picture is None:
        return Thumbnail(None, remark)
    return Thumbnail(_address(picture, frame, side, quality), "", remark)


def _read(path, frame, side):
    """(PIL image of at most `side` pixels in the frame's proportions, a remark), or (None, what is wrong)."""
    try:
        with Image.open(path) as image:
            stored = image.height, image.width
            image.draft("RGB", (side, side))  # a JPEG is decoded at a half, quarter or eighth if that will do
            seen = stored[::-1] if image.getexif().get(0x0112, 1) >= 5 else stored
            upright = image if frame == stored != seen else ImageOps.exif_transpose(image)
            picture = _shrunk(Image.fromarray(rgb_pixels(upright)), frame, side)
    except FileNotFoundError:
        return None, "the file isn't there"
    except Exception as error:  # Pillow raises whatever its format plugins run into
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return None, f"the file isn't a readable image ({reason})"
    fits = frame in (seen, stored)
    return picture, "" if fits else f"the file has {seen[1]} x {seen[0]} pixels, the json says otherwise"


def _shrunk(picture, frame, side):
    scale = min(1, side / max(frame))
    size = max(1, round(frame[1] * scale)), max(1, round(frame[0] * scale))
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _address(picture, frame, side, quality):
    buffer = io.BytesIO()
    _shrunk(picture, frame, side).save(buffer, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _fitting(pairs, share):
    """The place of the first of `SIZES` whose thumbnails of these files have `share` characters on average."""
    read = [(_read(path, frame, THUMBNAIL_SIZES[0][0])[0], frame) for path, frame in pairs]
    read = [(picture, frame) for picture, frame in read if picture]

    def fits(choice):
        return sum(len(_address(*pair, *THUMBNAIL_SIZES[choice])) for pair in read) <= share * len(read)

    return min(bisect.bisect_left(range(len(THUMBNAIL_SIZES)), True, key=fits), len(THUMBNAIL_SIZES) - 1)


BUDGET = 19_000_000  # characters of a report of up to `BUDGET_IMAGES` images; one of more may grow with them
BUDGET_IMAGES = 500
OUTLINES = 0.5  # of the budget that objects may take with fine outlines ...
MOST_OUTLINES = 0.8  # ... and with coarse ones, beyond which images are left away
LEAST_PICTURE = 3000  # characters of an image's picture that there must be room for
SAMPLE_OUTLINES = 24  # images from which the size of all outlines is guessed
CURVE_CLASSES = 200  # with curves of their own, the most frequent ones
SCRIPTS = (
    "dom",
    "charts",
    "tables",
    "overlay",
    "gallery",
    "controls",
    "regions",
    "dataset",
    "model",
    "panoptic",
    "report",
)


@dataclasses.dataclass
class ReportFile:
    """What a report came to: the images shown, those whose file couldn't be read and the file's size in bytes."""

    images: int
    unreadable: int
    size: int


def write_report(
    path, title, facts, truth, folder, statistics, findings=None, detections=None, limit=500, on_done=None, pixels=None
):
    """Writes the report of a dataset or, with findings, of a model.

    Args:
        path: of the HTML file.
        title: its heading.
        facts: [(name, value), ...] strings below it, such as where data and model come from.
        truth: the `InstanceGroundTruth`.
        folder: that the file names of its images are relative to.
        statistics: `DatasetStatistics`.
        findings, detections: of a model: `Findings`, and the detections in COCO's result format that they are of.
        limit: the most images to show: those with the gravest mistakes, or without a model some from all over the json.
        on_done: called after each picture that is made.
        pixels: `Pixels` of data with segments or classes of pixels.

    Returns:
        `Written`.

    Raises:
        UserError: not one picture can be read.
    """
    budget = BUDGET * max(1, min(limit, len(truth.images)) / BUDGET_IMAGES)
    head = _head(title, facts, truth, statistics, findings)
    drawn = [ObjectRecords(truth, detections, *((findings.pairs, findings.errors) if findings else ()))]
    if pixels:
        regions = RegionRecords(pixels.shown, pixels.findings)
        head |= _pixels(pixels, regions, truth)
        drawn.append(regions)
    chosen = _chosen(truth.images, findings, limit, pixels.findings if pixels else None)
    room = budget - len(_script_safe(head))
    pages = _objects(drawn, chosen, room)
    if pixels and pixels.findings and findings:
        _rank(pages, findings)
    if len(pages) < len(chosen):
        head["notes"].append("More would make the file too large.")
    room -= sum(len(json.dumps(page, separators=(",", ":"))) for page in pages)
    pictures = _pictures(chosen[: len(pages)], folder, room, on_done)
    unreadable = [page["file"] for page, picture in zip(pages, pictures, strict=True) if picture.address is None]
    if len(unreadable) == len(pages):
        raise UserError(
            f"No picture of {truth.source} can be shown, the first because {pictures[0].problem} "
            f"({os.path.join(folder, pages[0]['file'])}): check the folder of the images."
        )
    for page, picture in zip(pages, pictures, strict=True):
        page |= {"picture": picture.address, "problem": picture.problem, "note": picture.note}
    if unreadable:
        many = f"{len(unreadable)} images" if len(unreadable) > 1 else "1 image"
        head["notes"].append(f"{many} can't be read; grey fields are in their place.")
    text = render_page(title, head | {"images": pages})
    with atomic_write(path) as file:
        file.write_text(text, encoding="utf-8")
    return ReportFile(len(pages), len(unreadable), os.path.getsize(path))


def render_page(title, data):
    """The page's HTML.

    Args:
        title: of the window.
        data: what `page/report.js` reads, json types.
    """
    files = importlib.resources.files("mrcnn_tf.explain.inspection.page")
    style = files.joinpath("style.css").read_text(encoding="utf-8")
    script = '"use strict";\n' + "\n".join(files.joinpath(f"{n}.js").read_text(encoding="utf-8") for n in SCRIPTS)
    parts = {
        "title": html.escape(title),
        # The browser is told to run and load nothing but these two and the pictures within the file.
        "policy": f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'",
        "style": style,
        "script": script,
        "data": _script_safe(data),
    }
    template = files.joinpath("report.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match.group(1)], template)


def _script_safe(data):
    """Json that can't end the script element it stands in: every "<" is written as an escape, non-ASCII too."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _digest(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


def _head(title, facts, truth, statistics, findings):
    """Everything but the images."""
    classes = [
        {"id": c["id"], "name": str(c.get("name", c["id"])), "skeleton": _skeleton(c)}
        for c in sorted(truth.categories, key=lambda one: one["id"])
    ]
    return {
        "title": title,
        "facts": facts,
        "made": datetime.date.today().isoformat(),
        "version": __version__,
        "classes": classes,
        "statistics": statistics.to_json(),
        "findings": _findings(findings) if findings else None,
        "notes": [],
    }


def _skeleton(category):
    skeleton = category.get("skeleton")
    pairs = skeleton if isinstance(skeleton, list) else []
    return [pair for pair in pairs if isinstance(pair, list) and len(pair) == 2]


def _findings(findings):
    curves = findings.curves.to_json()
    frequent = sorted(curves["classes"], key=lambda one: -one["truths"])[:CURVE_CLASSES]
    curves["classes"] = sorted(frequent, key=lambda one: one["id"])
    return findings.to_json() | {"curves": curves, "kind": findings.pairs.kind}


def _pixels(pixels, regions, truth):
    """What the page's data have more where there are regions."""
    results = pixels.results and pixels.results.to_json()
    figures = results and {name: results[name] for name in ("panoptic", "semantic", "notes")}
    return {
        "regions": {
            "classes": regions.classes(),
            "segments": pixels.shown.judged,
            "objects": pixels.truth.judged and pixels.truth.source == truth.source,
            "statistics": pixels.statistics.to_json(),
            "figures": figures,
        }
    }


def _rank(pages, findings):
    """Says of each image in which order those with objects come, since segments are ranked by themselves."""
    places = {ranked.image_id: place for place, ranked in enumerate(findings.ranking)}
    for page in pages:
        page["rank"] = places.get(page["id"], len(places))


def _chosen(images, findings, limit, pixel_findings=None):
    """The image records to show, in their order on the page."""
    if pixel_findings:
        by_id = {image["id"]: image for image in images}
        worst = [by_id.pop(image_id) for image_id in pixel_findings.ranking if image_id in by_id]
        return (worst + list(by_id.values()))[:limit]
    if not findings:
        count = min(limit, len(images))
        return [images[place * len(images) // count] for place in range(count)]
    by_id = {image["id"]: image for image in images}
    worst = [by_id.pop(ranked.image_id) for ranked in findings.ranking[:limit]]
    judged = set(findings.pairs.image_ids)
    rest = sorted(by_id.values(), key=lambda image: image["id"] not in judged)
    return (worst + rest)[:limit]


def _objects(drawn, chosen, room):
    """The images' records with outlines as fine as the room allows; fewer of them if there is too little.

    `drawn` are `PageObjects` and, where there are regions, `PageRegions`.
    """

    def record(image, tolerance):
        return {key: value for one in drawn for key, value in one.of_image(image, tolerance).items()}

    sample = chosen[:: -(-len(chosen) // SAMPLE_OUTLINES)]
    share = OUTLINES * room / len(chosen)
    for tolerance in TOLERANCES:
        sizes = [len(json.dumps(record(one, tolerance), separators=(",", ":"))) for one in sample]
        if sum(sizes) <= share * len(sizes):
            break
    pages, size = [], 0
    for image in chosen:
        pages.append(record(image, tolerance))
        size += len(json.dumps(pages[-1], separators=(",", ":")))
        full = size > MOST_OUTLINES * room or size + LEAST_PICTURE * len(pages) > room
        if full and len(pages) > 1:
            return pages[:-1]
    return pages


def _pictures(images, folder, room, on_done):
    """A `Thumbnail` of each image record."""
    named = [isinstance(image.get("file_name"), str) and bool(image["file_name"]) for image in images]
    paths = [os.path.join(folder, image["file_name"]) for image, name in zip(images, named, strict=True) if name]
    frames = [(image["height"], image["width"]) for image, name in zip(images, named, strict=True) if name]
    made = iter(make_thumbnails(paths, frames, room, on_done))
    return [next(made) if name else Thumbnail(None, "the json gives it no file_name") for name in named]
