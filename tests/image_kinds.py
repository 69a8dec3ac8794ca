"""One file of each odd kind of image, with the pixels that it stands for, and files that can't be used."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageChops

_Y, _X = np.mgrid[:24, :32]
PIXELS = np.stack([_X * 8, _Y * 10, (_X * _Y) % 256], axis=-1).astype(np.uint8)
PICTURE = Image.fromarray(PIXELS)
INDICES = ((_X + _Y) % 16).astype(np.uint8)
COLOURS = np.stack([np.arange(16) * 15, 255 - np.arange(16) * 7, np.arange(16) * 3], axis=-1).astype(np.uint8)
DEEP = (_X * 2000 + _Y * 17).astype(np.uint16)


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def grey(values):
    return np.repeat(values[..., None], 3, axis=2)


def bmp(bits, rows, *, packing=0, height=24, head=40, masks=b"", palette=b"", used=0):
    """A BMP; `rows` are those of the file, as bytes."""
    sizes = struct.pack("<IiiHHIIiiII", head, 32, height, 1, bits, packing, len(rows), 2835, 2835, used, 0)
    lead = sizes + bytes(head - 40) + masks + palette
    return b"BM" + struct.pack("<IHHI", 14 + len(lead) + len(rows), 0, 0, 14 + len(lead)) + lead + rows


def os2_bmp(bits, rows, palette=b""):
    start = 26 + len(palette)
    return b"BM" + struct.pack("<IHHIIHHHH", start + len(rows), 0, 0, start, 12, 32, 24, 1, bits) + palette + rows


def _bmps():
    up = PIXELS[::-1]
    palette = np.pad(COLOURS[:, ::-1], ((0, 0), (0, 1))).tobytes()
    nibbles = (INDICES[::-1, ::2] << 4 | INDICES[::-1, 1::2]).tobytes()
    bits = np.packbits(PIXELS[::-1, :, 0] > 99, axis=1).tobytes()
    red, green, blue = (up[..., channel].astype(int) for channel in range(3))
    of_555 = ((red >> 3) << 10 | (green >> 3) << 5 | blue >> 3).astype("<u2").tobytes()
    of_565 = ((red >> 3) << 11 | (green >> 2) << 5 | blue >> 3).astype("<u2").tobytes()
    five, six = np.arange(32) * 255 // 31, np.arange(64) * 255 // 63
    seen_555, seen_565 = five[PIXELS >> 3], five[PIXELS >> 3]
    seen_565[..., 1] = six[PIXELS[..., 1] >> 2]
    runs = b"".join(bytes([20, row % 16, 12, 3, 0, 0]) for row in range(24)) + b"\0\1"
    seen_runs = np.repeat(np.arange(24)[::-1, None] % 16, 32, axis=1)
    seen_runs[:, 20:] = 3
    half_runs = b"".join(bytes([32, 0x12, 0, 0]) for _ in range(24)) + b"\0\1"
    with_alpha = np.dstack([up, np.full((24, 32), 90, np.uint8)]).tobytes()
    rgba = struct.pack("<IIII", 0xFF, 0xFF00, 0xFF0000, 0xFF000000)
    return {
        "BMP of 24 bits": (bmp(24, up[..., ::-1].tobytes()), PIXELS),
        "BMP with rows going down": (bmp(24, PIXELS[..., ::-1].tobytes(), height=-24), PIXELS),
        "BMP of 8 bits": (bmp(8, INDICES[::-1].tobytes(), palette=palette, used=16), COLOURS[INDICES]),
        "BMP of 4 bits": (bmp(4, nibbles, palette=palette, used=16), COLOURS[INDICES]),
        "BMP of 1 bit": (bmp(1, bits, palette=b"\0\0\0\0\xff\xff\xff\0", used=2), grey((PIXELS[..., 0] > 99) * 255)),
        "BMP of 16 bits": (bmp(16, of_555), seen_555),
        "BMP of 16 bits, 6 of green": (
            bmp(16, of_565, packing=3, masks=struct.pack("<III", 63488, 2016, 31)),
            seen_565,
        ),
        "BMP of 32 bits, red first": (
            bmp(32, with_alpha, packing=3, head=56, masks=b"")[:54] + rgba + with_alpha,
            PIXELS,
        ),
        "BMP of run lengths": (bmp(8, runs, packing=1, palette=palette, used=16), COLOURS[seen_runs]),
        "BMP of 4 bit run lengths": (bmp(4, half_runs, packing=2, palette=palette, used=16), COLOURS[1 + _X % 2]),
        "BMP of OS2": (os2_bmp(24, up[..., ::-1].tobytes()), PIXELS),
        "BMP of OS2, 4 bits": (os2_bmp(4, nibbles, COLOURS[:, ::-1].tobytes()), COLOURS[INDICES]),
    }


def _gif_on_a_canvas():
    """A GIF whose only frame lies at (9, 5) of a larger canvas."""
    frame = Image.fromarray(INDICES[:12, :16])
    frame.putpalette(COLOURS.tobytes())
    data = bytearray(encoded(frame, "GIF", optimize=False))
    place = data.index(b"\x2c" + struct.pack("<HHHH", 0, 0, 16, 12))
    data[6:10], data[place + 1 : place + 5] = struct.pack("<HH", 32, 24), struct.pack("<HH", 9, 5)
    seen = np.broadcast_to(COLOURS[data[11]], (24, 32, 3)).copy()
    seen[5:17, 9:25] = COLOURS[INDICES[:12, :16]]
    return bytes(data), seen


def _chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _apng_on_a_canvas():
    """An animated PNG whose first frame lies at (9, 5) of a larger canvas."""
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in PIXELS[:12, :16]))

    def control(number, x, y):
        return _chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, 16, 12, x, y, 1, 10, 0, 0))

    chunks = [
        _chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 24, 8, 2, 0, 0, 0)),
        _chunk(b"acTL", struct.pack(">II", 2, 0)),
        control(0, 9, 5),
        _chunk(b"IDAT", rows),
        control(1, 0, 0),
        _chunk(b"fdAT", struct.pack(">I", 2) + rows),
        _chunk(b"IEND", b""),
    ]
    seen = np.zeros((24, 32, 3), np.uint8)
    seen[5:17, 9:25] = PIXELS[:12, :16]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks), seen


def _late_exif():
    """A PNG whose EXIF block follows the pixels, where exiftool writes it."""
    data = encoded(PICTURE, "PNG")
    return data[:-12] + _chunk(b"eXIf", exif(6).tobytes().removeprefix(b"Exif\0\0")) + data[-12:], np.rot90(PIXELS, -1)


def _others():
    second = ImageChops.invert(PICTURE)
    several = {"save_all": True, "append_images": [second]}
    paletted = Image.fromarray(INDICES)
    paletted.putpalette(COLOURS.tobytes())
    printed = np.asarray(PICTURE.convert("CMYK").convert("RGB"))
    return {
        "GIF on a canvas": _gif_on_a_canvas(),
        "GIF of several frames": (
            encoded(paletted, "GIF", save_all=True, append_images=[Image.new("P", (32, 24))]),
            COLOURS[INDICES],
        ),
        "PNG of several frames": (encoded(PICTURE, "PNG", **several), PIXELS),
        "PNG on a canvas": _apng_on_a_canvas(),
        "PNG with EXIF at its end": _late_exif(),
        "PNG with bytes behind it": (encoded(PICTURE, "PNG") + b"and more", PIXELS),
        "TIFF": (encoded(PICTURE, "TIFF"), PIXELS),
        "TIFF by LZW": (encoded(PICTURE, "TIFF", compression="tiff_lzw"), PIXELS),
        "TIFF of pages": (encoded(PICTURE, "TIFF", **several), PIXELS),
        "TIFF of 16 bits": (encoded(Image.fromarray(DEEP), "TIFF"), grey((DEEP >> 8).astype(np.uint8))),
        "TIFF of CMYK": (encoded(PICTURE.convert("CMYK"), "TIFF"), printed),
        "TIFF to be turned": (encoded(PICTURE, "TIFF", exif=exif(6)), np.rot90(PIXELS, -1)),
        "WebP": (encoded(PICTURE, "WEBP", lossless=True), PIXELS),
        "WebP of several frames": (encoded(PICTURE, "WEBP", lossless=True, **several), PIXELS),
        "WebP to be turned": (encoded(PICTURE, "WEBP", lossless=True, exif=exif(6)), np.rot90(PIXELS, -1)),
        "JPEG 2000": (encoded(PICTURE, "JPEG2000"), PIXELS),
        "PGM of 16 bits": (b"P5\n32 24\n65535\n" + DEEP.astype(">u2").tobytes(), grey((DEEP >> 8).astype(np.uint8))),
    }


READ = _bmps() | _others()  # {kind: (the file's bytes, its pixels uint8 [H, W, 3] as seen)}


def _wrong_checksum():
    data = bytearray(encoded(PICTURE, "PNG"))
    start = data.index(b"IDAT")
    data[start + 4 + struct.unpack(">I", data[start - 4 : start])[0]] ^= 255
    return bytes(data)


def _deep_tiff(channels, colours, planes):
    """A TIFF of channels of 16 bits, as satellites' are."""
    plane = 32 * 24 * 2
    entries = [(256, 3, 1, 32), (257, 3, 1, 24), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, colours)]
    entries += [(273, 4, 1, 200) if planes == 1 else (273, 4, channels, 160), (277, 3, 1, channels), (278, 3, 1, 24)]
    entries += [(279, 4, 1, plane * channels) if planes == 1 else (279, 4, channels, 180), (284, 3, 1, planes)]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    lead = (b"II*\0" + struct.pack("<I", 8) + directory).ljust(160, b"\0")
    places = struct.pack("<III", *(200 + plane * number for number in range(3))).ljust(20, b"\0")
    return (lead + places + struct.pack("<III", *[plane] * 3)).ljust(200, b"\0") + bytes(plane * channels)


