"""Outlines of masks and regions, filled again, give back their pixels; names lie inside."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from mrcnn_tf.explain.inspection.page_data import place_names, simplify_lines, trace_masks, trace_regions


def encode(mask):
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")}


def filled(rings, size, scale=1.0):
    """The rings filled by the even-odd rule, each pixel by its middle."""
    height, width = size
    inside = np.zeros(size, bool)
    for ring in rings:
        canvas = Image.new("1", (width * 8, height * 8))
        ImageDraw.Draw(canvas).polygon([tuple(point * 8 / scale) for point in ring.astype(float)], fill=1)
        inside ^= np.asarray(canvas)[4::8, 4::8]
    return inside


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def blobs(seed, height=90, width=130):
    """Smooth random shapes with holes and islands."""
    noise = np.fft.fft2(np.random.default_rng(seed).normal(size=(height, width)))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(width), np.fft.fftfreq(height)))
    return np.fft.ifft2(noise * np.exp(-((frequency / 0.04) ** 2))).real > 0


@pytest.mark.parametrize("seed", range(4))
def test_a_filled_outline_is_the_mask(seed):
    mask = blobs(seed)
    scale = 2000 / 130
    (rings,) = trace_masks([encode(mask)], scale, 2.5)
    assert len(rings) > 3
    assert iou(filled(rings, mask.shape, scale), mask) > 0.99
    # Far fewer points than the border has pixels.
    border = (mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum()
    assert sum(map(len, rings)) < border / 2


def test_a_hole_stays_a_hole_and_the_image_s_edge_closes_an_outline():
    mask = np.zeros((40, 60), bool)
    mask[:30, :50] = True
    mask[10:20, 10:40] = False
    (rings,) = trace_masks([encode(mask)], 1.0, 0.6)
    assert len(rings) == 2
    assert iou(filled(rings, mask.shape), mask) > 0.98
    corners = np.concatenate(rings)
    assert corners.min() == 0 and corners.max(axis=0).tolist() == [50, 30]


def test_a_huge_mask_is_sampled_and_keeps_its_shape():
    height, width = 3000, 4000
    y, x = np.ogrid[:height, :width]
    mask = ((x - 2000) / 1500) ** 2 + ((y - 1500) / 900) ** 2 < 1
    scale = 2000 / width
    (rings,) = trace_masks([encode(mask)], scale, 2.5)
    assert len(rings) == 1 and len(rings[0]) < 200
    # Every point lies within two samples of the ellipse.
    points = rings[0] / scale
    radius = np.hypot((points[:, 0] - 2000) / 1500, (points[:, 1] - 1500) / 900)
    assert np.abs(radius - 1).max() < 2 * 3000 / 256 / 900
    assert iou(filled(rings, (150, 200), 2000 / 200), mask[10::20, 10::20]) > 0.98


def test_missing_and_empty_masks_have_no_rings_and_owners_keep_theirs():
    mask = np.zeros((20, 30), bool)
    mask[5:15, 5:25] = True
    empty, one = encode(np.zeros((20, 30), bool)), encode(mask)
    rings = trace_masks([None, one, empty, one], 10.0, 1.0)
    assert [len(own) for own in rings] == [0, 1, 0, 1]
    assert np.array_equal(rings[1][0], rings[3][0])
    # Compressed run lengths may come as bytes, as pycocotools gives them.
    as_bytes = one | {"counts": one["counts"].encode()}
    assert np.array_equal(trace_masks([as_bytes], 10.0, 1.0)[0][0], rings[1][0])


def test_no_point_of_a_line_lies_farther_from_its_simplification_than_the_tolerance():
    generator = np.random.default_rng(0)
    lines = [np.cumsum(generator.normal(size=(n, 2)), axis=0) for n in (2, 3, 50, 400)]
    for line, simple in zip(lines, simplify_lines(lines, 1.5), strict=True):
        assert np.array_equal(simple[0], line[0]) and np.array_equal(simple[-1], line[-1])
        kept = [np.flatnonzero((line == point).all(axis=1))[0] for point in simple]
        assert kept == sorted(kept)
        for start, end in zip(kept, kept[1:], strict=False):
            a, b = line[start], line[end]
            for point in line[start:end]:
                share = np.clip((point - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
                assert np.linalg.norm(point - a - share * (b - a)) <= 1.5
    assert len(simplify_lines(lines, 1.5)[3]) < 200
    assert simplify_lines([], 1.0) == []


SCALE = 4.0


def filled_region(rings, height, width):
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
        drawn = filled_region(rings, *pixels.shape)
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
