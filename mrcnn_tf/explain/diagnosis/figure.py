"""The drawing board of the diagnosis: images side by side with boxes, heat and legends, as one PIL image.

Lines carry a rim of black or white, whichever their colour stands out against, so that they show on any background.
"""

import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from PIL import Image

from mrcnn_tf.results.draw import BASE_COLOURS
from mrcnn_tf.results.draw_text import contrast_colour, font_file

SIDE = 6.4  # inches, the longer side of a panel
GAPS = 0.15, 0.32  # inches between columns, and between rows, where a title stands
DPI = 110
MAX_SIDE = 1500  # pixels that are drawn of a side, as no panel has more
SMALL_SIDE = 200  # pixels; an image whose sides are shorter is drawn with hard edges
FONT_SIZE = 9  # points
COLOURS = tuple(to_hex(np.array(colour) / 255) for colour in BASE_COLOURS)
WHITE_KEY = "#999999"  # stands for white in a legend, whose ground is white


def make_panels(count, image_size, columns=None, side=SIDE):
    """A matplotlib figure with axes for images of one size, and a list of `count` of them.

    Args:
        count: of panels.
        image_size: (height, width), which gives the panels' shape.
        columns: in a row; None puts all in one.
        side: inches of a panel's longer side.
    """
    columns = min(columns or count, count)
    rows = -(-count // columns)
    height, width = (side * length / max(image_size) for length in image_size)
    size = columns * width + GAPS[0] * (columns - 1), rows * height + GAPS[1] * (rows - 1)
    figure = Figure(figsize=size, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.ravel()[count:]:
        axes.remove()
    figure.subplots_adjust(0, 0, 1, 1, wspace=GAPS[0] / width, hspace=GAPS[1] / height)
    return figure, list(grid.ravel()[:count])


def draw_image(axes, image, title="", pale=0.0):
    """Draws uint8 [H, W, 3] on axes whose coordinates are its pixels.

    `pale` of 0 to 1 takes colour and contrast out, so that what is drawn above stands out.
    """
    height, width = image.shape[:2]
    step = max(1, max(image.shape) // MAX_SIDE)
    image = image[::step, ::step]
    if pale:
        grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
        image = (image * (1 - pale) + (grey * 0.5 + 70) * pale).round().astype(np.uint8)
    interpolation = "nearest" if max(image.shape) < SMALL_SIDE else "antialiased"
    axes.imshow(image, extent=(0, width, height, 0), interpolation=interpolation)
    show_region(axes, 0, 0, width, height)
    hide_axes(axes, title)


def show_region(axes, left, top, right, bottom):
    """Limits the axes to a part of the image, whose y points down."""
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)


def hide_axes(axes, title=""):
    """Takes ticks and frame off the axes and sets their title."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(title, fontsize=FONT_SIZE + 1, pad=4)


def cycle_colour(index):
    """The colour of the index-th class, level or the like."""
    return COLOURS[index % len(COLOURS)]


def _contrasting(colour):
    """ "black" or "white", whichever contrasts more with a matplotlib colour."""
    return "black" if contrast_colour(255 * np.array(to_rgb(colour))) == (0, 0, 0) else "white"


def draw_boxes(axes, boxes, colour, width=1.5, style="solid", labels=(), rim=None):
    """Outlines of boxes [N, 4] in one colour, with tags if `labels` are given; `rim` is a colour of its own choice."""
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    if not len(boxes):
        return
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3, 0, 1]].reshape(-1, 5, 2)
    lines = LineCollection(corners, colors=[colour], linewidths=width, linestyles=style)
    lines.set_path_effects([withStroke(linewidth=width + 1.4, foreground=rim or _contrasting(colour))])
    axes.add_collection(lines)
    for box, label in zip(boxes, labels, strict=False):
        draw_tag(axes, box[0], box[1], label, colour)


def draw_tag(axes, x, y, text, colour):
    """A small label on a ground of a colour, its lower left corner at (x, y) or as near as the image allows."""
    bottom, top = axes.get_ylim()
    axes.text(
        max(x, 0),
        y,
        text,
        fontsize=FONT_SIZE - 2,
        color=_contrasting(colour),
        va="bottom" if y - top > 0.05 * abs(bottom - top) else "top",
        ha="left" if x < 0.8 * axes.get_xlim()[1] else "right",
        bbox={"boxstyle": "round,pad=0.15", "facecolor": colour, "edgecolor": "none"},
        clip_on=False,
    )


def draw_heatmap(axes, values, size):
    """Lays values [h, w] of 0..1 over an image of `size` (H, W); returns what `draw_scale_bar` needs."""
    return axes.imshow(values, extent=(0, size[1], size[0], 0), vmin=0, vmax=1, cmap="inferno", alpha=0.65)


def draw_scale_bar(figure, axes, mappable, label):
    """A colour bar at the right of the axes, which keep their size."""
    bar = figure.colorbar(mappable, cax=axes.inset_axes((1.015, 0, 0.03, 1)))
    bar.set_label(label, fontsize=FONT_SIZE)
    bar.ax.tick_params(labelsize=FONT_SIZE - 1)
    if mappable.get_alpha() is not None:
        bar.solids.set_alpha(1)


def draw_legend(axes, entries, columns=4):
    """A legend below the axes; `entries` are (colour, text) or (colour, text, line style)."""
    handles = [
        Line2D([], [], color=colour, linewidth=3, linestyle=style[0] if style else "solid", label=text)
        for colour, text, *style in entries
    ]
    if handles:
        axes.legend(
            handles=handles,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.005),
            ncols=min(columns, len(handles)),
            fontsize=FONT_SIZE,
            frameon=False,
            handlelength=1.6,
            columnspacing=1.4,
        )


def render(figure):
    """The figure as a PIL.Image, RGB, cut to what is drawn."""
    for text in figure.findobj(Text):
        text.set_fontproperties(FontProperties(fname=font_file(text.get_text()), size=text.get_fontsize()))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.08)
    return Image.open(buffer).convert("RGB")
