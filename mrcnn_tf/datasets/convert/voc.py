"""Pascal VOC's datasets: Annotations/*.xml with boxes, SegmentationObject/*.png with the pixels of objects.

Pixels are counted from 1 in the boxes, and both ends belong to them. In a PNG of objects, the places in the palette are
the numbers of objects from 1, and 255 is the border that belongs to none.
See http://host.robots.ox.ac.uk/pascal/VOC/.
"""

import math

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.progress import steps
from mrcnn_tf.datasets import masks
from mrcnn_tf.datasets.convert.dataset import Dataset
from mrcnn_tf.datasets.convert.guess import refuse_other
from mrcnn_tf.datasets.convert.label_images import read_labels
from mrcnn_tf.datasets.convert.pictures import ImageFolder, frame_of
from mrcnn_tf.datasets.convert.reading import BrokenFile, existing, read_text, read_xml

BORDER = 255
BORDER_COLOUR = 224 + 256 * 224 + 65536 * 192  # in a PNG without palette
OVERLAP = 0.5  # IoU of a mask's box and an object's, from which on they are the same


def read_voc(source, images=None, names=None, split=None, zero_based=False):
    """The objects of a VOC dataset.

    Args:
        source: its folder, such as VOCdevkit/VOC2012, or a folder of xml files.
        images: the folder of the images; None for JPEGImages in it or, without one, the source.
        names: ClassNames, to leave out other classes.
        split: a list in ImageSets, such as "train"; None for every xml file.
        zero_based: pixels are counted from 0 in the boxes, and their ends don't belong to them, as some tools have it.

    Returns:
        Dataset. Objects of an image with a PNG have masks, others boxes. Masks that no object's box fits, objects
        without a mask where others have one, and missing images are noted in it.

    Raises:
        UserError: the source isn't there, is packed or isn't VOC's, or there is no such split.
    """
    source = existing(source, "the folder of a VOC dataset")
    files = _annotation_files(source, split)
    if not files:
        refuse_other(source, "voc")
    pictures = source / "JPEGImages"
    folder = ImageFolder(images or (pictures if pictures.is_dir() else source if source.is_dir() else source.parent))
    dataset = Dataset(source, names)
    for file in steps(files, "VOC"):
        try:
            _read_file(file, folder, dataset, zero_based)
        except BrokenFile as error:
            dataset.leave_out("broken_file", file, str(error))
    return dataset


def _annotation_files(source, split):
    if source.is_file():
        return [source] if source.suffix.lower() == ".xml" else []
    folder = source / "Annotations"
    folder = folder if folder.is_dir() else source
    if split is None:
        return sorted(folder.rglob("*.xml"), key=lambda path: path.as_posix())
    lists = [source / "ImageSets" / kind / f"{split}.txt" for kind in ("Segmentation", "Main")]
    found = [path for path in lists if path.is_file()]
    if not found:
        raise UserError(f"There is no {lists[0]}: name a list in ImageSets by --split, or leave it away.")
    return [_listed(folder, line.strip()) for line in read_text(found[0]).splitlines() if line.strip()]


def _listed(folder, line):
    """The xml file of a line in ImageSets: a name, after which lists of one class have 1, 0 or -1."""
    whole = folder / f"{line}.xml"
    name, _, flag = line.rpartition(" ")
    return folder / f"{name.strip()}.xml" if flag in ("1", "0", "-1") and not whole.is_file() else whole


def _read_file(file, folder, dataset, zero_based):
    """Adds the image of an xml file and its objects."""
    if not file.is_file():
        dataset.leave_out("missing_annotation", file, f"There is no {file}, which the split lists: correct the list.")
        return
    root = read_xml(file)
    if root.tag != "annotation":
        raise BrokenFile(f"{file} is another kind of xml, its top is <{root.tag}>: VOC's is <annotation>.")
    name = (root.findtext("filename") or "").strip()
    path = _image_of(file, name, folder)
    if path is None:
        message = f"{file} belongs to {name or file.stem}, which isn't in {folder.root}, and was left out: add it."
        dataset.leave_out("missing_image", file, message)
        return
    frame = frame_of(path)
    width, height = (_number(root, f"size/{side}") or 0 for side in ("width", "height"))
    if not width or not height:
        width, height = frame.width, frame.height
    if not frame.fits(width, height):
        message = f"{path} is {frame.width} x {frame.height} but {file} says {width:g} x {height:g}"
        dataset.leave_out("other_size", file, f"{message} and was left out: put back the image that was labelled.")
        return
    picture = dataset.add_picture(folder.relative(path), int(width), int(height), file)
    if picture:
        _add_objects(root, file, picture, dataset, zero_based)


