"""COCO's json to a YOLO dataset for segmentation. See `yolo` for the format."""

import yaml

from mrcnn_tf.common.progress import steps
from mrcnn_tf.datasets.convert.outlines import as_one_polygon
from mrcnn_tf.datasets.convert.writing import by_target, image_path, new_folder, put_image

DIGITS = 9  # after the point: a thousandth of a pixel in an image of a million


def write_yolo(coco, out, images=None, copy_images=False):
    """Writes data.yaml and labels/ with a text file for each image.

    A line can't have several parts or holes, so these become one outline with ways between them, as Ultralytics' own
    converter has it. Where no object has a mask, lines are boxes; a mixture would make Ultralytics forget the outlines,
    so objects that have only a box are left out then.

    Args:
        coco: coco_json.CocoJson; what is left out is noted in it: crowds, boxes among outlines and, with `copy_images`,
            images that aren't there.
        out: a new folder.
        images: the folder of the images, for `copy_images`.
        copy_images: put the images into images/ beside labels/.

    Raises:
        UserError: `out` has files already, there is no folder of images, or two images would get the same labels.
    """
    numbers = {category: number for number, category in enumerate(coco.names)}
    coco.drop_crowds()
    targets = by_target(coco, ".txt")
    outlined = any(one.segmentation is not None for image in coco.images for one in image.instances)
    with new_folder(out) as folder:
        for image, target in steps(targets, "YOLO"):
            if copy_images:
                path = image_path(coco, image, images)
                if path is None:
                    continue
                put_image(path, folder / "images" / image.file_name)
            file = folder / "labels" / target
            file.parent.mkdir(parents=True, exist_ok=True)
            lines = [_line(instance, image, numbers) for instance in _wanted(image, coco, outlined)]
            file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        content = {"train": "images", "val": "images", "names": dict(enumerate(coco.names.values()))}
        text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
        (folder / "data.yaml").write_text(text, encoding="utf-8")


def _wanted(image, coco, outlined):
    for instance in image.instances:
        if outlined and instance.segmentation is None:
            message = f"Annotation {instance.id} in {coco.source} has only a box among outlines and was left out."
            coco.leave_out("no_mask", message, instance.id)
        else:
            yield instance


def _line(instance, image, numbers):
    if instance.segmentation is None:
        x, y, width, height = instance.box
        values = [x + width / 2, y + height / 2, width, height]
    else:
        values = as_one_polygon(instance.segmentation, image.height, image.width)
    parts = [value / (image.height if place % 2 else image.width) for place, value in enumerate(values)]
    return " ".join([str(numbers[instance.category_id]), *(f"{part:.{DIGITS}f}" for part in parts)])
