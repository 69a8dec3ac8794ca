"""Datasets of other tools to COCO's json, and back.

A format is a module with a function that reads it into a `dataset.Dataset`, whose `write(path)` gives COCO's json, and
one that writes it from a `coco.CocoJson`: `labelme.read_labelme` and `write_labelme`, `via.read_via`, `yolo.read_yolo`,
`voc.read_voc`, `label_map_folders.read_label_maps`, `mask_folders.read_mask_folders`. `dataset.read_names` reads the
list of classes that some of them take, and `coco.read_coco` the json to write from. To add a format, add a module.
`inputs.json_format` and its neighbours tell the doctor what a file is that isn't COCO's.
"""
