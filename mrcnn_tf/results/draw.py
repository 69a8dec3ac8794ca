"""Pictures: detections and ground truth drawn on their image, and two pictures side by side.

Every instance gets a translucent fill, a contour, a thin box, its keypoints (see `skeletons`) and a tag with its name.
Lines carry a rim of black or white, whichever their colour stands out against, so that they show on any background. A
small picture is enlarged first, or its text could not be read.
"""

import dataclasses
import re

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import atomic_write
from mrcnn_tf.ops.masks import MaskWindow, paste_window
from mrcnn_tf.results.draw_text import font_for

# Keypoints drawn as dots and the limbs between them as lines.
#
# Limbs have their instance's colour. Left keypoints are white dots with a black rim, right ones black dots with a white
# rim, which shows on any background and to the colour-blind; those of neither side have the instance's colour. A filled
# dot is visible; a hollow one is hidden, or the model is unsure of it, and limbs that end in it are pale.
#

HIDDEN, VISIBLE = 1, 2  # COCO's "v"; 0 is not labelled
SURE = 0.05  # the least probability of a keypoint that is drawn as visible, as in detectron2's pictures
BLACK, WHITE = (0, 0, 0), (255, 255, 255)

_SIDE = re.compile(r"left|right|(?<![a-z])[lr](?![a-z])", re.IGNORECASE)


@dataclasses.dataclass
class Skeleton:
    """Keypoints to draw.

    Attributes:
        points: [P, 3], x and y in pixels of the drawing and COCO's v. P may be more than the category's own; the rest
            isn't drawn.
        category: whose names and limbs they have.
        size: the longer side of the instance's box in pixels of the drawing.
    """

    points: np.ndarray
    category: Category
    size: float


def with_visibility(keypoints):
    """Detected keypoints [..., 3] with v in the place of their scores: HIDDEN where they are unsure.

    Whether the scores are probabilities shows by their lying in 0..1. With logits, which have no such limit, every
    keypoint counts as VISIBLE.
    """
    scores = keypoints[..., 2]
    unsure = (scores < SURE) & (scores.min(initial=0) >= 0) & (scores.max(initial=0) <= 1)
    return np.concatenate([keypoints[..., :2], np.where(unsure, HIDDEN, VISIBLE)[..., None]], axis=-1)


def draw_skeleton(canvas, skeleton, colour, rim, line):
    """Draws into `canvas`.

    Args:
        canvas: uint8 RGB [H, W, 3], changed in place.
        skeleton: a `Skeleton`.
        colour: RGB of its instance.
        rim: black or white, what `colour` stands out against.
        line: the thickness of lines in a drawing of this size, in pixels.
    """
    # Many dots of full size would make a blot of a small instance.
    crowding = 7 * len(skeleton.category.keypoints) ** 0.5
    radius = float(np.clip(skeleton.size / crowding, 1.1 * line, 4 * line))
    edge = max(0.3 * radius, 0.7)
    points = skeleton.points
    limbs = [(points[one - 1], points[other - 1]) for one, other in skeleton.category.skeleton]
    limbs = [limb for limb in limbs if min(limb[0][2], limb[1][2]) > 0]
    for width, paint, pale in ((0.45 * radius + edge, rim, 0.2), (0.45 * radius, colour, 0.6)):
        for start, end in limbs:
            _stroke(canvas, start[:2], end[:2], width, paint, 1.0 if min(start[2], end[2]) == VISIBLE else pale)
    for name, point in zip(skeleton.category.keypoints, points, strict=False):
        if point[2] > 0:
            hole = 0.0 if point[2] == VISIBLE else 0.5 * radius
            inside, outside = _dot_colours(name, colour, rim)
            _stroke(canvas, point[:2], point[:2], radius + edge, outside, hole=hole)
            _stroke(canvas, point[:2], point[:2], radius, inside, hole=hole)


def _dot_colours(name, colour, rim):
    side = _SIDE.search(name)
    if not side:
        return colour, rim
    return (WHITE, BLACK) if side[0][0] in "lL" else (BLACK, WHITE)


def _stroke(canvas, start, end, radius, colour, opacity=1.0, hole=0.0):
    """A line with round ends, a dot where `start` is `end`; nothing is painted within `hole` pixels of it."""
    height, width = canvas.shape[:2]
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
    patch = canvas[low[1] : high[1], low[0] : high[0]]
    patch[:] = (patch + cover[:, :, None] * (np.array(colour) - patch.astype(float))).round()


