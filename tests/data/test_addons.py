"""tensorflow-addons' operations; those that move the image are judged by where its pixels went."""

import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import check_fields, check_keypoints, check_objects, map_of, scene

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import AugmentConfig, DataConfig, ResizeConfig
from mrcnn_tf.data import addons
from mrcnn_tf.data.affine import OBJECT_FIELDS, Sample
from mrcnn_tf.data.augment import augment_sample, check_augment_settings

MIRRORS = tf.zeros([5, 3], tf.int32) + tf.range(3)


@pytest.fixture(scope="module")
def installed():
    try:
        return addons.image_operations()
    except UserError as error:
        pytest.skip(str(error))


def config(**probabilities):
    return DataConfig(resize=ResizeConfig(90, 260), augment=AugmentConfig(0.0, addons=probabilities))


def run(sample, settings_, number):
    return augment_sample(sample, None, MIRRORS, settings_, tf.constant([number, 8], tf.int64))[0]


def photograph(seed=0):
    """A scene whose image is smooth noise in a middle range."""
    sample, _ = scene(seed)
    noise = tf.random.stateless_uniform([1, 12, 15, 3], [seed, 1], 60.0, 190.0)
    return sample._replace(image=tf.image.resize(noise, [90, 120])[0])


@pytest.mark.parametrize("name", list(addons.GEOMETRIC_OPERATIONS))
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_objects_go_where_the_image_goes(installed, name, seed):
    sample, full = scene(seed)
    result = run(sample, config(**{name: 1.0}), seed)
    assert result.image.shape == (90, 120, 3)
    image = result.image.numpy()
    back = map_of(image)
    if name.startswith("shear"):  # by the nearest pixel, which leaves the fitted map a little uncertain
        check_keypoints(result, sample, back, tolerance=0.6)
        check_fields(result, back, tolerance=0.02)
        # The image, too, goes by the nearest pixel, and so says which.
        column, row = np.floor(image[..., 0]).astype(int), np.floor(image[..., 1]).astype(int)
        expected = np.where(image[..., 2] > 0, sample.semantic.numpy()[row, column], 255)
        np.testing.assert_array_equal(result.semantic, expected)
    else:
        check_objects(result, sample, full, back)


@pytest.mark.parametrize("name", list(addons.GEOMETRIC_OPERATIONS))
def test_each_move_goes_both_ways(installed, name):
    sample, _ = scene(1)
    changes = [map_of(run(sample, config(**{name: 1.0}), number).image.numpy()) - np.eye(2, 3) for number in range(8)]
    place = np.unravel_index(np.abs(changes).max(0).argmax(), (2, 3))
    assert min(change[place] for change in changes) < 0 < max(change[place] for change in changes)


def test_every_move_at_once_keeps_keypoints_on_their_pixels(installed):
    sample = photograph()
    marked = np.zeros([90, 120, 3], np.float32)
    points = np.zeros([4, 3, 3], np.float32)
    for place, (x, y) in enumerate([(30, 25), (60, 40), (85, 60), (45, 65)]):
        marked[y - 2 : y + 3, x - 2 : x + 3] = 50 * (place + 1)
        points[place, 0] = x + 0.5, y + 0.5, 2
    sample = sample._replace(image=tf.constant(marked), keypoints=tf.constant(points))
    for number in range(5):
        result = run(sample, config(rotate=1.0, shear_x=1.0, shear_y=1.0, translate=1.0), number)
        image = result.image.numpy()
        for place, point in zip(result.classes.numpy(), result.keypoints.numpy()[:, 0], strict=True):
            if point[2] and 3 < point[0] < 117 and 3 < point[1] < 87:
                assert image[int(point[1]), int(point[0]), 0] == pytest.approx(50 * place, rel=0.05)


@pytest.mark.parametrize("name", list(addons.COLOUR_OPERATIONS))
def test_colours_change_and_objects_stay(installed, name):
    sample = photograph()
    results = [run(sample, config(**{name: 1.0}), number) for number in (1, 1, 2)]
    image = results[0].image.numpy()
    assert image.dtype == np.float32 and image.shape == (90, 120, 3)
    assert image.min() >= 0 and image.max() <= 255
    assert np.abs(image - sample.image.numpy()).max() > 1
    np.testing.assert_array_equal(image, results[1].image)
    if name not in ("equalize", "gaussian_filter2d"):
        assert np.abs(image - results[2].image.numpy()).max() > 0.5
    for name in ("semantic", *OBJECT_FIELDS):
        if name != "areas":
            np.testing.assert_array_equal(getattr(sample, name), getattr(results[0], name))


