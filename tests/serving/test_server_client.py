"""The client, against a server that serves a SavedModel."""

import concurrent.futures
import pathlib

import numpy as np
import pytest
from served_stand_in import LABELS, save_image

from mrcnn_tf.cli.predict import predict_files
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.datasets.image_files import UnreadableImage
from mrcnn_tf.serving.runtime import SavedModelRuntime
from mrcnn_tf.serving.server_client import ServedModel, parse_address

SIZES = ((40, 60), (50, 30), (33, 33), (8, 90))  # height, width


@pytest.fixture(params=["rest", "grpc"])
def address(server, request):
    return getattr(server, request.param)


@pytest.fixture
def served(address, server):
    return ServedModel(address, server.models["mask_rcnn"])


@pytest.fixture(scope="module")
def local(server):
    return SavedModelRuntime(server.models["mask_rcnn"])


def check(found, height, width, red):
    """What the stand-in finds in an image."""
    assert found.image_size == (height, width)
    assert found.category_names == (["tall"] if height > width else ["wide"])
    np.testing.assert_allclose(found.boxes, [[2, 2, width - 2, height - 2]], atol=1e-3)
    np.testing.assert_allclose(found.scores, [red / 255], atol=1e-5)
    np.testing.assert_allclose(found.keypoints[0, 0], [width / 2, height / 2, 1], atol=1e-3)


def same(found, other):
    np.testing.assert_allclose(found.boxes, other.boxes, atol=1e-3)
    np.testing.assert_allclose(found.scores, other.scores, atol=1e-5)
    np.testing.assert_allclose(found.mask_probabilities, other.mask_probabilities, atol=1e-5)
    np.testing.assert_array_equal(found.classes, other.classes)
    np.testing.assert_array_equal(found.masks, other.masks)
    assert (found.image_size, found.mask_rule, found.keypoint_offset) == (
        other.image_size,
        other.mask_rule,
        other.keypoint_offset,
    )


def test_pixels_and_files_as_in_process(served, local, tmp_path):
    for number, (height, width) in enumerate(SIZES):
        pixels = save_image(tmp_path / "image.png", height, width, 150 + number)
        for found in (served.detect(pixels), served.detect_file(tmp_path / "image.png"), local.detect(pixels)):
            check(found, height, width, 150 + number)
        same(served.detect(pixels), local.detect(pixels))
        same(local.detect(pixels), local.detect_file(tmp_path / "image.png"))


def test_masks_in_run_lengths(address, server, tmp_path):
    folder = server.models["rle"]
    for model in (ServedModel(address, folder, model="rle"), SavedModelRuntime(folder)):
        found = model.detect(np.full((6, 9, 3), 51, np.uint8))
        expected = np.zeros((1, 6, 9), bool)
        expected[:, :, 1:3] = True
        np.testing.assert_array_equal(found.masks, expected)
        assert model.gives("masks") and found.mask_probabilities is None
        with pytest.raises(UserError, match="labels.json from the same export"):
            model.detect(np.full((7, 9, 3), 51, np.uint8))


def test_a_list_of_images(served):
    found = served.detect([np.full((*size, 3), 255, np.uint8) for size in SIZES])
    for one, size in zip(found, SIZES, strict=True):
        check(one, *size, 255)


def test_a_batch_of_files_with_some_that_are_no_images(served, local, tmp_path):
    names = ["0.png", "text.png", "1.png", "2.tiff", "gone.png", "bmp.bmp", "3.gif"]
    for name, (height, width) in zip(("0.png", "1.png", "2.tiff"), SIZES, strict=False):
        save_image(tmp_path / name, height, width, 100)
    save_image(tmp_path / "3.gif", 20, 30, 0)
    (tmp_path / "text.png").write_text("once upon a time")
    (tmp_path / "bmp.bmp").write_bytes(b"BM and no image behind it")
    for model in (served, local):
        for batch in (1, 3, 20):
            found = list(model.detect_files([tmp_path / name for name in names], batch))
            for place, size in ((0, SIZES[0]), (2, SIZES[1]), (3, SIZES[2])):
                check(found[place], *size, 100)
            assert found[6].image_size == (20, 30)
            for place in (1, 4, 5):
                assert isinstance(found[place], UnreadableImage) and names[place] in str(found[place])
    with pytest.raises(UnreadableImage, match="bmp.bmp isn't an image that the model could decode"):
        served.detect_file(tmp_path / "bmp.bmp")


