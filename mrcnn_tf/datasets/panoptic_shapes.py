"""Pictures of shapes in a landscape, in which every pixel has a class: ground truth in all forms that data can have.

A test bed for panoptic segmentation, as shapes.py is one for instances: the shapes are things, sky, grass, water and
sand are stuff, and stones are what nobody labelled.
"""

import collections
import pathlib

import numpy as np
from PIL import Image

from mrcnn_tf.common.files import atomic_write, write_json
from mrcnn_tf.datasets import run_lengths
from mrcnn_tf.datasets.shapes import Look, check_look, light_gradient, place_shapes

STUFF = ("sky", "grass", "water", "sand")
STONES = len(STUFF)  # in a map of regions: what nobody labelled
SKYLESS = 0.2  # share of the pictures that look down
STONY = 0.6  # share of the pictures that have stones

LOOK = Look(shapes=(2, 5), lengths=(0.25, 0.6), strokes=(0.14, 0.24))
FIRST_STUFF = 21  # its category id, apart from the things', as COCO's are
MIN_STUFF = 0.004  # of the picture; a smaller area of a kind of stuff stays unlabelled
MIN_COVERAGE = 0.5  # of a pixel that is a shape's
SHADES = 0.75  # of a category's colour, that the next segment of it in a picture has
SHADOW, SHADOW_STRENGTH = 0.015, 0.3  # how far it falls, of the picture's side, and what it takes from the light

# Where the parts of a dataset lie, by the names that a DataConfig has for them; all are `pathlib.Path`.
PanopticShapes = collections.namedtuple("PanopticShapes", "images panoptic panoptic_maps annotations semantic_maps")

_COLOURS = {  # of segments in the maps
    "blade": (220, 20, 60),
    "arrow": (250, 170, 30),
    "hook": (150, 60, 200),
    "cross": (255, 105, 180),
    "sky": (70, 130, 180),
    "grass": (107, 142, 35),
    "water": (20, 60, 140),
    "sand": (230, 200, 120),
}


def make_panoptic_shapes(folder, images, seed=0, size=128, look=None):
    """Writes a dataset of pictures with their panoptic ground truth, and gives its `PanopticShapes`.

        images/000001.png      the pictures
        panoptic.json          COCO's panoptic format; stuff has one segment of each kind in a picture
        panoptic/000001.png    its PNGs
        instances.json         the things of it in COCO's instance format: the same pixels as run lengths
        semantic/000001.png    category ids as a PNG with a palette; 0 is unlabelled

    The n-th picture follows from the seed, n and the other arguments but not from how many are paths.

    Arguments and errors are those of `shapes.make_shapes`; the `Look` is that of the things, and None is LOOK.
    """
    look = look or LOOK
    check_look(images, size, look)
    folder = pathlib.Path(folder)
    names = ("images", "panoptic.json", "panoptic", "instances.json", "semantic")
    paths = PanopticShapes(*(folder / name for name in names))
    for path in (paths.panoptic, paths.annotations):
        path.unlink(missing_ok=True)  # it must not stand beside another seed's pictures if this is interrupted
    categories = _make_categories(look)
    records, panoptic, instances = [], [], []
    for number in range(1, images + 1):
        rng = np.random.default_rng([seed, number])
        picture, numbers, segment_categories = _draw_picture(rng, size, look, categories)
        name = f"{number:06d}.png"
        records.append({"id": number, "file_name": name, "width": size, "height": size})
        segments, colours = _describe_segments(numbers, segment_categories)
        panoptic.append({"image_id": number, "file_name": name, "segments_info": segments})
        for segment_number, segment in enumerate(segments, 1):
            if segment["category_id"] < FIRST_STUFF:
                ids = {"id": len(instances) + 1, "image_id": number}
                instances.append(ids | {"segmentation": run_lengths.encode(numbers == segment_number)} | segment | ids)
        category_ids = np.array([0, *(segment["category_id"] for segment in segments)], np.uint8)
        _save(paths.images / name, Image.fromarray(picture), compress_level=1)  # noise hardly shrinks
        _save(paths.panoptic_maps / name, Image.fromarray(colours[numbers]))
        _save(paths.semantic_maps / name, _with_palette(category_ids[numbers], categories))
    things = [{name: category[name] for name in ("id", "name")} for category in categories if category["isthing"]]
    write_json({"images": records, "annotations": instances, "categories": things}, paths.annotations)
    write_json({"images": records, "annotations": panoptic, "categories": categories}, paths.panoptic)
    return paths


