import image_kinds
import numpy as np
import pytest
from image_kinds import PIXELS, READ, REFUSED, encoded, exif
from PIL import Image, ImageOps

from mrcnn_tf.datasets.image_files import (
    UnreadableImage,
    image_frame,
    inspect_bytes,
    inspect_file,
    inspect_files,
    read_image,
    read_pixels,
)


def inspect(path):
    (image,) = inspect_files([str(path)], lambda number: None)
    return image


@pytest.mark.parametrize("kind", READ)
def test_odd_kinds_are_read(tmp_path, kind):
    data, pixels = READ[kind]
    (tmp_path / "a").write_bytes(data)
    image = inspect(tmp_path / "a")
    assert image.problem is None and (image.height, image.width) == pixels.shape[:2]
    np.testing.assert_array_equal(read_pixels(data, image.orientation), pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "a"), pixels)
    assert inspect_bytes(data) == inspect_file(tmp_path / "a") == image
    assert image.has_frames == ("frames" in kind or "pages" in kind or kind == "PNG on a canvas")
    assert image.has_16_bits == (" of 16 bits" in kind and "BMP" not in kind)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_wrong_with_a_file(tmp_path, kind):
    data, (problem, what) = REFUSED[kind]
    (tmp_path / "a").write_bytes(data)
    image = inspect(tmp_path / "a")
    assert image.problem[0] == problem and image.problem[1].startswith(what)
    assert inspect_bytes(data, thorough=True).problem == inspect_file(tmp_path / "a", thorough=True).problem
    if kind != "PNG with a wrong checksum":  # whose pixels can be read
        with pytest.raises(UnreadableImage, match=f"a {what}.*: .* or leave it out"):
            read_image(tmp_path / "a")


def test_a_file_that_is_not_there(tmp_path):
    assert inspect(tmp_path / "a.png").problem[0] == "missing_image"
    assert inspect(tmp_path).problem[0] == "unreadable_image"


def test_the_remedy_for_floats_works(tmp_path):
    (tmp_path / "a.tif").write_bytes(REFUSED["TIFF of floats"][0])
    assert (
        inspect(tmp_path / "a.tif").problem[2]
        == "scale its values to 0 to 255, save it as an 8-bit PNG and name that file"
    )
    with Image.open(tmp_path / "a.tif") as opened:
        values = np.asarray(opened)
    Image.fromarray((values * 255 / values.max()).astype(np.uint8)).save(tmp_path / "a.png")
    assert inspect(tmp_path / "a.png").problem is None


@pytest.mark.parametrize("name", ["BMP of 10 bits to a colour", "TIFF of 5 channels", "EPS"])
def test_other_kinds_are_to_be_saved_as_png(name):
    assert "PNG and name that file" in inspect_bytes(REFUSED[name][0]).problem[2]


def test_pictures_that_would_fill_the_memory_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert inspect_bytes(encoded(image_kinds.PICTURE, "PNG")).problem[1] == "has more than 200 pixels"


def test_large_sets_are_checked_by_their_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("mrcnn_tf.datasets.image_files.FULL_CHECK_BYTES", 0)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[:-40])
    assert inspect(tmp_path / "a.jpg").problem[0] == "truncated_image"


@pytest.mark.parametrize("kind", ["BMP of 24 bits", "BMP of 8 bits", "TIFF by LZW", "WebP", "GIF on a canvas"])
def test_the_end_of_a_sound_file_is_not_in_doubt(kind):
    assert not inspect_bytes(READ[kind][0]).is_suspect
    assert inspect_bytes(READ[kind][0][:-30]).problem[0] == "truncated_image"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_pillows(tmp_path, orientation, kind):
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})
    data = encoded(image_kinds.PICTURE, kind, exif=exif(orientation), **options)
    (tmp_path / "a").write_bytes(data)
    with Image.open(tmp_path / "a") as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    image = inspect_bytes(data)
    assert (image.height, image.width) == expected.shape[:2]
    np.testing.assert_array_equal(read_pixels(data, image.orientation), expected)
    if kind != "TIFF":  # which Pillow turns by itself
        assert image.orientation == orientation and (image.stored_height, image.stored_width) == PIXELS.shape[:2]


def test_damaged_exif_turns_nothing():
    data = encoded(image_kinds.PICTURE, "JPEG", exif=b"Exif\0\0II*\0\xff\xff")
    assert inspect_bytes(data).problem is None and inspect_bytes(data).orientation == 1


def test_a_described_frame_is_seen_or_stored():
    image = inspect_bytes(encoded(image_kinds.PICTURE, "JPEG", exif=exif(6)))
    assert image_frame(image, 32, 24) == (32, 24, 6) and image_frame(image, 24, 32) == (24, 32, 1)
    assert image_frame(image, 24, 24) is None
    assert image.fits(24, 32) and image.fits(32, 24) and not image.fits(32, 32)
    assert image.around(24, 32) == (24, 32) and image.around(32, 24) == (32, 24)