MIN_SIDE = 768  # pixels; below it an overlay is enlarged
FILL_OPACITY = 0.35

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


@dataclasses.dataclass
class Instance:
    """One thing to draw, in pixels of the drawing: `box` [4], a label and, where it has them, mask and keypoints."""

    box: np.ndarray
    label: str
    colour: tuple[int, int, int]
    window: MaskWindow | None = None
    skeleton: Skeleton | None = None


def draw_detections(image, detections, min_score=0.0, min_side=MIN_SIDE):
    """The image with boxes, masks, keypoints, class names and scores.

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
    check_image(image)
    if image.shape[:2] != detections.image_size:
        raise UserError(
            f"The picture is of size {image.shape[:2]} but the detections belong to one of {detections.image_size}: "
            "draw them on the image that was given to detect()."
        )
    canvas, scale = enlarge(image, min_side)
    masks, size = detections.mask_probabilities, (canvas.height, canvas.width)
    keypoints = None if detections.keypoints is None else with_visibility(detections.keypoints)
    instances = []
    for index in np.nonzero(detections.scores >= min_score)[0]:
        box = detections.boxes[index] * scale
        label = f"{detections.category_names[index]} {detections.scores[index]:.2f}"
        # Pasted at the drawing's size: the contour of an enlarged picture stays smooth.
        window = None if masks is None else paste_window(masks[index], box, *size, detections.mask_rule)
        skeleton = _skeleton(keypoints, detections.categories, index, scale, box)
        instances.append(Instance(box, label, instance_colour(index), window, skeleton))
    return _draw(canvas, instances)


def draw_ground_truth(image, boxes, names, masks=None, min_side=MIN_SIDE, keypoints=None, categories=None):
    """The image with its annotated instances.

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
    canvas, scale = enlarge(image, min_side)
    threshold = 127.5 if masks is not None and np.asarray(masks).dtype == np.uint8 else 0.5
    instances = []
    for index, (box, name) in enumerate(zip(np.asarray(boxes, np.float32) * scale, names, strict=True)):
        window = None
        if masks is not None:
            window = paste_window(masks[index], box, canvas.height, canvas.width, "detectron2", threshold)
        skeleton = _skeleton(keypoints, categories, index, scale, box)
        instances.append(Instance(box, name, instance_colour(index), window, skeleton))
    return _draw(canvas, instances)


def side_by_side(left, right, titles=("ground truth", "detections")):
    """Two pictures in a row, each under its title, the lower one enlarged to the height of the other.

    Args:
        left, right: uint8 RGB [H, W, 3].
        titles: one for each.

    Returns:
        uint8 RGB, as wide as both and a gap.
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
    """Writes uint8 RGB [H, W, 3] as a PNG, under a temporary name until it is complete; makes the folder."""
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


def check_image(image):
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        given = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UserError(f"A picture to draw on must be a numpy array, uint8 [H, W, 3] in RGB order, not {given}.")


def enlarge(image, min_side):
    """The image as PIL has it, at least `min_side` long, and the factor it was enlarged by."""
    canvas = Image.fromarray(image)
    scale = max(1.0, min_side / max(canvas.size))
    if scale == 1.0:
        return canvas, 1.0
    size = round(canvas.width * scale), round(canvas.height * scale)
    return canvas.resize(size, Image.Resampling.BICUBIC), scale


def _skeleton(keypoints, categories, index, scale, box):
    """One instance's `Skeleton` in pixels of the drawing, as `box` is; None where there are no keypoints."""
    if keypoints is None or not categories[index].keypoints:
        return None
    points = np.asarray(keypoints[index], np.float64) * (scale, scale, 1)
    return Skeleton(points, categories[index], float(max(box[2] - box[0], box[3] - box[1])))


def _draw(canvas, instances):
    """Draws fills and contours, boxes, keypoints, then tags: no mask hides a label. Small ones lie on large ones."""
    line = max(1.0, max(canvas.size) / 750)
    canvas = np.array(canvas)
    large_first = sorted(instances, key=lambda one: -_area(one.box))
    for instance in large_first:
        if instance.window is not None:
            _blend_mask(canvas, instance, line)
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture, "RGBA")
    for instance in large_first:
        _draw_box(pen, instance, round(line))
    canvas = np.array(picture)
    for instance in large_first:
        if instance.skeleton is not None:
            draw_skeleton(canvas, instance.skeleton, instance.colour, _contrast(instance.colour), line)
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture, "RGBA")
    labels = [instance.label for instance in instances]
    font = font_for(labels, font_size(picture.size, len(instances)))
    tags = _place_tags(instances, picture.size, font)
    # The best detections come first and lie on top.
    for instance, tag in reversed(list(zip(instances, tags, strict=True))):
        if instance.label:
            draw_tag(pen, instance, tag, font)
    return np.asarray(picture)


