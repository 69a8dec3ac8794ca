import io

import numpy as np
import pytest
from PIL import Image
from sound_dataset import picture

from mrcnn_tf.datasets.doctor.image_checks import check_decodable
from mrcnn_tf.datasets.image_files import inspect_files


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_damage_is_what_tensorflow_calls_damage(tmp_path, kind):
    buffer, paths = io.BytesIO(), []
    picture(1).save(buffer, kind)
    data = buffer.getvalue()
    for cut in (0, 1, 4, 13, 17, 20, 100, len(data) // 2):
        paths.append(str(tmp_path / f"cut {cut}"))
        (tmp_path / f"cut {cut}").write_bytes(data[: len(data) - cut])
    rng = np.random.default_rng(0)
    for number in range(4):
        spoilt = bytearray(data)
        spoilt[int(rng.integers(60, len(data) - 30))] ^= 0x55
        paths.append(str(tmp_path / f"spoilt {number}"))
        (tmp_path / f"spoilt {number}").write_bytes(spoilt)
    by_tensorflow, by_pillow = (
        [header.problem for header in inspect_files(paths, lambda n: None, decode)]
        for decode in (None, check_decodable)
    )
    assert by_tensorflow == by_pillow and any(by_pillow)


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