def _image_of(file, name, folder):
    if name and (path := folder.find(name, file.parent)):
        return path
    same = folder.with_stem(file.stem)
    return same[0] if len(same) == 1 else None


def _add_objects(root, file, picture, dataset, zero_based):
    objects = []
    for number, element in enumerate(root.iter("object"), 1):
        where = f"Object {number}"
        try:
            box = [_number(element, f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")]
        except ValueError as error:
            dataset.leave_out("bad_box", file, f"{where} of {file} has a box of {error}: correct it.", where)
            continue
        if None in box:
            dataset.leave_out("bad_box", file, f"{where} of {file} lacks a corner of its box: add it.", where)
            continue
        if not zero_based:
            box = [box[0] - 1, box[1] - 1, box[2], box[3]]
        objects.append((where, (element.findtext("name") or ""), box))
    found = _object_masks(file, picture, dataset)
    chosen = match(found, [box for _, _, box in objects]) if found else {}
    for place, (where, label, (x1, y1, x2, y2)) in enumerate(objects):
        parts = [found[chosen[place]]] if place in chosen else []
        if found and not parts:
            message = f"{where} of {file} has no mask in SegmentationObject and keeps its box only."
            dataset.leave_out("no_mask", file, message, where)
        dataset.add_object(picture, label, file, where, parts=parts, box=[x1, y1, x2 - x1, y2 - y1])
    for value in found.keys() - chosen.values():
        message = f"Object {value} in the PNG of {file} fits no box there and was left out: add the object to the xml."
        dataset.leave_out("mask_without_object", file, message, value)


def match(found, boxes):
    """Which mask belongs to which object.

    VOC numbers objects as the xml lists them; other tools don't always, so a number only counts where the boxes agree,
    and what is left goes by boxes alone.

    Args:
        found: dict number from 1 -> run-length mask.
        boxes: list of [x1, y1, x2, y2].

    Returns:
        dict place in `boxes` -> number.
    """
    corners = {number: masks.box_of_runs(mask) for number, mask in found.items()}
    corners = {number: [x, y, x + w, y + h] for number, (x, y, w, h) in corners.items()}
    chosen = {
        number - 1: number
        for number in found
        if number <= len(boxes) and overlap(corners[number], boxes[number - 1]) >= OVERLAP
    }
    pairs = [
        (overlap(corners[number], box), place, number)
        for number in found.keys() - set(chosen.values())
        for place, box in enumerate(boxes)
        if place not in chosen
    ]
    for value, place, number in sorted(pairs, key=lambda pair: (-pair[0], *pair[1:])):
        if value >= OVERLAP and place not in chosen and number not in chosen.values():
            chosen[place] = number
    return chosen


def overlap(one, other):
    """IoU of two boxes [x1, y1, x2, y2]."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared) if shared else 0.0


def _object_masks(file, picture, dataset):
    """dict number -> run-length mask from the PNG of objects that belongs to an xml; empty where there is none."""
    root = file.parent.parent if file.parent.name == "Annotations" else file.parent
    path = root / "SegmentationObject" / f"{file.stem}.png"
    if not path.is_file():
        return {}
    labels = read_labels(path)
    if labels.shape != (picture.height, picture.width):
        message = f"{path} is {labels.shape[1]} x {labels.shape[0]}, its image {picture.width} x {picture.height}"
        dataset.leave_out("other_size", path, f"{message}: it was left out, and the boxes are kept.")
        return {}
    found = masks.encode_labels(labels)
    for border in (BORDER, BORDER_COLOUR):
        found.pop(border, None)
    return found


def _number(element, path):
    text = element.findtext(path)
    if text is None or not text.strip():
        return None
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
