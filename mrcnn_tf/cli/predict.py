"""Detections and segments of image files, written as json and pictures."""

import json
import pathlib

from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.datasets.image_files import UnreadableImage, read_image
from mrcnn_tf.explain.show_batch import draw_found
from mrcnn_tf.results.draw import save_png

SEGMENTS = "_segments"  # what the name of their map has beside the picture's


def predict_files(model, paths, folder, min_score=0.5, on_image=None):
    """Detects in each file and writes NAME.json (all detections) and NAME.png (those of at least `min_score`) to
    `folder`.

    The json holds the image's size and a list of detections in COCO's result format with class names and, beside
    `keypoints`, the `keypoint_names` in their order.

    Where the model has segments, the picture shows these, NAME_segments.png is their map in COCO's panoptic format, and
    the json has a list of `segments` as its `segments_info` is, with class names, `isthing` and the scores of things.

    Args:
        model: a `MaskRCNN`, or an exported one with the same `detect`; `detect_file` is preferred.
        paths: image files.
        folder: made if missing. Files of the same name from different folders get a number.
        min_score: of the detections in the picture.
        on_image: called with (path, Detections) after each image.

    Returns:
        A list of (path, number of segments or detections drawn) and a list of sentences, one for each file that
        couldn't be read.

    Raises:
        UserError: the model can't be reached or fails.
    """
    folder = pathlib.Path(folder)
    drawn, unreadable, names = [], [], set()
    for path in map(pathlib.Path, paths):
        try:
            image = read_image(path)
            detections = model.detect_file(path) if hasattr(model, "detect_file") else model.detect(image)
        except UnreadableImage as error:
            unreadable.append(str(error))
            continue
        name = _free_name(path.stem, names)
        segments = detections.panoptic
        with atomic_write(folder / f"{name}.json") as file:
            file.write_text(json.dumps(_record(path, image, detections), ensure_ascii=False), encoding="utf-8")
        if segments is not None:
            with atomic_write(folder / f"{name}{SEGMENTS}.png") as file:
                file.write_bytes(segments.png())
        save_png(draw_found(image, detections, min_score), folder / f"{name}.png")
        drawn.append((path, int((detections.scores >= min_score).sum()) if segments is None else len(segments)))
        if on_image:
            on_image(path, detections)
    return drawn, unreadable


def _record(path, image, detections):
    rows = detections.to_coco(0)
    for row, category in zip(rows, detections.categories, strict=True):
        del row["image_id"]
        row["category"] = category.name
        if "keypoints" in row:
            row["keypoint_names"] = list(category.keypoints)
    record = {"file": str(path), "height": image.shape[0], "width": image.shape[1], "detections": rows}
    return record if detections.panoptic is None else record | {"segments": _segments(detections.panoptic)}


def _segments(panoptic):
    rows = panoptic.to_coco(0, "")["segments_info"]
    for row, segment in zip(rows, panoptic.segments, strict=True):
        row |= {"category": segment.category.name, "isthing": int(segment.is_thing)}
        if segment.score is not None:
            row["score"] = segment.score
    return rows


def _free_name(stem, names):
    """A name that neither another image's files have nor its map of segments."""
    name, number = stem, 2
    while names & {name, f"{name}{SEGMENTS}"}:
        name, number = f"{stem}_{number}", number + 1
    names |= {name, f"{name}{SEGMENTS}"}
    return name
