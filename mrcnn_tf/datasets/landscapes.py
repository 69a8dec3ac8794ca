"""Grounds of the generated panoptic dataset: regions of sky, grass, water and sand with stones among them, and how they
look.

Regions are irregular and textures noisy, but each kind keeps its colours, so that a small network can learn them.
"""

import dataclasses

import numpy as np
from PIL import Image

STUFF = ("sky", "grass", "water", "sand")
STONES = len(STUFF)  # the number of what nobody labelled, in a map of regions
SKYLESS = 0.2  # of the pictures look down
STONY = 0.6  # of the pictures have stones


@dataclasses.dataclass
class Landscape:
    """A ground.

    Attributes:
        regions: [size, size] int, the place in STUFF of each pixel, or STONES.
        picture: [size, size, 3] float32, grey levels.
    """

    regions: np.ndarray
    picture: np.ndarray


def landscape(rng, size):
    """A `Landscape` drawn by chance."""
    regions = _regions(rng, size)
    picture = np.zeros((size, size, 3), np.float32)
    for number, draw in enumerate((_sky, _grass, _water, _sand, _stone)):
        texture = draw(rng, size)  # also of what isn't there, so that no draw depends on what is
        picture = np.where((regions == number)[..., None], texture, picture)
    light = rng.uniform(0.85, 1.1) + 0.06 * smooth(rng, size, size / 2)[..., None]
    return Landscape(regions, (picture * light).astype(np.float32))


def smooth(rng, size, width, height=None):
    """Noise of mean 0 and deviation 1 that changes over `width` (and `height`) pixels, [size, size] float32."""
    cells = [max(2, round(size / length)) for length in (width, height or width)]
    noise = Image.fromarray(rng.normal(0, 1, cells[::-1]).astype(np.float32))
    values = np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC))
    return (values - values.mean()) / (values.std() + 1e-6)


def _regions(rng, size):
    """Land under a horizon; water where it lies low, and sand along the shore."""
    depth = smooth(rng, size, size / 3) + 0.3 * smooth(rng, size, size / 10)
    sea, shore = rng.uniform(0.5, 1.4), rng.uniform(0.4, 1.0)
    regions = np.full((size, size), STUFF.index("grass"))
    regions[depth > sea - shore] = STUFF.index("sand")
    regions[depth > sea] = STUFF.index("water")
    stones = smooth(rng, size, size / 8) > rng.uniform(1.9, 2.4)
    if rng.uniform() < STONY:
        regions[stones] = STONES
    x, horizon = np.arange(size) / size, rng.uniform(0.25, 0.6)
    for waves in (1, 2, 5):
        horizon = horizon + rng.normal(0, 0.07 / waves) * np.sin(2 * np.pi * (waves * x + rng.uniform()))
    if rng.uniform() >= SKYLESS:
        regions[(np.arange(size)[:, None] + 0.5) / size < horizon] = STUFF.index("sky")
    return regions


def _mixed(share, first, second):
    """[size, size, 3]: colours from the first (share 0) to the second (share 1)."""
    share = np.clip(share, 0, 1)[..., None]
    return (1 - share) * np.float32(first) + share * np.float32(second)


def _sky(rng, size):
    height = np.linspace(0, 1.2, size, dtype=np.float32)[:, None] + np.zeros((1, size), np.float32)
    clouds = smooth(rng, size, size / 3, size / 8) + 0.5 * smooth(rng, size, size / 9, size / 16)
    blue = _mixed(height, rng.normal((75, 135, 225), 8), rng.normal((175, 210, 245), 6))
    share = np.clip(0.6 * (clouds - 0.4), 0, 0.85)[..., None]
    return (1 - share) * blue + share * np.float32((250, 250, 252))


def _grass(rng, size):
    blades, patches = smooth(rng, size, 1.5, 5), smooth(rng, size, size / 4)
    green = _mixed(0.5 + 0.3 * patches, rng.normal((45, 110, 35), 7), rng.normal((120, 165, 55), 7))
    return green + 13 * blades[..., None]


def _water(rng, size):
    y = np.arange(size, dtype=np.float32)[:, None] / size
    ripples = np.sin(2 * np.pi * (y * rng.uniform(14, 22) + 0.5 * smooth(rng, size, size / 5, size / 16)))
    teal = _mixed(0.5 + 0.25 * smooth(rng, size, size / 3), rng.normal((10, 70, 105), 7), rng.normal((30, 125, 140), 7))
    return teal + np.float32((14, 18, 18)) * ripples[..., None] ** 3


def _sand(rng, size):
    dunes, grains = smooth(rng, size, size / 4, size / 9), rng.standard_normal((size, size), np.float32)
    yellow = _mixed(0.5 + 0.3 * dunes, rng.normal((200, 165, 105), 6), rng.normal((240, 215, 155), 6))
    return yellow + 8 * grains[..., None]


def _stone(rng, size):
    rough = smooth(rng, size, size / 12) + 0.5 * smooth(rng, size, 2)
    return _mixed(0.5 + 0.25 * rough, (70, 68, 72), (165, 160, 158))
