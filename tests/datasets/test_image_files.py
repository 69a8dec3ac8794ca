import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from mrcnn_tf.datasets.image_files import inspect_files
from mrcnn_tf.ops.image_bytes import apply_orientation, decode_image


def decoded(path):
    return decode_image(tf.io.read_file(str(path))).numpy()


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "RGB", "1"])
def test_png_modes_become_rgb(tmp_path, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 3)).astype(np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(decoded(tmp_path / "a.png"), np.asarray(image.convert("RGB")))


def test_png_of_16_bits(tmp_path):
    values = (np.arange(72).reshape(8, 9) * 800).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    np.testing.assert_array_equal(decoded(tmp_path / "a.png")[..., 1], values >> 8)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_modes(tmp_path, mode):
    across, down = np.meshgrid(np.arange(32), np.arange(32))
    smooth = np.stack([across, down, np.full((32, 32), 40)], axis=-1) * 6
    Image.fromarray(smooth.astype(np.uint8)).convert(mode).save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(decoded(tmp_path / "a.jpg") - expected).max() <= 4


@pytest.mark.parametrize("suffix", ["bmp", "gif"])
def test_other_formats(tmp_path, suffix):
    image = Image.fromarray(np.full((8, 9, 3), (10, 200, 30), np.uint8))
    image.save(tmp_path / f"a.{suffix}")
    assert np.abs(decoded(tmp_path / f"a.{suffix}") - np.array([10, 200, 30])).max() <= 8  # a GIF has a palette


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_pillows(tmp_path, orientation):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    (header,) = inspect_files([str(tmp_path / "a.png")], lambda number: None)
    assert (header.orientation, header.width, header.height, header.problem) == (orientation, 7, 5, None)
    turned = apply_orientation(tf.constant(pixels), tf.constant(header.orientation))
    np.testing.assert_array_equal(turned, expected)


def test_what_is_wrong_with_a_file(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    for name in ("good.jpg", "cut.jpg", "tail.jpg", "cut.png", "good.png", "no.webp"):
        Image.fromarray(pixels).save(tmp_path / name)
    for name in ("cut.jpg", "cut.png"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
    # Phones append data to their JPEGs; that is no damage.
    (tmp_path / "tail.jpg").write_bytes((tmp_path / "good.jpg").read_bytes() + b"appended")
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.png").write_bytes(b"")
    expected = {
        "good.jpg": None,
        "good.png": None,
        "tail.jpg": None,
        "cut.jpg": "truncated_image",
        "cut.png": "truncated_image",
        "no.webp": "image_format",
        "text.png": "unreadable_image",
        "empty.png": "unreadable_image",
        "absent.png": "missing_image",
    }
    headers = inspect_files([str(tmp_path / name) for name in expected], lambda number: None)
    found = {name: header.problem and header.problem[0] for name, header in zip(expected, headers, strict=True)}
    assert found == expected


def test_large_sets_are_checked_by_their_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("mrcnn_tf.datasets.image_files.FULL_CHECK_BYTES", 0)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[:-40])
    (header,) = inspect_files([str(tmp_path / "a.jpg")], lambda number: None)
    assert header.problem[0] == "truncated_image"
