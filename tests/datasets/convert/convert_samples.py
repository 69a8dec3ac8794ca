"""Small images and a COCO json with what converters stumble over: holes, parts, overlaps, odd names."""

import json
import pathlib

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask


def save_image(path, width, height, orientation=1):
    """An image file of that stored size, with an EXIF orientation if it isn't 1."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.full([height, width, 3], 90, np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, **({"exif": exif} if orientation != 1 else {}))
    return path


def ring(height, width):
    """bool [H, W]: a block with a hole, and a single pixel that touches it by a corner."""
    mask = np.zeros([height, width], bool)
    mask[2:9, 3:11] = True
    mask[4:6, 5:8] = False
    mask[9, 11] = True
    return mask


def rle(mask):
    encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}


def pixels(annotation, image):
    """bool [H, W] of a COCO annotation by pycocotools."""
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, list):
        segmentation = coco_mask.merge(coco_mask.frPyObjects(segmentation, image["height"], image["width"]))
    return coco_mask.decode(segmentation).astype(bool)


def save_coco(folder, overlapping=False, boxes=True, flat=False):
    """Writes images and coco.json into a folder; gives (json, folder of images, the json's content)."""
    folder = pathlib.Path(folder)
    names = ["a b.png", "zwei.jpg" if flat else "unter ordner/zwei.jpg", "日本.png"]
    sizes = [(24, 18), (31, 20), (16, 16)]
    images = []
    for number, (name, (width, height)) in enumerate(zip(names, sizes, strict=True), 5):
        save_image(folder / "images" / name, width, height)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
    parts = [[1.5, 1.25, 8.5, 1.0, 7.0, 7.75], [12.0, 2.0, 19.0, 2.5, 18.5, 9.5, 11.0, 9.0]]
    annotations = [
        (5, 7, parts),
        (5, 3, [[2.0, 10.0, 20.0, 11.0, 20.0, 16.0, 3.0, 15.5]]),
        (6, 3, rle(ring(20, 31))),
        (6, 7, [[15.0, 12.0, 25.0, 12.0, 25.0, 19.0, 15.0, 19.0]]),
    ]
    if overlapping:
        annotations.append((6, 7, [[18.0, 14.0, 30.0, 14.0, 30.0, 19.5, 18.0, 19.5]]))
    records = []
    for number, (image_id, category, segmentation) in enumerate(annotations, 1):
        height, width = next((image["height"], image["width"]) for image in images if image["id"] == image_id)
        record = {"id": 10 * number, "image_id": image_id, "category_id": category, "segmentation": segmentation}
        mask = pixels(record, {"height": height, "width": width})
        box = coco_mask.toBbox(coco_mask.encode(np.asfortranarray(mask, np.uint8))).tolist()
        records.append(record | {"bbox": box, "area": int(mask.sum()), "iscrowd": 0})
    if boxes:
        box = {"segmentation": [], "bbox": [10.0, 1.0, 12.0, 6.0], "area": 72.0, "iscrowd": 0}
        records.append({"id": 90, "image_id": 6, "category_id": 7} | box)
    categories = [{"id": 3, "name": "Zelle groß"}, {"id": 7, "name": "猫"}]
    content = {"images": images, "annotations": records, "categories": categories}
    path = folder / "coco.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path, folder / "images", content


def objects(coco):
    """dict file name -> list of (class, pixels or None, box), in the order of the json."""
    names = {category["id"]: category["name"] for category in coco["categories"]}
    objects_of = {image["file_name"]: [] for image in coco["images"]}
    images = {image["id"]: image for image in coco["images"]}
    for annotation in coco["annotations"]:
        image = images[annotation["image_id"]]
        mask = pixels(annotation, image) if annotation["segmentation"] else None
        objects_of[image["file_name"]].append((names[annotation["category_id"]], mask, annotation["bbox"]))
    return objects_of


def assert_same_objects(coco, other):
    """The same files with the same classes, exactly the same masks and, where there is no mask, the same boxes."""
    coco, other = objects(coco), objects(other)
    assert coco.keys() == other.keys()
    for name in coco:
        assert sorted(map(_key, coco[name])) == sorted(map(_key, other[name]))


def _key(entry):
    name, mask, box = entry
    return name, b"" if mask is None else mask.tobytes(), [] if mask is not None else np.round(box, 2).tolist()


def kinds(dataset):
    """The kinds of the problems of a Dataset or CocoJson, sorted."""
    return sorted(problem.kind for problem in dataset.problems)


def labelme_shape(kind, points, label="cat", group=None, **fields):
    """A record of labelme's "shapes"."""
    record = {"label": label, "points": points, "group_id": group, "description": "", "shape_type": kind}
    return record | {"flags": {}, "mask": None} | fields


def save_labelme(path, shapes, name, width, height, **fields):
    """labelme's json of an image."""
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": name, "imageData": None}
    content |= {"imageHeight": height, "imageWidth": width} | fields
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
