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
from mrcnn_tf.datasets.convert.coco import by_target, image_path, new_folder, put_image
from mrcnn_tf.datasets.convert.dataset import Dataset
from mrcnn_tf.datasets.convert.geometry import connected_parts
from mrcnn_tf.datasets.convert.inputs import BrokenFile, ImageFolder, existing, frame_of, image_files, refuse_other
from mrcnn_tf.datasets.convert.label_images import read_mask

FOLDERS = ("masks", "mask")
_MASK_NAME = re.compile(r"(^|[_\-. ])masks?([_\-. ]|\d|$)", re.IGNORECASE)
_SEPARATORS = "_-. "


def read_mask_folders(source, images=None, names=None, class_name=None, split_parts=False):
    """The objects of folders of binary masks.

    Args:
        source: the folder; folders below are read as well.
        images: the folder that file names will be relative to; None for `source`.
        names: ClassNames, to leave out other classes.
        class_name: the class of masks that no folder names one of.
        split_parts: make an object of each part of a mask that doesn't touch the others.

    Returns:
        Dataset. Masks without image, of another size or without a pixel, and images without mask are noted in it.

    Raises:
        UserError: the source isn't there, is packed or has no masks, or nothing says what the objects are.
    """
    source = existing(source, "the folder with the masks")
    if source.is_file():
        refuse_other(source, "masks")
    folder = ImageFolder(images or source)
    mask_files, pictures = _sorted_out(source, folder)
    if not mask_files:
        refuse_other(source, "masks")
    dataset = Dataset(source, names)
    owned = _owners(mask_files, pictures, source, dataset)
    for image in show_progress(pictures, "masks"):
        if image not in owned:
            dataset.leave_out(
                "unlabelled_image", image, f"{image} has no mask and was left out: draw one, black if empty."
            )
            continue
        _read_image(image, owned[image], folder, class_name, split_parts, dataset)
    return dataset


def _sorted_out(source, folder):
    """(masks, images) among the image files of the source and, if it is another one, of the folder of images."""
    files = image_files(source)
    found = [path for path in files if _is_mask(path, source)]
    pictures = [path for path in files if not _is_mask(path, source)]
    if folder.root.resolve() != source.resolve():
        # All that the source holds are masks then, unless the images lie in it.
        outside = [path for path in image_files(folder.root) if not _is_mask(path, folder.root)]
        if not set(map(str, outside)) & set(map(str, pictures)):
            found, pictures = files, outside
        else:
            pictures = outside
    return found, pictures


def _is_mask(path, source):
    parts = path.relative_to(source).parts
    return any(part.lower() in FOLDERS for part in parts[:-1]) or bool(_MASK_NAME.search(path.stem))


def _owners(mask_files, pictures, source, dataset):
    """dict image -> list of (mask, class or None)."""
    beside = collections.defaultdict(list)
    for path in pictures:
        beside[path.parent].append(path)
    by_stem = collections.defaultdict(list)
    for path in pictures:
        by_stem[path.stem].append(path)
    owned = collections.defaultdict(list)
    for file in mask_files:
        home, below = _home(file, source)
        nearby = beside.get(home / "images") or beside.get(home) or []
        image = nearby[0] if len(nearby) == 1 else _by_name(file, below, nearby, by_stem)
        if image is None:
            message = f"{file} belongs to no image of {source} and was left out: begin its name with the image's."
            dataset.leave_out("missing_image", file, message)
        else:
            labels = [name for name in below if name != image.stem]
            owned[image].append((file, labels[0] if labels else None))
    return owned


def _home(file, source):
    """The folder that holds masks/ (or the file's own, without one), and the names of the folders between the two."""
    below = []
    for parent in file.parents:
        if parent.name.lower() in FOLDERS:
            return parent.parent, below
        if parent == source:
            break
        below.insert(0, parent.name)
    return file.parent, []


def _by_name(file, below, nearby, by_stem):
    """The image of a mask, or None: a folder may bear the image's name, or the mask's name begins with it."""
    stem = file.stem
    starts = [stem] + [stem[:place] for place in range(len(stem) - 1, 0, -1) if stem[place] in _SEPARATORS]
    for name in below + starts:  # the longest beginning first
        found = by_stem.get(name, [])
        found = [path for path in found if path in nearby] or found
        if len(found) == 1:
            return found[0]
    return None


def _read_image(image, files, folder, class_name, split_parts, dataset):
    try:
        frame = frame_of(image)
    except BrokenFile as error:
        dataset.leave_out("unreadable_image", image, str(error))
        return
    picture = None
    for file, label in files:
        if not (label or class_name):
            raise UserError(f"No folder of {file} names its class: say what the objects are by --class-name NAME.")
        try:
            mask = read_mask(file)
        except BrokenFile as error:
            dataset.leave_out("unreadable_mask", file, str(error))
            continue
        height, width = mask.shape
        if not frame.fits(width, height) or picture and (picture.width, picture.height) != (width, height):
            message = f"{file} is {width} x {height} but {image} is {frame.width} x {frame.height}"
            dataset.leave_out("other_size", file, f"{message}, and it was left out: make them of one size.")
            continue
        picture = picture or dataset.add_picture(folder.relative(image), width, height, image)
        if not mask.any():
            continue  # a black mask says that there is nothing
        for number, rle in run_lengths.encode_labels(connected_parts(mask) if split_parts else mask).items():
            dataset.add_object(picture, label or class_name, file, f"Part {number}", parts=[rle])


# COCO's json to a folder of binary masks for each image. See `mask_folders` for the format.
#

def write_mask_folders(coco, out, images=None, copy_images=False):
    """Writes NAME/masks/CLASS/1.png, 2.png, ... for each image NAME.jpg, white on black.

    Args:
        coco: coco_json.CocoJson; what is left out is noted in it: crowds, objects without a mask and, with
            `copy_images`, images that aren't there.
        out: a new folder.
        images: the folder of the images, for `copy_images`.
        copy_images: put each image into NAME/images.

    Raises:
        UserError: `out` has files already, there is no folder of images, or two images would get the same folder.
    """
    coco.drop_crowds()
    targets = by_target(coco, "")
    with new_folder(out) as folder:
        for image, target in show_progress(targets, "masks"):
            if copy_images:
                path = image_path(coco, image, images)
                if path is None:
                    continue
                put_image(path, folder / target / "images" / pathlib.PurePosixPath(image.file_name).name)
            (folder / target / "masks").mkdir(parents=True, exist_ok=True)
            _write_masks(coco, image, folder / target / "masks")


def _write_masks(coco, image, folder):
    for number, instance in enumerate(image.instances, 1):
        if instance.segmentation is None:
            message = f"Annotation {instance.id} in {coco.source} has only a box, which a picture of pixels can't show."
            coco.leave_out("no_mask", message, instance.id)
            continue
        # A class may be called what no folder can.
        place = folder / coco.names[instance.category_id].replace("/", "_").strip(". ")
        place.mkdir(exist_ok=True)
        mask = run_lengths.as_pixels(instance.segmentation, image.height, image.width)
        Image.fromarray(mask).save(place / f"{number}.png")
