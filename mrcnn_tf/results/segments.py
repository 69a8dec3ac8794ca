"""Every pixel's class, and its instance where that is a thing: one image's segments in that image's own pixels."""

import dataclasses
import functools
import io

import numpy as np
import tensorflow as tf
from PIL import Image

from mrcnn_tf.common.categories import Category
from mrcnn_tf.ops.panoptic_maps import fuse, ids_to_rgb
from mrcnn_tf.results import draw_panoptic
from mrcnn_tf.results.draw import MIN_SIDE

NAMED_IN_REPR = 5


@dataclasses.dataclass
class Segment:
    """Pixels that belong together: one thing, or all of one class of stuff.

    Attributes:
        id: of its pixels in the segment map.
        category: of the dataset.
        is_thing: False for stuff.
        score: of a thing that was detected, in 0..1; else None.
        area: pixels.
        bbox: [x, y, width, height] in pixels, around all of them.
        instance: the row of the `Detections` that it comes from; None for stuff.
    """

    id: int
    category: Category
    is_thing: bool
    score: float | None
    area: int
    bbox: list[int]
    instance: int | None = None


class Panoptic:
    """The segments of one image. They don't overlap.

    Attributes:
        segment_map: [H, W] int32, the id of each pixel's segment; 0 is void, a pixel of none.
        segments: a list of `Segment`.
    """

    def __init__(self, segment_map, segments):
        """Takes what the attributes describe.

        Raises:
            ValueError: the map isn't [H, W], or two segments have one id.
        """
        self.segment_map = np.asarray(segment_map, np.int32)
        self.segments = list(segments)
        if self.segment_map.ndim != 2:
            raise ValueError(f"A segment map must be [H, W], not {list(self.segment_map.shape)}.")
        if len({segment.id for segment in self.segments}) < len(self.segments):
            raise ValueError("Every segment must have an id of its own.")

    @classmethod
    def fuse(cls, detections, semantic, stuff, settings):
        """Things and stuff fused; see `ops.panoptic.fuse`.

        Args:
            detections: a `Detections` with masks, or an empty one.
            semantic: uint8 [H, W], the class of each pixel: 1..S of stuff, 0 of any thing.
            stuff: the S `Category`s of these classes, in their order.
            settings: a `PanopticConfig`.
        """
        masks = detections.mask_probabilities
        if masks is None:
            masks = np.zeros((0, 1, 1), np.float32)
        side = masks.shape[1]
        numbers = len(stuff), settings.score_threshold, settings.overlap, settings.stuff_area
        fused = _fuse_function(side, *numbers, detections.mask_rule)(
            masks, detections.boxes, detections.scores, detections.classes, semantic
        )
        return cls.from_fused(fused.segment_map, fused.instances, fused.classes, detections, stuff)

    @classmethod
    def from_fused(cls, segment_map, instances, classes, detections, stuff):
        """From what `ops.panoptic.fuse` gives, here or on a server.

        Args:
            segment_map: [H, W].
            instances: [N], for each segment the row of `detections`, -1 for stuff.
            classes: [N], of stuff 1..S; 0 ends the list.
            detections: the `Detections` that were fused.
            stuff: S `Category`s.
        """
        segment_map, instances, classes = (np.asarray(one) for one in (segment_map, instances, classes))
        count = int(np.count_nonzero(classes))
        areas, boxes = _areas_and_boxes(segment_map, count)
        segments = []
        for row, (instance, number) in enumerate(zip(instances[:count], classes[:count], strict=True)):
            instance = int(instance)
            if instance >= 0:
                found = detections.categories[instance], True, float(detections.scores[instance])
            else:
                found, instance = (stuff[number - 1], False, None), None
            segments.append(Segment(row + 1, *found, areas[row], boxes[row], instance))
        return cls(segment_map, segments)

    def __len__(self):
        return len(self.segments)

    def __repr__(self):
        names = [segment.category.name for segment in self.segments[:NAMED_IN_REPR]]
        names += ["..."] * (len(self) > NAMED_IN_REPR)
        height, width = self.segment_map.shape
        return f"<Panoptic: {len(self)} segments in {height} x {width} pixels{': ' if names else ''}{', '.join(names)}>"

    def to_coco(self, image_id, file_name):
        """The annotation record of a COCO panoptic json.

        Args:
            image_id: the id of this image in the dataset.
            file_name: of the PNG that holds `png()`.

        Returns:
            A dict of `image_id`, `file_name` and `segments_info`: for each segment a dict of `id`, `category_id`,
            `area`, `bbox` and `iscrowd` = 0.
        """
        segments = [
            {
                "id": segment.id,
                "category_id": segment.category.id,
                "area": segment.area,
                "bbox": list(segment.bbox),
                "iscrowd": 0,
            }
            for segment in self.segments
        ]
        return {"image_id": int(image_id), "file_name": str(file_name), "segments_info": segments}

    def png(self):
        """The segment map as COCO's format has it: bytes of an RGB PNG, id = R + 256 G + 65536 B."""
        file = io.BytesIO()
        Image.fromarray(ids_to_rgb(self.segment_map)).save(file, format="PNG")
        return file.getvalue()

    def draw(self, image, min_side=MIN_SIDE):
        """The image with its segments drawn on it; see `visualize_panoptic.draw_panoptic`."""
        return draw_panoptic.draw_panoptic(image, self, min_side)


@functools.cache
def _fuse_function(side, stuff, score_threshold, overlap, stuff_area, rule):
    """`ops.panoptic.fuse`, traced once for images of all sizes and any number of detections."""
    shapes = [None, side, side], [None, 4], [None]
    signature = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    signature += [tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, None], tf.uint8)]
    return tf.function(
        lambda *inputs: fuse(*inputs, stuff, score_threshold, overlap, stuff_area, rule),
        input_signature=signature,
        autograph=False,
    )


def _areas_and_boxes(segment_map, count):
    """Of segments 1 to count: areas, a list of int, and boxes, a list of [x, y, width, height]."""
    height, width = segment_map.shape
    # How many pixels of each segment lie in each row, and in each column: [H, count + 1], [W, count + 1].
    rows, columns = (
        np.bincount((segment_map + places * np.int64(count + 1)).ravel(), minlength=length * (count + 1)).reshape(
            length, count + 1
        )
        for places, length in ((np.arange(height)[:, None], height), (np.arange(width)[None, :], width))
    )
    boxes = []
    for segment in range(1, count + 1):
        y, x = np.flatnonzero(rows[:, segment]), np.flatnonzero(columns[:, segment])
        boxes.append([int(x[0]), int(y[0]), int(x[-1] - x[0] + 1), int(y[-1] - y[0] + 1)])
    return rows.sum(axis=0)[1:].tolist(), boxes