_CUT_OFF = ("truncated_image", "is cut off or damaged")
REFUSED = {  # {kind: (the file's bytes, (kind of problem, the beginning of what is wrong))}
    "TIFF of floats": (encoded(PICTURE.convert("F"), "TIFF"), ("image_format", "is a TIFF of float grey values")),
    "TIFF of 32 bits": (encoded(PICTURE.convert("I"), "TIFF"), ("image_format", "is a TIFF of 32-bit or signed grey")),
    "TIFF of 5 channels": (_deep_tiff(5, 1, 1), ("image_format", "is a TIFF of 5 channels of 16 bits")),
    "TIFF of planes of 16 bits": (_deep_tiff(3, 2, 2), ("image_format", "is a TIFF whose channels of 16 bits are")),
    "BMP of 10 bits to a colour": (
        bmp(32, bytes(32 * 24 * 4), packing=3, masks=struct.pack("<III", 0x3FF00000, 0xFFC00, 0x3FF)),
        ("image_format", "is a kind of BMP that can't be read"),
    ),
    "BMP with a JPEG in it": (bmp(0, bytes(99), packing=4), ("image_format", "is a kind of BMP that can't be read")),
    "EPS": (encoded(PICTURE, "EPS"), ("image_format", "is EPS, a drawing")),
    "HEIC": (b"\0\0\0 ftypheic" + bytes(40), ("image_format", "is HEIC")),
    "PNG with a wrong checksum": (_wrong_checksum(), _CUT_OFF),
    "half a PNG": (encoded(PICTURE, "PNG")[:-200], _CUT_OFF),
    "half a JPEG": (encoded(PICTURE, "JPEG")[:-60], _CUT_OFF),
    "half a BMP": (bmp(24, PIXELS.tobytes())[:-200], _CUT_OFF),
    "half a TIFF": (encoded(PICTURE, "TIFF")[:-200], _CUT_OFF),
    "half a WebP": (encoded(PICTURE, "WEBP", lossless=True)[:-50], _CUT_OFF),
    "text": (b"not an image", ("unreadable_image", "isn't a readable image")),
    "web page": (b"<html>", ("unreadable_image", "is a web page")),
    "nothing": (b"", ("unreadable_image", "is empty")),
}
