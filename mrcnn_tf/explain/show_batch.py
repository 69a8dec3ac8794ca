"""Pictures of what a model is trained on and of what it predicts: single images, and a sheet of a whole batch."""

import math

import numpy as np
from PIL import Image, ImageDraw

from mrcnn_tf.common.categories import IGNORED, Category
from mrcnn_tf.results.draw import MIN_SIDE, draw_ground_truth, save_png
from mrcnn_tf.results.draw_text import font_for
from mrcnn_tf.results.segments import Panoptic, Segment

TILE_SIDE = 620  # pixels, the longer side of each image on the sheet of a batch
TITLE_SIZE, GAP = 16, 14  # pixels, of the titles and between the images of a sheet
IGNORED_BRIGHTNESS = 0.3  # of ignored pixels, which are darkened


def draw_sample(sample, categories, stuff=(), min_side=MIN_SIDE, names=True):
    """One image of a batch as training sees it, without its padding: objects, keypoints and the classes of pixels.

    Args:
        sample: a row of what `mrcnn_tf.coco_dataset` yields, dict of arrays.
        categories: the K `Category`s that its classes 1 to K stand for.
        stuff: the S that its labels 1 to S stand for; without them the labels aren't drawn.
        min_side: an image whose longer side is shorter than this many pixels is enlarged to it.
        names: whether objects have tags with the names of their classes.

    Returns:
        uint8 RGB [H, W, 3].
    """
    height, width = sample["image_size"]
    picture = sample["image"][:height, :width].round().clip(0, 255).astype(np.uint8)
    valid = np.flatnonzero(sample["classes"] > 0)
    if "semantic" in sample and len(stuff):
        labels = sample["semantic"][:height, :width]
        picture = draw_labels(picture, labels, stuff, min_side, things=not valid.size)
    scale = picture.shape[1] / width
    object_categories = [categories[label - 1] for label in sample["classes"][valid]]
    crowd = [" (crowd)" * bool(is_crowd) for is_crowd in sample["crowd"][valid]]
    return draw_ground_truth(
        picture,
        sample["boxes"][valid] * scale,
        [category.name * names + note for category, note in zip(object_categories, crowd, strict=True)],
        masks=sample["masks"][valid] if "masks" in sample else None,
        min_side=min_side,
        keypoints=sample["keypoints"][valid] * (scale, scale, 1) if "keypoints" in sample else None,
        categories=object_categories,
    )


def draw_labels(image, labels, stuff, min_side=MIN_SIDE, things=True):
    """The image with the classes of its pixels; those that are ignored are dark.

    Args:
        image: uint8 RGB [H, W, 3].
        labels: uint8 [H, W]: 1 to S of stuff, 0 of any thing, 255 where ignored.
        stuff: S `Category`s.
        min_side: as for `draw_sample`.
        things: whether pixels of things have a colour, and not only an outline.

    Returns:
        uint8 RGB [H', W', 3].
    """
    classes = [*enumerate(stuff, 1), *[(len(stuff) + 1, Category(0, "things"))] * things]
    numbers = np.where(labels == IGNORED, 0, labels).astype(np.int32)
    if things:
        numbers[labels == 0] = len(stuff) + 1
    areas = np.bincount(numbers.ravel(), minlength=len(stuff) + 2)
    segments = [
        Segment(number, category, is_thing=False, score=None, area=int(areas[number]), bbox=[0, 0, 0, 0])
        for number, category in classes
        if areas[number]
    ]
    ignored = (labels == IGNORED)[..., None]
    darkened = np.where(ignored, image * np.float32(IGNORED_BRIGHTNESS), image).astype(np.uint8)
    return Panoptic(numbers, segments).draw(darkened, min_side=min_side)


