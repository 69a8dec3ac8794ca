"""A small dataset with maps, made by hand, for tests of what is read and of what can be wrong with it."""

import json

import numpy as np
from PIL import Image

from mrcnn_tf.common.categories import Category
from mrcnn_tf.config.settings import AugmentConfig, DataConfig, ResizeConfig

CATEGORIES = [
    {"id": 90, "name": "sky", "isthing": 0},
    {"id": 3, "name": "cat", "isthing": 1},
    {"id": 7, "name": "grass", "isthing": 0},
    {"id": 1, "name": "dog", "isthing": 1},
]
SKY, GRASS, CAT, DOG = 70000, 256, 5, 1 << 23  # segments
STILL = AugmentConfig(horizontal_flip=0.0)


class PanopticFolder:
    """Images of random pixels, each with sky over grass, a cat in front, a crowd of dogs, and void at the left."""

    def __init__(self, path):
        self.path = path
        self.images, self.annotations, self.categories = [], [], [dict(one) for one in CATEGORIES]
        for name in ("images", "maps", "labels"):
            (path / name).mkdir()

    def add(self, number, width=40, height=30, name=None, **save):
        """Adds an image of the size that is seen; its ids [height, width]."""
        name = name or f"{number}.png"
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(self.path / "images" / name, **save)
        ids = np.full((height, width), SKY)
        ids[height // 2 :] = GRASS
        ids[5:25, 10:18], ids[10:15, 18:21] = CAT, CAT
        ids[2:9, 24:28] = DOG
        ids[:, 0] = 0
        self.images.append({"id": number, "file_name": name, "width": width, "height": height})
        segments = [
            self.segment(SKY, 90, ids),
            self.segment(CAT, 3, ids),
            self.segment(GRASS, 7, ids),
            self.segment(DOG, 1, ids, iscrowd=1),
        ]
        self.annotations.append({"image_id": number, "file_name": f"{number}.png", "segments_info": segments})
        self.write_map(number, ids)
        of_id = {0: 0, SKY: 90, CAT: 3, GRASS: 7, DOG: 1}
        self.write_labels(number, np.vectorize(of_id.get)(ids))
        return ids

    @staticmethod
    def segment(number, category, ids, **changes):
        rows, columns = np.nonzero(ids == number)
        low, high = (columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)
        box = [int(side) for side in (*low, high[0] - low[0], high[1] - low[1])]
        return {"id": number, "category_id": category, "area": len(rows), "bbox": box, "iscrowd": 0} | changes

    def write_map(self, number, ids):
        colours = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)
        Image.fromarray(colours).save(self.path / "maps" / f"{number}.png")

    def write_labels(self, number, values):
        Image.fromarray(values.astype(np.uint8)).save(self.path / "labels" / f"{number}.png")

    def config(self, **settings):
        """With the panoptic json."""
        records = {"images": self.images, "annotations": self.annotations, "categories": self.categories}
        (self.path / "p.json").write_text(json.dumps(records))
        maps = {"panoptic": str(self.path / "p.json"), "panoptic_maps": str(self.path / "maps")}
        return self._config(**(maps | settings))

    def label_config(self, **settings):
        """With label maps alone."""
        things = [Category(1, "dog"), Category(3, "cat")]
        stuff = [Category(7, "grass"), Category(90, "sky")]
        maps = {"semantic_maps": str(self.path / "labels"), "stuff": stuff, "categories": things}
        return self._config(**(maps | settings))

    def _config(self, **settings):
        usual = {"resize": ResizeConfig(30, 60), "mask_size": 28, "max_instances": 5, "augment": STILL}
        return DataConfig(images=str(self.path / "images"), **(usual | settings))


def labels_of(ids):
    """The semantic labels of `PanopticFolder`'s ids."""
    return np.select([ids == CAT, ids == DOG, ids == GRASS, ids == SKY], [0, 0, 1, 2], 255).astype(np.uint8)
