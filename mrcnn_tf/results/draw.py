"""Pictures of detections and of ground truth on their image, and two pictures side by side.

Every instance gets a translucent fill, a contour, a thin box, its keypoints and a tag with its name. Lines carry a rim
of black or white, whichever their colour stands out against, so that they show on any background. A small picture is
enlarged first, or its text could not be read.
"""

import dataclasses
import re

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.ops.masks import MaskWindow, paste_window
from mrcnn_tf.results.draw_text import contrast_colour, draw_tag, font_for, place_tag, tag_font, tag_size

MIN_SIDE = 768  # pixels; a picture whose longer side is shorter is enlarged
FILL_OPACITY = 0.35
LINES_PER_SIDE = 750  # the longer side of a picture by the thickness of its lines

# Okabe and Ito, "Color Universal Design" (2008): told apart with any common colour blindness. Black is left out.
BASE_COLOURS = (
    (0, 158, 215),
    (230, 159, 0),
    (0, 178, 125),
    (240, 228, 66),
    (204, 121, 167),
    (213, 94, 0),
    (86, 180, 233),
    (20, 90, 200),
)

HIDDEN, VISIBLE = 1, 2  # COCO's "v" of a keypoint; 0 is not labelled
MIN_VISIBLE_SCORE = 0.05  # the least probability of a keypoint that is drawn as visible, as in detectron2's pictures
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
_LEFT_OR_RIGHT = re.compile(r"left|right|(?<![a-z])[lr](?![a-z])", re.IGNORECASE)


def draw_detections(image, detections, min_score=0.0, min_side=MIN_SIDE):
    """Draw boxes, masks, keypoints, class names and scores, and what else there is a single number of.

    Args:
        image: uint8 RGB [H, W, 3], the one that the detections belong to.
        detections: a `Detections`.
        min_score: draw only what scores at least this.
        min_side: an image whose longer side is shorter than this many pixels is enlarged to it; 0 never enlarges.

    Returns:
        uint8 RGB [H', W', 3]: H' = H and W' = W unless the image was enlarged.

    Raises:
        UserError: the image is not uint8 [H, W, 3] or is not as large as the detections say.
    """
    check_image(image, detections.image_size, "detections")
    picture, scale = enlarge(image, min_side)
    masks, size = detections.mask_probabilities, (picture.height, picture.width)
    keypoints = None if detections.keypoints is None else scores_to_visibility(detections.keypoints)
    instances = []
    for index in np.nonzero(detections.scores >= min_score)[0]:
        box = detections.boxes[index] * scale
        label = detections.label(index)
        # Pasted at the drawing's size: the contour of an enlarged picture stays smooth.
        window = None if masks is None else paste_window(masks[index], box, *size, detections.mask_rule)
        points = None if keypoints is None else keypoints[index] * (scale, scale, 1)
        instances.append(Instance(box, label, instance_colour(index), window, points, detections.categories[index]))
    return _draw(picture, instances)


def draw_ground_truth(image, boxes, names, masks=None, min_side=MIN_SIDE, keypoints=None, categories=None):
    """Draw annotated instances.

    Args:
        image: uint8 RGB [H, W, 3].
        boxes: [G, 4] pixels.
        names: G class names.
        masks: [G, S, S], each instance inside its box: float or bool 0..1, or uint8 0..255 as the data pipeline gives
            them; None draws none.
        min_side: as for `draw_detections`.
        keypoints: [G, P, 3], x and y in pixels and COCO's visibility; None draws none.
        categories: G `Category`s, whose keypoints and skeletons these are; only needed with `keypoints`.

    Returns:
        uint8 RGB [H', W', 3], enlarged as by `draw_detections`.

    Raises:
        UserError: the image is not uint8 [H, W, 3].
    """
    check_image(image)
    picture, scale = enlarge(image, min_side)
    threshold = 127.5 if masks is not None and np.asarray(masks).dtype == np.uint8 else 0.5
    instances = []
    for index, (box, name) in enumerate(zip(np.asarray(boxes, np.float32) * scale, names, strict=True)):
        instance = Instance(box, name, instance_colour(index))
        if masks is not None:
            instance.window = paste_window(masks[index], box, picture.height, picture.width, "detectron2", threshold)
        if keypoints is not None:
            instance.keypoints = np.asarray(keypoints[index]) * (scale, scale, 1)
            instance.category = categories[index]
        instances.append(instance)
    return _draw(picture, instances)


