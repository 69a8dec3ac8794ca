"""Pascal VOC's datasets: Annotations/*.xml with boxes, SegmentationObject/*.png with the pixels of objects.

Pixels are counted from 1 in the boxes, and both ends belong to them. In a PNG of objects, the indices into the palette
are the numbers of objects from 1, and 255 is the border that belongs to none.
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
from mrcnn_tf.datasets.convert.coco import copy_image, new_folder, output_names, paint_annotations
from mrcnn_tf.datasets.convert.dataset import Dataset
from mrcnn_tf.datasets.convert.inputs import (
    BrokenFile,
    existing_path,
    raise_wrong_format,
    read_frame,
    read_text,
    read_xml,
)
from mrcnn_tf.datasets.image_folder import ImageFolder
from mrcnn_tf.datasets.map_files import read_any_map

BORDER = 255
BORDER_COLOUR = 224 + 256 * 224 + 65536 * 192  # in a PNG without palette
MAX_NUMBER = 254  # of objects or classes in a PNG; 0 is background and 255 the border
SAME_IOU = 0.5  # of a mask's box and an object's, from which on they are the same
CORNERS = ("xmin", "ymin", "xmax", "ymax")
_FLAGS = ("1", "0", "-1")  # after a name in the list of one class: present, difficult, absent


def read_voc(source, images=None, names=None, split=None, zero_based=False):
    """The Dataset of a folder such as VOCdevkit/VOC2012, or of xml files; see `convert` for readers.

    Objects of an image with a PNG have masks, others boxes. Masks that no object's box fits, objects without a mask
    where others have one, and missing images are noted in it.

    Args:
        images: None for JPEGImages in the source or, without one, the source.
        split: a list in ImageSets, such as "train"; None for every xml file.
        zero_based: pixels are counted from 0 in the boxes, and their ends don't belong to them, as some tools have it.
    """
    source = existing_path(source, "the folder of a VOC dataset")
    files = _annotation_files(source, split)
    if not files:
        raise_wrong_format(source, "voc")
    own_images = source / "JPEGImages"
    if not own_images.is_dir():
        own_images = source if source.is_dir() else source.parent
    folder = ImageFolder(images or own_images)
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
    lists = [source / "ImageSets" / task / f"{split}.txt" for task in ("Segmentation", "Main")]
    existing = [path for path in lists if path.is_file()]
    if not existing:
        raise UserError(f"There is no {lists[0]}: name a list in ImageSets by --split, or leave it away.")
    return [_listed_file(folder, line.strip()) for line in read_text(existing[0]).splitlines() if line.strip()]


def _listed_file(folder, line):
    """The xml file of a line in ImageSets, which has a flag after the name in lists of one class."""
    named_by_line = folder / f"{line}.xml"
    name, _, flag = line.rpartition(" ")
    return folder / f"{name.strip()}.xml" if flag in _FLAGS and not named_by_line.is_file() else named_by_line


def _read_file(file, folder, dataset, zero_based):
    """Adds the image of an xml file and its objects."""
    if not file.is_file():
        dataset.leave_out("missing_annotation", file, f"There is no {file}, which the split lists: correct the list.")
        return
    root = read_xml(file)
    if root.tag != "annotation":
        raise BrokenFile(f"{file} is another kind of xml, its top is <{root.tag}>: VOC's is <annotation>.")
    name = (root.findtext("filename") or "").strip()
    path = folder.find(name, file.parent) if name else None
    if path is None:
        with_stem = folder.with_stem(file.stem)
        path = with_stem[0] if len(with_stem) == 1 else None
    if path is None:
        message = f"{file} belongs to {name or file.stem}, which isn't in {folder.root}, and was left out: add it."
        dataset.leave_out("missing_image", file, message)
        return
    frame = read_frame(path)
    width, height = (_read_number(root, f"size/{side}") or 0 for side in ("width", "height"))
    if not width or not height:
        width, height = frame.width, frame.height
    if not frame.fits(width, height):
        message = f"{path} is {frame.width} x {frame.height} but {file} says {width:g} x {height:g}"
        dataset.leave_out("other_size", file, f"{message} and was left out: put back the image that was labelled.")
        return
    image = dataset.add_image(folder.relative(path), int(width), int(height), file)
    if image:
        _add_objects(root, file, image, dataset, zero_based)


def _add_objects(root, file, image, dataset, zero_based):
    objects = []
    for number, element in enumerate(root.iter("object"), 1):
        where = f"Object {number}"
        try:
            box = [_read_number(element, f"bndbox/{corner}") for corner in CORNERS]
        except ValueError as error:
            dataset.leave_out("bad_box", file, f"{where} of {file} has a box of {error}: correct it.", where)
            continue
        if None in box:
            dataset.leave_out("bad_box", file, f"{where} of {file} lacks a corner of its box: add it.", where)
            continue
        if not zero_based:
            box = [box[0] - 1, box[1] - 1, box[2], box[3]]
        objects.append((where, (element.findtext("name") or ""), box))
    masks = _read_object_masks(file, image, dataset)
    number_of = _match_masks(masks, [box for _, _, box in objects]) if masks else {}
    for index, (where, label, (x1, y1, x2, y2)) in enumerate(objects):
        parts = [masks[number_of[index]]] if index in number_of else []
        if masks and not parts:
            message = f"{where} of {file} has no mask in SegmentationObject and keeps its box only."
            dataset.leave_out("no_mask", file, message, where)
        dataset.add_object(image, label, file, where, parts=parts, box=[x1, y1, x2 - x1, y2 - y1])
    for number in masks.keys() - number_of.values():
        message = f"Object {number} in the PNG of {file} fits no box there and was left out: add the object to the xml."
        dataset.leave_out("mask_without_object", file, message, number)


def _read_number(element, path):
    """The finite number at a path in xml; None if nothing is there. Raises ValueError."""
    text = element.findtext(path)
    if text is None or not text.strip():
        return None
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _read_object_masks(file, image, dataset):
    """dict number -> run-length mask from the PNG of objects that belongs to an xml; empty where there is none."""
    root = file.parent.parent if file.parent.name == "Annotations" else file.parent
    path = root / "SegmentationObject" / f"{file.stem}.png"
    if not path.is_file():
        return {}
    labels = read_any_map(path)
    if labels.shape != (image.height, image.width):
        message = f"{path} is {labels.shape[1]} x {labels.shape[0]}, its image {image.width} x {image.height}"
        dataset.leave_out("other_size", path, f"{message}: it was left out, and the boxes are kept.")
        return {}
    masks = run_lengths.encode_labels(labels)
    return {number: mask for number, mask in masks.items() if number not in (BORDER, BORDER_COLOUR)}


def _match_masks(masks, boxes):
    """Which mask belongs to which object.

    VOC numbers objects as the xml lists them; other tools don't always, so a number only counts where the boxes agree,
    and what is left goes by boxes alone.

    Args:
        masks: dict number from 1 -> run-length mask.
        boxes: list of [x1, y1, x2, y2].

    Returns:
        dict index into `boxes` -> number.
    """
    corners = {}
    for number, mask in masks.items():
        x, y, width, height = run_lengths.box_of_rle(mask)
        corners[number] = [x, y, x + width, y + height]
    number_of = {
        number - 1: number
        for number in masks
        if number <= len(boxes) and box_iou(corners[number], boxes[number - 1]) >= SAME_IOU
    }
    pairs = [
        (-box_iou(corners[number], box), index, number)
        for number in masks.keys() - set(number_of.values())
        for index, box in enumerate(boxes)
        if index not in number_of
    ]
    for negative_iou, index, number in sorted(pairs):
        if -negative_iou >= SAME_IOU and index not in number_of and number not in number_of.values():
            number_of[index] = number
    return number_of


def box_iou(box, other):
    """IoU of two boxes [x1, y1, x2, y2]."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (box, other)]
    return shared / (sum(areas) - shared) if shared else 0.0


