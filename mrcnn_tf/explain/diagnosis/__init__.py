"""What each stage of a model makes of an image, and where objects get lost.

`diagnose.diagnose` (public as `mrcnn_tf.diagnose`) gives a `Diagnosis`; `stages.compute_stages` the arrays of every
stage and `stage_pictures` a picture of each; `annotated_objects.read_image_annotations` one image's annotations.
"""
