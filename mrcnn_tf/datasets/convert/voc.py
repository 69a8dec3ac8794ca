"""Pascal VOC's datasets: Annotations/*.xml with boxes, SegmentationObject/*.png with the pixels of objects.

Pixels are counted from 1 in the boxes, and both ends belong to them. In a PNG of objects, the places in the palette are
the numbers of objects from 1, and 255 is the border that belongs to none.
See http://host.robots.ox.ac.uk/pascal/VOC/.
"""

import math
import pathlib
import xml.etree.ElementTree as ElementTree

import numpy as np
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.problems import show_progress
from mrcnn_tf.datasets import run_lengths
from mrcnn_tf.datasets.convert.coco import by_target, image_path, new_folder, put_image
from mrcnn_tf.datasets.convert.dataset import Dataset
from mrcnn_tf.datasets.convert.geometry import painted
from mrcnn_tf.datasets.convert.inputs import (
    BrokenFile,
    ImageFolder,
    existing,
    frame_of,
    read_text,
    read_xml,
    refuse_other,
)
from mrcnn_tf.datasets.convert.label_images import palette, read_labels

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
    for file in show_progress(files, "VOC"):
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
    corners = {number: run_lengths.box_of_runs(mask) for number, mask in found.items()}
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
    found = run_lengths.encode_labels(labels)
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


# COCO's json to a Pascal VOC dataset. See `voc` for the format.
#

MOST = 254  # objects or classes of a PNG; 0 is background and 255 the border


def write_voc(coco, out, images=None, copy_images=False, split="train"):
    """Writes Annotations, SegmentationObject, SegmentationClass, ImageSets and labelmap.txt.

    Boxes are those around the masks, in whole pixels. Images whose objects have no masks get no PNGs.

    Args:
        coco: coco_json.CocoJson; crowds, what overlaps and what has no mask is noted in it.
        out: a new folder.
        images: the folder of the images, for `copy_images`.
        copy_images: put the images into JPEGImages.
        split: name of the lists in ImageSets.

    Raises:
        UserError: `out` has files already, there is no folder of images, two images would get the same file, images lie
            in folders of their own, or there are more classes or objects than a PNG can number.
    """
    coco.drop_crowds()
    targets = by_target(coco, "")
    numbers = {category: number for number, category in enumerate(coco.names, 1)}
    _check_counts(coco, targets)
    with new_folder(out) as folder:
        for name in (
            "Annotations",
            "SegmentationObject",
            "SegmentationClass",
            "ImageSets/Main",
            "ImageSets/Segmentation",
        ):
            (folder / name).mkdir(parents=True)
        listed = {"Main": [], "Segmentation": []}
        for image, stem in show_progress(targets, "VOC"):
            path = image_path(coco, image, images) if copy_images else None
            if copy_images:
                if path is None:
                    continue
                put_image(path, folder / "JPEGImages" / image.file_name)
            # Where there are no objects at all, empty pictures of pixels say so.
            has_masks = not image.instances or any(one.segmentation is not None for one in image.instances)
            if has_masks:
                _write_pixels(coco, image, stem, numbers, folder)
                listed["Segmentation"].append(stem)
            listed["Main"].append(stem)
            _annotation(coco, image, has_masks).write(folder / "Annotations" / f"{stem}.xml", encoding="utf-8")
        for kind, stems in listed.items():
            text = "".join(f"{stem}\n" for stem in stems)
            (folder / "ImageSets" / kind / f"{split}.txt").write_text(text, encoding="utf-8")
        (folder / "labelmap.txt").write_text(_label_map(coco.names.values()), encoding="utf-8")


def _check_counts(coco, targets):
    if len(coco.names) > MOST:
        raise UserError(f"{coco.source} has {len(coco.names)} classes, and VOC's PNGs have numbers for {MOST}.")
    for image, stem in targets:
        if "/" in stem:
            raise UserError(
                f"{image.file_name} lies in a folder, which VOC doesn't have: put all images into one folder."
            )
        if len(image.instances) > MOST:
            raise UserError(
                f"{image.file_name} has {len(image.instances)} objects, and VOC's PNGs have numbers for {MOST}: use "
                "`coco-to label-maps`."
            )


def _write_pixels(coco, image, stem, numbers, folder):
    objects = painted(coco, image, range(1, len(image.instances) + 1))
    classes = np.array([0] + [numbers[instance.category_id] for instance in image.instances])[objects]
    for name, pixels in (("SegmentationObject", objects), ("SegmentationClass", classes)):
        picture = Image.fromarray(pixels.astype(np.uint8), "L")
        picture.putpalette(palette().tobytes())
        picture.save(folder / name / f"{stem}.png")


def _annotation(coco, image, has_masks):
    root = ElementTree.Element("annotation")
    _add(root, "folder", "JPEGImages")
    _add(root, "filename", pathlib.PurePosixPath(image.file_name).name)
    size = _add(root, "size")
    for name, value in (("width", image.width), ("height", image.height), ("depth", 3)):
        _add(size, name, value)
    _add(root, "segmented", int(has_masks))
    for instance in image.instances:
        element = _add(root, "object")
        _add(element, "name", coco.names[instance.category_id])
        for name, value in (("pose", "Unspecified"), ("truncated", 0), ("difficult", 0)):
            _add(element, name, value)
        box = _add(element, "bndbox")
        corners = _corners(instance, image)
        for name, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
            _add(box, name, value)
    ElementTree.indent(root)
    return ElementTree.ElementTree(root)


def _corners(instance, image):
    """The first and last pixels of a box, counted from 1."""
    x, y, width, height = instance.box
    if instance.segmentation is not None:
        runs = run_lengths.as_rle(instance.segmentation, image.height, image.width)
        x, y, width, height = run_lengths.box_of_runs(runs)
    left, top, right, bottom = (round(value) for value in (x, y, x + width, y + height))
    return left + 1, top + 1, max(right, left + 1), max(bottom, top + 1)


def _add(parent, name, text=None):
    element = ElementTree.SubElement(parent, name)
    element.text = None if text is None else str(text)
    return element


def _label_map(names):
    """labelmap.txt as CVAT has it: name, colour, and two empty fields."""
    lines = ["# label:color_rgb:parts:actions"]
    for name, colour in zip(("background", *names), palette(), strict=False):
        lines.append(f"{name}:{','.join(map(str, colour.tolist()))}::")
    return "\n".join(lines) + "\n"
