"""Pictures made up of thin, turned, overlapping shapes, with ground truth that is exact to a hundredth of a pixel.

A test bed for what depends on alignment: strokes are a few pixels wide, so a shift by one pixel shows in a mask's IoU.
Classes differ in form alone; colours, sizes and angles are drawn without regard to them.
"""

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import atomic_write, write_json

SAMPLES = 4  # per pixel and axis, for the share of a pixel that a shape covers
OPACITY = 0.85  # of shapes: what lies under one still shows
MIN_STROKE = 3.0  # pixels, of the smallest shapes
MIN_BRIGHTNESS = 150  # the mean of a shape's three colour channels; grounds are darker
MIN_INSIDE = 0.7  # of a shape's area
MAX_HIDDEN = 0.5  # of a shape's pixels
MAX_BOX_IOU = 0.5  # non-maximum suppression by the usual threshold must not have to drop a true box
ATTEMPTS = 20  # to place a shape, after which the picture does without it


@dataclasses.dataclass(frozen=True)
class Look:
    """What the pictures show."""

    shapes: tuple[int, int] = (2, 5)  # the least and the most in an image; a picture that gets too crowded has fewer
    lengths: tuple[float, float] = (0.2, 0.6)  # of shapes, shares of the image's side, from and to
    strokes: tuple[float, float] = (0.09, 0.16)  # shares of a shape's length, from and to; at least 3 pixels wide
    kinds: tuple[str, ...] = ()  # names of `SHAPE_KINDS`; all of them if empty. The categories are these.

    def shape_kinds(self):
        """The `ShapeKind`s that are drawn."""
        return tuple(kind for kind in SHAPE_KINDS if not self.kinds or kind.name in self.kinds)


def make_shapes(folder, images, seed=0, size=128, look=None):
    """Writes a dataset in COCO's format: `annotations.json` and `images/000001.png` and so on.

    The n-th picture follows from the seed, n and the other arguments but not from how many are made. Polygons are whole
    outlines, also where another shape lies over them, cut at the image's edge. Keypoints name pixels, as COCO's do: the
    middle of the first is 0. They are 2 (visible), 1 (another shape lies over it) or 0 (outside the image).

    Args:
        folder: made if missing; a dataset that it holds is replaced.
        images: how many.
        seed: of everything drawn by chance; training and validation data need different ones.
        size: the images' side in pixels.
        look: a `Look`; None is its defaults.

    Returns:
        (path of the json, folder of the images), both `pathlib.Path`.

    Raises:
        UserError: numbers that make no sense.
    """
    look = look or Look()
    check_look(images, size, look)
    folder = pathlib.Path(folder)
    path = folder / "annotations.json"
    path.unlink(missing_ok=True)  # it must not stand beside another seed's pictures if this is interrupted
    records, annotations = [], []
    for number in range(1, images + 1):
        rng = np.random.default_rng([seed, number])
        scene = place_shapes(rng, size, look)
        name = f"{number:06d}.png"
        with atomic_write(folder / "images" / name) as file:
            Image.fromarray(paint_scene(rng, scene, size)).save(file, compress_level=1)  # noise hardly shrinks
        records.append({"id": number, "file_name": name, "width": size, "height": size})
        for index in range(len(scene)):
            record = _annotation(scene, index, size, look.shape_kinds())
            annotations.append({"id": len(annotations) + 1, "image_id": number} | record)
    categories = [_category(number, kind) for number, kind in enumerate(look.shape_kinds(), 1)]
    write_json({"images": records, "annotations": annotations, "categories": categories}, path)
    return path, folder / "images"


def check_look(images, size, look):
    """Raises UserError if that many pictures of `size` pixels can't be made with a `Look`."""
    if images < 1 or size < 16:
        raise UserError(f"{images} images of {size} pixels can't be made: ask for at least 1 of at least 16.")
    least, most = look.shapes
    if not 0 <= least <= most:
        raise UserError(f"{least} to {most} shapes can't be drawn: give the least and the most, from 0.")
    smallest, largest = (share * size for share in look.lengths)
    if not MIN_STROKE * 4 <= smallest <= largest <= size:
        raise UserError(
            f"Shapes of {smallest:g} to {largest:g} pixels can't be drawn in images of {size}: "
            f"give lengths from {MIN_STROKE * 4:g} pixels to the image's side, the smallest first."
        )
    thin, thick = look.strokes
    if not 0 < thin <= thick <= 0.5:
        raise UserError(f"Strokes of {thin:g} to {thick:g} of a length can't be drawn: give shares up to a half.")
    unknown = set(look.kinds) - {kind.name for kind in SHAPE_KINDS}
    if unknown:
        known = ", ".join(kind.name for kind in SHAPE_KINDS)
        raise UserError(f"There are no shapes called {', '.join(sorted(unknown))}: choose of {known}.")


