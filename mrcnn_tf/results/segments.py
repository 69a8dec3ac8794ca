"""Panoptic segments of one image, in that image's own pixels: each pixel's class and, of a thing, its instance."""

import dataclasses
import functools
import io

import numpy as np
import tensorflow as tf
from PIL import Image
from pycocotools import mask as coco_mask

from mrcnn_tf.common.categories import Category
from mrcnn_tf.datasets.run_lengths import box_of_rle, encode_labels
from mrcnn_tf.ops.panoptic_maps import fuse, ids_to_rgb
from mrcnn_tf.results import draw_panoptic
from mrcnn_tf.results.draw import MIN_SIDE

NAMED_IN_REPR = 5  # of the categories in an image


@dataclasses.dataclass
class Segment:
    """Pixels that belong together: one thing, or all of one class of stuff."""

    id: int  # the value of its pixels in the segment map
    category: Category  # of the dataset
    is_thing: bool  # False for stuff
    score: float | None  # of a thing that was detected, in 0..1; else None
    area: int  # pixels
    bbox: list[int]  # [x, y, width, height] in pixels, around all of them
    instance: int | None = None  # its index in the `Detections` that it comes from; None for stuff


class Panoptic:
    """The segments of one image. They don't overlap.

    Attributes:
        segment_map: [H, W] int32, the id of each pixel's segment; 0 is void, a pixel of none.
        segments: a list of `Segment`.
    """

    def __init__(self, segment_map, segments):
        """Takes what the attributes describe; raises ValueError if the map isn't [H, W] or two segments have one id."""
        self.segment_map = np.asarray(segment_map, np.int32)
        self.segments = list(segments)
        if self.segment_map.ndim != 2:
            raise ValueError(f"A segment map must be [H, W], not {list(self.segment_map.shape)}.")
        if len({segment.id for segment in self.segments}) < len(self.segments):
            raise ValueError("Every segment must have an id of its own.")

    @classmethod
    def fuse(cls, detections, semantic, stuff, settings):
        """Fuse things and stuff; see `ops.panoptic_maps.fuse`.

        Args:
            detections: a `Detections` with masks, or an empty one.
            semantic: uint8 [H, W], the class of each pixel: 1..S of stuff, 0 of any thing.
            stuff: the S `Category`s of these classes, in their order.
            settings: a `PanopticConfig`.
        """
        masks = detections.mask_probabilities
        if masks is None:
            masks = np.zeros((0, 1, 1), np.float32)
        rules = len(stuff), settings.score_threshold, settings.overlap, settings.stuff_area, detections.mask_rule
        fuse_image = _fuse_function(masks.shape[1], *rules)
        fused = fuse_image(masks, detections.boxes, detections.scores, detections.classes, semantic)
        return cls.from_fused(fused.segment_map, fused.instances, fused.classes, detections, stuff)

    @classmethod
    def from_fused(cls, segment_map, instances, classes, detections, stuff):
        """Make it of what `ops.panoptic_maps.fuse` gives, here or on a server.

        Args:
            segment_map: [H, W].
            instances: [N], for each segment the index of its detection, -1 for stuff.
            classes: [N], of stuff 1..S; 0 ends the list.
            detections: the `Detections` that were fused.
            stuff: S `Category`s.
        """
        segment_map, instances, classes = np.asarray(segment_map), np.asarray(instances), np.asarray(classes)
        count = int(np.count_nonzero(classes))
        masks = encode_labels(segment_map)
        segments = []
        rows = zip(instances[:count].tolist(), classes[:count].tolist(), strict=True)
        for number, (instance, stuff_class) in enumerate(rows, 1):
            pixels = {"area": int(coco_mask.area(masks[number])), "bbox": [int(v) for v in box_of_rle(masks[number])]}
            if instance >= 0:
                category, score = detections.categories[instance], float(detections.scores[instance])
                segments.append(Segment(number, category, True, score, instance=instance, **pixels))
            else:
                segments.append(Segment(number, stuff[stuff_class - 1], False, None, **pixels))
        return cls(segment_map, segments)

    def __len__(self):
        return len(self.segments)

    def __repr__(self):
        names = [segment.category.name for segment in self.segments[:NAMED_IN_REPR]]
        names += ["..."] * (len(self) > NAMED_IN_REPR)
        height, width = self.segment_map.shape
        return f"<Panoptic: {len(self)} segments in {height} x {width} pixels{': ' if names else ''}{', '.join(names)}>"

    def to_coco(self, image_id, file_name):
        """Make the annotation record of a COCO panoptic json.

        Args:
            image_id: the id of this image in the dataset, a whole number or a name.
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
        image_id = image_id if isinstance(image_id, str) else int(image_id)
        return {"image_id": image_id, "file_name": str(file_name), "segments_info": segments}

    def png(self):
        """Encode the segment map in COCO's format: bytes of an RGB PNG, id = R + 256 G + 65536 B."""
        file = io.BytesIO()
        Image.fromarray(ids_to_rgb(self.segment_map)).save(file, format="PNG")
        return file.getvalue()

    def draw(self, image, min_side=MIN_SIDE):
        """Draw the segments on their image; see `results.draw_panoptic.draw_panoptic`."""
        return draw_panoptic.draw_panoptic(image, self, min_side)


@functools.cache
def _fuse_function(mask_side, stuff, score_threshold, overlap, stuff_area, mask_rule):
    """`ops.panoptic_maps.fuse`, traced once for images of all sizes and any number of detections."""
    shapes = [None, mask_side, mask_side], [None, 4], [None]
    signature = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    signature += [tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, None], tf.uint8)]
    return tf.function(
        lambda *inputs: fuse(*inputs, stuff, score_threshold, overlap, stuff_area, mask_rule),
        input_signature=signature,
        autograph=False,
    )
