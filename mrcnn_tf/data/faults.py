"""Which file a TensorFlow error from the midst of a run is about: a decoder's error doesn't name it."""

import concurrent.futures
import itertools

import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.problems import CONSOLE
from mrcnn_tf.datasets.image_files import WORKERS


def from_input(error):
    """Whether a tf.errors.OpError comes from reading or decoding the data, and not from the model's step."""
    foreign = (tf.errors.ResourceExhaustedError, tf.errors.CancelledError)
    return "GetNext" in str(error) and not isinstance(error, foreign)


def explained(error, loader, likely, others):
    """The user's sentence for an error `from_input`.

    Args:
        error: tf.errors.OpError.
        loader: loader.SampleLoader.
        likely: the numbers of the images that were being loaded, looked at first.
        others: numbers of the images to look at if nothing is wrong with those.

    Returns:
        UserError; it names the file or the record.
    """
    fault = next(filter(None, map(loader.fault, likely)), None)
    if fault is None:
        CONSOLE.print(f"Looking for the file that can't be read among {len(others)} images")
        fault = _first_fault(loader, iter(others))
    if fault is None:
        reason = str(error).strip().splitlines()[0]
        return UserError(f"The data couldn't be read ({reason}), though now it can: go on with --resume.")
    return UserError(f"{fault} and go on with --resume.")


def _first_fault(loader, numbers):
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        while some := list(itertools.islice(numbers, 64 * WORKERS)):
            fault = next(filter(None, pool.map(loader.fault, some)), None)
            if fault:
                return fault
    return None
