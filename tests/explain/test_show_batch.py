"""The sheet of a batch, judged by what shows where."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mrcnn_tf.common.categories import Category
from mrcnn_tf.explain import show_batch
from mrcnn_tf.results import draw

FACE = Category(1, "face", ["nose", "chin"], [[1, 2]])
BALL = Category(2, "ball")


def batch(count=2):
    """Gray images of 300 x 200 (w x h) in red padding; the first object is 100 pixels wide, the others are padding."""
    image = np.zeros([count, 320, 320, 3], np.float32) + (255, 0, 0)
    image[:, :200, :300] = 120
    boxes, classes = np.zeros([count, 3, 4], np.float32), np.zeros([count, 3], np.int32)
    boxes[:, 0], classes[:, 0] = (50, 40, 150, 140), 1
    boxes[:, 1:] = (160, 40, 290, 190)
    keypoints = np.zeros([count, 3, 2, 3], np.float32)
    keypoints[:, 0] = (200, 100, 2), (250, 100, 2)
    parts = {
        "image": image,
        "image_size": np.tile(np.int32([200, 300]), (count, 1)),
        "original_size": np.tile(np.int32([200, 300]), (count, 1)),
        "boxes": boxes,
        "classes": classes,
        "masks": np.full([count, 3, 8, 8], 255, np.uint8),
        "keypoints": keypoints,
        "crowd": np.zeros([count, 3], bool),
        "image_id": np.arange(count, dtype=np.int64) + 7,
    }
    return {name: tf.constant(value) for name, value in parts.items()}


def gray(sheet):
    pixels = np.asarray(sheet).astype(int)
    return (np.abs(pixels - 120) <= 1).all(-1)


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (4, 2, 2), (5, 3, 2)])
def test_every_image_has_its_place(count, columns, rows):
    sheet = show_batch.show_batch(batch(count), [FACE, BALL])
    assert isinstance(sheet, Image.Image) and sheet.mode == "RGB"
    assert sheet.width == pytest.approx(columns * (show_batch.TILE_SIDE + 14) + 14, abs=2)
    height = show_batch.TILE_SIDE * 2 // 3
    assert rows * height < sheet.height < rows * (height + 60) + 30
    assert gray(sheet).sum() > 0.5 * count * show_batch.TILE_SIDE * height


def test_objects_show_and_padding_does_not():
    with_all = np.asarray(show_batch.show_batch(batch(1), [FACE, BALL])).astype(int)
    scale = show_batch.TILE_SIDE / 300
    colour = 120 + draw.FILL_OPACITY * (np.array(draw.instance_colour(0)) - 120)
    row, column = (14 + np.array([100, 100]) * scale).astype(int)
    np.testing.assert_allclose(with_all[row, column], colour, atol=2)
    assert not ((with_all[..., 0] > 200) & (with_all[..., 1:] < 50).all(-1)).any()
    empty = (slice(int(14 + 120 * scale), int(14 + 185 * scale)), slice(int(14 + 170 * scale), int(14 + 285 * scale)))
    assert gray(with_all)[empty].all()
    limb = with_all[int(14 + 100 * scale), int(14 + 225 * scale)]
    np.testing.assert_array_equal(limb, draw.instance_colour(0))


def test_without_masks_and_keypoints():
    plain = {name: value for name, value in batch(1).items() if name not in ("masks", "keypoints")}
    sheet = show_batch.show_batch(plain, [FACE, BALL])
    assert gray(sheet).sum() > gray(show_batch.show_batch(batch(1), [FACE, BALL])).sum()


def test_tags_only_where_they_tell_something():
    several, single = (show_batch.show_batch(batch(1), categories) for categories in ([FACE, BALL], [FACE]))
    above = slice(int(14 + 25 * show_batch.TILE_SIDE / 300), int(14 + 38 * show_batch.TILE_SIDE / 300))
    assert gray(single)[above, 14:-14].all() and not gray(several)[above, 14:-14].all()


def test_the_sheet_is_written(tmp_path):
    sheet = show_batch.show_batch(batch(2), [FACE, BALL], tmp_path / "new" / "sheet.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "sheet.png")), np.asarray(sheet))