def test_requests_that_wait_together_are_one_batch(server, served, tmp_path):
    before = server.log.read_text()
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        images = [np.full((20 + number, 30, 3), 10 * number, np.uint8) for number in range(8)]
        for number, found in enumerate(threads.map(served.detect, images)):
            check(found, 20 + number, 30, 10 * number)
    if "batch of" in before:  # the stand-in says what it did
        batches = [int(line.split()[2]) for line in server.log.read_text()[len(before) :].splitlines()]
        assert sum(batches) == 8 and 1 < max(batches) <= 4


def test_wrong_images_are_refused_before_they_are_sent(served):
    for image in (np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(UserError, match="uint8 pixels"):
            served.detect(image)


def test_models_that_the_server_lacks(address, server):
    with pytest.raises(UserError, match=rf"{address} has no model 'unheard' .*unheard.*name and version"):
        ServedModel(address, LABELS, model="unheard").detect(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UserError, match="has no model 'mask_rcnn'"):
        ServedModel(address, LABELS, version=1).detect(np.zeros((4, 4, 3), np.uint8))
    check(ServedModel(address, LABELS, version=7).detect(np.zeros((4, 9, 3), np.uint8)), 4, 9, 0)


def test_a_model_that_is_no_detector(address):
    with pytest.raises(UserError, match=r"refuses the request for 'other' .*mrcnn-tf export saved-model"):
        ServedModel(address, LABELS, model="other").detect(np.zeros((4, 4, 3), np.uint8))


def test_a_batch_of_the_dataset_is_scaled_back(served, local):
    image = np.zeros((2, 64, 64, 3), np.float32)
    image[..., 0] = 101.6  # rounds to 102
    batch = {
        "image": image,
        "image_size": np.array([[40, 60], [64, 32]]),
        "original_size": np.array([[20, 30], [128, 96]]),
    }
    for model in (served, local):
        small, large = model.detect_batch(batch)
        np.testing.assert_allclose(small.boxes, [[1, 1, 29, 19]], atol=1e-3)
        np.testing.assert_allclose(large.boxes, [[6, 4, 90, 124]], atol=1e-3)
        np.testing.assert_allclose(large.keypoints[0, 0], [48, 64, 1], atol=1e-3)
        np.testing.assert_allclose(large.scores, [102 / 255], atol=1e-5)
        assert (small.image_size, large.image_size) == ((20, 30), (128, 96))
        assert model.gives("masks", "keypoints") and model.resize.min_size == 64


def test_files_are_predicted_from_their_own_bytes(served, tmp_path):
    save_image(tmp_path / "a.png", 40, 60, 204)
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    drawn, unreadable = predict_files(served, [tmp_path / "a.png", tmp_path / "b.jpg"], tmp_path / "out")
    assert drawn == [(tmp_path / "a.png", 1)] and len(unreadable) == 1 and "b.jpg" in unreadable[0]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.json", "a.png"]


def test_labels_are_needed():
    with pytest.raises(UserError, match="labels.json"):
        ServedModel("localhost:8501", None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost", ("http", "localhost:8501", "")),
        ("10.0.0.1:80", ("http", "10.0.0.1:80", "")),
        ("https://example.org/models/", ("https", "example.org:443", "/models")),
        ("grpc://gpu-box", ("grpc", "gpu-box:8500", "")),
        ("grpc://[::1]:9000", ("grpc", "[::1]:9000", "")),
    ],
)
def test_addresses(text, expected):
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", ["", "http://", "ftp://host", "host:many", "grpc://host:99999"])
def test_addresses_that_are_none(text):
    with pytest.raises(UserError, match="grpc://HOST:8500"):
        parse_address(text)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(UserError, match="no SavedModel"):
        SavedModelRuntime(tmp_path)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"broken")
    pathlib.Path(tmp_path, "labels.json").write_text("{}")
    with pytest.raises(UserError, match="export it again"):
        SavedModelRuntime(tmp_path, labels=LABELS)
