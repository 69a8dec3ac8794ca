"""All kinds of problems, by their names: those of whole datasets are here, the others are joined to them."""

from mrcnn_tf.datasets.doctor.annotation_kinds import ANNOTATIONS
from mrcnn_tf.datasets.doctor.image_kinds import IMAGES
from mrcnn_tf.datasets.doctor.kind import ERROR, NOTE, WARNING, Kind
from mrcnn_tf.datasets.doctor.map_kinds import MAPS

_PIXELS = "give pixels of the image, not shares of its sides"

LAYOUTS = {
    "normalised_polygons": Kind(
        ERROR, "annotation", "with polygons between 0 and 1", _PIXELS, "multiplied by the image's sides"
    ),
    "swapped_polygons": Kind(
        ERROR, "annotation", "with polygons as y, x", "exchange them: a polygon is [x1, y1, x2, y2, ...]", "exchanged"
    ),
    "normalised_keypoints": Kind(
        ERROR, "annotation", "with keypoints between 0 and 1", _PIXELS, "multiplied by the image's sides"
    ),
    "swapped_keypoints": Kind(
        ERROR, "annotation", "with keypoints as y, x", "exchange them: a keypoint is x, y, visibility", "exchanged"
    ),
    "normalised_boxes": Kind(
        ERROR, "annotation", "with a bbox between 0 and 1", _PIXELS, "multiplied by the image's sides"
    ),
    "corner_boxes": Kind(
        ERROR,
        "annotation",
        "with a bbox of two corners, x1, y1, x2, y2",
        "give [x, y, width, height]",
        "made [x, y, width, height]",
    ),
    "swapped_boxes": Kind(
        ERROR,
        "annotation",
        "with a bbox that begins with y",
        "give [x, y, width, height]",
        "made [x, y, width, height]",
    ),
    "centre_boxes": Kind(
        ERROR,
        "annotation",
        "with a bbox of centre, width and height",
        "give the left upper corner: [x, y, width, height]",
        "made [x, y, width, height]",
    ),
}

CATEGORIES = {
    "bad_category": Kind(
        ERROR,
        "category",
        "with a malformed id, name, keypoints or skeleton",
        "correct the record",
        "a name made text, keypoints without names dropped; removed if it has no id",
    ),
    "duplicate_category": Kind(
        ERROR, "category", "with an id that another one has", "give each an id of its own", "the later one removed"
    ),
    "unnamed_category": Kind(WARNING, "category", "with an empty name", "name it", "named after its id"),
    "repeated_name": Kind(
        WARNING, "category", "named like another one", "join them or rename one: the model would tell them apart"
    ),
    "background_category": Kind(
        WARNING,
        "category",
        "called background",
        "remove it: background is what has no annotation",
        "removed if no annotation has it",
    ),
    "category_zero": Kind(
        NOTE, "category", "with the id 0", "nothing to do here; some other programs take 0 for the background"
    ),
    "empty_class": Kind(
        WARNING, "category", "without a usable annotation", "label some objects or remove it: it can't be learnt"
    ),
    "rare_class": Kind(
        WARNING, "category", "with fewer than 10 usable annotations", "label more: it will hardly be learnt"
    ),
    "class_imbalance": Kind(
        NOTE,
        "dataset",
        "has more than 50 times as many objects of one class as of another",
        "look at AP per class, not only at its mean; label more of the rare ones",
    ),
}

DATASET = {
    "no_images": Kind(ERROR, "dataset", "lists no image", "list the images"),
    "no_annotations": Kind(ERROR, "dataset", "lists no annotation", "label some objects"),
    "no_categories": Kind(ERROR, "dataset", "has no usable category", "list the categories of the annotations"),
    "all_crowd": Kind(ERROR, "dataset", "has crowds only", "set iscrowd=0 for single objects: crowds aren't learnt"),
}

COMPARISONS = {
    "leaked_image": Kind(
        WARNING,
        "image",
        "of the validation set in the training set, byte for byte",
        "remove it from one of them: AP would be too good",
    ),
    "leaked_copy": Kind(
        WARNING,
        "image",
        "of the validation set that looks like one of the training set",
        "look at both: a resized or recompressed copy or a neighbouring video frame makes AP too good",
    ),
    "other_categories": Kind(
        ERROR,
        "category",
        "that training and validation set don't share",
        "give both the same ids and names: the model is asked for those that it was trained on",
    ),
}

KINDS = IMAGES | MAPS | ANNOTATIONS | LAYOUTS | CATEGORIES | DATASET | COMPARISONS
