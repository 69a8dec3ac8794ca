"""The pictures in a notebook's outputs, and whether there is anything on them."""

import base64
import io

from notebook_runner import tags
from PIL import Image, ImageStat

PICTURE, KEPT = "picture", "keep-picture"  # tags: the cell gives a picture; the picture is stored, too
LEAST_CONTRAST = 8.0  # grey levels: the standard deviation over the pixels of the liveliest channel
LEAST_COLOURS = 16
COLOURS, LONGEST = 256, 1000  # of a stored picture: of its palette, and its longer side in pixels


def gives_picture(cell):
    """Whether a cell is tagged as one that gives a picture."""
    return bool(tags(cell) & {PICTURE, KEPT})


def png_outputs(cell):
    """The PNG files in a code cell's outputs, a list of base64 strings."""
    return [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]


def opened(data):
    """The `PIL.Image.Image` of a file in base64."""
    return Image.open(io.BytesIO(base64.b64decode(data)))


def is_empty(picture):
    """Whether a picture shows nothing: one colour, or hardly more."""
    picture = picture.convert("RGB")
    colours = picture.getcolors(picture.width * picture.height)
    return len(colours) < LEAST_COLOURS or max(ImageStat.Stat(picture).stddev) < LEAST_CONTRAST


def picture_faults(notebook):
    """A sentence for each cell of a notebook that should have given a picture and gave none, or an empty one."""
    faults = []
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type != "code" or not gives_picture(cell):
            continue
        found = [opened(data) for data in png_outputs(cell)]
        start = cell.source.splitlines()[0] if cell.source else ""
        if not found:
            faults.append(f"Cell {number} ('{start}') is to give a picture and gives none.")
        if any(is_empty(picture) for picture in found):
            faults.append(f"Cell {number} ('{start}') gives an empty picture.")
    return faults


def stored_png(data):
    """A PNG in base64 as it is stored: with a palette, and so a fraction of the size; one that has it stays."""
    picture = opened(data)
    if picture.mode == "P":
        return data
    picture = picture.convert("RGB")
    picture.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    # Colours by how far they are from the others and not by how often they come: labels and outlines have few pixels.
    method, dither = Image.Quantize.MAXCOVERAGE, Image.Dither.NONE
    picture.quantize(COLOURS, method, kmeans=3, dither=dither).save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
