"""What can be wrong with annotations: how bad each kind is, its name, what to do, and what `--fix` does."""

import dataclasses

# A kind of problem, and how bad it can be.
#

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of problem.

    Attributes:
        severity: ERROR: the trainer skips the record or can't use it; WARNING: it is used and is probably a mistake;
            NOTE: worth knowing.
        unit: what is counted: image, annotation, category, file or dataset.
        title: what such a record is or does, after "12 images ...".
        remedy: what the user should do.
        mended: what `--fix` does; empty where it does nothing.
    """

    severity: str
    unit: str
    title: str
    remedy: str
    mended: str = ""


ANNOTATIONS = {
    "annotation_fields": Kind(
        ERROR,
        "annotation",
        "without a whole number as id, image_id or category_id",
        "add it",
        "numbers in quotes made whole numbers, a missing id given, else removed",
    ),
    "duplicate_annotation": Kind(
        ERROR, "annotation", "with an id that another one has", "give each an id of its own", "numbered anew"
    ),
    "skipped_image": Kind(ERROR, "annotation", "of an image that can't be used", "mend the image", "removed"),
    "unknown_image": Kind(
        ERROR, "annotation", "of an image that the json doesn't list", "correct image_id or add the image", "removed"
    ),
    "unknown_category": Kind(
        ERROR,
        "annotation",
        "of a category that the json doesn't list",
        "correct category_id or add the category",
        "removed",
    ),
    "bad_box": Kind(
        ERROR,
        "annotation",
        "with a bbox or area that isn't numbers",
        "give bbox as [x, y, width, height]",
        "made anew from the mask, else removed",
    ),
    "degenerate_box": Kind(
        ERROR,
        "annotation",
        "with a bbox without width or height",
        "give [x, y, width, height] in pixels",
        "made anew from the mask, else removed",
    ),
    "outside_box": Kind(
        ERROR,
        "annotation",
        "with a bbox outside the image",
        "correct the bbox or the image's width and height",
        "made anew from the mask, else removed",
    ),
    "clipped_box": Kind(
        WARNING,
        "annotation",
        "with a bbox that reaches out of the image",
        "correct the bbox; training clips it",
        "clipped",
    ),
    "missing_box": Kind(
        WARNING, "annotation", "without a bbox", "add it; training takes the mask's", "made from the mask"
    ),
    "nan_coordinate": Kind(
        ERROR, "annotation", "with NaN or infinity", "give finite pixels", "removed; keypoints count as unlabelled"
    ),
    "empty_segmentation": Kind(
        ERROR,
        "annotation",
        "without a mask",
        "draw the masks, or train boxes alone with model.mask_head=null",
        "removed",
    ),
    "bad_polygon": Kind(
        ERROR,
        "annotation",
        "with a polygon that isn't a list of at least 3 points",
        "give segmentation as [[x1, y1, x2, y2, ...], ...]",
        "points brought into that form; polygons that can't be are removed",
    ),
    "bad_rle": Kind(
        ERROR, "annotation", "with an RLE without size or counts", "encode the mask with pycocotools", "removed"
    ),
    "rle_size": Kind(
        ERROR,
        "annotation",
        "with an RLE of another size than its image's",
        "encode the mask at the image's height and width",
        "removed",
    ),
    "outside_mask": Kind(
        ERROR, "annotation", "with a mask outside the image", "correct it or the image's width and height", "removed"
    ),
    "flat_mask": Kind(
        ERROR,
        "annotation",
        "with polygons without any area",
        "draw at least three points that aren't on one line",
        "removed",
    ),
    "flat_polygon": Kind(
        WARNING,
        "annotation",
        "with a polygon without area beside good ones",
        "remove the polygon",
        "the polygon removed",
    ),
    "overhanging_mask": Kind(
        NOTE, "annotation", "with a polygon that reaches out of the image", "nothing to do: it is cut at the edge"
    ),
    "self_crossing": Kind(
        WARNING,
        "annotation",
        "with a polygon that crosses itself",
        "redraw it: where it overlaps itself there are holes in the mask",
    ),
    "box_mask": Kind(
        WARNING,
        "annotation",
        "whose bbox isn't its mask's",
        "correct the one that is wrong: boxes and masks are trained separately",
        "the mask's bbox taken",
    ),
    "area_mask": Kind(
        WARNING,
        "annotation",
        "whose area isn't its mask's",
        "give the mask's pixels: AP of small, medium and large objects goes by it",
        "the mask's area taken",
    ),
    "duplicate_object": Kind(
        WARNING,
        "annotation",
        "marking an object again, with the same category and nearly the same mask",
        "keep one",
        "the later one removed",
    ),
    "conflicting_object": Kind(
        WARNING, "annotation", "marking an object again, with another category", "keep the right one"
    ),
    "crowd_value": Kind(
        WARNING, "annotation", "with an iscrowd other than 0 or 1", "give 0 or 1", "0 or 1 put in its place"
    ),
    "crowd_polygon": Kind(
        NOTE,
        "annotation",
        "with iscrowd=1 and polygons",
        "set iscrowd=0 if it is one object: crowds aren't learnt, they only excuse detections",
    ),
    "bad_keypoints": Kind(
        ERROR, "annotation", "with keypoints that aren't numbers", "give x, y, visibility of each", "set to unlabelled"
    ),
    "keypoint_count": Kind(
        ERROR,
        "annotation",
        "with another number of keypoints than its category",
        "give x, y and visibility of each keypoint that the category names, zeros where unknown",
        "set to unlabelled",
    ),
    "keypoint_visibility": Kind(
        ERROR,
        "annotation",
        "with a keypoint visibility other than 0, 1 or 2",
        "give 0 for unlabelled, 1 for hidden, 2 for visible",
        "set to unlabelled",
    ),
    "outside_keypoint": Kind(
        WARNING,
        "annotation",
        "with keypoints outside the image",
        "correct them; they count as unlabelled",
        "set to unlabelled",
    ),
    "missing_keypoints": Kind(
        WARNING,
        "annotation",
        "without keypoints though its category has some",
        "add them, zeros where unknown",
        "zeros put in",
    ),
    "keypoint_number": Kind(
        WARNING,
        "annotation",
        "whose num_keypoints isn't the number of labelled ones",
        "correct it: evaluation goes by it",
        "corrected",
    ),
    "unnamed_keypoints": Kind(
        WARNING,
        "annotation",
        "with keypoints that its category doesn't name",
        'give the category "keypoints": [names], else they are ignored',
    ),
    "tiny_object": Kind(
        WARNING,
        "annotation",
        "too small for every anchor once its image is resized",
        "raise model.resize.min_size, cut images into tiles, or use smaller anchors",
    ),
    "elongated_object": Kind(
        WARNING,
        "annotation",
        "too long and thin for every anchor",
        "add aspect ratios to model.rpn.aspect_ratios, such as 0.1 and 10",
    ),
}


# What can be wrong with images: how bad each kind is, what it's called, what to do, and what `--fix` does.
#

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
