import io

import numpy as np
import pytest
from PIL import Image
from sound_dataset import picture

from mrcnn_tf.datasets.image_files import inspect_bytes, read_pixels


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_damage_is_what_tensorflow_calls_damage(kind):
    """Training decodes by TensorFlow what was tried by Pillow."""
    import tensorflow as tf

    from mrcnn_tf.ops.image_bytes import decode_image

    buffer, files = io.BytesIO(), []
    picture(1).save(buffer, kind)
    data = buffer.getvalue()
    for cut in (0, 1, 4, 8, 9, 12, 13, 17, 20, 100, len(data) // 2):
        files.append(data[: len(data) - cut])
    rng = np.random.default_rng(0)
    for position in [*rng.integers(60, len(data) - 30, 20).tolist(), *range(-14, 0)]:
        spoilt = bytearray(data)
        spoilt[position] ^= 0x55
        files.append(bytes(spoilt))
    refused = []
    for file in files:
        image = inspect_bytes(file, thorough=True)
        refused.append(image.problem is not None)
        try:
            pixels = decode_image(tf.constant(file)).numpy()
        except tf.errors.OpError:
            assert image.problem
        else:
            assert not image.problem
            np.testing.assert_array_equal(pixels, read_pixels(file))
    assert any(refused) and not all(refused)


def test_what_is_said_of_modes_is_what_happens(tmp_path):
    """Alpha is dropped, of 16 bits the upper 8 are read, grey becomes three equal channels."""
    from mrcnn_tf.ops.image_bytes import decode_image

    def decoded(image):
        image.save(tmp_path / "a.png")
        return decode_image((tmp_path / "a.png").read_bytes()).numpy()

    colours = picture(1)
    transparent = colours.convert("RGBA")
    transparent.putalpha(9)
    assert (decoded(transparent) == np.asarray(colours)).all()
    grey = np.random.default_rng(0).integers(0, 4096, (20, 30)).astype(np.uint16)
    assert (decoded(Image.fromarray(grey)) == (grey >> 8)[..., None]).all()
    assert (decoded(colours.convert("L")) == np.asarray(colours.convert("L"))[..., None]).all()
