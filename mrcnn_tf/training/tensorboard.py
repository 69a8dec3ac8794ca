"""What the model finds in a few images, beside what is there, after each evaluation."""

import keras
import numpy as np
from PIL import Image

from mrcnn_tf.common.problems import CONSOLE
from mrcnn_tf.data.pipeline import coco_dataset
from mrcnn_tf.explain.show_batch import draw_sample
from mrcnn_tf.ops.panoptic_maps import resize_labels
from mrcnn_tf.results.detections import Detections
from mrcnn_tf.results.draw import draw_detections
from mrcnn_tf.results.draw import side_by_side
from mrcnn_tf.results.segments import Panoptic
from mrcnn_tf.training.callbacks import averaged_weights

MIN_SCORE = 0.5
MAX_SIDE = 1200  # pixels of a picture's side


class ShowPredictions(keras.callbacks.Callback):
    """Adds pictures of the first images of a dataset to an `EventFile` after each evaluation.

    Detections are those of the averaged weights, where the optimizer keeps averages. It goes by the logs of the epoch,
    where the figures of an evaluation have to be: it comes after CocoAP.

    Args:
        events: the `EventFile`.
        data_config: the `DataConfig` of the images.
        measure: the `Measure` that knows the step.
        count: of images.
    """

    def __init__(self, events, data_config, measure, count=4):
        super().__init__()
        self.events, self.data_config, self.measure, self.count = events, data_config, measure, count
        self._batches = None

    def on_epoch_end(self, epoch, logs=None):
        if not any(name.startswith("val_") for name in logs or {}):
            return
        if self._batches is None:
            number = -(-self.count // (self.data_config.images_per_batch or 1))
            self._batches = list(coco_dataset(self.data_config, training=False).take(number))
        with averaged_weights(self.model):
            pictures = draw_predictions(self.model, self._batches, self.count)
        try:
            self.events.write_pictures(pictures, self.measure.step)
        except OSError as error:
            CONSOLE.print(f"Warning: the pictures for TensorBoard are lost ({error.strerror}).", markup=False)


def draw_predictions(model, batches, count=4, min_score=MIN_SCORE):
    """Ground truth beside detections or segments: {"predictions/<image id>": uint8 RGB [H, W, 3]}.

    Args:
        model: a MaskRCNN.
        batches: of the data contract; their images are drawn in the size that the model sees.
        count: of images, the first ones.
        min_score: of the detections drawn.
    """
    pictures = {}
    for batch in batches:
        arrays = {name: np.asarray(value) for name, value in batch.items()}
        for index, detections in enumerate(model.detect_batch(batch)):
            row = {name: value[index] for name, value in arrays.items()}
            name = f"predictions/{row['image_id']}"
            if len(pictures) < count and name not in pictures:  # a last batch may repeat images to be full
                pictures[name] = _picture(row, detections, model.config, min_score)
    return pictures


def _picture(row, detections, model, min_score):
    height, width = size = tuple(int(side) for side in row["image_size"])
    pixels = row["image"][:height, :width].round().clip(0, 255).astype(np.uint8)
    truth = draw_sample(row, model.categories, model.stuff)
    segments = detections.panoptic
    if segments is not None:
        found, title = Panoptic(resize_labels(segments.segment_map, size), segments.segments).draw(pixels), "segments"
    else:
        found = draw_detections(pixels, _rescaled(detections, size, model.categories), min_score)
        title = f"detections scored {min_score} or more"
    sheet = Image.fromarray(side_by_side(truth, found, ("ground truth", title)))
    sheet.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(sheet)


def _rescaled(detections, size, categories):
    """The `Detections` in their image resized to (h, w)."""
    y, x = np.array(size, np.float32) / detections.image_size
    keypoints = detections.keypoints
    return Detections(
        boxes=detections.boxes * np.array([x, y, x, y], np.float32),
        scores=detections.scores,
        classes=detections.classes,
        image_size=size,
        categories=categories,
        mask_probabilities=detections.mask_probabilities,
        mask_rule=detections.mask_rule,
        keypoints=None if keypoints is None else keypoints * np.array([x, y, 1], np.float32),
    )
