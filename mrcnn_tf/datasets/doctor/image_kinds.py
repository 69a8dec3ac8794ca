"""What can be wrong with images: how bad each kind is, what it's called, what to do, and what `--fix` does."""

from mrcnn_tf.datasets.doctor.kind import ERROR, NOTE, WARNING, Kind

_GONE = "removed with its annotations"

IMAGES = {
    "missing_image": Kind(ERROR, "image", "without a file", "put the file into the folder or correct file_name", _GONE),
    "misnamed_image": Kind(
        ERROR,
        "image",
        "whose file has a slightly other name or lies in another folder",
        "correct file_name: it is relative to the folder, and case counts",
        "file_name corrected",
    ),
    "unreadable_image": Kind(ERROR, "image", "whose file is no readable image", "replace the file", _GONE),
    "truncated_image": Kind(
        ERROR, "image", "whose file is cut off or damaged", "copy or download the file again", _GONE
    ),
    "image_format": Kind(
        ERROR, "image", "in a format that TensorFlow doesn't decode", "convert it to JPEG or PNG", _GONE
    ),
    "image_fields": Kind(
        ERROR,
        "image",
        "without a whole number as id or without a file_name",
        "give each image both",
        "numbered anew, also in its annotations; removed if it names no file",
    ),
    "duplicate_image": Kind(
        ERROR, "image", "with an id that another image has", "give each image an id of its own", "all but one removed"
    ),
    "image_size": Kind(
        ERROR,
        "image",
        "of another size in the json than in its file",
        "correct width and height; if pictures were resized after labelling, use those that were labelled",
        "corrected where its annotations fit the file, else removed with them",
    ),
    "missing_size": Kind(
        ERROR,
        "image",
        "without width and height in the json",
        "add them in pixels: evaluation needs them",
        "taken from the file",
    ),
    "exif_mismatch": Kind(
        ERROR,
        "image",
        "with width and height as the file stores them but annotations that fit only the upright picture",
        "exchange width and height",
        "width and height exchanged",
    ),
    "exif_frame": Kind(
        WARNING,
        "image",
        "described as the file stores it, not upright as its EXIF orientation says",
        "it trains lying on its side: better turn the pixels for good, then label or rotate the annotations",
    ),
    "exif_turned": Kind(
        NOTE,
        "image",
        "turned or mirrored before use, as its EXIF orientation says",
        "look at some with `mrcnn-tf inspect`: the annotations must be those of the upright picture",
    ),
    "shared_file": Kind(
        WARNING,
        "image",
        "naming the same file as another image",
        "list each file once, with all of its annotations, else objects are learnt as background",
        "joined into one image",
    ),
    "duplicate_picture": Kind(
        WARNING,
        "image",
        "with the same bytes as another image's file",
        "keep one of them",
        "all removed but the one with the most annotations",
    ),
    "too_many_instances": Kind(
        WARNING,
        "image",
        "with more objects than training keeps of one image",
        "raise data.train.max_instances; the largest are used",
    ),
    "deep_image": Kind(
        WARNING,
        "image",
        "of 16 bits, of which only the upper 8 are read",
        "scale its values to 8 bits yourself: a dark 12-bit microscope image would be black",
    ),
    "large_image": Kind(
        NOTE, "image", "of more than 40 megapixels", "shrink or tile it: decoding it anew each epoch takes long"
    ),
    "grey_image": Kind(NOTE, "image", "in greyscale", "nothing to do: it becomes three equal channels"),
    "alpha_image": Kind(
        NOTE,
        "image",
        "with transparency, which is dropped",
        "if colours under transparent parts look odd, flatten it onto a background",
    ),
    "cmyk_image": Kind(
        NOTE,
        "image",
        "in CMYK, a printer's colours",
        "convert it to RGB if colours look wrong: its colour profile is ignored",
    ),
    "animated_image": Kind(NOTE, "image", "as GIF, of which the first frame is used", "convert it to PNG"),
    "empty_image": Kind(
        NOTE, "image", "without annotations", "nothing to do if they show no object: they teach the background"
    ),
    "unlisted_file": Kind(
        NOTE, "file", "in the folder that the json doesn't name", "nothing to do unless they should be trained on"
    ),
}