def _draw_picture(rng, size, look, categories):
    """Draws a picture.

    Returns:
        picture: uint8 [size, size, 3].
        numbers: int64 [size, size], the number of each pixel's segment, from 1; 0 for none.
        segment_categories: list of the segments' categories, the first that of segment 1.
    """
    regions, picture = draw_landscape(rng, size)
    scene = place_shapes(rng, size, look)
    numbers, segment_categories = np.zeros((size, size), np.int64), []
    by_name = {category["name"]: category for category in categories}
    for index, name in enumerate(STUFF):
        region = regions == index
        if region.sum() >= MIN_STUFF * region.size:
            segment_categories.append(by_name[name])
            numbers[region] = len(segment_categories)
    used = []
    for shape in scene:
        colour = _draw_colour(rng, picture[shape.coverage >= MIN_COVERAGE], used)
        used.append(colour)
        picture = picture * (1 - SHADOW_STRENGTH * _cast_shadow(shape.coverage))[..., None]
        shade = np.float32(colour) + light_gradient(rng, size)
        picture = picture + shape.coverage[..., None] * (shade - picture)
        segment_categories.append(by_name[shape.kind.name])
        numbers[shape.coverage >= MIN_COVERAGE] = len(segment_categories)
    picture = picture + rng.standard_normal(picture.shape, np.float32) * np.float32(rng.uniform(1, 4))
    # Segments of which nothing is left to be seen go.
    visible = np.flatnonzero(np.bincount(numbers.ravel(), minlength=len(segment_categories) + 1)[1:])
    renumbered = np.zeros(len(segment_categories) + 1, np.int64)
    renumbered[visible + 1] = np.arange(1, visible.size + 1)
    picture = picture.round().clip(0, 255).astype(np.uint8)
    return picture, renumbered[numbers], [segment_categories[index] for index in visible]


def _draw_colour(rng, below, used):
    """Any colour that can be told from what lies below [N, 3] and from those used."""
    colours = rng.uniform(20, 255, (16, 3))
    others = np.array([below.mean(axis=0), *used])
    return colours[np.linalg.norm(colours[:, None] - others, axis=2).min(axis=1).argmax()]


def _cast_shadow(coverage):
    shift = max(1, round(SHADOW * coverage.shape[0]))
    return np.pad(coverage, [[shift, 0], [shift, 0]])[:-shift, :-shift]


def _describe_segments(numbers, segment_categories):
    """(COCO's segments_info of a picture, [U + 1, 3] uint8 the colour of each segment's number)."""
    segments, colours = [], np.zeros((len(segment_categories) + 1, 3), np.uint8)
    for number, category in enumerate(segment_categories, 1):
        rows, columns = np.nonzero(numbers == number)
        left, top = columns.min(), rows.min()
        # Ever darker shades of the category's colour; the number in their last bits makes each one different.
        earlier = sum(other is category for other in segment_categories[: number - 1])
        shade = np.array(category["color"]) * SHADES**earlier
        colours[number] = shade.astype(int) // 16 * 16 + np.array([number % 16, number // 16 % 16, number // 256])
        red, green, blue = colours[number].tolist()
        segments.append(
            {
                "id": red + 256 * green + 65536 * blue,
                "category_id": category["id"],
                "area": len(rows),
                "bbox": [int(side) for side in (left, top, columns.max() - left + 1, rows.max() - top + 1)],
                "iscrowd": 0,
            }
        )
    return segments, colours


def _make_categories(look):
    names = [kind.name for kind in look.shape_kinds()]
    things = [{"id": number, "name": name, "isthing": 1} for number, name in enumerate(names, 1)]
    stuff = [{"id": number, "name": name, "isthing": 0} for number, name in enumerate(STUFF, FIRST_STUFF)]
    return [category | {"color": list(_COLOURS[category["name"]])} for category in things + stuff]


def _with_palette(values, categories):
    palette = np.zeros((256, 3), np.uint8)
    for category in categories:
        palette[category["id"]] = category["color"]
    image = Image.fromarray(values)
    image.putpalette(palette.tobytes())
    return image


def _save(path, image, **options):
    with atomic_write(path) as file:
        image.save(file, **options)


# Grounds: regions of sky, grass, water and sand with stones among them, and how they look. Regions are irregular and
# textures noisy, but each kind of stuff keeps its colours, so that a small network can learn them.