def _category(number, kind):
    keypoints = {"keypoints": list(kind.keypoints), "skeleton": [list(pair) for pair in kind.skeleton]}
    return {"id": number, "name": kind.name} | (keypoints if kind.keypoints else {})


def _annotation(scene, index, size, kinds):
    """COCO's fields of a shape, whose area and box are those of its polygon."""
    shape = scene[index]
    corner, sides = shape.ring.min(axis=0), np.ptp(shape.ring, axis=0)
    record = {
        "category_id": kinds.index(shape.kind) + 1,
        "segmentation": [shape.ring.ravel().tolist()],
        "area": round(polygon_area(shape.ring), 4),
        "bbox": np.round([*corner, *sides], 2).tolist(),
        "iscrowd": 0,
    }
    if not shape.kind.keypoints:
        return record
    keypoints = []
    for point in shape.keypoints:
        pixel = point - 0.5
        if pixel.min() < 0 or pixel.max() > size - 1:
            keypoints += [0, 0, 0]
        else:
            covered = any(contains_point(other.outline, point) for other in scene[index + 1 :])
            keypoints += [*np.round(pixel, 2).tolist(), 1 if covered else 2]
    return record | {"keypoints": keypoints, "num_keypoints": sum(v > 0 for v in keypoints[2::3])}


# The kinds of shapes. One is drawn in a frame of its own, x along the shape, y to its right (as in an image, where y
# points down), its middle near the origin. Left and right are those of somebody who looks along x.


@dataclasses.dataclass(frozen=True)
class ShapeKind:
    """A class of shapes."""

    name: str  # of the category
    keypoints: tuple[str, ...]  # their names
    skeleton: tuple[tuple[int, int], ...]  # pairs of keypoints, numbered from 1
    # (length, stroke, proportion) -> outline [V, 2], keypoints [P, 2]; length and stroke in pixels, proportion 0..1
    # varies what else there is to vary.
    draw: Callable


def _blade(length, stroke, proportion):
    """A long triangle."""
    half = stroke * (0.8 + 0.4 * proportion)
    outline = np.array([[length / 2, 0], [-length / 2, half], [-length / 2, -half]])
    return outline, outline[[0, 2, 1]]


def _arrow(length, stroke, proportion):
    """A shaft with a head whose barbs stand off."""
    tip, tail, half = length / 2, -length / 2, stroke / 2
    neck = tip - length * (0.28 + 0.12 * proportion)
    barb = half + 0.15 * length
    outline = [[tip, 0], [neck, barb], [neck, half], [tail, half], [tail, -half], [neck, -half], [neck, -barb]]
    return np.array(outline), np.array([[tip, 0], [tail, 0], [neck, -barb], [neck, barb]])


def _hook(length, stroke, proportion):
    """Two arms that meet at an angle of 60 to 120 degrees; the shorter one ends in a point."""
    turn = np.pi * (2 / 3 - proportion / 3)
    half = 0.6 * stroke
    across = np.array([0.0, half]), np.array([-np.sin(turn), np.cos(turn)]) * half
    handle = np.array([-0.62 * length, 0.0])
    point = np.array([np.cos(turn), np.sin(turn)]) * 0.48 * length
    corner = (across[0] + across[1]) / (1 + np.cos(turn))  # where the sides of both arms meet
    outline = np.array([handle + across[0], corner, point, -corner, handle - across[0]])
    middle = np.mean([handle, np.zeros(2), point], axis=0)
    return outline - middle, np.array([handle, np.zeros(2), point]) - middle


def _cross(length, stroke, proportion):
    """Two bars at a right angle, one longer; it has no keypoints, as its ends can't be told apart."""
    long, short, half = length / 2, length * (0.25 + 0.15 * proportion), stroke / 2
    quarter = np.array([[long, -half], [long, half], [half, half], [half, short], [-half, short], [-half, half]])
    return np.concatenate([quarter, -quarter]), np.zeros((0, 2))


