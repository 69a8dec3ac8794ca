"""Why an image file can't be used, in the words of `ImageFile.problem`: (a kind to count by, what is wrong, remedy)."""

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

NO_PIXELS = ("EPS", "WMF", "EMF", "BUFR", "GRIB", "HDF5", "MPEG")  # what Pillow knows and can't draw by itself
UNDEFINED_GREY = {"F": "float grey values", "I": "32-bit or signed grey values"}  # by Pillow's mode

_SAVE_AS_PNG = "save it as an 8-bit PNG and name that file"
_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"RIFF": "WebP",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
}
_HEIF_BRANDS = (b"heic", b"heix", b"mif1", b"msf1", b"hevc")
_CUT_OFF = ("truncated_image", "is cut off or damaged", "copy or download the file again")
_TIFF_SAMPLES = {1: "", 2: " (signed)", 3: " (float)", 5: " (complex)", 6: " (complex)"}  # by TIFF's SampleFormat
_MOST_TEXT = 100  # characters of Pillow's own words


def explain_opening(file, error):
    """Why Pillow can't open a binary file, which raised `error`."""
    if isinstance(error, Image.DecompressionBombError):
        what = f"has more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels"
        return "image_format", what, "cut it into smaller pictures and name those"
    file.seek(0)
    head = file.read(64)
    name = next((name for start, name in _SIGNATURES.items() if head.startswith(start)), None)
    if name == "TIFF":
        return _explain_tiff(file, head)
    if name == "WebP" and head[8:12] == b"WEBP":
        size = file.seek(0, 2)
        return _CUT_OFF if 8 + int.from_bytes(head[4:8], "little") > size else _explain_rare(name, error)
    if name == "JPEG XL":
        return "image_format", f"is {name}, which can't be read", _SAVE_AS_PNG
    if name and name != "WebP":
        return _explain_rare(name, error)
    reason = "is empty" if not head else "isn't a readable image"
    if head and not isinstance(error, UnidentifiedImageError):
        reason = f"{reason} ({first_line(error)})"
    return _recognise(head) or ("unreadable_image", reason, "replace the file")


def explain_decoding(name, is_suspect, error):
    """Why Pillow can't decode a file of the format `name` that it could open."""
    if _is_unsupported(error):
        return "image_format", f"is a kind of {name} that can't be read ({first_line(error)})", _SAVE_AS_PNG
    if is_suspect or name in ("JPEG", "MPO", "PNG", "GIF"):
        return _CUT_OFF
    what = f"can't be decoded ({first_line(error)}), it is damaged or a rare kind of {name}"
    return "unreadable_image", what, f"copy the file again, or {_SAVE_AS_PNG}"


def first_line(error):
    """An exception's message, the beginning of its first line, or the name of its class if it has none."""
    return str(error).splitlines()[0][:_MOST_TEXT] if str(error) else type(error).__name__


def _is_unsupported(error):
    """Whether Pillow says that it knows no such kind; it does so in words, not by a type."""
    words = str(error).lower()
    return isinstance(error, NotImplementedError) or "unsupported" in words or "not available" in words


def _explain_rare(name, error):
    if _is_unsupported(error):
        return "image_format", f"is a kind of {name} that can't be read ({first_line(error)})", _SAVE_AS_PNG
    reason = "" if isinstance(error, UnidentifiedImageError) else f" ({first_line(error)})"
    what = f"begins as {name} and can't be read{reason}, it is cut off, damaged or a rare kind"
    return "unreadable_image", what, f"copy the file again, or {_SAVE_AS_PNG}"


def _explain_tiff(file, head):
    """By the file's own list of what it holds; where that can't be read, the file is cut off."""
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(head[: 16 if b"+" in head[2:4] else 8])
        file.seek(tags.next)
        tags.load(file)
        bits, channels, sample_format = max(tags[258]), tags.get(277, 1), max(tags.get(339, (1,)))
    except Exception:  # Pillow raises whatever it runs into
        return _CUT_OFF
    kind = f"{channels} channel{'s' if channels > 1 else ''} of {bits} bits{_TIFF_SAMPLES.get(sample_format, '')}"
    what = f"is a TIFF of {kind}, compression {tags.get(259, 1)}, which can't be read"
    return "image_format", what, f"choose one or three channels, scale them to 0 to 255, {_SAVE_AS_PNG}"


def _recognise(head):
    """The same for a file that isn't an image by its first bytes; None where they tell nothing."""
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return "image_format", "is HEIC, a phone's format, which can't be read", "convert it to JPEG and name that file"
    if head.startswith(b"version https://git-lfs"):
        return "unreadable_image", "is only a pointer to Git LFS", "run git lfs pull"
    if head.lstrip()[:5].lower() in (b"<html", b"<!doc"):
        return "unreadable_image", "is a web page, not a picture", "download it again"
    return None
