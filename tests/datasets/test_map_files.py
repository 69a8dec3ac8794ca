"""PNGs of segments and of labels, as numpy and the graph read them: what was written is what both read."""

import io
import re
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mrcnn_tf.common.errors import BrokenFile, UserError
from mrcnn_tf.data import map_reader
from mrcnn_tf.datasets import map_files

HEIGHT, WIDTH = 21, 34


def values(most, seed=0):
    return np.random.default_rng(seed).integers(0, most, (HEIGHT, WIDTH))


def written(path, image, **how):
    """Saves the image and gives the bytes."""
    image.save(path, "PNG", **how)
    return path.read_bytes()


def with_palette(pixels, colours, seed=0):
    """A palette image; two of its colours are equal, as where nobody cared for what unused classes look like."""
    palette = np.random.default_rng(seed).integers(0, 256, (colours, 3)).astype(np.uint8)
    palette[-1] = palette[0]
    image = Image.frombytes("P", (WIDTH, HEIGHT), pixels.astype(np.uint8).tobytes())
    image.putpalette(palette.tobytes())
    return image


def grey_of_few_bits(pixels, depth):
    """The bytes of a grey PNG of 2 or 4 bits, which Pillow doesn't write: made of a palette's by its definition."""
    data = io.BytesIO()
    with_palette(pixels, 1 << depth).save(data, "PNG")
    chunks, rest = [], data.getvalue()[8:]
    while rest:
        length = int.from_bytes(rest[:4], "big")
        chunks.append((rest[4:8], rest[8 : 8 + length]))
        rest = rest[12 + length :]
    (_, head), *others = chunks
    assert head[8] == depth and head[9] == 3
    kept = [(b"IHDR", head[:9] + b"\0" + head[10:])] + [one for one in others if one[0] != b"PLTE"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in kept)


def chunk(name, content):
    return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")


def check(path, pixels):
    """Asserts that both readers give the pixels."""
    np.testing.assert_array_equal(map_files.read_label_map(path), pixels)
    read = tf.function(map_reader.decode_png_values, input_signature=[tf.TensorSpec([], tf.string)])
    np.testing.assert_array_equal(read(path.read_bytes()), pixels)


@pytest.mark.parametrize("colours", [2, 3, 16, 17, 256])
@pytest.mark.parametrize("how", [{}, {"transparency": 0}], ids=["plain", "transparent"])
def test_the_value_of_a_pixel_with_a_palette_is_its_index(tmp_path, colours, how):
    pixels = values(colours)
    written(tmp_path / "a.png", with_palette(pixels, colours), **how)
    check(tmp_path / "a.png", pixels)


@pytest.mark.parametrize(("dtype", "most"), [(np.uint8, 256), (np.uint16, 65536), (bool, 2)])
def test_grey(tmp_path, dtype, most):
    pixels = values(most)
    written(tmp_path / "a.png", Image.fromarray(pixels.astype(dtype)))
    check(tmp_path / "a.png", pixels)


@pytest.mark.parametrize("depth", [2, 4])
def test_grey_of_few_bits_is_not_stretched(tmp_path, depth):
    pixels = values(1 << depth)
    (tmp_path / "a.png").write_bytes(grey_of_few_bits(pixels, depth))
    check(tmp_path / "a.png", pixels)


