"""The model that is exported: the same weights, with what the export chooses otherwise."""

import copy

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.model.model import MaskRCNN
from mrcnn_tf.model.precision import POLICIES, dtype_policy


def variant(model, precision=None, max_detections=None, score_threshold=None):
    """A copy of a model for inference, outside any distribution strategy.

    Args:
        model: a `MaskRCNN`, however it was trained.
        precision: of the convolutions: "float32", "bfloat16" or "float16"; None for the model's own.
        max_detections: per image; None for the model's own.
        score_threshold: detections below it are left out; None for the model's own.

    Raises:
        UserError: another precision, or a number out of range.
    """
    config = copy.deepcopy(model.config)
    if max_detections is not None:
        if max_detections < 1:
            raise UserError(f"An export with {max_detections} detections an image finds nothing: give 1 or more.")
        config.detections.max_per_image = max_detections
    if score_threshold is not None:
        if not 0 <= score_threshold < 1:
            raise UserError(f"A score threshold of {score_threshold} isn't in 0..1: give one such as 0.5.")
        config.detections.score_threshold = score_threshold
    if precision not in (None, *POLICIES):
        raise UserError(f"There is no precision '{precision}': choose {', '.join(POLICIES)}.")
    policy = dtype_policy(precision) if precision else model.dtype_policy
    made = MaskRCNN(config, seed=model.seed, dtype=policy, name=model.name)
    made.set_weights(model.get_weights())
    return made


def canvas_of(model, input_size):
    """(height, width) of the input for a size asked for, or None.

    Raises:
        UserError: not a size, or not a multiple of what the model's strides need.
    """
    multiple, resize = model.divisor, model.config.resize
    if input_size is None:
        return tuple(-(-side // multiple) * multiple for side in (resize.min_size, resize.max_size))
    height, width = (input_size, input_size) if isinstance(input_size, int) else tuple(input_size)
    if min(height, width) < 1 or height % multiple or width % multiple:
        raise UserError(f"An input of {height}x{width} doesn't fit the model: give multiples of {multiple}.")
    return height, width
