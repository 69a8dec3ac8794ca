"""What a model gives back for an image, in that image's own pixels, and how it is drawn.

- `detections`: `Detections`, and `EncodedMaskDetections` of exported models: boxes, masks, keypoints, pixel classes.
- `segments`: `Panoptic` and its `Segment`s, things and stuff as one map.
- `draw`: `draw_detections`, `draw_ground_truth`, `side_by_side` and `save_png`.
- `draw_panoptic`: `draw_panoptic`, and `stuff_colour` of a class.
- `draw_text`: `font_for` and `font_file`, fonts for class names in any language.
"""

import keras  # noqa: F401 (before our modules that import TensorFlow: see common/keras_registration.py)
