"""What an export starts from: the model as it is to be served, its input's size, and the images of the check."""

import contextlib
import pathlib
import tempfile

import keras
from PIL import Image

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import DetectionConfig
from mrcnn_tf.datasets.image_files import read_image
from mrcnn_tf.model.precision import POLICIES, dtype_policy

# The default check images are tiles of the demo, cropped to these (height, width), so that they have several shapes.
NUCLEI_TILES = pathlib.Path(__file__).parents[1] / "datasets" / "nuclei" / "images"
CROP_SIZES = ((128, 128), (128, 96), (80, 128))


def inference_copy(model, precision=None, max_detections=None, score_threshold=None):
    """A copy of a `MaskRCNN` for inference, outside any distribution strategy, with what the export chooses otherwise.

    `precision` is of the convolutions, "float32", "bfloat16" or "float16"; `max_detections` is of an image; None leaves
    each as the model has it. The limits are those of the heads that have `detections`, as a `BoxHead`. Raises UserError
    for another precision, or a number out of range or of which no head knows.
    """
    if max_detections is not None and max_detections < 1:
        raise UserError(f"An export with {max_detections} detections an image finds nothing: give 1 or more.")
    if score_threshold is not None and not 0 <= score_threshold < 1:
        raise UserError(f"A score threshold of {score_threshold} isn't in 0..1: give one such as 0.5.")
    if precision not in (None, *POLICIES):
        raise UserError(f"There is no precision '{precision}': choose {', '.join(POLICIES)}.")
    config = model.get_config()
    limits = {"max_per_image": max_detections, "score_threshold": score_threshold}
    _set_limits(config, {name: value for name, value in limits.items() if value is not None})
    if precision:
        policies = model.dtype_policy, dtype_policy(precision)
        config = _replace(config, *map(keras.saving.serialize_keras_object, policies))
    copied = type(model).from_config(config)
    copied.set_weights(model.get_weights())
    return copied


def detection_limits(model):
    """The `DetectionConfig` of the model's head that has one, as its `detections`; the default where none has."""
    limits = (getattr(head, "detections", None) for head in model.heads)
    return next((each for each in limits if isinstance(each, DetectionConfig)), DetectionConfig())


def _set_limits(config, limits):
    """Writes limits into the settings of those heads of a model's config that have some."""
    settings = [head["config"].get("detections") for head in config["heads"]]
    settings = [each for each in settings if isinstance(each, dict)]
    if limits and not settings:
        raise UserError("No head of the model has limits of its detections: leave max_detections and score_threshold.")
    for each in settings:
        each.update(limits)


def _replace(config, old, new):
    """Plain JSON with `new` wherever it had `old`."""
    if config == old:
        return new
    if isinstance(config, dict):
        return {key: _replace(value, old, new) for key, value in config.items()}
    return [_replace(value, old, new) for value in config] if isinstance(config, list) else config


def fixed_input_size(model, input_size):
    """(height, width) of an input of fixed size, pixels.

    `input_size` is a side or (height, width); None for the largest that the model's resize rule gives. Raises UserError
    for what is no size, or not a multiple of what the model's strides need.
    """
    multiple, resize = model.preprocess.divisor, model.resize
    if input_size is None:
        return tuple(-(-side // multiple) * multiple for side in (resize.min_size, resize.max_size))
    height, width = (input_size, input_size) if isinstance(input_size, int) else tuple(input_size)
    if min(height, width) < 1 or height % multiple or width % multiple:
        raise UserError(f"An input of {height}x{width} doesn't fit the model: give multiples of {multiple}.")
    return height, width


@contextlib.contextmanager
def check_image_files(check_images):
    """Gives the paths of `check_images` or, for None, of three crops of the demo's tiles as long as the block lasts."""
    if check_images is not None:
        yield [pathlib.Path(path) for path in check_images]
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for tile, (height, width) in zip(sorted(NUCLEI_TILES.iterdir()), CROP_SIZES, strict=False):
            paths.append(pathlib.Path(folder) / f"{tile.stem}.png")
            Image.fromarray(read_image(tile)[:height, :width]).save(paths[-1])
        yield paths