def test_maps_of_other_tools_have_more_forms(tmp_path):
    """What convert reads besides PNGs that training reads: each file gives what was put into it."""
    few, many, deep = values(16), values(200), values(1 << 16)
    (tmp_path / "grey_4.png").write_bytes(grey_of_few_bits(few, 4))
    bits = Image.fromarray(few > 7)
    grey, palette = Image.fromarray(many.astype(np.uint8)), with_palette(many, 256)
    alpha = Image.fromarray(values(256, 1).astype(np.uint8))
    with_alpha = grey.copy()
    with_alpha.putalpha(alpha)
    ids, _ = segments(tmp_path / "colour.png")
    colour = Image.open(tmp_path / "colour.png")
    written = {
        "bits.png": (bits, few > 7),
        "bits.bmp": (bits, few > 7),
        "bits.tif": (bits, few > 7),
        "grey_alpha.png": (with_alpha, many),
        "deep.png": (Image.fromarray(deep.astype(np.uint16)), deep),
        "deep.tif": (Image.fromarray(deep.astype(np.uint16)), deep),
        "int32.tif": (Image.fromarray((deep * 300 - 5).astype(np.int32)), deep * 300 - 5),
        "big_endian.tif": (Image.frombytes("I;16B", (WIDTH, HEIGHT), deep.astype(">u2").tobytes()), deep),
        "colour_alpha.png": (colour.convert("RGBA"), ids),
        "colour.tif": (colour, ids),
        "colour.bmp": (colour, ids),
    }
    written |= {f"grey.{suffix}": (grey, many) for suffix in ("png", "tif", "bmp", "gif")}
    written |= {f"palette.{suffix}": (palette, many) for suffix in ("png", "tif", "bmp", "gif")}
    for name, (image, pixels) in written.items():
        image.save(tmp_path / name, **({"optimize": False} if name.endswith("gif") else {}))  # it'd number colours anew
        read = map_files.read_any_map(tmp_path / name)
        assert read.dtype == np.int32
        np.testing.assert_array_equal(read, pixels, err_msg=name)
    np.testing.assert_array_equal(map_files.read_any_map(tmp_path / "grey_4.png"), few)


def rgb_of_16_bits(path):
    """Writes a PNG of colours of 16 bits, which Pillow doesn't write."""
    head = WIDTH.to_bytes(4, "big") + HEIGHT.to_bytes(4, "big") + bytes([16, 2, 0, 0, 0])
    rows = zlib.compress((b"\0" + bytes(6 * WIDTH)) * HEIGHT)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def test_what_no_tool_means_as_numbers(tmp_path):
    grey = Image.fromarray(values(200).astype(np.uint8))
    grey.save(tmp_path / "grey.jpg")
    Image.fromarray(np.zeros([2, 2], np.float32)).save(tmp_path / "float.tif")
    grey.save(tmp_path / "pages.tif", save_all=True, append_images=[grey])
    grey.save(tmp_path / "white_is_0.tif", tiffinfo={262: 0})
    rgb_of_16_bits(tmp_path / "deep_rgb.png")
    grey.save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    cases = {
        "grey.jpg": "is a JPEG of mode L: save it as a PNG of 8 or 16 bit grey, a palette or 8 bit colours",
        "float.tif": "is a TIFF of mode F: save it as",
        "pages.tif": "is a TIFF of 2 pages, of which only one would be read: save it as a PNG",
        "white_is_0.tif": "is a TIFF in which 0 is white",
        "deep_rgb.png": "is a PNG of mode RGB of 16 bits: save it as",
        "cut.png": "can't be read .*: replace the file",
        "absent.png": "There is no map",
    }
    for name, words in cases.items():
        with pytest.raises(BrokenFile, match=words):
            map_files.read_any_map(tmp_path / name)


def segments(path, mode="RGB"):
    """Writes a segment map; its ids, and the sorted table of those."""
    table = np.array([0, 5, 256, 70000, (1 << 24) - 1])
    ids = table[values(5)]
    pixels = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)
    image = Image.fromarray(pixels)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(values(256, 1).astype(np.uint8)))
    written(path, image)
    return ids, table


def ids_in_graph(path, table, size=(HEIGHT, WIDTH)):
    """The id of each pixel, by the graph."""
    read = tf.function(lambda data, table: map_reader.read_segments(data, table, tf.constant(size), str(path)))
    pixels, ids = read(path.read_bytes(), tf.constant(table, tf.int32))
    return ids.numpy()[pixels.numpy()]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_segments_id_is_its_colour(tmp_path, mode):
    ids, table = segments(tmp_path / "a.png", mode)
    np.testing.assert_array_equal(map_files.read_segment_map(tmp_path / "a.png"), ids)
    np.testing.assert_array_equal(ids_in_graph(tmp_path / "a.png", table), ids)