SHAPE_KINDS = (
    ShapeKind("blade", ("tip", "left_base", "right_base"), ((1, 2), (1, 3), (2, 3)), _blade),
    ShapeKind("arrow", ("tip", "tail", "left_barb", "right_barb"), ((1, 2), (1, 3), (1, 4)), _arrow),
    ShapeKind("hook", ("handle", "bend", "point"), ((1, 2), (2, 3)), _hook),
    ShapeKind("cross", (), (), _cross),
)


# Where shapes lie.


@dataclasses.dataclass
class Shape:
    """A shape where it lies: outline [V, 2] and keypoints [P, 2] in pixels, and the share of each pixel it covers."""

    kind: ShapeKind
    outline: np.ndarray
    keypoints: np.ndarray
    ring: np.ndarray  # the outline within the image
    coverage: np.ndarray  # [size, size] 0..1


def place_shapes(rng, size, look):
    """Places shapes of a `Look` by chance, later ones over earlier ones; a list of `Shape`."""
    scene = []
    for _ in range(rng.integers(look.shapes[0], look.shapes[1] + 1)):
        for _ in range(ATTEMPTS):
            candidate = _draw_shape(rng, scene, size, look)
            if candidate is not None and _fits(candidate, scene):
                scene.append(candidate)
                break
    return scene


def _draw_shape(rng, scene, size, look):
    """A `Shape` of random kind, size, position and angle, or None where too much of it would be outside the image."""
    smallest, largest = (share * size for share in look.lengths)
    length = smallest * (largest / smallest) ** rng.uniform()  # as many in each octave, or most would be large
    kinds = look.shape_kinds()
    kind = kinds[rng.integers(len(kinds))]
    stroke = max(MIN_STROKE, length * rng.uniform(*look.strokes))
    outline, keypoints = kind.draw(length, stroke, rng.uniform())
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if not any(name.startswith("left") for name in kind.keypoints) and rng.uniform() < 0.5:
        turn[:, 1] *= -1  # bent the other way; shapes with a left and a right are their own mirror images
    centre = rng.uniform(0, size, 2)
    if scene and rng.uniform() < 0.5:  # across another shape
        centre = scene[rng.integers(len(scene))].ring.mean(axis=0) + rng.normal(0, length / 3, 2)
    outline, keypoints = (np.round(points @ turn.T + centre, 2) for points in (outline, keypoints))
    ring = np.round(clip_polygon(outline, size), 2)
    if len(ring) < 3 or polygon_area(ring) < MIN_INSIDE * polygon_area(outline):
        return None
    return Shape(kind, outline, keypoints, ring, pixel_coverage(outline, size))


def _fits(candidate, scene):
    """Whether the candidate, over all others, leaves enough of each of them to be seen."""
    if any(_box_iou(candidate.ring, shape.ring) > MAX_BOX_IOU for shape in scene):
        return False
    above = candidate.coverage
    for shape in reversed(scene):
        if (shape.coverage * above).sum() > MAX_HIDDEN * shape.coverage.sum():
            return False
        above = np.maximum(above, shape.coverage)
    return True


def _box_iou(ring, other):
    low, high = np.maximum(ring.min(axis=0), other.min(axis=0)), np.minimum(ring.max(axis=0), other.max(axis=0))
    shared = np.maximum(high - low, 0).prod()
    return shared / (np.ptp(ring, axis=0).prod() + np.ptp(other, axis=0).prod() - shared)


# How a picture looks.


def paint_scene(rng, scene, size):
    """The picture of a scene on a ground of its own: uint8 RGB [size, size, 3]."""
    ground = _draw_ground(rng, size)
    picture, used = ground.copy(), [ground.mean(axis=(0, 1))]
    for shape in scene:
        # Any light colour, but one that can be told from the others of this picture.
        colours = rng.uniform(60, 255, (12, 3))
        colours += np.maximum(MIN_BRIGHTNESS - colours.mean(axis=1, keepdims=True), 0)
        distances = np.linalg.norm(colours[:, None] - np.array(used), axis=2).min(axis=1)
        used.append(colours[distances.argmax()])
        shade = np.float32(used[-1]) + light_gradient(rng, size)
        picture += (shape.coverage * np.float32(OPACITY))[..., None] * (shade - picture)
    picture += rng.standard_normal(picture.shape, np.float32) * np.float32(rng.uniform(2, 7))
    return picture.round().clip(0, 255).astype(np.uint8)


