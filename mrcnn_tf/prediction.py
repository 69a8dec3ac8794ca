"""Detections of image files, written as json and pictures."""

import json
import pathlib

from mrcnn_tf.files import replaced
from mrcnn_tf.images import UnreadableImage, read_image
from mrcnn_tf.visualize import save_png


def predict_files(model, paths, folder, min_score=0.5, on_image=None):
    """Detects in each file and writes NAME.json (all detections) and NAME.png (those of at least `min_score`) to
    `folder`.

    The json holds the image's size and a list of detections in COCO's result format with class names and, beside
    `keypoints`, the `keypoint_names` in their order.

    Args:
        model: a `MaskRCNN`, or an exported one with the same `detect`; `detect_file` is preferred.
        paths: image files.
        folder: made if missing. Files of the same name from different folders get a number.
        min_score: of the detections in the picture.
        on_image: called with (path, Detections) after each image.

    Returns:
        A list of (path, number of detections drawn) and a list of sentences, one for each file that couldn't be read.

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
        with replaced(folder / f"{name}.json") as file:
            file.write_text(json.dumps(_record(path, image, detections), ensure_ascii=False), encoding="utf-8")
        save_png(detections.draw(image, min_score=min_score), folder / f"{name}.png")
        drawn.append((path, int((detections.scores >= min_score).sum())))
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
    return {"file": str(path), "height": image.shape[0], "width": image.shape[1], "detections": rows}


def _free_name(stem, names):
    name, number = stem, 2
    while name in names:
        name, number = f"{stem}_{number}", number + 1
    names.add(name)
    return name
