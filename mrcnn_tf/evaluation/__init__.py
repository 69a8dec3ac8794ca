"""How good detections are by COCO's protocol: of result files, of a model, and during training.

- `evaluate_model`: `evaluate` a model on a dataset; the callback `CocoAP`, and the `main_metric` among its logs.
- `results`: `CocoResults`, with `PanopticResults` and `SemanticResults`, as tables and as json.
- `average_precision`: `evaluate_detections`, AP and AR of boxes, masks and keypoints in COCO's result format.
- `lvis`: what LVIS's protocol does otherwise, by the lists of categories in its image records.
- `panoptic_metrics`: `PanopticQuality`, `SemanticIoU`, and `match_segments` of one image.
- `ground_truth`: all ground truth of a split; segments as annotations or as classes of pixels.
- `instance_ground_truth`, `panoptic_ground_truth`: COCO's jsons, read and checked for an evaluation.
"""
