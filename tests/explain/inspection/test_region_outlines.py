"""Outlines of regions, filled again, are the regions; names lie inside."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mrcnn_tf.explain.inspection.page_data import place_names, trace_regions

SCALE = 4.0


def filled(rings, height, width):
    """bool [H, W]: which pixels' middles lie in the polygons, by the even-odd rule."""
    inside = np.zeros((int(height * SCALE), int(width * SCALE)), bool)
    for ring in rings:
        canvas = Image.new("1", inside.shape[::-1])
        ImageDraw.Draw(canvas).polygon(ring.ravel().tolist(), fill=1)
        inside ^= np.asarray(canvas)
    return inside[2::4, 2::4]


@pytest.mark.parametrize("side", [40, 90])
def test_outlines_are_filled_by_their_region_and_leave_holes(side):
    rows, columns = np.mgrid[:side, : side + 20]
    pixels = np.where(rows < side // 2, 7, 300000).astype(np.int32)
    distance = np.hypot(rows - side / 2, columns - side / 2)
    pixels[distance < side / 3] = 2
    pixels[distance < side / 8] = 0
    ids = [7, 300000, 2]
    for number, rings in zip(ids, trace_regions(pixels, ids, SCALE, 1.0), strict=True):
        drawn = filled(rings, *pixels.shape)
        assert (drawn != (pixels == number)).mean() < 0.02
        corners = np.concatenate(rings)
        assert corners.min() >= 0 and (corners <= np.array(pixels.shape[::-1]) * SCALE).all()
    assert len(trace_regions(pixels, [2], SCALE, 1.0)[0]) == 2  # a ring has a hole


def test_what_falls_between_the_samples_has_no_outline():
    pixels = np.ones((2000, 2000), np.int32)
    pixels[1, 1] = 5
    outlines = trace_regions(pixels, [1, 5], 1.0, 2.5)
    assert outlines[1] == [] and np.concatenate(outlines[0]).max() == 2000
    assert place_names(pixels, [1, 5], 1.0)[1] is None


def test_names_lie_where_their_region_is_deepest():
    pixels = np.ones((60, 120), np.int32)
    pixels[10:50, 80:110] = 2
    pixels[:4, :] = 3
    outer, square, strip = place_names(pixels, [1, 2, 3], SCALE)
    assert 20 < outer[0] / SCALE < 60 and 20 < outer[1] / SCALE < 45
    assert square == pytest.approx([95 * SCALE, 30 * SCALE], abs=2.5 * SCALE)
    assert strip[1] / SCALE < 4
    # The middle of a ring lies outside of it.
    rows, columns = np.mgrid[:100, :100]
    ring = (np.abs(np.hypot(rows - 50, columns - 50) - 35) < 10).astype(np.int32)
    x, y = (int(value / SCALE) for value in place_names(ring, [1], SCALE)[0])
    assert ring[y, x] == 1
