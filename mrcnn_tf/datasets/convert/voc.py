"""Pascal VOC's datasets: Annotations/*.xml with boxes, SegmentationObject/*.png with the pixels of objects.

Without an xml, SegmentationClass says which class an object is of. `voc_folders` says which files belong together,
`voc_objects` reads an image's objects, `voc_masks` what pixels mean, `voc_outlines` what other tools add to the xml.
See http://host.robots.ox.ac.uk/pascal/VOC/.
"""

import pathlib
import xml.etree.ElementTree as ElementTree

import numpy as np
from PIL import Image

from mrcnn_tf.common.errors import BrokenFile, UserError
from mrcnn_tf.common.problems import show_progress
from mrcnn_tf.datasets import run_lengths
from mrcnn_tf.datasets.convert.coco import copy_image, new_folder, output_names, paint_annotations
from mrcnn_tf.datasets.convert.dataset import Dataset
from mrcnn_tf.datasets.convert.inputs import existing_path, quote_path, raise_wrong_format
from mrcnn_tf.datasets.convert.voc_folders import CLASSES, OBJECTS, files_of_split, find_files, find_roots
from mrcnn_tf.datasets.convert.voc_masks import make_palette
from mrcnn_tf.datasets.convert.voc_objects import CORNERS, VocReader
from mrcnn_tf.datasets.image_folder import ImageFolder

MAX_NUMBER = 254  # of objects or classes in a PNG; 0 is background and 255 the border


def read_voc(source, images=None, names=None, split=None, zero_based=False, split_parts=False):
    """The Dataset of a folder such as VOCdevkit/VOC2012, or of an xml file; see `convert` for readers.

    Objects are those of the xml, with the mask that SegmentationObject or an outline in the xml gives them, or only a
    box. An image without xml, or whose xml lists no object, has those of SegmentationObject. Masks that belong to no
    object, objects without a mask where others have one, and missing images are noted in it.

    Args:
        images: None for JPEGImages in the source or, without one, the source.
        names: their numbers are those in SegmentationClass if nothing in the source names its classes.
        split: a list in ImageSets, such as "train", or the folder of a split; None for all images.
        zero_based: pixels are counted from 0 in the boxes, and their ends don't belong to them, as some tools have it.
        split_parts: where there is SegmentationClass only, make an object of each part that doesn't touch the others.

    Raises:
        UserError: also if there are folders of several splits, or nothing tells objects apart.
    """
    source = existing_path(source, "the folder of a VOC dataset")
    roots = find_roots(source)
    files = find_files(source, roots)
    _check_files(files, source, split_parts)
    dataset = Dataset(source, names)
    files = files_of_split(files, split, source, roots, dataset)
    reader = VocReader(dataset, ImageFolder(images or find_photos(source)), source, names, zero_based, split_parts)
    for entry in show_progress(files, "VOC"):
        try:
            reader.read(entry)
        except BrokenFile as error:
            dataset.leave_out("broken_file", entry.main_file, str(error))
    return dataset


def find_photos(source):
    """The folder of a dataset's photos: JPEGImages, or else the source."""
    roots, outer = find_roots(source), source if source.is_dir() else source.parent
    own = roots[0] if len(roots) == 1 and outer.is_relative_to(roots[0]) else outer
    return own / "JPEGImages" if (own / "JPEGImages").is_dir() else own


def _check_files(files, source, split_parts):
    """Raises the UserError that says what is missing, if no image has what it takes to have objects."""
    if any(entry.xml or entry.objects and entry.classes or split_parts and entry.classes for entry in files):
        return
    if any(entry.classes for entry in files):
        raise UserError(
            f"{source} has {CLASSES} but no {OBJECTS}, so its masks tell classes apart and not objects: give "
            "--split-parts to make an object of each part that touches no other of its class."
        )
    for entry in files:
        photos = entry.root / "JPEGImages"
        photos = quote_path(photos) if photos.is_dir() else "FOLDER_OF_THE_IMAGES"
        maps = entry.objects.parents[entry.name.count("/")]
        command = f"mrcnn-tf convert label-maps {quote_path(maps)} --images {photos} --ignore 255 --class-name NAME"
        raise UserError(
            f"{source} has {OBJECTS} and neither xml files nor {CLASSES}, so the classes of its objects aren't known: "
            f"if all are of one class, try `{command} --out OUT.json`."
        )
    wanted = f"Annotations/NAME.xml, or {OBJECTS}/NAME.png and {CLASSES}/NAME.png, for an image NAME.jpg"
    raise_wrong_format(source, "voc", wanted=wanted)


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


def _make_label_list(names):
    """labelmap.txt as CVAT has it: name, colour, and two empty fields."""
    lines = ["# label:color_rgb:parts:actions"]
    for name, colour in zip(("background", *names), make_palette(), strict=False):
        lines.append(f"{name}:{','.join(map(str, colour.tolist()))}::")
    return "\n".join(lines) + "\n"
