"""Maps of classes and segments in the served graph: by hand, and of an exported model against the Keras model."""

import io
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from serving.panoptic_model import STUFF, panoptic_config
from serving.plain_process import operations

from mrcnn_tf import MaskRCNN
from mrcnn_tf.config.settings import PanopticConfig
from mrcnn_tf.serving.export_labels import labels_document, read_labels
from mrcnn_tf.serving.runtime import SavedModelRuntime
from mrcnn_tf.serving.saved_model_export import export_saved_model
from mrcnn_tf.serving.served_graph import encode_pixel_maps

SIZES = ((50, 70), (64, 48))
TABLE = ("segment_classes", "segment_instances", "segment_areas")


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def pixels_of(data):
    """The pixels of a PNG and Pillow's mode of it."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image), image.mode


def ids_of(data):
    pixels, mode = pixels_of(data)
    assert mode == "RGB"
    return pixels.astype(int) @ [1, 256, 65536]


def make_images():
    return [np.random.default_rng(7).integers(0, 256, (*size, 3), np.uint8) for size in SIZES]


# By hand ------------------------------------------------------------------------------------------------------------


RULES = PanopticConfig(stuff_area=20), "detectron2"  # the fusion and the mask rule


def halves():
    """Arguments for three images, of 12 x 16, 8 x 8 pixels and none: class 1 is likeliest left of x = 8, 2 right of it.

    In the first is an instance of class 5 in pixels 2 to 5 of both axes, and one whose score is too low.
    """
    logits = np.zeros((3, 4, 4, 3), np.float32)
    logits[:, :, :2, 1], logits[:, :, 2:, 2] = 4, 4
    sizes = np.array([[12, 16], [8, 8], [1, 1]], np.int32)
    boxes, scores = np.zeros((3, 2, 4), np.float32), np.zeros((3, 2), np.float32)
    boxes[0], scores[0] = [[0, 0, 9, 9], [2, 2, 6, 6]], [0.4, 0.9]
    classes = np.array([[4, 5], [0, 0], [0, 0]], np.int32)
    detections = {"masks": np.ones((3, 2, 7, 7), np.float32), "boxes": boxes, "scores": scores, "classes": classes}
    detections = {name: tf.constant(value) for name, value in detections.items()}
    originals = sizes * [[1], [1], [0]]
    return [tf.constant(logits), tf.constant(sizes)], detections, [tf.constant(originals), tf.constant([1, 1, 0]) > 0]


def run(function, *arguments):
    outputs = tf.function(lambda: function(*arguments), autograph=False)()
    return {name: value.numpy() for name, value in outputs.items()}


def test_maps_and_table_by_hand():
    logits, detections, sizes = halves()
    outputs = run(encode_pixel_maps, *logits, detections, *sizes, *RULES)
    expected = np.ones((12, 16), int)
    expected[:, 8:] = 2
    found, mode = pixels_of(outputs["semantic_png_bytes"][0])
    assert mode == "L"
    np.testing.assert_array_equal(found, expected)
    expected += 1
    expected[2:6, 2:6] = 1
    np.testing.assert_array_equal(ids_of(outputs["segments_png_bytes"][0]), expected)
    np.testing.assert_array_equal(ids_of(outputs["segments_png_bytes"][1]), np.ones((8, 8)))
    assert outputs["num_segments"].tolist() == [3, 1, 0]
    assert outputs["segment_classes"].tolist() == [[5, 1, 2, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert outputs["segment_instances"].tolist() == [[1, -1, -1, 0], [-1, 0, 0, 0], [0, 0, 0, 0]]
    assert outputs["segment_areas"].tolist() == [[16, 80, 96, 0], [64, 0, 0, 0], [0, 0, 0, 0]]
    assert outputs["semantic_png_bytes"][2] == outputs["segments_png_bytes"][2] == b""


def test_boxes_without_masks_arent_fused():
    logits, detections, sizes = halves()
    del detections["masks"]
    outputs = run(encode_pixel_maps, *logits, detections, *sizes, None, RULES[1])
    assert set(outputs) == {"semantic_png_bytes"}
    assert pixels_of(outputs["semantic_png_bytes"][0])[0].shape == (12, 16)


def test_no_box_head_leaves_segments_of_stuff():
    logits, _, sizes = halves()
    outputs = run(encode_pixel_maps, *logits, {}, *sizes, *RULES)
    assert outputs["segment_classes"].tolist() == [[1, 2], [1, 0], [0, 0]]
    assert outputs["segment_instances"].tolist() == [[-1, -1], [-1, 0], [0, 0]]
    assert outputs["segment_areas"].tolist() == [[96, 96], [64, 0], [0, 0]]


# An exported model --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    return MaskRCNN.from_settings(panoptic_config())


@pytest.fixture(scope="module")
def image_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{number}.png" for number in range(len(SIZES))]
    for path, image in zip(paths, make_images(), strict=True):
        path.write_bytes(png(image))
    return paths


@pytest.fixture(scope="module")
def report(model, image_files, tmp_path_factory):
    return export_saved_model(model, tmp_path_factory.mktemp("export") / "1", check_images=image_files)


@pytest.fixture(scope="module")
def runtime(report):
    return SavedModelRuntime(report.folder)


@pytest.fixture(scope="module")
def references(model):
    return model.detect(make_images())


def test_the_check_looks_at_the_maps(report):
    assert report.differences.images == 4  # both files in one batch, and by themselves
    assert 0.999 <= report.differences.semantic <= 1 and 0.999 <= report.differences.segments <= 1


def test_the_assets_name_the_stuff(report):
    document = json.loads((report.folder / "assets" / "labels.json").read_text())
    assert [(one["class"], one["id"], one["name"]) for one in document["stuff"]] == [
        (1, 11, "sky"),
        (2, 12, "sea"),
        (3, 30, "sand"),
    ]
    assert document["panoptic"] == {"score_threshold": 0.05, "overlap": 0.5, "stuff_area": 16}


def test_the_operations_are_stock(report):
    names = operations(report.folder)
    assert "EncodePng" in names and not [name for name in names if ">" in name]  # as ours are, MrcnnTf>RoiAlign


@pytest.fixture(scope="module")
def answer(report):
    """The outputs for one image, for text, and for an image of another size."""
    functions = tf.saved_model.load(str(report.folder)).signatures
    one, other = map(png, make_images())
    outputs = functions["serving_default"](image_bytes=tf.constant([one, b"text", other]))
    assert all(value.shape[0] == 3 for value in outputs.values())
    return {name: value.numpy() for name, value in outputs.items()}


def test_a_batch_of_two_sizes_gives_what_keras_gives(answer, references):
    for row, reference in zip((0, 2), references, strict=True):
        found, _ = pixels_of(answer["semantic_png_bytes"][row])
        assert found.shape == reference.image_size and len(np.unique(found)) > 1
        assert (found == reference.semantic).mean() >= 0.999
        ids = ids_of(answer["segments_png_bytes"][row])
        assert (ids == reference.panoptic.segment_map).mean() >= 0.999


def test_a_file_that_is_no_image_has_no_maps(answer):
    for name, values in answer.items():
        assert values[1] == b"" if name.endswith("_bytes") else not values[1].any(), name


def test_the_table_is_of_the_map(answer):
    assert answer["segment_classes"].shape == (3, 13)
    for row in (0, 2):
        count = answer["num_segments"][row]
        classes, instances, areas = (answer[name][row] for name in TABLE)
        ids = ids_of(answer["segments_png_bytes"][row])
        assert np.bincount(ids.ravel(), minlength=count + 1)[1:].tolist() == areas[:count].tolist()
        things = instances[:count] >= 0
        assert things.any() and not things.all() and (np.diff(things.astype(int)) <= 0).all()  # things come first
        assert (answer["classes"][row][instances[:count][things]] == classes[:count][things]).all()
        labels, _ = pixels_of(answer["semantic_png_bytes"][row])
        for segment in np.flatnonzero(~things):
            assert (labels[ids == segment + 1] == classes[segment]).all()
        assert not any(answer[name][row, count:].any() for name in TABLE)


def test_the_runtime_knows_what_it_gives(runtime):
    assert runtime.gives("boxes", "scores", "masks", "semantic_logits") and runtime.stuff == STUFF
    assert not runtime.gives("keypoints") and not runtime.gives("masks", "keypoints")
    assert runtime.labels.fusion == panoptic_config().panoptic


def test_boxes_alone_have_no_rules_of_fusion():
    config = panoptic_config()
    config.mask_head = None
    facts = read_labels(labels_document(MaskRCNN.from_settings(config), {}))
    assert facts.fusion is None and facts.stuff == STUFF and facts.gives("boxes")


def test_the_runtime_gives_detections_with_these_maps(runtime, references, image_files):
    for place, reference in enumerate(references):
        for found in (runtime.detect(make_images()[place]), runtime.detect_file(image_files[place])):
            assert (found.semantic == reference.semantic).mean() >= 0.999
            assert (found.panoptic.segment_map == reference.panoptic.segment_map).mean() >= 0.999
            pairs = list(zip(found.panoptic.segments, reference.panoptic.segments, strict=True))
            assert any(one.is_thing for one, _ in pairs) and not all(one.is_thing for one, _ in pairs)
            for one, other in pairs:
                assert (one.id, one.category, one.is_thing) == (other.id, other.category, other.is_thing)
                assert one.instance == other.instance and one.score == pytest.approx(other.score, abs=1e-5)
                np.testing.assert_allclose([one.area, *one.bbox], [other.area, *other.bbox], atol=2)


def test_a_batch_in_another_size_is_scaled_and_fused_again(runtime):
    (_, image), (_, (height, width)) = make_images(), SIZES
    batch = {"image": np.float32(image[None]), "image_size": [[height, width]]}
    (found,) = runtime.detect_batch(batch | {"original_size": [[2 * height, 2 * width]]})
    small = runtime.detect(image)
    np.testing.assert_array_equal(found.semantic, small.semantic.repeat(2, 0).repeat(2, 1))
    assert found.panoptic.segment_map.shape == (2 * height, 2 * width)
    # Areas are four times as large, save for the edges of masks.
    of_stuff = [{s.category.id: s.area for s in one.panoptic.segments if not s.is_thing} for one in (small, found)]
    assert of_stuff[0] and set(of_stuff[0]) <= set(of_stuff[1])
    for category, area in of_stuff[0].items():
        assert of_stuff[1][category] == pytest.approx(4 * area, rel=0.2)


def test_a_semantic_head_by_itself(image_files, tmp_path):
    keras.utils.set_random_seed(2)
    model = MaskRCNN.from_settings(panoptic_config(instances=False))
    report = export_saved_model(model, tmp_path / "1", check_images=image_files)
    assert report.differences.reference == 0 and report.differences.semantic >= 0.999
    loaded = tf.saved_model.load(str(report.folder))
    found = {name: spec.shape.as_list() for name, spec in loaded.signatures["image"].structured_outputs.items()}
    assert found == {"semantic_png_bytes": [None], "segments_png_bytes": [None], "num_segments": [None]} | {
        "image_size": [None, 2],
        "ok": [None],
        **{name: [None, 3] for name in TABLE},
    }
    runtime = SavedModelRuntime(report.folder)
    assert (runtime.gives("boxes"), runtime.gives("semantic_logits"), runtime.stuff) == (False, True, STUFF)
    for image, reference in zip(make_images(), model.detect(make_images()), strict=True):
        found = runtime.detect(image)
        assert len(found) == 0 and (found.semantic == reference.semantic).mean() >= 0.999
        segments = found.panoptic.segments
        assert segments and [one.category for one in segments] == [one.category for one in reference.panoptic.segments]
