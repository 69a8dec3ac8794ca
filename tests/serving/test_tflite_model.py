"""Detection through a .tflite file: a stand-in tells what pixels reached it, and where its boxes come back."""

import json
import sys

import numpy as np
import pytest
from PIL import Image
from serving import tflite_stand_in as stand_in

from mrcnn_tf.cli.predict import predict_files
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import DataConfig
from mrcnn_tf.data.pipeline import coco_dataset
from mrcnn_tf.evaluation.evaluate_model import evaluate
from mrcnn_tf.serving.interpreter import append_metadata
from mrcnn_tf.serving.tflite_model import TFLiteModel

pytest.importorskip("ai_edge_litert")

RED, GREEN = (200, 0, 0), (0, 255, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tflite")


@pytest.fixture(scope="module")
def path(folder):
    return stand_in.write(folder / "model.tflite")


@pytest.fixture(scope="module")
def model(path):
    return TFLiteModel(path)


def image(height, width, colour=RED):
    return np.full((height, width, 3), colour, np.uint8)


# Inputs are 64 x 96: what fits there of each size, by hand. Each axis then has a ratio of its own.
@pytest.mark.parametrize("height, width", [(64, 96), (30, 30), (101, 37), (480, 1280), (1, 1), (1, 500)])
def test_boxes_and_keypoints_come_back_to_the_image(model, height, width):
    found = model.detect(image(height, width))
    np.testing.assert_allclose(found.boxes, [[0, 0, width, height], [0, 0, width / 2, height / 2]], rtol=1e-6)
    np.testing.assert_allclose(found.keypoints[1, 0], [width / 2, height / 2, 0.75], rtol=1e-6)
    # Red fills all that the file takes for the picture, and nothing lies beyond it.
    np.testing.assert_allclose(found.scores, [200 / 255, 0], rtol=1e-6)
    assert found.image_size == (height, width)
    assert found.category_names == ["sea lion", "cat"] and found.category_ids.tolist() == [17, 3]


def test_facts_of_the_file(model):
    assert model.categories == stand_in.CATEGORIES
    assert model.input_size == (64, 96)
    assert (model.gives("masks"), model.gives("keypoints"), model.gives("semantic_logits")) == (True, True, False)
    found = model.detect(image(20, 40))
    assert found.semantic is None and found.panoptic is None
    assert (found.mask_rule, found.keypoint_offset) == ("detectron2", 0.5)
    assert found.masks[0, :, :20].all() and not found.masks[0, :, 21:].any()


@pytest.mark.parametrize("rule, mean", [("torchvision", 80), ("detectron2", 40)])
def test_the_image_is_resized_by_the_models_rule_and_rounded(folder, rule, mean):
    # One column in four is bright, and eight become one: interpolation between the two in the middle, of which one is
    # bright, gives half, and an antialiased filter a quarter.
    pixels = np.zeros((8, 768, 3), np.uint8)
    pixels[:, ::4, 0] = 160
    model = TFLiteModel(stand_in.write(folder / f"{rule}.tflite", rule=rule))
    assert model.detect(pixels).scores[0] * 255 == pytest.approx(mean, abs=1)


def test_threads_and_kernels_agree(path, model):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    for other in (TFLiteModel(path, threads=1), TFLiteModel(path, threads=2, xnnpack=False)):
        np.testing.assert_allclose(other.detect(pixels).boxes, model.detect(pixels).boxes, atol=1e-4)
        np.testing.assert_allclose(other.detect(pixels).scores, model.detect(pixels).scores, atol=1e-6)


def test_a_list_gives_a_list(model):
    first, second = model.detect([image(10, 20), image(30, 20)])
    assert (first.image_size, second.image_size) == ((10, 20), (30, 20))
    assert model.detect([]) == []


def test_models_without_masks_or_keypoints(folder):
    bare = TFLiteModel(stand_in.write(folder / "bare.tflite", masks=False, keypoints=False))
    found = bare.detect(image(30, 20))
    assert found.mask_probabilities is None and found.keypoints is None
    assert (bare.gives("masks"), bare.gives("keypoints")) == (False, False)


@pytest.mark.parametrize("height, width", [(64, 96), (30, 30), (128, 40), (480, 1280)])
def test_classes_of_pixels_come_back_to_the_image_and_are_fused(folder, height, width):
    model = TFLiteModel(stand_in.write(folder / "semantic.tflite", keypoints=False, semantic=True))
    assert model.gives("semantic_logits")
    found = model.detect(image(height, width))
    expected = np.ones((height, width), np.uint8)
    expected[:, width // 2 :] = 2
    # An image that is shrunk, or enlarged, has the class of the nearest pixel of the input.
    wrong = found.semantic != expected
    assert found.semantic.shape == (height, width) and not np.delete(wrong, _middle(width), axis=1).any()
    # A sea lion in the left half; the cat's score is too low. A seam of sand may show where the mask ends.
    lion, *sand, sea = found.panoptic.segments
    assert (lion.category.name, lion.instance, sea.category.name) == ("sea lion", 0, "sea")
    assert lion.area + sum(one.area for one in sand) == pytest.approx(height * width / 2, rel=0.1)
    assert sea.area == pytest.approx(height * width / 2, rel=0.1) and sum(one.area for one in sand) < 0.1 * sea.area
    batch = {"image": np.float32(image(32, 48)[None]), "image_size": [[32, 48]], "original_size": [[height, width]]}
    (scaled,) = model.detect_batch(batch)
    assert scaled.semantic.shape == (height, width) and scaled.panoptic.segment_map.shape == (height, width)


def _middle(width):
    """The columns that a pixel of the input may stretch over the middle."""
    return slice(width // 2 - 1 - width // 96, width // 2 + 1 + width // 96)


@pytest.fixture(scope="module")
def dataset(folder):
    """A landscape and a portrait picture, and the boxes that the stand-in reports."""
    (folder / "images").mkdir()
    sizes = [(60, 120), (120, 40)]
    images, annotations = [], []
    for number, (height, width) in enumerate(sizes, 1):
        Image.fromarray(image(height, width)).save(folder / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
        half = [0, 0, width / 2, 0, width / 2, height, 0, height]
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 17,
                "bbox": [0, 0, width, height],
                "area": width * height / 2,
                "iscrowd": 0,
                "segmentation": [half],
                "keypoints": [],
                "num_keypoints": 0,
            }
        )
    categories = [{"id": one.id, "name": one.name} for one in stand_in.CATEGORIES]
    file = folder / "boxes.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return DataConfig(annotations=str(file), images=str(folder / "images"))


def test_batches_of_a_dataset(model, dataset):
    dataset.resize, dataset.images_per_batch = model.resize, 2
    (batch,) = coco_dataset(dataset, training=False)
    # The landscape picture comes as it goes in; the portrait one, 192 x 64, is shrunk once more.
    assert batch["image_size"].numpy().tolist() == [[48, 96], [96, 32]]
    for found, (height, width) in zip(model.detect_batch(batch), [(60, 120), (120, 40)], strict=True):
        np.testing.assert_allclose(found.boxes[0], [0, 0, width, height], rtol=1e-6)
        np.testing.assert_allclose(found.scores, [200 / 255, 0], rtol=1e-6)
        assert found.image_size == (height, width)


def test_evaluation_takes_it_for_a_model(folder, dataset):
    bare = TFLiteModel(stand_in.write(folder / "masks.tflite", keypoints=False))
    dataset.resize, dataset.images_per_batch = bare.resize, 1
    results, found = evaluate(bare, dataset, progress=False)
    assert len(found) == 4
    assert results.bbox["AP"] == pytest.approx(1.0) and results.segm["AP"] == pytest.approx(1.0)


def test_prediction_takes_it_for_a_model(folder, model, dataset):
    drawn, unreadable = predict_files(model, [folder / "images" / "1.png"], folder / "out")
    assert drawn == [(folder / "images" / "1.png", 1)] and not unreadable
    record = json.loads((folder / "out" / "1.json").read_text())
    assert [row["category"] for row in record["detections"]] == ["sea lion", "cat"]
    assert record["detections"][0]["bbox"] == pytest.approx([0, 0, 120, 60])


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
    ids=["float", "gray", "alpha", "empty"],
)
def test_other_arrays_are_refused(model, wrong):
    with pytest.raises(UserError, match="give uint8 pixels"):
        model.detect(wrong)


def test_other_files_are_refused(folder, path):
    whole = path.read_bytes()
    start = whole.index(b"PK\x03\x04")
    cases = {
        "picture": (b"\x89PNG\r\n\x1a\n", "isn't a TFLite file"),
        "cut": (whole[: start // 2], "doesn't end in the labels"),
        "foreign": (whole[:start], "doesn't end in the labels"),
        "damaged": (append_metadata(whole[: start // 2], stand_in.document(), ""), "can't load"),
        "labels": (append_metadata(whole[:start], {"categories": []}, ""), r"labels\.tflite: "),
    }
    for name, (content, words) in cases.items():
        file = folder / f"{name}.tflite"
        file.write_bytes(content)
        with pytest.raises(UserError, match=words) as raised:
            TFLiteModel(file)
        assert "\n" not in str(raised.value), name
    with pytest.raises(UserError, match="can't be read"):
        TFLiteModel(folder / "nowhere.tflite")
    with pytest.raises(UserError, match="0 threads"):
        TFLiteModel(path, threads=0)


def test_either_half_of_a_split_model_is_the_model(folder, model):
    paths = stand_in.write_halves(folder)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    expected = model.detect(pixels)
    for path in paths:
        halves = TFLiteModel(path, threads=1)
        assert halves.input_size == (64, 96) and halves.gives("masks", "keypoints")
        found = halves.detect(pixels)
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-4)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
        np.testing.assert_array_equal(found.keypoints, expected.keypoints)
    backbone, heads = paths
    for kept, moved in ((backbone, heads), (heads, backbone)):
        away = moved.rename(folder / "elsewhere.tflite")
        with pytest.raises(UserError, match=rf"{kept.name} is one half of a model: put the other, {moved.name}, "):
            TFLiteModel(kept)
        away.rename(moved)


def test_a_missing_interpreter_is_named(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)  # None: importing it raises ImportError
    with pytest.raises(UserError, match=r"pip install 'mrcnn-tf\[edge\]'"):
        TFLiteModel(path)