def write_voc(coco, out, images=None, copy_images=False, split="train"):
    """Writes Annotations, SegmentationObject, SegmentationClass, ImageSets and labelmap.txt.

    Boxes are those around the masks, in whole pixels. Images whose objects have no masks get no PNGs. Crowds are left
    out; what overlaps and what has no mask is noted, too. `split` is the name of the lists in ImageSets. See `convert`
    for writers.

    Raises:
        UserError: also if images lie in folders of their own, or there are more classes or objects than a PNG can
            number.
    """
    coco.note_repeated_names()
    coco.drop_crowds()
    names = output_names(coco, "")
    numbers = {category: number for number, category in enumerate(coco.names, 1)}
    _check_limits(coco, names)
    with new_folder(out) as folder:
        for path in ("Annotations", "SegmentationObject", "SegmentationClass", "ImageSets"):
            (folder / path).mkdir()
        listed = {"Main": [], "Segmentation": []}
        for image, stem in show_progress(names, "VOC"):
            if copy_images and not copy_image(coco, image, images, folder / "JPEGImages" / image.file_name):
                continue
            # Where there are no objects at all, empty pictures of pixels say so.
            has_masks = not image.annotations or any(
                annotation.segmentation is not None for annotation in image.annotations
            )
            if has_masks:
                _write_pixels(coco, image, stem, numbers, folder)
                listed["Segmentation"].append(stem)
            listed["Main"].append(stem)
            xml = _make_xml(coco, image, has_masks)
            xml.write(folder / "Annotations" / f"{stem}.xml", encoding="utf-8")
        for task, stems in listed.items():
            (folder / "ImageSets" / task).mkdir()
            text = "".join(f"{stem}\n" for stem in stems)
            (folder / "ImageSets" / task / f"{split}.txt").write_text(text, encoding="utf-8")
        (folder / "labelmap.txt").write_text(_make_label_list(coco.names.values()), encoding="utf-8")


