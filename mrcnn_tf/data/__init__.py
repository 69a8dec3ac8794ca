"""COCO json and image files -> tf.data batches."""
