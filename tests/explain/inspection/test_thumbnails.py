"""Thumbnails have their dataset's orientation and stay within a budget; unreadable files are no error."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from mrcnn_tf.explain.inspection.report import THUMBNAIL_SIZES, encode_thumbnail, encode_thumbnails


def pixels(one):
    head, data = one.address.split(",", 1)
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), np.int64)


def quarters(height=60, width=100):
    """Four colours, so that every turn and mirroring shows."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = 250, 20, 20
    image[: height // 2, width // 2 :] = 20, 250, 20
    image[height // 2 :, : width // 2] = 20, 20, 250
    return image


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_is_applied_when_the_json_describes_the_upright_image(tmp_path, orientation):
    from PIL import ImageOps

    image = Image.fromarray(quarters())
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    upright = ImageOps.exif_transpose(Image.open(tmp_path / "a.jpg"))
    seen = pixels(encode_thumbnail(tmp_path / "a.jpg", (upright.height, upright.width), 50, 95))
    wanted = np.asarray(upright.resize((seen.shape[1], seen.shape[0]), Image.Resampling.LANCZOS), np.int64)
    assert seen.shape == ((50, 30, 3) if orientation >= 5 else (30, 50, 3))
    assert np.abs(seen - wanted).mean() < 6


def test_exif_is_left_alone_when_the_json_describes_the_file_as_stored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(quarters()).save(tmp_path / "a.jpg", exif=exif, quality=95)
    one = encode_thumbnail(tmp_path / "a.jpg", (60, 100), 100, 95)
    assert np.abs(pixels(one) - quarters().astype(np.int64)).mean() < 6 and one.note == ""


@pytest.mark.parametrize("kind", ["L", "P", "RGBA", "1", "CMYK", "I;16"])
def test_every_kind_of_image_is_shown(tmp_path, kind):
    if kind == "I;16":
        image = Image.fromarray((quarters()[..., 0].astype(np.uint16)) << 8)
    else:
        image = Image.fromarray(quarters()).convert(kind)
    path = tmp_path / ("a.tif" if kind in ("CMYK", "I;16") else "a.png")
    image.save(path)
    seen = pixels(encode_thumbnail(path, (60, 100), 100, 90))
    assert seen.shape == (60, 100, 3)
    assert seen[5:15, 5:15].mean() > seen[45:55, 85:95].mean() + 50  # the dark quarter stays dark


def test_files_without_a_picture_say_why(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    Image.fromarray(quarters()).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:80])
    assert encode_thumbnail(tmp_path / "none.png", (60, 100), 50, 80).problem == "the file isn't there"
    for name in ("text.png", "half.png"):
        one = encode_thumbnail(tmp_path / name, (60, 100), 50, 80)
        assert one.address is None and "isn't a readable image" in one.problem


def test_another_size_than_the_json_says_is_noted_and_the_json_s_shape_drawn(tmp_path):
    Image.fromarray(quarters()).save(tmp_path / "a.png")
    one = encode_thumbnail(tmp_path / "a.png", (200, 100), 50, 80)
    assert "100 x 60 pixels" in one.note and pixels(one).shape == (50, 25, 3)


def test_a_small_image_is_not_enlarged(tmp_path):
    Image.fromarray(quarters(6, 10)).save(tmp_path / "a.png")
    assert pixels(encode_thumbnail(tmp_path / "a.png", (6, 10), 480, 80)).shape == (6, 10, 3)


def test_all_together_stay_within_the_budget_and_use_it(tmp_path):
    generator = np.random.default_rng(0)
    paths = []
    for number in range(30):
        noise = generator.integers(0, 256, (60, 80, 3)).astype(np.uint8)
        paths.append(tmp_path / f"{number}.jpg")
        Image.fromarray(noise).resize((480, 360)).save(paths[-1])
    for budget in (600_000, 150_000):
        calls = []
        made = encode_thumbnails(paths, [(360, 480)] * 30, budget, lambda calls=calls: calls.append(1))
        size = sum(len(one.address) for one in made)
        assert budget / 3 < size <= budget and len(calls) >= 30
    smallest = encode_thumbnails(paths, [(360, 480)] * 30, 10)
    assert all(pixels(one).shape[1] == THUMBNAIL_SIZES[-1][0] for one in smallest)
    assert encode_thumbnails([], [], 1000) == []
