"""What people bring: COCO jsons, images, label maps and panoptic PNGs; checked, repaired, converted, made up.

What other rooms may use:

- `read_coco`: `load_index`, the one reader of datasets for training and evaluation; `source_name`, what to call one.
- `coco_records`, `coco_segmentations`: `stream_records`, THE reader of COCO jsons, and what segmentations look like.
- `annotation_columns`, `annotation_checks`: annotations as flat arrays, and what is wrong with them.
- `coco_index`: `CocoIndex`, a dataset as flat arrays.
- `panoptic_json`: `read_panoptic`, COCO's panoptic format; `map_files`: THE reader of maps of classes and segments.
- `image_folder`: `ImageFolder` and `locate_images`, which file a name means.
- `image_files`: THE reader of image files: what one is, whether it can be used, the frame that EXIF gives it, pixels.
- `run_lengths`: COCO's run lengths (RLE) to and from strings, polygons and pixels.
- `shapes`, `panoptic_shapes`: `make_shapes` and `make_panoptic_shapes`, made-up datasets with exact ground truth.
- `doctor`: `validate` and `repair`; `convert`: the formats of other tools from and to COCO.
"""
