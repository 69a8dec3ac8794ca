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
from mrcnn_tf.data.affine import compose_maps, rotation_matrix, transform_objects, translation_matrix, warp_labels
from mrcnn_tf.data.geometric import RandomStream, stream_seed

PACKAGE, KERAS_ENGINE = "tensorflow_addons", "keras.src.engine"
REMEDY = "run pip install 'mrcnn-tf[addons]' (Python < 3.12) or leave data.train.augment.addons empty"

SHARPNESS = (0.2, 3.0)  # 0 is smoothed by the 3 x 3 pixels around, 1 the image itself
BLUR = 5, 1.0  # pixels of the filter's side, and its standard deviation in pixels
HUE = 0.1  # turns of the colour circle, to either side
SATURATION, VALUE = 0.3, 0.3  # factors are drawn from 1 - x to 1 + x
CUTOUT_SIDE = (0.1, 0.3)  # sides of what cutout makes black, of the image's shorter side
ROTATION = 15.0  # degrees, to either side
SHEAR = 0.2  # of a shear, to either side
TRANSLATION = 0.15  # of each side of the image, to either side


def check_addons(names):
    """Raises UserError if one of the augmentations isn't known or tensorflow-addons can't be loaded."""
    known = [*COLOUR_OPERATIONS, *GEOMETRIC_OPERATIONS]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(
            f"Setting 'data.train.augment.addons' has no {unknown[0]!r} to choose: there are {', '.join(known)}."
        )
    if names:
        image_operations()


def apply_addons(sample, config, seed):
    """Applies each of `config.augment.addons` with its probability to a `Sample` of final size and float32 image."""
    masks = config.masks is not False
    for number, name in enumerate([*GEOMETRIC_OPERATIONS, *COLOUR_OPERATIONS]):
        probability = config.augment.addons.get(name, 0)
        if probability > 0:
            draws = tf.random.stateless_uniform([4], stream_seed(stream_seed(seed, RandomStream.ADDONS), number))
            sample = tf.cond(
                draws[0] < probability,
                functools.partial(_apply, name, sample, draws[1:], masks),
                lambda unchanged=sample: unchanged,
            )
    return sample


def _apply(name, sample, draws, masks):
    shape = sample.image.shape
    if name in COLOUR_OPERATIONS:
        image = tf.clip_by_value(COLOUR_OPERATIONS[name](sample.image, draws), 0.0, 255.0)
        return sample._replace(image=tf.ensure_shape(image, shape))
    image, matrix = GEOMETRIC_OPERATIONS[name](sample.image, 2.0 * draws - 1.0)
    semantic = warp_labels(sample.semantic, matrix, tf.shape(image)[:2])
    sample = sample._replace(image=tf.ensure_shape(image, shape), semantic=semantic)
    return transform_objects(sample, matrix, name == "translate", masks)


@functools.cache
def image_operations():
    """The module tensorflow_addons.image. What was put in other modules' places for its sake is gone afterwards.

    Raises UserError if it isn't installed or doesn't load.
    """
    with contextlib.suppress(KeyError):
        return sys.modules[f"{PACKAGE}.image"]
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        raise UserError(
            f"Setting 'data.train.augment.addons' needs tensorflow-addons, which isn't installed: {REMEDY}."
        )
    before = dict(sys.modules)
    package, engine = types.ModuleType(PACKAGE), types.ModuleType(KERAS_ENGINE)
    package.__path__, engine.__path__ = list(spec.submodule_search_locations), []
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


def _scale_draw(draw, low, high):
    return low + (high - low) * draw


def _equalize(image, draws):
    return image_operations().equalize(image)


def _sharpness(image, draws):
    return image_operations().sharpness(image, _scale_draw(draws[0], *SHARPNESS))


def _gaussian_filter2d(image, draws):
    side, sigma = BLUR
    # Mirroring at the edge needs more pixels than the filter reaches over.
    return image_operations().gaussian_filter2d(image, (side, side), sigma, padding="SYMMETRIC")


def _hsv(image, draws):
    hue = _scale_draw(draws[0], -HUE, HUE) * (2 * math.pi)
    saturation = _scale_draw(draws[1], 1 - SATURATION, 1 + SATURATION)
    value = _scale_draw(draws[2], 1 - VALUE, 1 + VALUE)
    return image_operations().adjust_hsv_in_yiq(image, hue, saturation, value)


def _cutout(image, draws):
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    side = _scale_draw(draws[0], *CUTOUT_SIDE) * tf.reduce_min(sides)
    half = tf.cast(side / 2.0, tf.int32)  # the library asks for an even side
    centre = tf.cast(draws[1:] * sides, tf.int32)
    return image_operations().cutout(image[None], tf.stack([2 * half] * 2), centre[None])[0]


def _rotate(image, draws):
    angle = draws[0] * ROTATION
    rotated = image_operations().rotate(image, angle * (math.pi / 180), interpolation="bilinear")
    return rotated, rotation_matrix(angle, tf.shape(image)[:2])


def _shear(name, image, draws):
    slope = draws[0] * SHEAR
    rows = {"shear_x": [[1.0, -slope, 0.0], [0.0, 1.0, 0.0]], "shear_y": [[1.0, 0.0, 0.0], [-slope, 1.0, 0.0]]}
    # The library counts from the middle of the first pixel.
    matrix = compose_maps(tf.convert_to_tensor(rows[name]), translation_matrix(-0.5, -0.5))
    sheared = _shear_function(name)(image, slope, tf.zeros([3]))
    return sheared, compose_maps(translation_matrix(0.5, 0.5), matrix)


@functools.cache
def _shear_function(name):
    # Unlike the others the shears branch on tensors without being a tf.function themselves.
    return tf.function(getattr(image_operations(), name))


def _translate(image, draws):
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
    offset = draws[:2] * TRANSLATION * tf.stack([width, height])
    image = image_operations().translate(image, offset, interpolation="bilinear")
    return image, translation_matrix(offset[0], offset[1])


# Names in the config -> what changes colours only, as function(image, draws [3] from 0 to 1) -> image.
COLOUR_OPERATIONS = {
    "equalize": _equalize,
    "sharpness": _sharpness,
    "gaussian_filter2d": _gaussian_filter2d,
    "hsv": _hsv,
    "cutout": _cutout,
}
# And what moves the image, as function(image, draws [3] from -1 to 1) -> (image, map).
GEOMETRIC_OPERATIONS = {
    "rotate": _rotate,
    "shear_x": functools.partial(_shear, "shear_x"),
    "shear_y": functools.partial(_shear, "shear_y"),
    "translate": _translate,
}
