"""What people bring: COCO jsons, images, label maps and panoptic PNGs; checked, repaired, converted, made up.

What other rooms may use:

- `read_coco`: `load_index`, the one reader of datasets for training and evaluation; `source_name`, what to call one.
- `coco_index`: `CocoIndex`, a dataset as flat arrays.
- `annotation_records`, `annotation_checks`: annotation records as columns, and what is wrong with them.
- `panoptic_json`: `read_panoptic`, COCO's panoptic format; `map_files`: the PNGs of classes and segments.
- `image_files`: THE reader of image files: what one is, whether it can be used, the frame that EXIF gives it, pixels.
- `run_lengths`: COCO's run lengths (RLE) to and from strings, polygons and pixels.
- `shapes`, `panoptic_shapes`: `make_shapes` and `make_panoptic_shapes`, made-up datasets with exact ground truth.
- `doctor`: `validate` and `repair`; `convert`: labelme, VIA, YOLO, VOC, masks and label maps from and to COCO.
"""
