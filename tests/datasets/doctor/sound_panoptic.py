"""A small panoptic dataset with nothing wrong in it, made by hand, to be spoilt in one way at a time."""

import json

import numpy as np
from PIL import Image
from sound_dataset import HEIGHT, WIDTH, Document, picture

CELL, SKY, GRASS = 9, 21, 200
SKY_ID, GRASS_ID = 255, 70000  # R and B of the second differ from zero and one another


class PanopticDataset(Document):
    """Two images of sky with six cells, grass and void; `document` and `maps` may be changed before `write`."""

    def __init__(self, folder, name="train", seed=0):
        self.json, self.images, self.folder = (
            folder / f"{name}.json",
            folder / f"{name} images",
            folder / f"{name} maps",
        )
        for folder in (self.images, self.folder):
            folder.mkdir(parents=True)
        self.document = {"images": [], "annotations": [], "categories": []}
        for number, what, isthing in ((CELL, "cell", 1), (SKY, "sky", 0), (GRASS, "grass", 0)):
            self.categories.append({"id": number, "name": what, "isthing": isthing})
        self.maps = {}
        for number in (1, 2):
            picture(number, seed).save(self.images / f"{number}.png")
            self.records.append({"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT})
            ids = np.full((HEIGHT, WIDTH), SKY_ID)
            ids[30:], ids[47:] = GRASS_ID, 0
            # The sky is 64 x 30 pixels, less the six cells of 8 x 10 in it.
            segments = [
                segment(SKY_ID, SKY, 1920 - 480, [0, 0, 64, 30]),
                segment(GRASS_ID, GRASS, 1088, [0, 30, 64, 17]),
            ]
            for place in range(6):
                x = 2 + 10 * place
                ids[5:15, x : x + 8] = cell_id(place)
                segments.append(segment(cell_id(place), CELL, 80, [x, 5, 8, 10]))
            self.maps[number] = ids
            annotation = {"image_id": number, "file_name": f"map {number}.png", "segments_info": segments}
            self.annotations.append(annotation)

    @property
    def segments(self):
        """Of the second image: sky, grass, six cells."""
        return self.annotations[1]["segments_info"]

    def file(self, number=2):
        return self.folder / f"map {number}.png"

    def write(self):
        """The json and the folder of images, as str."""
        for number, ids in self.maps.items():
            Image.fromarray(colours(ids)).save(self.file(number))
        self.json.write_text(json.dumps(self.document))
        return str(self.json), str(self.images)


def cell_id(place):
    return 5000 + place


def segment(number, category, area, box):
    return {"id": number, "category_id": category, "area": area, "bbox": box, "iscrowd": 0}


def colours(ids):
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