def test_values_are_counted():
    pixels = values(4)
    found, counts = map_files.count_values(pixels)
    np.testing.assert_array_equal(found, np.unique(pixels))
    np.testing.assert_array_equal(counts, np.bincount(pixels.ravel()))


def test_segments_that_do_not_agree_with_the_json(tmp_path):
    path = tmp_path / "a.png"
    ids, table = segments(path)
    assert map_files.find_segment_fault(path, (HEIGHT, WIDTH), table) is None
    cases = [
        (table[[0, 1, 3, 4]], (HEIGHT, WIDTH), r"colour \(0, 1, 0\), segment 256, .*: list it in segments_info", "256"),
        (table[:2], (HEIGHT, WIDTH), r"segment 256, and 2 others .*: list it in segments_info", "256 70000 16777215"),
        (np.r_[table, 1 << 23], (HEIGHT, WIDTH), "no pixel of segment 8388608: take it out", "8388608"),
        (table, (WIDTH, HEIGHT), "34 x 21 pixels and its image 21 x 34: save it at", "size"),
    ]
    for listed, size, words, shown in cases:
        listed = np.sort(listed)
        assert re.search(words, map_files.find_segment_fault(path, size, listed))
        with pytest.raises(tf.errors.InvalidArgumentError, match=str(path)) as raised:
            ids_in_graph(path, listed, size)
        assert all(word in str(raised.value) for word in shown.split())


def test_labels_of_no_category(tmp_path):
    path = tmp_path / "a.png"
    pixels = values(4)
    pixels[0, :3] = 0, 255, 9
    written(path, Image.fromarray(pixels.astype(np.uint8)))
    size = HEIGHT, WIDTH

    def classes(known):
        table = tf.constant(map_reader.make_label_table(known))
        read = tf.function(lambda data: map_reader.read_label_classes(data, table, tf.constant(size), str(path)))
        return read(path.read_bytes()).numpy()

    known = {1: 0, 2: 7, 3: 1, 9: 254}
    expected = np.select([pixels == 1, pixels == 2, pixels == 3, pixels == 9], [0, 7, 1, 254], 255)
    np.testing.assert_array_equal(classes(known), expected)
    np.testing.assert_array_equal(classes(known | {0: 2, 255: 3})[0, :2], [2, 3])  # unless a category has that id
    assert map_files.find_label_fault(path, size, known) is None
    fault = map_files.find_label_fault(path, size, {1: 0, 3: 1})
    assert f"{path} has pixels of the value 2, 9, which is the id of no category: add the class" in fault
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"no category has as its id.*\[9 2\]") as raised:
        classes({1: 0, 3: 1})
    assert str(path) in str(raised.value)


def test_what_is_no_map(tmp_path):
    grey = Image.fromarray(values(4).astype(np.uint8))
    grey.save(tmp_path / "grey.png")
    grey.save(tmp_path / "a.jpg")
    grey.convert("RGB").save(tmp_path / "rgb.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "rgb.png").read_bytes()[:60])
    data = bytearray((tmp_path / "rgb.png").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "spoilt.png").write_bytes(data)
    cases = [
        (map_files.read_segment_map, "spoilt.png", "spoilt.png can't be read .*: replace the file"),
        (map_files.read_segment_map, "grey.png", "grey.png is a PNG of mode L: save it as a PNG of 8 bit RGB"),
        (map_files.read_label_map, "rgb.png", "rgb.png is a PNG of mode RGB: save it as a PNG of 8 or 16 bit grey"),
        (map_files.read_label_map, "a.jpg", "a.jpg is a JPEG of mode L: save it as"),
        (map_files.read_segment_map, "cut.png", "cut.png can't be read .*: replace the file"),
        (map_files.read_segment_map, "absent.png", "There is no map .*absent.png: put it into the folder"),
    ]
    for read, name, words in cases:
        with pytest.raises(UserError, match=words):
            read(tmp_path / name)
        fault = map_files.find_segment_fault if read is map_files.read_segment_map else map_files.find_label_fault
        assert re.search(words, fault(tmp_path / name, (HEIGHT, WIDTH), [0]))