def _area(box):
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def _blend_mask(canvas, instance, line):
    """Blends the fill, a rim and the contour into `canvas`, all within the mask's window."""
    window = instance.window
    if not window.pixels.any():
        return
    margin = int(np.ceil(4 * line))
    top, left = max(window.top - margin, 0), max(window.left - margin, 0)
    bottom = min(window.top + window.pixels.shape[0] + margin, canvas.shape[0])
    right = min(window.left + window.pixels.shape[1] + margin, canvas.shape[1])
    mask = np.zeros((bottom - top, right - left), np.uint8)
    y, x = window.top - top, window.left - left
    mask[y : y + window.pixels.shape[0], x : x + window.pixels.shape[1]] = window.pixels * np.uint8(255)

    patch = canvas[top:bottom, left:right].astype(np.float32)
    colour = np.array(instance.colour, np.float32)
    for opacity, paint in (
        (mask * np.float32(FILL_OPACITY / 255), colour),
        (_edge(mask, 1.7 * line) * 0.55, np.array(_contrast(instance.colour), np.float32)),
        (_edge(mask, 0.9 * line), colour),
    ):
        patch += opacity[:, :, None] * (paint - patch)
    canvas[top:bottom, left:right] = patch.round().clip(0, 255).astype(np.uint8)


def _edge(mask, radius):
    """[h, w] float opacity of a line along the mask's border: a blurred step is half way up just there."""
    soft = np.asarray(Image.fromarray(mask).filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255
    return np.clip(soft * (1 - soft) * 4 * 1.6 - 0.4, 0, 1)


def _draw_box(pen, instance, line):
    x1, y1, x2, y2 = (round(float(edge)) for edge in instance.box)
    x2, y2 = max(x2 - 1, x1), max(y2 - 1, y1)  # half-open, while Pillow draws the last pixel too
    pen.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=(*_contrast(instance.colour), 110), width=line + 2)
    pen.rectangle((x1, y1, x2, y2), outline=(*instance.colour, 255), width=line)


def _place_tags(instances, picture_size, font):
    """A rectangle (x1, y1, x2, y2) for each tag: inside the picture, where it hides the least of earlier tags.

    Candidates are tried along the box's upper and lower edges, the usual place (above the left corner) first.
    """
    placed = np.zeros((0, 4))
    for instance in instances:
        width, height = tag_size(instance.label, font)
        x1, y1, x2, y2 = instance.box
        columns = (x1 - 1, x2 + 1 - width, (x1 + x2 - width) / 2)
        spots = np.array([(x, y) for y in (y1 - height, y2, y1, y2 - height) for x in columns])
        limits = np.maximum(np.array(picture_size) - (width, height), 0)
        spots = np.clip(spots, 0, limits).round()
        candidates = np.concatenate([spots, spots + (width, height)], axis=1)
        low = np.maximum(candidates[:, None, :2], placed[None, :, :2])
        high = np.minimum(candidates[:, None, 2:], placed[None, :, 2:])
        hidden = np.prod(np.maximum(high - low, 0), axis=2).sum(axis=1)
        placed = np.concatenate([placed, candidates[None, hidden.argmin()]])
    return placed


def draw_tag(pen, instance, tag, font):
    x1, y1, x2, y2 = tag
    pen.rounded_rectangle((x1, y1, x2 - 1, y2 - 1), radius=font.size * 0.2, fill=(*instance.colour, 255))
    pen.text(((x1 + x2) / 2, (y1 + y2) / 2), instance.label, fill=_contrast(instance.colour), font=font, anchor="mm")


def tag_size(label, font):
    return int(np.ceil(font.getlength(label) + font.size * 0.5)), int(np.ceil(font.size * 1.3))


def _contrast(background):
    """Black or white, whichever contrasts more by WCAG 2's relative luminance."""
    linear = (np.array(background) / 255) ** 2.2
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    return (0, 0, 0) if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else (255, 255, 255)


def font_size(picture_size, instances):
    """Grows with the picture and shrinks when many tags must share it, but stays readable."""
    side = max(picture_size)
    return round(max(11, side / 55 * min(1.0, (12 / max(instances, 1)) ** 0.3)))
