"""An annotation format of one's own: a csv file with an outline and a direction on each line, as COCO's json.

    file,class,orientation,outline
    left/a.jpg,car,30,12 8 40 8 40 20 12 20
    left/a.jpg,tree,,50 5 60 5 55 25

`file` is relative to the folder of images. `orientation`, which may be empty, is an angle in degrees from the x axis
towards y, which points down. `outline` is x and y of each corner in pixels. In the folder of this file:

    mrcnn-tf convert with csv_format:read_csv labels.csv --images photos --out train.json
"""

import csv

from mrcnn_tf import UserError
from mrcnn_tf.datasets.convert import Dataset, ImageFolder, existing_path, read_text

COLUMNS = ["file", "class", "orientation", "outline"]


def read_csv(source, images=None, names=None):
    """The Dataset of a csv file; lines that can't be used are noted in it."""
    source = existing_path(source, "the csv file with the outlines")
    rows = csv.DictReader(read_text(source).splitlines(), restval="")
    if rows.fieldnames != COLUMNS:
        raise UserError(f"{source} begins with the columns {rows.fieldnames}: make them {','.join(COLUMNS)}.")
    folder, dataset, described = ImageFolder(images or source.parent), Dataset(source, names), {}
    for row in rows:
        file, where = row["file"], f"Line {rows.line_num}"
        if file not in described:
            described[file] = add_image(file, folder, dataset, source)
        if described[file] is None:
            continue
        try:
            outline = [float(number) for number in row["outline"].split()]
            fields = {"orientation": float(row["orientation"])} if row["orientation"] else {}
        except ValueError as error:
            message = f"{where} of {source} can't be read ({error}) and was left out: correct it."
            dataset.leave_out("broken_line", source, message, where)
            continue
        dataset.add_object(described[file], row["class"], source, where, parts=[outline], fields=fields)
    return dataset


def add_image(file, folder, dataset, source):
    """The dataset's new image; None, and a note, if it isn't there or can't be opened."""
    path = folder.find(file)
    if path is None:
        message = f"{source} names the image {file}, which isn't in {folder.root} and was left out: put it there."
        dataset.leave_out("missing_image", source, message, file)
        return None
    frame = dataset.read_frame(path)
    return frame and dataset.add_image(folder.relative(path), frame.width, frame.height, source)