def side_by_side(left, right, titles=("ground truth", "detections")):
    """Put two pictures in a row, each under its title, the lower one enlarged to the height of the other.

    All are uint8 RGB [H, W, 3]; the result is as wide as both and a gap.
    """
    height = max(left.shape[0], right.shape[0])
    pictures = []
    for picture in (left, right):
        check_image(picture)
        width = round(picture.shape[1] * height / picture.shape[0])
        pictures.append(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
    font = font_for(titles, max(14, height // 40))
    strip, gap = round(font.size * 1.9), max(8, height // 80)
    sheet = Image.new("RGB", (pictures[0].width + gap + pictures[1].width, strip + height), "white")
    pen = ImageDraw.Draw(sheet)
    x = 0
    for picture, title in zip(pictures, titles, strict=True):
        sheet.paste(picture, (x, strip))
        pen.text((x + picture.width / 2, strip / 2), title, fill="black", font=font, anchor="mm")
        x += picture.width + gap
    return np.asarray(sheet)


def save_png(image, path):
    """Write uint8 RGB [H, W, 3] as a PNG, under a temporary name until it is complete; makes the folder."""
    with atomic_write(path) as file:
        Image.fromarray(image).save(file, format="PNG")


def instance_colour(index):
    """RGB of the index-th instance: the eight base colours, then lighter and darker ones of the same hues."""
    colour = np.array(BASE_COLOURS[index % len(BASE_COLOURS)], float)
    shade = (index // len(BASE_COLOURS)) % 3
    if shade == 1:
        colour = colour + (255 - colour) * 0.45
    elif shade == 2:
        colour = colour * 0.68
    return tuple(int(c) for c in colour.round())


def scores_to_visibility(keypoints):
    """Detected keypoints [..., 3] with COCO's visibility instead of scores: HIDDEN where they are unsure.

    Whether the scores are probabilities shows by their lying in 0..1. With logits, which have no such limit, every
    keypoint counts as VISIBLE.
    """
    scores = keypoints[..., 2]
    unsure = (scores < MIN_VISIBLE_SCORE) & (scores.min(initial=0) >= 0) & (scores.max(initial=0) <= 1)
    return np.concatenate([keypoints[..., :2], np.where(unsure, HIDDEN, VISIBLE)[..., None]], axis=-1)


def check_image(image, size=None, drawn="detections"):
    """Raise UserError for an image that can't be drawn on.

    Args:
        image: should be uint8 RGB [H, W, 3].
        size: (H, W) of what is drawn; None takes any.
        drawn: what is drawn, for the message.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        kind = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UserError(f"A picture to draw on must be a numpy array, uint8 [H, W, 3] in RGB order, not {kind}.")
    if size is not None and image.shape[:2] != size:
        raise UserError(
            f"The picture is of size {image.shape[:2]} but the {drawn} belong to one of {size}: "
            "draw them on the image that was given to detect()."
        )


def enlarge(image, min_side):
    """(the image as a Pillow image whose longer side is at least `min_side` pixels, the factor it was enlarged by)."""
    picture = Image.fromarray(image)
    scale = max(1.0, min_side / max(picture.size))
    if scale == 1.0:
        return picture, 1.0
    size = round(picture.width * scale), round(picture.height * scale)
    return picture.resize(size, Image.Resampling.BICUBIC), scale


@dataclasses.dataclass
class Instance:
    """A thing to draw, in pixels of the picture."""

    box: np.ndarray  # [4]
    label: str  # the text of its tag
    colour: tuple[int, int, int]  # RGB
    window: MaskWindow | None = None  # its mask
    # [P, 3], x, y and COCO's visibility. P may be more than the category's own; the rest isn't drawn.
    keypoints: np.ndarray | None = None
    category: Category | None = None  # whose names and limbs the keypoints have


def _draw(picture, instances):
    """Draw fills and contours, boxes, keypoints, then tags: no mask hides a label. Small ones lie on large ones."""
    line = max(1.0, max(picture.size) / LINES_PER_SIDE)
    pixels = np.array(picture)
    large_first = sorted(instances, key=lambda instance: -np.prod(_sides(instance.box)))
    for instance in large_first:
        if instance.window is not None:
            _blend_mask(pixels, instance, line)
    picture = Image.fromarray(pixels)
    pen = ImageDraw.Draw(picture, "RGBA")
    for instance in large_first:
        _draw_box(pen, instance, round(line))
    pixels = np.array(picture)
    for instance in large_first:
        if instance.keypoints is not None and instance.category.keypoints:
            side = float(max(_sides(instance.box)))
            draw_skeleton(pixels, instance.keypoints, instance.category, side, instance.colour, line)
    picture = Image.fromarray(pixels)
    pen = ImageDraw.Draw(picture, "RGBA")
    font = tag_font([instance.label for instance in instances], picture.size)
    tags = _place_tags(instances, picture.size, font)
    # The best detections come first and lie on top.
    for instance, tag in reversed(list(zip(instances, tags, strict=True))):
        if instance.label:
            draw_tag(pen, instance.label, tag, instance.colour, font)
    return np.asarray(picture)


def _sides(box):
    return max(box[2] - box[0], 0), max(box[3] - box[1], 0)


def _blend_mask(picture, instance, line):
    """Blend the fill, a rim and the contour into uint8 [H, W, 3], all within the mask's window."""
    window = instance.window
    if not window.pixels.any():
        return
    height, width = window.pixels.shape
    margin = int(np.ceil(4 * line))
    top, left = max(window.top - margin, 0), max(window.left - margin, 0)
    bottom = min(window.top + height + margin, picture.shape[0])
    right = min(window.left + width + margin, picture.shape[1])
    mask = np.zeros((bottom - top, right - left), np.uint8)
    y, x = window.top - top, window.left - left
    mask[y : y + height, x : x + width] = window.pixels * np.uint8(255)

    patch = picture[top:bottom, left:right].astype(np.float32)
    colour = np.array(instance.colour, np.float32)
    for opacity, paint in (
        (mask * np.float32(FILL_OPACITY / 255), colour),
        (_contour(mask, 1.7 * line) * 0.55, np.array(contrast_colour(instance.colour), np.float32)),
        (_contour(mask, 0.9 * line), colour),
    ):
        patch += opacity[:, :, None] * (paint - patch)
    picture[top:bottom, left:right] = patch.round().clip(0, 255).astype(np.uint8)


def _contour(mask, radius):
    """[h, w] float opacity of a line along the mask's border: a blurred step is half way up just there."""
    soft = np.asarray(Image.fromarray(mask).filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255
    return np.clip(soft * (1 - soft) * 4 * 1.6 - 0.4, 0, 1)


def _draw_box(pen, instance, line):
    x1, y1, x2, y2 = (round(float(edge)) for edge in instance.box)
    x2, y2 = max(x2 - 1, x1), max(y2 - 1, y1)  # half-open, while Pillow draws the last pixel too
    pen.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=(*contrast_colour(instance.colour), 110), width=line + 2)
    pen.rectangle((x1, y1, x2, y2), outline=(*instance.colour, 255), width=line)


def _place_tags(instances, picture_size, font):
    """[N, 4]: a tag for each instance, along the upper or lower edge of its box, first choice above the left corner."""
    tags = np.zeros((0, 4))
    for instance in instances:
        width, height = tag_size(instance.label, font)
        x1, y1, x2, y2 = instance.box
        columns = (x1 - 1, x2 + 1 - width, (x1 + x2 - width) / 2)
        corners = np.array([(x, y) for y in (y1 - height, y2, y1, y2 - height) for x in columns])
        tag = place_tag(corners, (width, height), picture_size, tags)
        tags = np.concatenate([tags, tag[None]])
    return tags


def draw_skeleton(picture, keypoints, category, box_side, colour, line):
    """Draw keypoints as dots and the limbs between them as lines.

    Limbs have their instance's colour. Left keypoints are white dots with a black rim, right ones black dots with a
    white rim, which shows on any background and to the colour-blind; those of neither side have the instance's colour.
    A filled dot is visible; a hollow one is hidden, or the model is unsure of it, and limbs that end in it are pale.

    Args:
        picture: uint8 RGB [H, W, 3], changed in place.
        keypoints: [P, 3], x and y in pixels of the picture and COCO's visibility.
        category: whose names and limbs they have.
        box_side: the longer side of the instance's box in pixels of the picture.
        colour: RGB of the instance.
        line: the thickness of lines in a picture of this size, in pixels.
    """
    rim = contrast_colour(colour)
    # Many dots of full size would make a blot of a small instance.
    crowding = 7 * len(category.keypoints) ** 0.5
    radius = float(np.clip(box_side / crowding, 1.1 * line, 4 * line))
    edge = max(0.3 * radius, 0.7)
    limbs = [(keypoints[start - 1], keypoints[end - 1]) for start, end in category.skeleton]
    limbs = [(start, end) for start, end in limbs if min(start[2], end[2]) > 0]
    for width, paint, pale in ((0.45 * radius + edge, rim, 0.2), (0.45 * radius, colour, 0.6)):
        for start, end in limbs:
            opacity = 1.0 if min(start[2], end[2]) == VISIBLE else pale
            _draw_stroke(picture, start[:2], end[:2], width, paint, opacity)
    for name, keypoint in zip(category.keypoints, keypoints, strict=False):
        if keypoint[2] > 0:
            hole = 0.0 if keypoint[2] == VISIBLE else 0.5 * radius
            inside, outside = _dot_colours(name, colour, rim)
            _draw_stroke(picture, keypoint[:2], keypoint[:2], radius + edge, outside, hole=hole)
            _draw_stroke(picture, keypoint[:2], keypoint[:2], radius, inside, hole=hole)


def _dot_colours(name, colour, rim):
    """RGB of a keypoint's dot and of its rim."""
    side = _LEFT_OR_RIGHT.search(name)
    if not side:
        return colour, rim
    return (WHITE, BLACK) if side[0][0] in "lL" else (BLACK, WHITE)


def _draw_stroke(picture, start, end, radius, colour, opacity=1.0, hole=0.0):
    """Draw a line with round ends, a dot where `start` is `end`; nothing is painted within `hole` pixels of it."""
    height, width = picture.shape[:2]
    low = np.clip(np.floor(np.minimum(start, end) - radius - 1), 0, (width, height)).astype(int)
    high = np.clip(np.ceil(np.maximum(start, end) + radius + 1), 0, (width, height)).astype(int)
    if (low >= high).any():
        return
    x = np.arange(low[0], high[0])[None, :] + 0.5 - start[0]
    y = np.arange(low[1], high[1])[:, None] + 0.5 - start[1]
    along = end - start
    share = np.clip((x * along[0] + y * along[1]) / max(float(along @ along), 1e-9), 0, 1)
    distance = np.hypot(x - share * along[0], y - share * along[1])
    cover = np.clip(radius - distance + 0.5, 0, 1) * opacity
    if hole:
        cover *= np.clip(distance - hole + 0.5, 0, 1)
    patch = picture[low[1] : high[1], low[0] : high[0]]
    patch[:] = (patch + cover[:, :, None] * (np.array(colour) - patch.astype(float))).round()
