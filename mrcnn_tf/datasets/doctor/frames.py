"""Images whose EXIF orientation turns them by a quarter and whose json describes them as they are stored."""

import os

import numpy as np

OVERHANG = 2.0  # pixels


def check_frames(images, records, outlines, image, findings):
    """Adds such images; where annotations fit only the upright picture, width and height are exchanged.

    Args:
        images: image_records.Images; heights and widths are changed in place.
        records: reading.Records.
        outlines: Outlines of the records.
        image: [T] int64, the row of each record's image; -1 for none.
        findings: Findings.

    Returns:
        int64 rows of the images whose sides were exchanged.
    """
    turned = np.zeros(images.ids.size, bool)
    turned[images.as_stored] = True
    if not turned.any():
        return np.zeros(0, np.int64)
    reach = reach_of_images(records, outlines, image, images.ids.size)
    sides = np.stack([images.widths, images.heights], axis=1)
    fits = (reach <= sides + OVERHANG).all(axis=1)
    upright = turned & ~fits & (reach <= sides[:, ::-1] + OVERHANG).all(axis=1)
    images.widths[upright], images.heights[upright] = images.heights[upright], images.widths[upright]
    for row in np.flatnonzero(turned).tolist():
        number, path = int(images.ids[row]), images.paths[row]
        width, height = sides[row].tolist()
        name = f"Image {number} in {findings.file} ({os.path.basename(path)})"
        if upright[row]:
            sentence = f"{name} is {width} x {height} there; its annotations fit the upright {height} x {width}."
        else:
            sentence = f"{name} is {width} x {height} as stored, and {height} x {width} upright."
        findings.add("exif_mismatch" if upright[row] else "exif_frame", number, sentence, path)
    return np.flatnonzero(upright)


def reach_of_images(records, outlines, image, count):
    """[count, 2] float64: the largest x and y of each image's annotations; -inf for an image without any."""
    boxes = np.asarray(records.boxes).reshape(-1, 4)
    corners = np.where(np.isfinite(outlines.extents), outlines.extents, boxes + np.tile(boxes[:, :2], 2) * [0, 0, 1, 1])
    reach = np.full([count + 1, 2], -np.inf)
    np.maximum.at(reach, image, np.nan_to_num(corners[:, 2:], nan=-np.inf))
    return reach[:count]
