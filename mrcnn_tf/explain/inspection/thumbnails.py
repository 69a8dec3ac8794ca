"""Small JPEGs of a dataset's images, as large as a page's budget allows."""

import base64
import bisect
import concurrent.futures
import dataclasses
import io
import os

from PIL import Image, ImageOps

from mrcnn_tf.datasets.images import rgb_pixels

# (longer side in pixels, JPEG quality) from the best to the smallest; a phone's full width shows about 700 pixels.
SIZES = (
    (960, 85),
    (720, 82),
    (560, 80),
    (480, 75),
    (420, 70),
    (380, 65),
    (340, 60),
    (300, 55),
    (260, 50),
    (200, 45),
    (140, 40),
    (96, 35),
)
SAMPLE = 24  # images from which the sizes of all are guessed
SPARE = 0.95  # of the budget, since the rest may be harder to compress than the sample


@dataclasses.dataclass
class Thumbnail:
    """A JPEG as a `data:` address, or None with the reason in `problem`; `note` says what else is odd about it."""

    address: str | None
    problem: str = ""
    note: str = ""


def make_thumbnails(paths, frames, budget, on_done=None):
    """Thumbnails of image files that together stay within a budget.

    Args:
        paths: image files.
        frames: a (height, width) for each, the pixels that the dataset's coordinates count.
        budget: characters of all addresses together.
        on_done: called after each of them.

    Returns:
        list of Thumbnail, in the paths' order.
    """
    pairs = list(zip(paths, frames, strict=True))
    choice = _fitting(pairs[:: -(-len(pairs) // SAMPLE) or 1], SPARE * budget / max(1, len(pairs)))
    while True:
        made = []
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for one in pool.map(lambda pair, choice=choice: thumbnail(*pair, *SIZES[choice]), pairs):
                made.append(one)
                if on_done:
                    on_done()
        if choice == len(SIZES) - 1 or sum(len(one.address or "") for one in made) <= budget:
            return made
        choice += 1


def thumbnail(path, frame, side, quality):
    """A file as a `Thumbnail` of at most `side` pixels; never enlarged. An unreadable one is no error.

    Args:
        path: the image file.
        frame: (height, width) as the dataset has it. An EXIF orientation is applied unless that is the size of the
            image without it.
        side, quality: of the JPEG.
    """
    picture, remark = _read(path, frame, side)
    if picture is None:
        return Thumbnail(None, remark)
    return Thumbnail(_address(picture, frame, side, quality), "", remark)


def _read(path, frame, side):
    """(PIL image of at most `side` pixels in the frame's proportions, a remark), or (None, what is wrong)."""
    try:
        with Image.open(path) as image:
            stored = image.height, image.width
            image.draft("RGB", (side, side))  # a JPEG is decoded at a half, quarter or eighth if that will do
            seen = stored[::-1] if image.getexif().get(0x0112, 1) >= 5 else stored
            upright = image if frame == stored != seen else ImageOps.exif_transpose(image)
            picture = _shrunk(Image.fromarray(rgb_pixels(upright)), frame, side)
    except FileNotFoundError:
        return None, "the file isn't there"
    except Exception as error:  # Pillow raises whatever its format plugins run into
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return None, f"the file isn't a readable image ({reason})"
    fits = frame in (seen, stored)
    return picture, "" if fits else f"the file has {seen[1]} x {seen[0]} pixels, the json says otherwise"


def _shrunk(picture, frame, side):
    scale = min(1, side / max(frame))
    size = max(1, round(frame[1] * scale)), max(1, round(frame[0] * scale))
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _address(picture, frame, side, quality):
    buffer = io.BytesIO()
    _shrunk(picture, frame, side).save(buffer, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _fitting(pairs, share):
    """The place of the first of `SIZES` whose thumbnails of these files have `share` characters on average."""
    read = [(_read(path, frame, SIZES[0][0])[0], frame) for path, frame in pairs]
    read = [(picture, frame) for picture, frame in read if picture]

    def fits(choice):
        return sum(len(_address(*pair, *SIZES[choice])) for pair in read) <= share * len(read)

    return min(bisect.bisect_left(range(len(SIZES)), True, key=fits), len(SIZES) - 1)
