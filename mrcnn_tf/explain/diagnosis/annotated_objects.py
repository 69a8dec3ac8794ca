"""The annotated objects of an image, from COCO annotations or from a batch, in the image's own pixels."""

import dataclasses

import numpy as np

from mrcnn_tf.common.categories import max_keypoints
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.settings import DataConfig
from mrcnn_tf.data.rasterize import Segmentations, crop_masks
from mrcnn_tf.datasets.annotation_checks import Checker
from mrcnn_tf.datasets.annotation_columns import AnnotationColumns
from mrcnn_tf.datasets.coco_records import parse_annotation, parse_id, stream_records

SOURCE = "the ground truth"  # how a sentence on an annotation names where it comes from


@dataclasses.dataclass
class GroundTruthObjects:
    """The G annotated objects of one image, in pixels of the original image."""

    boxes: np.ndarray  # [G, 4] float32, [x1, y1, x2, y2], inside the image
    classes: np.ndarray  # [G] int32, 1..K, the model's numbering
    crowd: np.ndarray  # [G] bool
    # [G, S, S] uint8, 255 times the occupancy of each S-th part of the object's box; None without masks.
    masks: np.ndarray | None = None
    keypoints: np.ndarray | None = None  # [G, P, 3] float32, (x, y) and COCO's visibility; None without
    notes: list[str] = dataclasses.field(default_factory=list)  # a sentence for each annotation not used as it stands

    def __len__(self):
        return len(self.classes)

    @classmethod
    def from_coco(cls, annotations, config, height, width):
        """From COCO annotations of one image, checked as for training.

        Args:
            annotations: dicts. `id` and `image_id` may be missing; masks are used if all have one.
            config: the model's `ModelConfig`, whose categories and keypoint convention count.
            height, width: of the image, pixels.

        Raises:
            UserError: `annotations` isn't a list of dicts.
        """
        if not isinstance(annotations, (list, tuple)) or not all(isinstance(record, dict) for record in annotations):
            raise UserError("The ground truth must be a list of COCO annotations (dicts with bbox and category_id).")
        masks = bool(annotations) and all(record.get("segmentation") for record in annotations)
        columns = AnnotationColumns(SOURCE, masks)
        for index, record in enumerate(annotations):
            columns.add(parse_annotation({"id": index, **record, "image_id": 0}, masks))
        columns.finish()
        size = np.array([height], np.int32), np.array([width], np.int32)
        checker = Checker(columns, np.zeros(1, np.int64), *size, set(), config.categories)
        instances = checker.instances(1)
        return cls(
            boxes=instances["boxes"],
            classes=instances["classes"],
            crowd=instances["crowd"],
            masks=_crop_masks(instances, height, width) if masks else None,
            keypoints=_read_keypoints(instances, config) if max_keypoints(config.categories) else None,
            notes=[problem.message for problem in columns.problems + checker.problems],
        )

    @classmethod
    def from_batch(cls, batch, index=0):
        """From the `index`-th image of a batch of `coco_dataset`, moved into that image's original pixels."""
        row = {name: np.asarray(value)[index] for name, value in batch.items()}
        valid = row["classes"] > 0
        y, x = row["original_size"] / row["image_size"].astype(np.float32)
        return cls(
            boxes=row["boxes"][valid] * np.array([x, y, x, y], np.float32),
            classes=row["classes"][valid],
            crowd=row["crowd"][valid],
            masks=row["masks"][valid] if "masks" in row else None,
            keypoints=row["keypoints"][valid] * np.array([x, y, 1], np.float32) if "keypoints" in row else None,
        )


def to_annotated_objects(ground_truth, config, height, width):
    """`GroundTruthObjects` of themselves, of a batch (its first image) or of COCO annotations; None of None."""
    if ground_truth is None or isinstance(ground_truth, GroundTruthObjects):
        return ground_truth
    if isinstance(ground_truth, dict):
        return GroundTruthObjects.from_batch(ground_truth)
    return GroundTruthObjects.from_coco(ground_truth, config, height, width)


def read_image_annotations(path, image):
    """The annotations of one image of a COCO json, which is streamed.

    Args:
        path: of the json.
        image: the image's `file_name` (or a path that ends in it), or its id.

    Returns:
        A list of dicts, as in the file.

    Raises:
        UserError: the json can't be read, is a panoptic one, or lists no such image.
    """
    image_id, annotations = None, []
    for section, record in stream_records(path, masks=False, sections=("images", "annotations")):
        if section == "images" and _is_image(record, image):
            image_id = record.id
        elif section == "annotations" and (image_id is None or record.image_id == image_id):
            if isinstance(record.source, dict) and "segments_info" in record.source:
                raise UserError(f"{path} has panoptic segments and no instances: give COCO's annotations of instances.")
            annotations.append(record)  # annotations may come before images
    if image_id is None:
        raise UserError(f"{path} lists no image '{image}': give a file name or an id of its images.")
    return [record.source for record in annotations if record.image_id == image_id]


def _is_image(record, image):
    if record.id is not None and record.id == parse_id(image):
        return True
    path = str(image).replace("\\", "/")
    names = [name.replace("\\", "/") for name in record.names]
    return any(path == name or path.endswith(f"/{name}") or name.endswith(f"/{path}") for name in names)


def _crop_masks(instances, height, width):
    """[G, S, S] uint8 mask crops of a `Checker`'s instances, as training gets them."""
    ring_counts = np.diff(instances["ring_offsets"])
    segmentations = Segmentations(
        points=instances["points"].astype(np.float32),
        ring_sizes=np.diff(instances["point_offsets"]).astype(np.int32),
        ring_instances=np.repeat(np.arange(len(ring_counts), dtype=np.int32), ring_counts),
        runs=instances["runs"],
        run_counts=np.diff(instances["run_offsets"]).astype(np.int32),
    )
    return crop_masks(segmentations, instances["boxes"], height, width, DataConfig().mask_size).numpy()


def _read_keypoints(instances, config):
    """[G, P, 3] of a `Checker`'s instances, zeros where nothing is labelled."""
    bounds, offset = instances["keypoint_offsets"], config.conventions.keypoint_offset
    keypoints = np.zeros([len(bounds) - 1, max_keypoints(config.categories), 3], np.float32)
    for index, (first, last) in enumerate(zip(bounds, bounds[1:], strict=False)):
        points = instances["keypoints"][first:last]
        keypoints[index, : last - first] = points + np.where(points[:, 2:] > 0, [offset, offset, 0], 0)
    return keypoints
