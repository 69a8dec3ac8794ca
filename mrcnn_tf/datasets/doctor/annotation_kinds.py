"""What can be wrong with annotations: how bad each kind is, its name, what to do, and what `--fix` does."""

from mrcnn_tf.datasets.doctor.kind import ERROR, NOTE, WARNING, Kind

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
