"""Random panoptic images, a prediction for each, and both as files in COCO's format."""

import json

import numpy as np
from PIL import Image

from mrcnn_tf.common.categories import Category

THINGS = [Category(3, "cat"), Category(7, "dog"), Category(90, "brush")]
STUFF = [Category(92, "sky"), Category(200, "grass")]
CATEGORIES = THINGS + STUFF
HEIGHT, WIDTH = 30, 44


def scene(generator, crowds=True):
    """(truth map, its segments, found map, its segments): stuff in bands, things on it, void holes, crowds.

    The prediction is the truth with most segments moved by a pixel or two, some of another category, some left out,
    and others added. A category has one crowd at most, since that is what COCO's own code is made for.
    """
    truth, truth_segments = np.zeros([HEIGHT, WIDTH], np.int32), []
    found, found_segments = np.zeros([HEIGHT, WIDTH], np.int32), []
    top = 0
    for category in STUFF:
        bottom = top + int(generator.integers(5, 14))
        _paint(truth, truth_segments, generator, (top, bottom, 0, WIDTH), category.id)
        _paint(found, found_segments, generator, (top, bottom + 1, 0, WIDTH - 3), category.id)
        top = bottom
    for number in range(9):
        category_id = int(generator.choice([category.id for category in THINGS]))
        box = _box(generator)
        crowd = (
            crowds and number < 3 and not any(s["iscrowd"] and s["category_id"] == category_id for s in truth_segments)
        )
        _paint(truth, truth_segments, generator, box, category_id, crowd)
        chance = generator.random()
        if chance < 0.85:
            moved = [max(side + int(generator.integers(0, 2)), 0) for side in box]
            category_id = category_id if chance > 0.15 else CATEGORIES[int(generator.integers(5))].id
            _paint(found, found_segments, generator, moved, category_id)
    for _ in range(3):
        _paint(found, found_segments, generator, _box(generator), int(generator.choice([3, 7, 90, 200])))
        top, bottom, left, right = _box(generator)
        truth[top:bottom, left:right] = 0
    return truth, _visible(truth, truth_segments), found, _visible(found, found_segments)


def _box(generator):
    top, left = generator.integers(0, [HEIGHT - 4, WIDTH - 4])
    height, width = generator.integers(4, 15, 2)
    return int(top), int(top + height), int(left), int(left + width)


def _paint(segment_map, segments, generator, box, category_id, crowd=False):
    segment_id = int(generator.integers(1, 256**3))
    top, bottom, left, right = box
    segment_map[top:bottom, left:right] = segment_id
    segments.append({"id": segment_id, "category_id": category_id, "iscrowd": int(crowd)})


def _visible(segment_map, segments):
    areas = [int((segment_map == segment["id"]).sum()) for segment in segments]
    return [segment | {"area": area} for segment, area in zip(segments, areas, strict=True) if area]


def category_records():
    return [{"id": c.id, "name": c.name, "isthing": int(c in THINGS)} for c in CATEGORIES]


def write_maps(folder, name, maps, **keys):
    """Writes a panoptic json and its folder of PNGs; gives both paths.

    Args:
        folder: pathlib.Path.
        name: of the json, and of the folder beside it.
        maps: {image id: (int [H, W], segments)}.
        keys: of the json, in the place of those written.
    """
    (folder / name).mkdir()
    data = {"images": [], "annotations": [], "categories": category_records()}
    for image_id, (segment_map, segments) in maps.items():
        height, width = segment_map.shape
        data["images"].append({"id": image_id, "file_name": f"{image_id}.jpg", "height": height, "width": width})
        record = {"image_id": image_id, "file_name": f"{image_id}.png", "segments_info": segments}
        data["annotations"].append(record)
        channels = np.stack([segment_map % 256, segment_map // 256 % 256, segment_map // 65536], axis=-1)
        Image.fromarray(channels.astype(np.uint8)).save(folder / name / f"{image_id}.png")
    path = folder / f"{name}.json"
    path.write_text(json.dumps(data | keys))
    return path, folder / name
