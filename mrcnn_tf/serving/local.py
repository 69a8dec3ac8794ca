"""A SavedModel that was exported, loaded into this process."""

import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.ops.native.library import load_custom_ops
from mrcnn_tf.serving.outputs import latest_version, read_facts
from mrcnn_tf.serving.runtime import Runtime

SIGNATURES = ("serving_default", "image")


class SavedModelRuntime(Runtime):
    """What `mrcnn-tf export saved-model` wrote, with the `detect` and `detect_batch` of a `MaskRCNN`.

    Args:
        folder: of the SavedModel, or of its numbered versions, of which the latest is taken.
        labels: labels.json, if it isn't in the folder's assets.

    Raises:
        UserError: there is no SavedModel of this package, or this TensorFlow doesn't load it.
    """

    def __init__(self, folder, labels=None):
        folder = latest_version(folder)
        super().__init__(read_facts(labels or folder))
        if self.facts.document.get("custom_ops"):
            load_custom_ops()
        try:
            self._model = tf.saved_model.load(str(folder))  # the signatures alone wouldn't keep its variables
            self._functions = {name: self._model.signatures[name] for name in SIGNATURES}
        except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
            raise UserError(
                f"{folder} isn't a SavedModel that this TensorFlow {tf.__version__} loads ({error!r}): "
                "export it again with mrcnn-tf export saved-model."
            ) from error

    def _answer(self, files):
        return _rows(self._functions["serving_default"](image_bytes=tf.constant(files, tf.string)))

    def _detect_pixels(self, image):
        return self._only([self._convert(_rows(self._functions["image"](image=tf.constant(image[None])))[0], "")])


def _rows(outputs):
    arrays = {name: value.numpy() for name, value in outputs.items()}
    return [{name: array[row] for name, array in arrays.items()} for row in range(len(arrays["ok"]))]
