"""The objects that are really in an image, from COCO annotations or from a batch, in the image's own pixels."""

import dataclasses

import numpy as np

from mrcnn_tf.common.categories import max_keypoints
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.json_stream import stream_arrays
from mrcnn_tf.config.settings import DataConfig
from mrcnn_tf.data.rasterize import Shapes, crop_masks
from mrcnn_tf.datasets.annotation_checks import Checker
from mrcnn_tf.datasets.annotation_records import Annotations

SOURCE = "the ground truth"  # how a sentence on a record names where it comes from


@dataclasses.dataclass
class GroundTruthObjects:
    """The G annotated objects of one image.

    Attributes:
        boxes: [G, 4] float32, [x1, y1, x2, y2] in pixels of the original image, inside it.
        classes: [G] int32, 1..K, the model's numbering.
        crowd: [G] bool.
        masks: [G, S, S] uint8, 255 times the occupancy of each S-th part of the object's box; None without masks.
        keypoints: [G, P, 3] float32, (x, y) in pixels of the original image and COCO's visibility; None without.
        notes: a sentence for each annotation that isn't used as it stands.
    """

    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray
    masks: np.ndarray | None = None
    keypoints: np.ndarray | None = None
    notes: list[str] = dataclasses.field(default_factory=list)

    def __len__(self):
        return len(self.classes)

    @classmethod
    def from_coco(cls, records, config, height, width):
        """From the annotations of one image, checked as for training.

        Args:
            records: COCO annotation dicts. `id` and `image_id` may be missing; masks are used if all have one.
            config: the model's `ModelConfig`, whose categories and keypoint convention count.
            height, width: of the image, pixels.

        Raises:
            UserError: `records` isn't a list of dicts.
        """
        if not isinstance(records, (list, tuple)) or not all(isinstance(record, dict) for record in records):
            raise UserError("The ground truth must be a list of COCO annotations (dicts with bbox and category_id).")
        masks = bool(records) and all(record.get("segmentation") for record in records)
        annotations = Annotations(SOURCE, masks)
        for place, record in enumerate(records):
            annotations.add({"id": place, **record, "image_id": 0})
        annotations.finish()
        sides = np.array([height], np.int32), np.array([width], np.int32)
        checker = Checker(annotations, np.zeros(1, np.int64), *sides, set(), config.categories)
        found = checker.instances(1)
        return cls(
            boxes=found["boxes"],
            classes=found["classes"],
            crowd=found["crowd"],
            masks=_crops(found, height, width) if masks else None,
            keypoints=_keypoints(found, config) if max_keypoints(config.categories) else None,
            notes=[problem.message for problem in annotations.problems + checker.problems],
        )

    @classmethod
    def from_batch(cls, batch, index=0):
        """From the `index`-th image of a batch of `coco_dataset`, moved into that image's original pixels."""
        row = {name: np.asarray(value)[index] for name, value in batch.items()}
        real = row["classes"] > 0
        y, x = row["original_size"] / row["image_size"].astype(np.float32)
        scale = np.array([x, y, x, y], np.float32)
        return cls(
            boxes=row["boxes"][real] * scale,
            classes=row["classes"][real],
            crowd=row["crowd"][real],
            masks=row["masks"][real] if "masks" in row else None,
            keypoints=row["keypoints"][real] * np.array([x, y, 1], np.float32) if "keypoints" in row else None,
        )


def as_objects(ground_truth, config, height, width):
    """`GroundTruthObjects` of whatever form: themselves, a batch (its first image), or COCO annotations; None of None.

    Raises:
        UserError: see `GroundTruthObjects.from_coco`.
    """
    if ground_truth is None or isinstance(ground_truth, GroundTruthObjects):
        return ground_truth
    if isinstance(ground_truth, dict):
        return GroundTruthObjects.from_batch(ground_truth)
    return GroundTruthObjects.from_coco(ground_truth, config, height, width)


def read_records(annotations, image):
    """The annotations of one image of a COCO json, which is streamed.

    Args:
        annotations: path of the json.
        image: the image's `file_name` (or a path that ends in it), or its id.

    Returns:
        A list of dicts, as in the file.

    Raises:
        UserError: the json can't be read, is a panoptic one, or lists no such image.
    """
    number, records = None, []
    for section, record in stream_arrays(annotations, ("images", "annotations")):
        if section == "images" and _is(record, image):
            number = record["id"]
        elif section == "annotations" and (number is None or record.get("image_id") == number):
            if isinstance(record, dict) and "segments_info" in record:
                raise UserError(
                    f"{annotations} has panoptic segments and no instances: give COCO's annotations of instances."
                )
            records.append(record)  # annotations may come before images
    if number is None:
        raise UserError(f"{annotations} lists no image '{image}': give a file name or an id of its images.")
    return [record for record in records if record.get("image_id") == number]


def _is(record, image):
    if isinstance(image, int):
        return record.get("id") == image
    name, path = str(record.get("file_name")).replace("\\", "/"), str(image).replace("\\", "/")
    return path == name or path.endswith(f"/{name}") or name.endswith(f"/{path}")


def _crops(found, height, width):
    """[G, S, S] uint8 mask crops of a `Checker`'s instances, as training gets them."""
    ring_counts = np.diff(found["ring_offsets"])
    shapes = Shapes(
        points=found["points"].astype(np.float32),
        ring_sizes=np.diff(found["point_offsets"]).astype(np.int32),
        ring_instances=np.repeat(np.arange(len(ring_counts), dtype=np.int32), ring_counts),
        runs=found["runs"],
        run_counts=np.diff(found["run_offsets"]).astype(np.int32),
    )
    return crop_masks(shapes, found["boxes"], height, width, DataConfig().mask_size).numpy()


def _keypoints(found, config):
    """[G, P, 3] of a `Checker`'s instances, zeros where nothing is labelled."""
    bounds, offset = found["keypoint_offsets"], config.conventions.keypoint_offset
    keypoints = np.zeros([len(bounds) - 1, max_keypoints(config.categories), 3], np.float32)
    for place, (first, last) in enumerate(zip(bounds, bounds[1:], strict=False)):
        own = found["keypoints"][first:last]
        keypoints[place, : last - first] = own + np.where(own[:, 2:] > 0, [offset, offset, 0], 0)
    return keypoints
