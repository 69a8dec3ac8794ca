"""Binary masks: for each object a black and white picture of its image's size.

Read are folders such as ID/images/x.png with ID/masks/*.png, as of the 2018 Data Science Bowl; images/x.jpg with
masks/x.png, masks/x_1.png or masks/x/*.png; and x.jpg with x_mask_1.png, or mask_1.png, beside it. A folder between
masks and file, as in masks/cat/x_1.png, is the class.
"""

import collections
import pathlib
import re

from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.problems import show_progress
from mrcnn_tf.datasets import run_lengths
from mrcnn_tf.datasets.convert.coco import copy_image, new_folder, note_box_only, output_names
from mrcnn_tf.datasets.convert.dataset import Dataset
from mrcnn_tf.datasets.convert.geometry import connected_parts
from mrcnn_tf.datasets.convert.inputs import (
    ROBOFLOW_CLASSES,
    BrokenFile,
    existing_path,
    raise_wrong_format,
    refuse_label_studio_pngs,
)
from mrcnn_tf.datasets.image_folder import ImageFolder, find_image_files
from mrcnn_tf.datasets.map_files import read_brightness

FOLDER_NAMES = ("masks", "mask")
_MASK_NAME = re.compile(r"(^|[_\-. ])masks?([_\-. ]|\d|$)", re.IGNORECASE)
_SEPARATORS = "_-. "


def read_mask_folders(source, images=None, names=None, class_name=None, split_parts=False):
    """The Dataset of binary masks in a folder and those below; see `convert` for readers.

    Masks without image or of another size, and images without mask are noted in it.

    Args:
        class_name: the class of masks that no folder names one of; a UserError if it's needed and missing.
        split_parts: make an object of each part of a mask that doesn't touch the others.
    """
    source = existing_path(source, "the folder with the masks")
    if source.is_file() or any(source.rglob(ROBOFLOW_CLASSES)):  # pixels of those masks are numbers
        raise_wrong_format(source, "masks")
    refuse_label_studio_pngs(source)
    folder = ImageFolder(images or source)
    mask_files, image_files = _find_masks_and_images(source, folder)
    if not mask_files:
        raise_wrong_format(source, "masks")
    dataset = Dataset(source, names)
    masks_of = _match_masks(mask_files, image_files, source, dataset)
    for path in show_progress(image_files, "masks"):
        if path in masks_of:
            _read_image(path, masks_of[path], folder, class_name, split_parts, dataset)
        else:
            message = f"{path} has no mask and was left out: draw one, black if empty."
            dataset.leave_out("unlabelled_image", path, message)
    return dataset


def _find_masks_and_images(source, folder):
    """(masks, images) among the image files of the source and, if it is another one, of the folder of images."""
    files = find_image_files(source)
    masks = [path for path in files if _is_mask(path, source)]
    images = [path for path in files if not _is_mask(path, source)]
    if folder.root.resolve() == source.resolve():
        return masks, images
    outside = [path for path in find_image_files(folder.root) if not _is_mask(path, folder.root)]
    # All that the source holds are masks then, unless the images lie in it.
    return (masks if set(map(str, outside)) & set(map(str, images)) else files), outside


def _is_mask(path, source):
    parts = path.relative_to(source).parts
    return any(part.lower() in FOLDER_NAMES for part in parts[:-1]) or bool(_MASK_NAME.search(path.stem))


def _match_masks(mask_files, image_files, source, dataset):
    """dict image -> list of (mask, class or None)."""
    by_folder, by_stem = collections.defaultdict(list), collections.defaultdict(list)
    for path in image_files:
        by_folder[path.parent].append(path)
        by_stem[path.stem].append(path)
    masks_of = collections.defaultdict(list)
    for file in mask_files:
        home, below = _folder_of_masks(file, source)
        nearby = by_folder.get(home / "images") or by_folder.get(home) or []
        image = nearby[0] if len(nearby) == 1 else _find_by_name(file, below, nearby, by_stem)
        if image is None:
            message = f"{file} belongs to no image of {source} and was left out: begin its name with the image's."
            dataset.leave_out("missing_image", file, message)
        else:
            labels = [name for name in below if name != image.stem]
            masks_of[image].append((file, labels[0] if labels else None))
    return masks_of


def _folder_of_masks(file, source):
    """The folder that holds masks/ (or the file's own, without one), and the names of the folders between the two."""
    below = []
    for parent in file.parents:
        if parent.name.lower() in FOLDER_NAMES:
            return parent.parent, below
        if parent == source:
            break
        below.insert(0, parent.name)
    return file.parent, []


def _find_by_name(file, below, nearby, by_stem):
    """The image of a mask, or None: a folder may bear the image's name, or the mask's name begins with it."""
    stem = file.stem
    starts = [stem] + [stem[:end] for end in range(len(stem) - 1, 0, -1) if stem[end] in _SEPARATORS]
    for name in below + starts:  # the longest beginning first
        images = by_stem.get(name, [])
        images = [path for path in images if path in nearby] or images
        if len(images) == 1:
            return images[0]
    return None


def _read_image(path, masks, folder, class_name, split_parts, dataset):
    """Adds an image and the objects of its masks."""
    frame, image = dataset.read_frame(path), None
    if frame is None:
        return
    for file, label in masks:
        if not (label or class_name):
            raise UserError(f"No folder of {file} names its class: say what the objects are by --class-name NAME.")
        try:
            mask = _read_mask(file)
        except BrokenFile as error:
            dataset.leave_out("unreadable_mask", file, str(error))
            continue
        height, width = mask.shape
        if not frame.fits(width, height) or image and (image.width, image.height) != (width, height):
            message = f"{file} is {width} x {height} but {path} is {frame.width} x {frame.height}"
            dataset.leave_out("other_size", file, f"{message}, and it was left out: make them of one size.")
            continue
        image = image or dataset.add_image(folder.relative(path), width, height, path)
        if not mask.any():
            continue  # a black mask says that there is nothing
        for number, rle in run_lengths.encode_labels(connected_parts(mask) if split_parts else mask).items():
            dataset.add_object(image, label or class_name, file, f"Part {number}", parts=[rle])


def _read_mask(path):
    """bool [H, W] of a black and white image file: what is brighter than half of its brightest; raises BrokenFile."""
    brightness = read_brightness(path)
    return brightness > brightness.max() / 2


def write_mask_folders(coco, out, images=None, copy_images=False):
    """Writes NAME/masks/CLASS/1.png, 2.png, ... for each image NAME.jpg, white on black, and copies to NAME/images.

    Crowds and objects without a mask are left out. See `convert` for writers.
    """
    coco.note_repeated_names()
    coco.drop_crowds()
    names = output_names(coco, "")
    with new_folder(out) as folder:
        for image, name in show_progress(names, "masks"):
            copy = folder / name / "images" / pathlib.PurePosixPath(image.file_name).name
            if copy_images and not copy_image(coco, image, images, copy):
                continue
            (folder / name / "masks").mkdir(parents=True, exist_ok=True)
            for number, annotation in enumerate(image.annotations, 1):
                if annotation.segmentation is None:
                    note_box_only(coco, annotation)
                    continue
                # A class may be called what no folder can.
                class_folder = coco.names[annotation.category_id].replace("/", "_").strip(". ")
                path = folder / name / "masks" / class_folder / f"{number}.png"
                path.parent.mkdir(exist_ok=True)
                mask = run_lengths.as_pixels(annotation.segmentation, image.height, image.width)
                Image.fromarray(mask).save(path)
