"""The settings that CI runs the notebooks with: every cell, on two cores in about a minute each."""

import pathlib

import mrcnn_tf

TINY = str(pathlib.Path(__file__).parent / "tiny.yaml")
# Has contrast even where a model that hardly learnt is sure of nothing and all of the photo is darkened.
PHOTO = str(pathlib.Path(mrcnn_tf.__file__).parent / "datasets/nuclei/images/train_256_000.png")

SMALL = {
    "1_quickstart": {"config": TINY, "photo": PHOTO, "steps": 8, "size": 128},
    "2_train_your_own": {"config": TINY, "steps": 12, "size": 128},
    "3_inside_the_model": {"steps": 4, "size": 96, "pictures": 8},
    "4_keypoints": {"steps": 4, "size": 96, "pictures": 8},
    "5_serve_and_tflite": {"config": TINY, "steps": 8, "size": 128},
    "6_panoptic": {"steps": 3, "size": 96, "pictures": 8},
}
