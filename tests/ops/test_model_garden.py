"""Box arithmetic and mask pasting against the TensorFlow Model Garden's, an implementation that isn't ours.

In a process of its own: the Model Garden brings Keras 2 (`tf_keras`), which the package must work without.
"""

import importlib.util
import subprocess
import sys

import pytest

PROGRAM = """
import numpy as np, tensorflow as tf
from official.vision.ops import box_ops as garden_boxes, mask_ops as garden_masks
from mrcnn_tf.ops import boxes, masks

generator = np.random.default_rng(0)
corners = generator.uniform(0, 300, (40, 2))
one = np.concatenate([corners, corners + generator.uniform(12, 200, (40, 2))], 1).astype(np.float32)
other = (one + generator.uniform(-4, 4, one.shape)).astype(np.float32)
swap = [1, 0, 3, 2]  # the Model Garden's boxes are yxyx, its deltas (dy, dx, dh, dw)
weights = (10.0, 10.0, 5.0, 5.0)

deltas = boxes.encode(one, other, weights).numpy()
theirs = garden_boxes.encode_boxes(one[:, swap], other[:, swap], weights).numpy()
np.testing.assert_allclose(theirs[:, swap], deltas, atol=2e-4)
decoded = boxes.decode(deltas, other, weights).numpy()
theirs = garden_boxes.decode_boxes(deltas[:, swap], other[:, swap], weights).numpy()
np.testing.assert_allclose(theirs[:, swap], decoded, atol=2e-3)
np.testing.assert_allclose(decoded, one, atol=2e-3)
overlaps = garden_boxes.bbox_overlap(one[None][..., swap], other[None][..., swap])[0].numpy()
np.testing.assert_allclose(boxes.iou(one[:, None], other[None]).numpy(), overlaps, atol=1e-5)

probabilities = tf.image.resize(generator.uniform(0, 1, (40, 4, 4, 1)), (28, 28)).numpy()[..., 0]
xywh = np.concatenate([one[:, :2], one[:, 2:] - one[:, :2]], 1)
theirs = garden_masks.paste_instance_masks(probabilities, xywh, 520, 510) > 0
ours = masks.paste_masks(probabilities, one, 520, 510, "torchvision")
shared = (theirs & ours).sum((1, 2)) / np.maximum((theirs | ours).sum((1, 2)), 1)
assert shared.mean() > 0.97, shared
print("equal")
"""


@pytest.mark.skipif(importlib.util.find_spec("official") is None, reason="the extra [garden] isn't installed")
def test_boxes_and_masks_agree_with_the_model_garden():
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert result.stdout.strip().endswith("equal"), result.stderr[-2000:]
