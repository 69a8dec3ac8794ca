"""Datasets of other tools to COCO's json, and back.

A format is a module that reads it (`labelme`, `via`, `yolo`, `voc`, `label_maps`, `mask_folders`), each with a function
that gives a `dataset.Dataset`, and one that writes it (`to_labelme`, `to_via`, ...), each with a function that takes a
`coco_json.CocoJson`.
"""





