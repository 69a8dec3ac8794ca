"""All kinds of problems, by their names: those of whole datasets are here, the others are joined to them."""

from mrcnn_tf.datasets.doctor.record_kinds import ANNOTATIONS, ERROR, IMAGES, NOTE, WARNING, Kind

# What can be wrong with maps, the PNGs of segments or of classes, and with panoptic jsons, which no `--fix` mends.
#

_IDS = "segment ids as R + 256 G + 65536 B of a PNG of 8 bit RGB, category ids as a PNG of 8 or 16 bit grey"

MAPS = {
    "map_annotation": Kind(
        ERROR,
        "annotation",
        "without segments_info, file_name or a whole number as image_id",
        "add it: the annotation of a panoptic json is one image's PNG and the list of segments in it",
    ),
    "second_map": Kind(ERROR, "annotation", "of an image that has another", "keep one: an image has one map"),
    "unmapped_image": Kind(
        ERROR, "image", "without an annotation in the panoptic json", "annotate it or remove it: it can't be trained on"
    ),
    "missing_map": Kind(
        ERROR,
        "image",
        "whose map isn't there",
        "put it into the folder; of a panoptic json it's called as the annotation's file_name says, else NAME.png",
    ),
    "unreadable_map": Kind(ERROR, "image", "whose map is no readable image", "replace the file"),
    "truncated_map": Kind(ERROR, "image", "whose map is cut off or damaged", "copy or download the file again"),
    "map_format": Kind(ERROR, "image", "whose map is of a form that can't hold ids", f"save {_IDS}"),
    "map_size": Kind(
        ERROR,
        "image",
        "whose map is of another size",
        "save it at the image's width and height, resized by nearest neighbour if at all",
    ),
    "swapped_colours": Kind(
        ERROR,
        "image",
        "whose map has red and blue exchanged",
        "save it as RGB: OpenCV takes the channels of an array for blue, green, red",
    ),
    "unknown_segment": Kind(
        ERROR,
        "image",
        "whose map has colours of segments that the json doesn't list",
        "list them in segments_info or make their pixels black; they are ignored",
    ),
    "unknown_label": Kind(
        ERROR,
        "image",
        "whose label map has values that are no category's id",
        "add the class to model.stuff or the categories, or make such pixels 255",
    ),
    "segment_fields": Kind(
        ERROR,
        "segment",
        "without a usable id or category_id",
        "give an id from 1 to 16777215, R + 256 G + 65536 B of its pixels, and the id of a category",
    ),
    "duplicate_segment": Kind(
        ERROR, "segment", "with an id that another one of the image has", "give each an id of its own"
    ),
    "segment_category": Kind(
        ERROR,
        "segment",
        "of a category that the json doesn't list",
        "correct category_id or add the category; its pixels are ignored",
    ),
    "empty_segment": Kind(
        ERROR, "segment", "without a pixel in the map", "remove it, or correct its id or the map: one of both is wrong"
    ),
    "segment_outside": Kind(
        ERROR,
        "segment",
        "with a bbox outside the image or without width or height",
        "give [x, y, width, height] in pixels",
    ),
    "segment_box": Kind(
        WARNING, "segment", "whose bbox isn't its pixels'", "correct it: boxes and masks are trained separately"
    ),
    "segment_area": Kind(
        WARNING, "segment", "whose area isn't its pixels'", "correct it: AP of small, medium and large goes by it"
    ),
    "missing_bbox": Kind(WARNING, "segment", "without a bbox", "add it; training takes the pixels'"),
    "missing_area": Kind(WARNING, "segment", "without an area", "add it; training takes the pixels'"),
    "missing_isthing": Kind(
        ERROR, "category", "without isthing of 0 or 1", "give 1 where instances are counted, else 0"
    ),
    "other_isthing": Kind(
        ERROR,
        "category",
        "that is a thing in one of training and validation set, and stuff in the other",
        "give both the same isthing",
    ),
    "no_stuff": Kind(
        ERROR,
        "dataset",
        "has no category with isthing 0",
        "add the stuff, or train without a semantic head (model.semantic_head=null)",
    ),
    "no_things": Kind(
        WARNING,
        "dataset",
        "has no category with isthing 1",
        "train the semantic head alone (model.box_head=null model.mask_head=null), or add the things",
    ),
}


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
