"""COCO's evaluation protocol: of result files, of a model, and during training."""
