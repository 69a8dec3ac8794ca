"""A short check of the installed package without any extra: run as a script on the newest Python and TensorFlow."""

import pathlib
import subprocess
import sys
import tempfile

import keras
import numpy as np
import tensorflow as tf

import mrcnn_tf
from mrcnn_tf.ops.roi_align import implementations

SMALL = [
    "model.resize={min_size: 64, max_size: 64}",
    "model.rois.batch_per_image=8",
    "model.rpn.post_nms_train=20",
    "model.rpn.post_nms_test=20",
    "train.precision=float32",
]


def main():
    config = mrcnn_tf.load_config("nuclei_r18_fpn", SMALL)
    model = mrcnn_tf.MaskRCNN.from_settings(config.model)
    model.compile(optimizer=mrcnn_tf.make_optimizer(config))
    history = model.fit(mrcnn_tf.coco_dataset(config.data.train, training=True).take(2), verbose=0).history
    assert np.isfinite(history["loss"]).all(), history
    image = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    detections = model.detect(image)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        model.save(path)
        again = keras.saving.load_model(path)
    for mine, theirs in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())
    np.testing.assert_array_equal(again.detect(image).boxes, detections.boxes)
    assert "custom" in implementations(), "the installed package's own operations weren't built"
    command = pathlib.Path(sys.executable).with_name("mrcnn-tf")
    assert "demo" in subprocess.run([command, "--help"], check=True, capture_output=True, text=True).stdout
    print(f"Python {sys.version.split()[0]}, TensorFlow {tf.__version__}, Keras {keras.__version__}: works.")


if __name__ == "__main__":
    main()
