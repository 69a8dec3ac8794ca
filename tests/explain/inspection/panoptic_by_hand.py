"""Two images whose segments, those that are there and those that are found, can be counted by hand."""

import json

import numpy as np
from PIL import Image

from mrcnn_tf.common.categories import Category
from mrcnn_tf.config.settings import DataConfig, ResizeConfig
from mrcnn_tf.ops.panoptic_maps import ids_to_rgb
from mrcnn_tf.results.detections import Detections
from mrcnn_tf.results.segments import Panoptic, Segment

HEIGHT, WIDTH = 8, 10
CAT, DOG, SKY, GRASS = Category(1, "cat"), Category(2, "dog"), Category(21, "sky"), Category(22, "grass")
THINGS, STUFF = [CAT, DOG], [SKY, GRASS]
# (category, rows, columns) of each segment, numbered from 1; a later one lies on top, None makes void.
THERE = {
    1: [(SKY, (0, 4), (0, 10)), (GRASS, (4, 8), (0, 10)), (CAT, (4, 6), (0, 5))],  # 40, 30 and 10 pixels
    2: [(SKY, (0, 4), (0, 10)), (GRASS, (4, 7), (0, 10))],  # 40 and 30 pixels, 10 in void
}
FOUND = {
    1: [(SKY, (0, 4), (0, 10)), (GRASS, (4, 8), (0, 10)), (None, (4, 6), (0, 5)), (CAT, (4, 6), (0, 4))],  # two in none
    2: [(SKY, (0, 2), (0, 10)), (DOG, (4, 8), (0, 10))],  # half of the sky is too little; 10 of the dog lie in void
}


def regions(parts):
    """(int32 [H, W] ids, [(id, category)])."""
    ids = np.zeros((HEIGHT, WIDTH), np.int32)
    for number, (category, rows, columns) in enumerate(parts, 1):
        ids[slice(*rows), slice(*columns)] = number if category else 0
    return ids, [(number, part[0]) for number, part in enumerate(parts, 1) if part[0]]


def write(folder):
    """Writes the dataset; gives its `DataConfig`."""
    (folder / "images").mkdir(parents=True)
    (folder / "maps").mkdir()
    (folder / "labels").mkdir()
    images, annotations = [], []
    for image_id, parts in THERE.items():
        name = f"{image_id}.png"
        ids, segments = regions(parts)
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, np.uint8)).save(folder / "images" / name)
        Image.fromarray(ids_to_rgb(ids)).save(folder / "maps" / name)
        table = np.array([0, *(category.id for _, category in segments)], np.uint8)
        Image.fromarray(table[ids]).save(folder / "labels" / name)
        images.append({"id": image_id, "file_name": name, "height": HEIGHT, "width": WIDTH})
        info = [{"id": number, "category_id": category.id, "iscrowd": 0} for number, category in segments]
        annotations.append({"image_id": image_id, "file_name": name, "segments_info": info})
    kinds = (THINGS, 1), (STUFF, 0)
    categories = [{"id": one.id, "name": one.name, "isthing": isthing} for group, isthing in kinds for one in group]
    path = folder / "panoptic.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return config(folder, panoptic=str(path), panoptic_maps=str(folder / "maps"))


def config(folder, **parts):
    size = ResizeConfig(min_size=32, max_size=64)
    names = {"categories": list(THINGS), "stuff": list(STUFF), "images_per_batch": 1, "resize": size}
    return DataConfig(images=str(folder / "images"), **names, **parts)


def semantic(image_id):
    """The class that the model gives each pixel: that of its segment, and things where it is of none."""
    ids, listed = regions(FOUND[image_id])
    labels = np.zeros(ids.shape, np.uint8)
    for number, category in listed:
        labels[ids == number] = 1 + STUFF.index(category) if category in STUFF else 0
    return labels


class Known(Detections):
    """Detections whose segments and classes of pixels are given and not made."""

    semantic = panoptic = None


class Answering:
    """A model that finds what `FOUND` says; without `instances` the stuff of it alone."""

    def __init__(self, instances=True):
        self.instances = instances

    def gives(self, *names):
        return {"semantic_logits", *["boxes", "masks"] * self.instances}.issuperset(names)

    def detect_batch(self, batch):
        return [self._found(image_id) for image_id in np.asarray(batch["image_id"]).tolist()]

    def _found(self, image_id):
        ids, listed = regions(FOUND[image_id])
        segments = []
        for number, category in listed:
            if category in STUFF or self.instances:
                area = int((ids == number).sum())
                segments.append(Segment(number, category, category in THINGS, None, area, [0, 0, 1, 1]))
            else:
                ids[ids == number] = 0
        masks = np.zeros((0, 28, 28)) if self.instances else None
        found = Known(np.zeros((0, 4)), [], [], ids.shape, THINGS, masks)
        found.panoptic = Panoptic(ids, segments)
        found.semantic = semantic(image_id)
        return found
