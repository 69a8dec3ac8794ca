"""COCO's json to a folder of binary masks for each image. See `mask_folders` for the format."""

import pathlib

from PIL import Image

from mrcnn_tf.common.progress import steps
from mrcnn_tf.datasets import masks
from mrcnn_tf.datasets.convert.writing import by_target, image_path, new_folder, put_image


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
        for image, target in steps(targets, "masks"):
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
        mask = masks.as_pixels(instance.segmentation, image.height, image.width)
        Image.fromarray(mask).save(place / f"{number}.png")
