"""tensorflow-addons' image operations as augmentations: the one place that knows that library.

Its package can't be imported beside Keras 3, but its image operations work: they are loaded alone, under a stand-in for
the package. How strong each one is, the constants below say; the config only gives probabilities.
"""

import contextlib
import functools
import importlib
import importlib.util
import math
import sys
import types

import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.data.affine import compose, moved, rotation, shift, warped_labels
from mrcnn_tf.data.framing import ADDONS, stream

PACKAGE, KERAS_ENGINE = "tensorflow_addons", "keras.src.engine"
REMEDY = "run pip install 'mrcnn-tf[addons]' (Python < 3.12) or leave data.train.augment.addons empty"

SHARPNESS = (0.2, 3.0)  # 0 is smoothed by the 3 x 3 pixels around, 1 the image itself
BLUR = 5, 1.0  # pixels of the filter's side, and its standard deviation in pixels
HUE = 0.1  # turns of the colour circle, to either side
SATURATION, VALUE = 0.3, 0.3  # factors are drawn from 1 - x to 1 + x
HOLE = (0.1, 0.3)  # sides of what cutout makes black, of the image's shorter side
ANGLE = 15.0  # degrees, to either side
SLOPE = 0.2  # of a shear, to either side
WAY = 0.15  # of each side of the image, to either side


def check_addons(names):
    """Raises UserError if one of the augmentations isn't known or tensorflow-addons can't be loaded."""
    known = [*COLOURS, *MOVES]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(
            f"Setting 'data.train.augment.addons' has no {unknown[0]!r} to choose: there are {', '.join(known)}."
        )
    if names:
        image_operations()


def with_addons(sample, config, seed):
    """The sample after each of `config.augment.addons`, which happens with its probability.

    Args:
        sample: a `Sample` at its final size, its image float32.
        config: settings.DataConfig; `augment` and `masks` are read.
        seed: int64 [2].

    Returns:
        Sample with an image of the same size.

    Raises:
        UserError: see `check_addons`.
    """
    check_addons(config.augment.addons)
    masks = config.masks is not False
    for number, name in enumerate([*MOVES, *COLOURS]):
        probability = config.augment.addons.get(name, 0)
        if probability > 0:
            draws = tf.random.stateless_uniform([4], stream(stream(seed, ADDONS), number))
            sample = tf.cond(
                draws[0] < probability,
                functools.partial(_applied, name, sample, draws[1:], masks),
                lambda unchanged=sample: unchanged,
            )
    return sample


def _applied(name, sample, draws, masks):
    shape = sample.image.shape
    if name in COLOURS:
        image = tf.clip_by_value(COLOURS[name](sample.image, draws), 0.0, 255.0)
        return sample._replace(image=tf.ensure_shape(image, shape))
    image, matrix = MOVES[name](sample.image, 2.0 * draws - 1.0)
    semantic = warped_labels(sample.semantic, matrix, tf.shape(image)[:2])
    seen = sample._replace(image=tf.ensure_shape(image, shape), semantic=semantic)
    return moved(seen, matrix, name == "translate", masks)


