"""Files that prediction writes, with a stand-in that detects what it is told."""

import json

import numpy as np
import pytest
from PIL import Image

from mrcnn_tf.cli.predict import predict_files
from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.image_files import UnreadableImage
from mrcnn_tf.results.detections import Detections

ARROW, STONE = Category(4, "arrow", ["tip", "tail"], [[1, 2]]), Category(11, "stone")


class Seer:
    """Finds an arrow and a stone in every picture."""

    def detect(self, image):
        boxes = np.array([[2, 3, 10, 9], [20, 20, 30, 30]])
        keypoints = np.array([[[3.5, 4.5, 0.75], [9, 8, 0.25]], np.zeros((2, 3))])
        size, categories = image.shape[:2], [ARROW, STONE]
        return Detections(boxes, [0.9, 0.8], [1, 2], size, categories, keypoints=keypoints, keypoint_offset=0.5)


def test_the_json_names_the_keypoints(tmp_path):
    Image.new("RGB", (40, 50), "grey").save(tmp_path / "a.png")
    drawn, unreadable = predict_files(Seer(), [tmp_path / "a.png"], tmp_path / "out")
    assert (drawn, unreadable) == ([(tmp_path / "a.png", 2)], [])
    record = json.loads((tmp_path / "out" / "a.json").read_text())
    arrow, stone = record["detections"]
    assert (arrow["category"], arrow["keypoint_names"]) == ("arrow", ["tip", "tail"])
    assert arrow["keypoints"] == [3, 4, 0.75, 8.5, 7.5, 0.25]
    assert set(stone) == {"category_id", "category", "bbox", "score"}


class Reader(Seer):
    """Takes files; "torn" ones it can't decode, and at "last" it is gone."""

    def __init__(self):
        self.seen = []

    def detect_file(self, path):
        self.seen.append(path.stem)
        if path.stem == "torn":
            raise UnreadableImage("torn.png isn't an image.")
        if path.stem == "last":
            raise UserError("The server is gone.")
        return self.detect(np.zeros((50, 40, 3), np.uint8))


def test_a_model_that_takes_files_gets_them(tmp_path):
    names = ("a.png", "text.png", "torn.png", "b.png")
    for name in (*names, "last.png"):
        Image.new("RGB", (40, 50), "grey").save(tmp_path / name)
    (tmp_path / "text.png").write_text("no image")
    reader = Reader()
    drawn, unreadable = predict_files(reader, [tmp_path / name for name in names], tmp_path / "out")
    assert reader.seen == ["a", "torn", "b"] and [path.stem for path, _ in drawn] == ["a", "b"]
    assert len(unreadable) == 2 and "text.png" in unreadable[0] and unreadable[1] == "torn.png isn't an image."
    with pytest.raises(UserError, match="gone"):
        predict_files(reader, [tmp_path / "last.png"], tmp_path / "out")
