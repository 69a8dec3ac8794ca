"""COCO's json to a Pascal VOC dataset. See `voc` for the format."""

import pathlib
import xml.etree.ElementTree as ElementTree

import numpy as np
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.progress import steps
from mrcnn_tf.datasets import masks
from mrcnn_tf.datasets.convert.label_images import palette
from mrcnn_tf.datasets.convert.painting import painted
from mrcnn_tf.datasets.convert.writing import by_target, image_path, new_folder, put_image

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
        for image, stem in steps(targets, "VOC"):
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
        x, y, width, height = masks.box_of_runs(masks.as_rle(instance.segmentation, image.height, image.width))
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
