"""Text on pictures: fonts for class names in any language, and name tags that hide each other least."""

import functools
import os
import sys

import numpy as np
from PIL import ImageFont


def font_for(texts, size):
    """Choose a Pillow font with the letters of all `texts`, a list of str; `size` is in pixels."""
    return _open_font(font_file("".join(texts)), size)


def tag_font(labels, picture_size):
    """Choose the font of a picture's tags, with all `labels`; `picture_size` is (width, height) in pixels.

    It grows with the picture and shrinks when many tags must share it, but stays readable.
    """
    size = max(picture_size) / 55 * min(1.0, (12 / max(len(labels), 1)) ** 0.3)
    return font_for(labels, round(max(11, size)))


def tag_size(label, font):
    """(width, height) pixels of a tag."""
    return int(np.ceil(font.getlength(label) + font.size * 0.5)), int(np.ceil(font.size * 1.3))


def place_tag(corners, size, picture_size, tags):
    """Choose the place of a tag, [4] = (x1, y1, x2, y2), that hides the least of the tags placed before.

    Args:
        corners: [P, 2] = (x, y), upper left corners to choose from, the best first; they are moved into the picture.
        size: (width, height) of the tag.
        picture_size: (width, height) pixels.
        tags: [T, 4], the earlier tags.
    """
    corners = np.clip(corners, 0, np.maximum(np.array(picture_size) - size, 0)).round()
    candidates = np.concatenate([corners, corners + size], axis=1)
    low = np.maximum(candidates[:, None, :2], tags[None, :, :2])
    high = np.minimum(candidates[:, None, 2:], tags[None, :, 2:])
    hidden = np.prod(np.maximum(high - low, 0), axis=2).sum(axis=1)
    return candidates[hidden.argmin()]


def draw_tag(pen, label, tag, colour, font):
    """Write a label into its rectangle, filled with a colour; `pen` is a Pillow ImageDraw."""
    x1, y1, x2, y2 = tag
    pen.rounded_rectangle((x1, y1, x2 - 1, y2 - 1), radius=font.size * 0.2, fill=(*colour, 255))
    pen.text(((x1 + x2) / 2, (y1 + y2) / 2), label, fill=contrast_colour(colour), font=font, anchor="mm")


def contrast_colour(background):
    """RGB of black or white, whichever contrasts more with an RGB colour by WCAG 2's relative luminance."""
    linear = (np.array(background) / 255) ** 2.2
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    return (0, 0, 0) if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else (255, 255, 255)


def font_file(text):
    """Find the path of a font with the letters of a text.

    DejaVu Sans comes with matplotlib and has those of most European and Middle Eastern scripts. Where they aren't
    enough the fonts of the machine are looked through; if none has them all, a sentence on stderr says what to install,
    and the one with the most of them is taken.
    """
    return _find_font(frozenset(letter for letter in text if not letter.isspace()))


@functools.cache
def _find_font(letters):
    default = _default_font()
    if letters <= _letters_of(default):
        return default
    others = [path for path in _installed_fonts() if letters & _letters_of(path)]
    best = min([default, *others], key=lambda path: len(letters - _letters_of(path)))
    missing = "".join(sorted(letters - _letters_of(best)))
    if missing:
        print(
            f"mrcnn-tf: no font on this machine has the letters {missing}, and pictures show boxes in their place: "
            "install one that has, such as Noto Sans (Debian: fonts-noto-cjk).",
            file=sys.stderr,
        )
    return best


@functools.cache
def _default_font():
    import matplotlib  # here and below only when something is drawn: it takes a moment to import

    return os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


@functools.cache
def _installed_fonts():
    from matplotlib.font_manager import findSystemFonts

    return sorted(findSystemFonts(), key=lambda path: ("regular" not in path.lower(), path))


@functools.cache
def _letters_of(path):
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except (OSError, RuntimeError):  # not scalable, or damaged
        return frozenset()


@functools.cache
def _open_font(path, size):
    return ImageFont.truetype(path, size)