def _draw_ground(rng, size):
    """A ground with clouds of two sizes around a colour, [size, size, 3] float32."""
    ground = np.full((size, size, 3), rng.uniform(10, 110, 3), np.float32)
    for cell, strength in ((size / 4, rng.uniform(4, 20)), (4, rng.uniform(2, 10))):
        cells = max(2, round(size / cell))
        for channel, factor in enumerate(np.clip(rng.normal(1, 0.3, 3), 0, 2)):
            noise = Image.fromarray(rng.normal(0, strength * factor, (cells, cells)).astype(np.float32))
            ground[..., channel] += np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC))
    return ground


def light_gradient(rng, size):
    """Light that falls off across a shape, [size, size, 1], grey levels."""
    slope = np.float32(rng.normal(0, 12, 2))
    positions = np.linspace(-1, 1, size, dtype=np.float32)
    return (slope[0] * positions[None, :] + slope[1] * positions[:, None])[..., None]


def pixel_coverage(outline, size):
    """The share of each pixel that lies inside a polygon [V, 2], [size, size] float32, from SAMPLES x SAMPLES samples.

    Along each row of samples the polygon's sides are crossed from outside to inside and back, so running sums of the
    crossings are odd inside.
    """
    left, top = np.clip(np.floor(outline.min(axis=0)), 0, size).astype(int)
    right, bottom = np.clip(np.ceil(outline.max(axis=0)), 0, size).astype(int)
    rows, columns = (bottom - top) * SAMPLES, (right - left) * SAMPLES
    y = top + (np.arange(rows) + 0.5) / SAMPLES
    (x0, y0), (x1, y1) = outline.T, np.roll(outline, -1, axis=0).T
    side, row = np.nonzero((y0[:, None] > y) != (y1[:, None] > y))
    x = x0[side] + (y[row] - y0[side]) / (y1 - y0)[side] * (x1 - x0)[side]
    column = np.clip(np.ceil((x - left) * SAMPLES - 0.5), 0, columns).astype(int)
    crossings = np.zeros((rows, columns + 1), np.uint8)
    np.add.at(crossings, (row, column), 1)
    inside = np.cumsum(crossings, axis=1, dtype=np.uint8)[:, :columns] & 1
    result = np.zeros((size, size), np.float32)
    shares = inside.reshape(bottom - top, SAMPLES, right - left, SAMPLES).mean(axis=(1, 3))
    result[top:bottom, left:right] = shares
    return result


# Polygons, [V, 2] pixels.


def polygon_area(outline):
    """The area in square pixels inside a polygon [V, 2] that doesn't cross itself."""
    x, y = outline.T
    return 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))


def contains_point(outline, point):
    """Whether a polygon [V, 2] contains a point [2], by the parity of crossings on the way out."""
    (x0, y0), (x1, y1) = outline.T, np.roll(outline, -1, axis=0).T
    crossed = (y0 > point[1]) != (y1 > point[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        right = point[0] < x0 + (point[1] - y0) / (y1 - y0) * (x1 - x0)
    return bool((crossed & right).sum() % 2)


def clip_polygon(outline, size):
    """The part of a polygon [V, 2] within the square image of `size` pixels, [V', 2]; empty if there is none.

    Sutherland and Hodgman, "Reentrant polygon clipping" (1974). Pieces that only the outside joined stay joined by a
    line to and fro on the image's edge, which encloses nothing; lines that lead to no piece are taken off.
    """
    for axis, limit, sign in ((0, 0, 1), (1, 0, 1), (0, size, -1), (1, size, -1)):
        depth = sign * (outline[:, axis] - limit)  # >= 0 is inside
        kept = []
        for index, (start, end) in enumerate(zip(depth, np.roll(depth, -1), strict=True)):
            first, second = outline[index], outline[(index + 1) % len(outline)]
            if start >= 0:
                kept.append(first)
            if (start >= 0) != (end >= 0):
                cut = first + (second - first) * (start / (start - end))
                cut[axis] = limit
                kept.append(cut)
        outline = _without_spikes(np.array(kept).reshape(-1, 2))
    return outline


def _without_spikes(outline):
    """Drops vertices at which the outline turns straight back, and repeated ones."""
    vertices, index = list(outline), 0
    while len(vertices) > 2 and index < len(vertices):
        before, here, after = vertices[index - 1], vertices[index], vertices[(index + 1) % len(vertices)]
        (ax, ay), (bx, by) = here - before, after - here
        if abs(ax * by - ay * bx) < 1e-9 and ax * bx + ay * by <= 0:
            del vertices[index]
            index = max(index - 2, 0)
        else:
            index += 1
    return np.array(vertices) if len(vertices) > 2 else np.zeros((0, 2))
