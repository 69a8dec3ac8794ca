"""Pictures of panoptic segments: each in its colour on the photo, lines where they meet, names well inside them.

Things have the colours of `draw.instance_colour`, each its own. Stuff has a duller one, which a class keeps in all
pictures. What belongs to no segment stays as it is in the photo.
"""

import colorsys
import re

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from mrcnn_tf.results.draw import LINES_PER_SIDE, MIN_SIDE, check_image, enlarge, instance_colour
from mrcnn_tf.results.draw_text import draw_tag, place_tag, tag_font, tag_size

OPACITY = 0.5
# Powers of the root of x^4 = x + 1: its multiples fill a cube evenly, so that the colours of any few ids differ.
SPREAD = 1.2207440846057596 ** -np.arange(1.0, 4.0)
GRID_ROWS = 160  # of the cells among which places for names are looked for
CELL_WIDTH = 2.5  # in its height: a name is wider than high, and so is the room that it needs
ROOMY = 0.7  # of the depth of the deepest place in a segment: as much will do where a name hides no other
# Hue, lightness and saturation of stuff that one has seen: a green sky over pink grass is hard to read.
NATURAL = {
    "sky": (0.56, 0.70, 0.60),
    "water": (0.61, 0.38, 0.60),
    "sea": (0.61, 0.38, 0.60),
    "river": (0.58, 0.44, 0.50),
    "snow": (0.53, 0.86, 0.35),
    "grass": (0.24, 0.42, 0.50),
    "tree": (0.35, 0.30, 0.45),
    "forest": (0.35, 0.30, 0.45),
    "sand": (0.12, 0.66, 0.55),
    "dirt": (0.07, 0.40, 0.40),
    "ground": (0.07, 0.40, 0.40),
    "mountain": (0.09, 0.52, 0.25),
    "rock": (0.09, 0.52, 0.12),
    "road": (0.79, 0.46, 0.22),
}


def draw_panoptic(image, panoptic, min_side=MIN_SIDE):
    """Draw segments and, where there is room, their names, those of things with scores.

    Args:
        image: uint8 RGB [H, W, 3], the one that the segments belong to.
        panoptic: a `Panoptic`.
        min_side: as for `draw.draw_detections`.

    Returns:
        uint8 RGB [H', W', 3], enlarged as by `draw.draw_detections`.

    Raises:
        UserError: the image is not uint8 [H, W, 3] or is not as large as the segment map.
    """
    check_image(image, panoptic.segment_map.shape, "segments")
    picture, scale = enlarge(image, min_side)
    numbers = _number_segments(panoptic)
    if scale > 1:
        numbers = _enlarge_numbers(numbers, len(panoptic), picture.size)
    colours = _segment_colours(panoptic.segments)
    opacity = (numbers > 0) * np.uint8(round(255 * OPACITY))
    fills = np.array([(0, 0, 0), *colours], np.uint8)[numbers]
    picture = Image.composite(Image.fromarray(fills), picture, Image.fromarray(opacity))
    _draw_borders(picture, numbers, max(1.5, max(picture.size) / LINES_PER_SIDE))
    _write_names(picture, numbers, panoptic.segments, colours)
    return np.asarray(picture)


def stuff_colour(category):
    """RGB of a class of stuff, the same in every picture: by a word of its name that nature has a colour for, else by
    its id."""
    hue, lightness, saturation = category.id * SPREAD % 1
    natural = [NATURAL[word] for word in re.split(r"[\W_\d]+", category.name.lower()) if word in NATURAL]
    if natural:  # several classes may have one word: they differ in lightness
        hue, natural_lightness, natural_saturation = natural[0]
        colour = colorsys.hls_to_rgb(hue, natural_lightness + 0.12 * (lightness - 0.5), natural_saturation)
    else:
        colour = colorsys.hls_to_rgb(hue, 0.36 + 0.36 * lightness, 0.25 + 0.4 * saturation)
    return tuple(round(255 * channel) for channel in colour)


def _segment_colours(segments):
    """RGB of each segment."""
    things = 0
    colours = []
    for segment in segments:
        colours.append(instance_colour(things) if segment.is_thing else stuff_colour(segment.category))
        things += segment.is_thing
    return colours


def _number_segments(panoptic):
    """uint16 [H, W]: 0 in void, n in the n-th segment."""
    ids = [segment.id for segment in panoptic.segments]
    table = np.zeros(max([panoptic.segment_map.max(initial=0), *ids]) + 1, np.uint16)
    table[ids] = np.arange(1, len(ids) + 1)
    return table[panoptic.segment_map]