def _check_limits(coco, names):
    if len(coco.names) > MAX_NUMBER:
        raise UserError(f"{coco.source} has {len(coco.names)} classes, and VOC's PNGs have numbers for {MAX_NUMBER}.")
    for image, stem in names:
        if "/" in stem:
            raise UserError(
                f"{image.file_name} lies in a folder, which VOC doesn't have: put all images into one folder."
            )
        count = len(image.annotations)
        if count > MAX_NUMBER:
            limit = f"VOC's PNGs have numbers for {MAX_NUMBER}"
            raise UserError(f"{image.file_name} has {count} objects, and {limit}: use `coco-to label-maps`.")


def _write_pixels(coco, image, stem, numbers, folder):
    objects = paint_annotations(coco, image, range(1, len(image.annotations) + 1))
    classes = np.array([0] + [numbers[annotation.category_id] for annotation in image.annotations])[objects]
    for name, pixels in (("SegmentationObject", objects), ("SegmentationClass", classes)):
        png = Image.fromarray(pixels.astype(np.uint8), "L")
        png.putpalette(make_palette().tobytes())
        png.save(folder / name / f"{stem}.png")


def _make_xml(coco, image, has_masks):
    root = ElementTree.Element("annotation")
    _add_element(root, "folder", "JPEGImages")
    _add_element(root, "filename", pathlib.PurePosixPath(image.file_name).name)
    size = _add_element(root, "size")
    for name, value in (("width", image.width), ("height", image.height), ("depth", 3)):
        _add_element(size, name, value)
    _add_element(root, "segmented", int(has_masks))
    for annotation in image.annotations:
        element = _add_element(root, "object")
        _add_element(element, "name", coco.names[annotation.category_id])
        for name, value in (("pose", "Unspecified"), ("truncated", 0), ("difficult", 0)):
            _add_element(element, name, value)
        box = _add_element(element, "bndbox")
        for name, value in zip(CORNERS, _end_pixels(annotation, image), strict=True):
            _add_element(box, name, value)
    ElementTree.indent(root)
    return ElementTree.ElementTree(root)


def _add_element(parent, name, text=None):
    element = ElementTree.SubElement(parent, name)
    element.text = None if text is None else str(text)
    return element


def _end_pixels(annotation, image):
    """The first and last pixels of a box, counted from 1."""
    x, y, width, height = annotation.box
    if annotation.segmentation is not None:
        rle = run_lengths.as_rle(annotation.segmentation, image.height, image.width)
        x, y, width, height = run_lengths.box_of_rle(rle)
    left, top, right, bottom = (round(value) for value in (x, y, x + width, y + height))
    return left + 1, top + 1, max(right, left + 1), max(bottom, top + 1)


def make_palette():
    """[256, 3] uint8, VOC's colours: the bits of an index are dealt to red, green and blue, highest first."""
    indices = np.arange(256)
    colours = np.zeros([256, 3], np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((indices >> channel) & 1) << (7 - bit)).astype(np.uint8)
        indices >>= 3
    return colours


def _make_label_list(names):
    """labelmap.txt as CVAT has it: name, colour, and two empty fields."""
    lines = ["# label:color_rgb:parts:actions"]
    for name, colour in zip(("background", *names), make_palette(), strict=False):
        lines.append(f"{name}:{','.join(map(str, colour.tolist()))}::")
    return "\n".join(lines) + "\n"