def draw_landscape(rng, size):
    """Draws a ground by chance.

    Returns:
        regions: [size, size] int, the index in STUFF of each pixel, or STONES.
        picture: [size, size, 3] float32, grey levels.
    """
    regions = _draw_regions(rng, size)
    picture = np.zeros((size, size, 3), np.float32)
    for index, draw in enumerate((_sky, _grass, _water, _sand, _stone)):
        texture = draw(rng, size)  # also of what isn't there, so that no draw depends on what is
        picture = np.where((regions == index)[..., None], texture, picture)
    light = rng.uniform(0.85, 1.1) + 0.06 * smooth_noise(rng, size, size / 2)[..., None]
    return regions, (picture * light).astype(np.float32)


def smooth_noise(rng, size, width, height=None):
    """Noise of mean 0 and deviation 1 that changes over `width` (and `height`) pixels, [size, size] float32."""
    cells = [max(2, round(size / length)) for length in (width, height or width)]
    noise = Image.fromarray(rng.normal(0, 1, cells[::-1]).astype(np.float32))
    values = np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC))
    return (values - values.mean()) / (values.std() + 1e-6)


def _draw_regions(rng, size):
    """Land under a horizon; water where it lies low, and sand along the shore."""
    depth = smooth_noise(rng, size, size / 3) + 0.3 * smooth_noise(rng, size, size / 10)
    sea, shore = rng.uniform(0.5, 1.4), rng.uniform(0.4, 1.0)
    regions = np.full((size, size), STUFF.index("grass"))
    regions[depth > sea - shore] = STUFF.index("sand")
    regions[depth > sea] = STUFF.index("water")
    stones = smooth_noise(rng, size, size / 8) > rng.uniform(1.9, 2.4)
    if rng.uniform() < STONY:
        regions[stones] = STONES
    x, horizon = np.arange(size) / size, rng.uniform(0.25, 0.6)
    for waves in (1, 2, 5):
        horizon = horizon + rng.normal(0, 0.07 / waves) * np.sin(2 * np.pi * (waves * x + rng.uniform()))
    if rng.uniform() >= SKYLESS:
        regions[(np.arange(size)[:, None] + 0.5) / size < horizon] = STUFF.index("sky")
    return regions


def _mix(share, first, second):
    """[size, size, 3]: colours from the first (share 0) to the second (share 1)."""
    share = np.clip(share, 0, 1)[..., None]
    return (1 - share) * np.float32(first) + share * np.float32(second)


def _sky(rng, size):
    height = np.linspace(0, 1.2, size, dtype=np.float32)[:, None] + np.zeros((1, size), np.float32)
    clouds = smooth_noise(rng, size, size / 3, size / 8) + 0.5 * smooth_noise(rng, size, size / 9, size / 16)
    blue = _mix(height, rng.normal((75, 135, 225), 8), rng.normal((175, 210, 245), 6))
    return _mix(np.clip(0.6 * (clouds - 0.4), 0, 0.85), blue, (250, 250, 252))


def _grass(rng, size):
    blades, patches = smooth_noise(rng, size, 1.5, 5), smooth_noise(rng, size, size / 4)
    green = _mix(0.5 + 0.3 * patches, rng.normal((45, 110, 35), 7), rng.normal((120, 165, 55), 7))
    return green + 13 * blades[..., None]


def _water(rng, size):
    y = np.arange(size, dtype=np.float32)[:, None] / size
    ripples = np.sin(2 * np.pi * (y * rng.uniform(14, 22) + 0.5 * smooth_noise(rng, size, size / 5, size / 16)))
    share = 0.5 + 0.25 * smooth_noise(rng, size, size / 3)
    teal = _mix(share, rng.normal((10, 70, 105), 7), rng.normal((30, 125, 140), 7))
    return teal + np.float32((14, 18, 18)) * ripples[..., None] ** 3


def _sand(rng, size):
    dunes, grains = smooth_noise(rng, size, size / 4, size / 9), rng.standard_normal((size, size), np.float32)
    yellow = _mix(0.5 + 0.3 * dunes, rng.normal((200, 165, 105), 6), rng.normal((240, 215, 155), 6))
    return yellow + 8 * grains[..., None]


def _stone(rng, size):
    rough = smooth_noise(rng, size, size / 12) + 0.5 * smooth_noise(rng, size, 2)
    return _mix(0.5 + 0.25 * rough, (70, 68, 72), (165, 160, 158))
