"""Between the network's input and the original image."""

import numpy as np
import tensorflow as tf


class Frame:
    """Between the network's input and the original image."""

    def __init__(self, model, inputs):
        self.size = tuple(int(side) for side in inputs["image_size"].numpy()[0])
        height, width = inputs["original_size"].numpy()[0]
        y, x = np.float32(height) / np.float32(self.size[0]), np.float32(width) / np.float32(self.size[1])
        self.ratio, self._ends = np.array([x, y, x, y], np.float32), model.box_ends

    def original(self, boxes):
        """The model's boxes [..., 4] (a tensor) in pixels of the original image, numpy."""
        return (np.asarray(boxes, np.float32) + self._ends) * self.ratio

    def training_inputs(self, truth):
        """The ground truth as training has it: tensors `boxes`, `classes`, `crowd`, `masks`, `keypoints` [1, G, ...],
        boxes as the model's own; without an object one of padding."""
        inputs = {
            "boxes": truth.boxes / self.ratio - self._ends,
            "classes": truth.classes.astype(np.int32),
            "crowd": truth.crowd,
        }
        if truth.masks is not None:
            inputs["masks"] = truth.masks
        if truth.keypoints is not None:
            inputs["keypoints"] = truth.keypoints / np.r_[self.ratio[:2], 1].astype(np.float32)
        # A batch has room for one object at least, so the layers count on it.
        missing = int(not len(truth))
        padded = {
            name: np.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1)) for name, values in inputs.items()
        }
        return {name: tf.convert_to_tensor(values[None]) for name, values in padded.items()}
