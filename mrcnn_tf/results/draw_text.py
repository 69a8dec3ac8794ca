"""Fonts for what is written on pictures, in whatever language a dataset names its classes."""

import functools
import os
import sys

from PIL import ImageFont


def font_for(texts, size):
    """A font of Pillow's with the letters of some texts.

    Args:
        texts: list of str that are drawn with it.
        size: pixels.
    """
    return _opened(font_file("".join(texts)), size)


def font_file(text):
    """The path of a font with the letters of a text.

    DejaVu Sans comes with matplotlib and has those of most European and Middle Eastern scripts. Where they aren't
    enough the fonts of the machine are looked through; if none has them all, a sentence on stderr says what to install,
    and the one with the most of them is taken.
    """
    return _file_of(frozenset(letter for letter in text if not letter.isspace()))


@functools.cache
def _file_of(letters):
    usual = _usual()
    if letters <= _letters(usual):
        return usual
    others = [path for path in _installed() if letters & _letters(path)]
    best = min([usual, *others], key=lambda path: len(letters - _letters(path)))
    missing = "".join(sorted(letters - _letters(best)))
    if missing:
        print(
            f"mrcnn-tf: no font on this machine has the letters {missing}, and pictures show boxes in their place: "
            "install one that has, such as Noto Sans (Debian: fonts-noto-cjk).",
            file=sys.stderr,
        )
    return best


@functools.cache
def _usual():
    import matplotlib  # here and below only when something is drawn: it takes a moment to import

    return os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


@functools.cache
def _installed():
    from matplotlib.font_manager import findSystemFonts

    return sorted(findSystemFonts(), key=lambda path: ("regular" not in path.lower(), path))


@functools.cache
def _letters(path):
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except (OSError, RuntimeError):  # not scalable, or damaged
        return frozenset()


@functools.cache
def _opened(path, size):
    return ImageFont.truetype(path, size)
