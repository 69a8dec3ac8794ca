"""A real export behind the server gives what the Keras model gives."""

import shutil

import numpy as np
import pytest
from PIL import Image
from serving.panoptic_model import panoptic_config
from serving_process import serving, stub_command

from mrcnn_tf.datasets.image_files import UnreadableImage, read_image
from mrcnn_tf.model.mask_rcnn import MaskRCNN
from mrcnn_tf.serving.export_labels import write_assets
from mrcnn_tf.serving.runtime import SavedModelRuntime
from mrcnn_tf.serving.served_graph import ServedGraph
from mrcnn_tf.serving.server_client import ServedModel

SIZES = ((48, 64), (64, 40), (91, 77))


@pytest.fixture(scope="module")
def model():
    config = panoptic_config()
    config.detections.score_threshold = 0.3
    return MaskRCNN.from_settings(config)


@pytest.fixture(scope="module", params=["stub", "tensorflow_model_server"])
def server(request, model, tmp_path_factory):
    pytest.importorskip("tensorflow_serving.apis")
    program = [shutil.which(request.param)] if request.param != "stub" else stub_command()
    if program == [None]:
        pytest.skip(f"There is no {request.param} here.")
    folder = tmp_path_factory.mktemp("export")
    # The parts of export_saved_model without its own check, which takes longer than the tests here.
    ServedGraph(model).save(folder / "mask_rcnn" / "1")
    write_assets(model, folder / "mask_rcnn" / "1", {})
    with serving(program, {"mask_rcnn": folder / "mask_rcnn"}, folder) as running:
        yield running


@pytest.fixture(scope="module")
def runtimes(server):
    folder = server.models["mask_rcnn"]
    served = [ServedModel(address, folder) for address in (server.rest, server.grpc)]
    return [*served, SavedModelRuntime(folder)]


def pictures(folder):
    """A JPEG, a PNG and a JPEG that is turned by its EXIF orientation: paths."""
    generator, paths = np.random.default_rng(0), []
    for number, (height, width) in enumerate(SIZES):
        small = Image.fromarray(generator.integers(0, 256, (6, 8, 3), np.uint8))
        image, exif = small.resize((width, height), Image.Resampling.BICUBIC), Image.Exif()
        exif[0x0112] = 6
        path = folder / f"{number}.{'png' if number == 1 else 'jpg'}"
        image.save(path, **({"exif": exif} if number == 2 else {}))
        paths.append(path)
    return paths


def check(found, expected):
    assert len(found) == len(expected) > 0 and found.image_size == expected.image_size
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    assert found.category_names == expected.category_names


def test_files_one_by_one_and_together(runtimes, model, tmp_path):
    paths = pictures(tmp_path)
    expected = [model.detect(read_image(path)) for path in paths]
    assert expected[2].image_size == (77, 91), "the third picture is turned"
    for runtime in runtimes:
        for batch in (1, 3):
            for found, wanted in zip(runtime.detect_files(paths, batch), expected, strict=True):
                check(found, wanted)
                np.testing.assert_allclose(found.mask_probabilities, wanted.mask_probabilities, atol=1e-4)
                assert found.to_coco(1)[0].keys() == wanted.to_coco(1)[0].keys()
                assert (found.semantic == wanted.semantic).mean() >= 0.999
                assert (found.panoptic.segment_map == wanted.panoptic.segment_map).mean() >= 0.999
                assert [one.category for one in found.panoptic.segments] == [
                    one.category for one in wanted.panoptic.segments
                ]


def test_pixels(runtimes, model, tmp_path):
    image = read_image(pictures(tmp_path)[0])
    expected = model.detect(image)
    for runtime in runtimes:
        check(runtime.detect(image), expected)


def test_a_damaged_file_doesnt_fail_the_others(runtimes, model, tmp_path):
    path = pictures(tmp_path)[0]
    (tmp_path / "cut.jpg").write_bytes(path.read_bytes()[:200])
    (tmp_path / "text.jpg").write_bytes(b"\xff\xd8\xff, it says")
    expected = model.detect(read_image(path))
    for runtime in runtimes:
        cut, good, text = runtime.detect_files([tmp_path / "cut.jpg", path, tmp_path / "text.jpg"], 3)
        check(good, expected)
        assert isinstance(cut, UnreadableImage) and isinstance(text, UnreadableImage)