def test_what_they_do_by_their_definitions(installed):
    pixels = np.floor(photograph(2).image.numpy())
    cut = addons.COLOUR_OPERATIONS["cutout"](tf.constant(pixels), tf.constant([0.5, 0.5, 0.5])).numpy()
    black = (cut == 0).all(-1)
    assert black.sum() == 18**2 and (cut[~black] == pixels[~black]).all()
    blurred = addons.COLOUR_OPERATIONS["gaussian_filter2d"](tf.constant(pixels), None).numpy()
    weights = np.exp(-(np.arange(-2, 3) ** 2) / 2)
    weights = np.outer(weights, weights) / weights.sum() ** 2
    np.testing.assert_allclose(blurred[40, 50], np.einsum("ij,ijc", weights, pixels[38:43, 48:53]), rtol=1e-4)
    equal = addons.COLOUR_OPERATIONS["equalize"](tf.constant(pixels), None).numpy()
    histogram = np.histogram(equal[..., 0], 4, (0, 255))[0]
    assert histogram.min() > 0.2 * pixels[..., 0].size and np.ptp(equal) > np.ptp(pixels)


def test_all_of_them_in_a_dataset_of_unknown_shapes(installed):
    samples = [scene(number, 60 + 10 * number, 100, number)[0] for number in (3, 0, 1)]  # one is empty
    shapes = ([None, None, 3], [None, 4], [None], [None], [None], [None, None, None], [None, None, 3])
    shapes += ([None, 1], [None, 2, 2], [None, None])
    specs = tuple(tf.TensorSpec(shape, part.dtype) for shape, part in zip(shapes, samples[0], strict=True))
    dataset = tf.data.Dataset.from_generator(lambda: map(tuple, samples * 3), output_signature=specs)
    settings_ = config(**dict.fromkeys([*addons.COLOUR_OPERATIONS, *addons.GEOMETRIC_OPERATIONS], 0.5))

    @tf.autograph.experimental.do_not_convert
    def load(number, parts):
        return augment_sample(Sample(*parts), None, MIRRORS, settings_, tf.stack([number, 7]))[0]

    for result in dataset.enumerate().map(load):
        assert {getattr(result, name).shape[0] for name in OBJECT_FIELDS} == {result.boxes.shape[0]}
        assert result.semantic.shape == result.image.shape[:2] and result.semantic.dtype == tf.uint8
        assert result.image.shape[0] == 90 and result.image.shape[2] == 3
        assert all(np.isfinite(part).all() for part in result)


def test_each_happens_with_its_probability(installed):
    sample = photograph()
    happened = [np.abs(run(sample, config(hsv=0.25), n).image - sample.image).max() > 0.5 for n in range(60)]
    assert 5 < sum(happened) < 27


def test_nothing_of_the_library_is_left_behind(installed):
    assert not [name for name in sys.modules if name.startswith(("tensorflow_addons", "keras.src.engine"))]


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(UserError, match="'mixup'.*equalize.*translate"):
        check_augment_settings(config(mixup=0.5))


def test_without_the_library_a_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setattr(addons.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(addons, "image_operations", addons.image_operations.__wrapped__)
    with pytest.raises(UserError, match=r"addons.*pip install 'mrcnn-tf\[addons\]'.*3.12"):
        check_augment_settings(config(equalize=0.5))
    check_augment_settings(config())


def test_a_library_that_does_not_load_is_named_with_its_reason(monkeypatch, tmp_path):
    (tmp_path / "tensorflow_addons").mkdir()
    (tmp_path / "tensorflow_addons" / "image.py").write_text("raise ImportError('no such thing')")
    spec = types.SimpleNamespace(submodule_search_locations=[str(tmp_path / "tensorflow_addons")])
    monkeypatch.setattr(addons.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(UserError, match=r"addons.*no such thing.*pip install"):
        addons.image_operations.__wrapped__()
    assert not [name for name in sys.modules if name.startswith(("tensorflow_addons", "keras.src.engine"))]