@functools.cache
def image_operations():
    """The module tensorflow_addons.image. What was put in other modules' places for its sake is gone afterwards.

    Raises:
        UserError: it isn't installed or doesn't load.
    """
    with contextlib.suppress(KeyError):
        return sys.modules[f"{PACKAGE}.image"]
    found = importlib.util.find_spec(PACKAGE)
    if found is None:
        raise UserError(
            f"Setting 'data.train.augment.addons' needs tensorflow-addons, which isn't installed: {REMEDY}."
        )
    before = dict(sys.modules)
    package, engine = types.ModuleType(PACKAGE), types.ModuleType(KERAS_ENGINE)
    package.__path__, engine.__path__ = list(found.submodule_search_locations), []
    engine.keras_tensor = types.ModuleType(f"{KERAS_ENGINE}.keras_tensor")
    engine.keras_tensor.KerasTensor = object  # which only annotations name
    stand_ins = {PACKAGE: package, KERAS_ENGINE: engine, engine.keras_tensor.__name__: engine.keras_tensor}
    sys.modules.update(stand_ins)
    try:
        operations = importlib.import_module(f"{PACKAGE}.image")
        # Its compiled operations are for an older TensorFlow; those written in Python do the same.
        importlib.import_module(f"{PACKAGE}.options").disable_custom_kernel()
    except Exception as error:
        raise UserError(
            f"Setting 'data.train.augment.addons' needs tensorflow-addons, which doesn't load ({error}): {REMEDY}."
        ) from error
    finally:
        for name in [name for name in sys.modules if name.startswith((PACKAGE, KERAS_ENGINE))]:
            if name not in before:
                del sys.modules[name]
    return operations


def _between(draw, least, most):
    return least + (most - least) * draw


def _equalize(image, draws):
    return image_operations().equalize(image)


def _sharpness(image, draws):
    return image_operations().sharpness(image, _between(draws[0], *SHARPNESS))


def _gaussian_filter2d(image, draws):
    side, sigma = BLUR
    # Mirroring at the edge needs more pixels than the filter reaches over.
    return image_operations().gaussian_filter2d(image, (side, side), sigma, padding="SYMMETRIC")


def _hsv(image, draws):
    hue = _between(draws[0], -HUE, HUE) * (2 * math.pi)
    saturation, value = _between(draws[1], 1 - SATURATION, 1 + SATURATION), _between(draws[2], 1 - VALUE, 1 + VALUE)
    return image_operations().adjust_hsv_in_yiq(image, hue, saturation, value)


def _cutout(image, draws):
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    half = tf.cast(_between(draws[0], *HOLE) * tf.reduce_min(sides) / 2.0, tf.int32)  # the whole side must be even
    centre = tf.cast(draws[1:] * sides, tf.int32)
    return image_operations().cutout(image[None], tf.stack([2 * half] * 2), centre[None])[0]


def _rotate(image, draws):
    angle = draws[0] * ANGLE
    turned = image_operations().rotate(image, angle * (math.pi / 180), interpolation="bilinear")
    return turned, rotation(angle, tf.shape(image)[:2])


def _shear_x(image, draws):
    slope = draws[0] * SLOPE
    return _sheared(image_operations().shear_x, image, slope), _shear_map([[1.0, -slope, 0.0], [0.0, 1.0, 0.0]])


def _shear_y(image, draws):
    slope = draws[0] * SLOPE
    return _sheared(image_operations().shear_y, image, slope), _shear_map([[1.0, 0.0, 0.0], [-slope, 1.0, 0.0]])


def _sheared(function, image, slope):
    return _converted(function)(image, slope, tf.zeros([3]))


@functools.cache
def _converted(function):
    # Unlike the others the shears branch on tensors without being a tf.function themselves.
    return tf.function(function)


def _shear_map(matrix):
    # The library counts from the middle of the first pixel.
    return compose(shift(0.5, 0.5), compose(tf.convert_to_tensor(matrix), shift(-0.5, -0.5)))


def _translate(image, draws):
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
    way = draws[:2] * WAY * tf.stack([width, height])
    return image_operations().translate(image, way, interpolation="bilinear"), shift(way[0], way[1])


# Names in the config -> what changes colours only, as function(image, draws [3] from 0 to 1) -> image.
COLOURS = {
    "equalize": _equalize,
    "sharpness": _sharpness,
    "gaussian_filter2d": _gaussian_filter2d,
    "hsv": _hsv,
    "cutout": _cutout,
}
# And what moves the image, as function(image, draws [3] from -1 to 1) -> (image, map).
MOVES = {"rotate": _rotate, "shear_x": _shear_x, "shear_y": _shear_y, "translate": _translate}
