"""Feature maps by name, as backbone and neck hand them to the RPN and the heads."""

import functools

import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.ops import padding


def common_channels(shapes, reader):
    """The number of channels that maps of `shapes` by name have; UserError for `reader`, a layer, if they differ."""
    channels = {name: shape[-1] for name, shape in shapes.items()}
    if len(set(channels.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in channels.items())
        raise UserError(
            f"{type(reader).__name__} reads maps of as many channels each, and these have {listed}: put an FPN around "
            "the backbone, or name one map."
        )
    return next(iter(channels.values()))


class FeatureMaps:
    """The maps of a batch, the finest first, with what is needed to find an image on them.

    Args:
        maps: dictionary of [B, H_l, W_l, C] by name, such as {"P2": ..., "P6": ...}.
        strides: pixels per cell of each, by name; those of other maps may be among them.
        image_size: int32 [B, 2] = (height, width), pixels of each image without padding.
        padded_size: int32 [B, 2], see `ops.padding`; None: all images fill the batch.
    """

    def __init__(self, maps, strides, image_size=None, padded_size=None):
        self.maps = dict(maps)
        self.strides = {name: strides[name] for name in self.maps}
        self.image_size, self.padded_size = image_size, padded_size
        self._pooled = {}

    def __getitem__(self, name):
        return self.maps[name]

    def select(self, names):
        """The maps of these names alone, in this order."""
        return FeatureMaps({name: self.maps[name] for name in names}, self.strides, self.image_size, self.padded_size)

    def stop_gradient(self):
        """The same maps, which a loss's gradient doesn't reach."""
        maps = {name: tf.stop_gradient(features) for name, features in self.maps.items()}
        return FeatureMaps(maps, self.strides, self.image_size, self.padded_size)

    @functools.cached_property
    def valid_cells(self):
        """Of each map, int32 [B, 2] or None, by name; see `ops.padding`."""
        return {name: padding.count_cells(self.padded_size, stride) for name, stride in self.strides.items()}

    @functools.cached_property
    def batch_size(self):
        """int32 [2] = (height, width), pixels of the padded batch."""
        name, features = next(iter(self.maps.items()))
        return tf.shape(features)[1:3] * self.strides[name]

    def pool(self, pooling, rois):
        """RoI features [B, R, S, S, C] of a `RoISample` by a pooling layer.

        Each layer pools a sample once: where heads share a layer, one that reads the positives takes its part of what
        was pooled of all.
        """
        for sample in (rois, rois.whole):
            if (pooling, sample) in self._pooled:
                return self._pooled[pooling, sample][:, : rois.boxes.shape[1]]
        pooled = self._pooled[pooling, rois] = pooling(rois.boxes, features=self)
        return pooled