def _enlarge_numbers(numbers, count, size):
    """Segment numbers of a picture of `size` = (width, height), with smooth outlines instead of large pixels."""
    smooth = ImageFilter.GaussianBlur(0.4 * size[0] / numbers.shape[1])  # a segment of a single pixel outlasts it
    enlarged, best_share = np.zeros((2, *size[::-1]), np.uint16)
    for number in range(count + 1):
        mask = Image.fromarray((numbers == number) * np.uint8(255)).resize(size, Image.Resampling.BICUBIC)
        share = np.asarray(mask.filter(smooth))
        enlarged[share > best_share] = number
        np.maximum(best_share, share, out=best_share)
    return enlarged


def _draw_borders(picture, numbers, line):
    """Draw white lines between segments, and a dark rim along them for fills that are as bright."""
    for colour, width, opacity in (("black", 2.6 * line, 0.45), ("white", 1.2 * line, 0.9)):
        band = _border_band(numbers, max(1, round(width))) * np.uint8(round(255 * opacity))
        picture.paste(colour, mask=Image.fromarray(band).filter(ImageFilter.GaussianBlur(0.5 * line)))


def _border_band(numbers, band):
    """bool [H, W]: a band of so many pixels along the borders of all segments."""
    height, width = numbers.shape
    before = band // 2
    padded = np.pad(numbers, (before, band - before), "edge")
    rows, columns = padded[before : before + height], padded[:, before : before + width]
    return (rows[:, :width] != rows[:, band:]) | (columns[:height] != columns[band:])


def _write_names(picture, numbers, segments, colours):
    """Write the name of each segment that is larger than its tag, large ones first."""
    areas = np.bincount(numbers.ravel(), minlength=len(segments) + 1)[1:]
    labels = [s.category.name if s.score is None else f"{s.category.name} {s.score:.2f}" for s in segments]
    font = tag_font(labels, picture.size)
    grid = SegmentGrid(numbers)
    pen = ImageDraw.Draw(picture, "RGBA")
    tags = np.zeros((0, 4))
    for index in np.argsort(-areas, kind="stable"):
        size = tag_size(labels[index], font)
        if areas[index] < size[0] * size[1]:
            continue
        tag = place_tag(grid.roomy_places(index + 1) - np.array(size) / 2, size, picture.size, tags)
        tags = np.concatenate([tags, tag[None]])
        draw_tag(pen, labels[index], tag, colours[index], font)


class SegmentGrid:
    """A coarse grid over a map of segment numbers [H, W], and how deep inside its segment each cell lies."""

    def __init__(self, numbers):
        height, width = numbers.shape
        rows = min(height, GRID_ROWS)
        columns = min(width, max(1, round(rows * width / height / CELL_WIDTH)))
        self.y, self.x = (np.arange(rows) + 0.5) * height / rows, (np.arange(columns) + 0.5) * width / columns
        self.numbers = numbers[np.ix_(self.y.astype(int), self.x.astype(int))]
        self.depths = segment_depths(self.numbers)

    def roomy_places(self, number):
        """[P, 2] = (x, y): the middles of a segment's cells that lie deep inside it, the deepest first, of equally deep
        ones the most central."""
        depths = self.depths * (self.numbers == number)
        row, column = np.nonzero(depths >= max(1, ROOMY * depths.max()))
        places, depths = np.stack([self.x[column], self.y[row]], axis=1), depths[row, column]
        middle = places[depths == depths.max()].mean(axis=0)
        return places[np.lexsort((np.abs(places - middle).sum(axis=1), -depths))]


def segment_depths(numbers):
    """int [R, C]: the side, in cells from the middle one, of the largest square of one number around each cell."""
    inside = _is_surrounded(np.ones(numbers.shape, bool))
    for shift in (-1, 1):
        for axis in (0, 1):
            inside &= np.roll(numbers, shift, axis) == numbers
    depths = np.ones(numbers.shape, int)
    while inside.any():
        depths += inside
        inside = _is_surrounded(inside)
    return depths


def _is_surrounded(inside):
    """bool [R, C]: whether a cell and its eight neighbours are inside; beyond the grid nothing is."""
    padded = np.pad(inside, 1)
    rows = padded[:-2] & padded[1:-1] & padded[2:]
    return rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]
