"""labels.json as an export writes it and as a client reads it."""

import json

import pytest
from served_stand_in import LABELS
from tiny import tiny_config

from mrcnn_tf import MaskRCNN
from mrcnn_tf.common.categories import Category
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.serving.export_labels import labels_document, latest_version, read_labels, write_assets


def test_labels_say_what_the_classes_are(tmp_path):
    config = tiny_config("keypoints")
    config.categories = [Category(3, "cat"), Category(17, "größer\nDog", ["nose", "paw", "tail"], [[1, 3]])]
    write_assets(MaskRCNN.from_settings(config), tmp_path / "1", {"precision": "float16", "input_size": [320, 256]})
    document = json.loads((tmp_path / "1/assets/labels.json").read_text(encoding="utf-8"))
    assert document["categories"] == [
        {"class": 1, "id": 3, "name": "cat", "keypoints": [], "skeleton": []},
        {"class": 2, "id": 17, "name": "größer\nDog", "keypoints": ["nose", "paw", "tail"], "skeleton": [[1, 3]]},
    ]
    assert document["mask_rule"] == "torchvision" and document["keypoint_offset"] == 0.5
    assert document["resize"] == {"min_size": 64, "max_size": 128, "rule": "torchvision"}
    assert document["precision"] == "float16" and document["input_size"] == [320, 256]
    assert (tmp_path / "1/assets/labels.txt").read_text(encoding="utf-8") == "cat\ngrößer Dog\n"


def test_labels_follow_the_conventions():
    document = labels_document(MaskRCNN.from_settings(tiny_config("c4")), {})
    assert document["mask_rule"] == "detectron2" and document["pixel_mean"] == [123.675, 116.28, 103.53]
    assert json.loads(json.dumps(document)) == document


def test_labels_follow_the_classes_not_the_ids(tmp_path):
    turned = {**LABELS, "categories": LABELS["categories"][::-1]}
    (tmp_path / "labels.json").write_text(json.dumps(turned))
    labels = read_labels(tmp_path / "labels.json")
    assert [category.name for category in labels.categories] == ["wide", "tall"]
    assert labels.categories[1].keypoints == ["top", "foot"] and labels.categories[1].skeleton == [[1, 2]]
    assert (labels.resize.min_size, labels.document) == (64, turned)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"categories": []}, "empty"),
        ({"categories": [{"class": 2, "id": 1, "name": "a"}]}, "1, 2, 3"),
        ({"categories": [{"id": 1, "name": "a"}]}, "class"),
        ({"categories": "abc"}, "labels.json"),
        ({"resize": {"min_size": 1, "largest": 2}}, "largest"),
        ({"keypoint_offset": "right"}, "right"),
        ({"mask_rule": "matterport"}, "matterport"),
    ],
)
def test_labels_that_are_not_ours(tmp_path, changes, words):
    (tmp_path / "labels.json").write_text(json.dumps({**LABELS, **changes}))
    with pytest.raises(UserError, match=words):
        read_labels(tmp_path / "labels.json")


def test_labels_that_are_missing_or_no_json(tmp_path):
    with pytest.raises(UserError, match="labels.json"):
        read_labels(tmp_path / "labels.json")
    (tmp_path / "labels.json").write_text("cat\ndog\n")
    with pytest.raises(UserError, match="assets"):
        read_labels(tmp_path / "labels.json")
    with pytest.raises(UserError, match="no SavedModel"):
        read_labels(tmp_path)


def test_the_highest_version_counts(tmp_path):
    for name in ("2", "10", "1a", "99"):
        (tmp_path / name / "assets").mkdir(parents=True)
        if name != "99":  # which is being written
            (tmp_path / name / "saved_model.pb").touch()
    assert latest_version(tmp_path).name == "10" == latest_version(tmp_path / "10").name
    (tmp_path / "10" / "assets" / "labels.json").write_text(json.dumps(LABELS))
    assert read_labels(tmp_path).document == LABELS