def draw_result(image, detections, min_score=0.0, min_side=MIN_SIDE):
    """The image with what a model predicts: segments, where it has a semantic head and not boxes alone, or detections.

    Args:
        image: uint8 RGB [H, W, 3], the one that the `Detections` belong to.
        detections: a `Detections`.
        min_score: of the detections drawn; what becomes a segment is up to the model (`model.panoptic`).
        min_side: as for `draw_sample`.

    Returns:
        uint8 RGB [H', W', 3].
    """
    if detections.panoptic is not None:
        return detections.panoptic.draw(image, min_side=min_side)
    return detections.draw(image, min_score=min_score, min_side=min_side)


def show_batch(batch, categories, path=None, stuff=()):
    """A sheet with all images of a batch as training sees them: boxes, masks, keypoints and classes of pixels drawn,
    padding left away.

    Args:
        batch: what `mrcnn_tf.coco_dataset` yields, dict of [B, ...] tensors or arrays.
        categories: the K `Category`s that its classes 1 to K stand for.
        path: where to write the sheet as a PNG; None writes nothing.
        stuff: the S `Category`s that its labels of pixels stand for; without them these aren't drawn.

    Returns:
        PIL.Image.Image, RGB.
    """
    batch = {name: np.asarray(values) for name, values in batch.items()}
    samples = [{name: values[i] for name, values in batch.items()} for i in range(len(batch["image"]))]
    tiles = [_make_tile(sample, categories, stuff) for sample in samples]
    columns = math.ceil(math.sqrt(len(tiles)))
    font = font_for([title for _, title in tiles], TITLE_SIZE)
    title_height = round(font.size * 1.9)
    rows = [tiles[first : first + columns] for first in range(0, len(tiles), columns)]
    widths = [max(picture.width for picture, _ in tiles[column::columns]) for column in range(columns)]
    heights = [max(picture.height for picture, _ in row) for row in rows]
    size = sum(widths) + GAP * (columns + 1), sum(heights) + (title_height + GAP) * len(rows) + GAP
    sheet = Image.new("RGB", size, "white")
    pen, y = ImageDraw.Draw(sheet), GAP
    for row, height in zip(rows, heights, strict=True):
        x = GAP
        for (picture, title), width in zip(row, widths, strict=False):
            left = x + (width - picture.width) // 2
            sheet.paste(picture, (left, y + height - picture.height))
            place = left + picture.width / 2, y + height + title_height / 2
            pen.text(place, title, fill="black", font=font, anchor="mm")
            x += width + GAP
        y += height + title_height + GAP
    if path is not None:
        save_png(np.asarray(sheet), path)
    return sheet


def _make_tile(sample, categories, stuff):
    """One image of a batch at the size it has on the sheet, with its objects, and the title below it."""
    height, width = sample["image_size"]
    count = np.count_nonzero(sample["classes"])
    # With a single category the tags would say nothing and hide much.
    several = len(categories) > 1
    picture = draw_sample(_shrink(sample, TILE_SIDE), categories, stuff, TILE_SIDE, names=several)
    name = "" if several or not categories else f" ({categories[0].name})"
    return Image.fromarray(picture), f"image {sample['image_id']}, {width} x {height}, {count} objects{name}"


def _shrink(sample, side):
    """A sample whose image is no longer than `side`."""
    height, width = (int(number) for number in sample["image_size"])
    scale = side / max(height, width)
    if scale >= 1:
        return sample
    size = max(1, round(width * scale)), max(1, round(height * scale))
    pixels = sample["image"][:height, :width].round().clip(0, 255).astype(np.uint8)
    image = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    shrunk = {"image": image.astype(np.float32), "image_size": size[::-1], "boxes": sample["boxes"] * scale}
    if "keypoints" in sample:
        shrunk["keypoints"] = sample["keypoints"] * (scale, scale, 1)
    if "semantic" in sample:
        labels = Image.fromarray(sample["semantic"][:height, :width])
        shrunk["semantic"] = np.asarray(labels.resize(size, Image.Resampling.NEAREST))
    return sample | shrunk
