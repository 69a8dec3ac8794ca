"""What can be wrong with maps, the PNGs of segments or of classes, and with panoptic jsons, which no `--fix` mends."""

from mrcnn_tf.datasets.doctor.kind import ERROR, WARNING, Kind

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
