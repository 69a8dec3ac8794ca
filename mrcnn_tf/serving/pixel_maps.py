"""Each pixel's class and segment as a server gives them: a PNG and rows of a table for each image of a batch."""

import tensorflow as tf

from mrcnn_tf.ops.panoptic import fuse
from mrcnn_tf.ops.semantic import semantic_map

AT_ONCE = 2  # images whose maps are in the making: each holds a few bytes for a pixel
COMPRESSION = 1  # of the PNGs. Maps of few colours get hardly smaller by more, which takes twice as long and longer
TABLE = {"segment_classes": "classes", "segment_instances": "instances", "segment_areas": "areas"}


def pixel_maps(logits, logit_size, detections, image_size, ok, model):
    """What `ServedGraph` gives of a semantic head, by its names.

    Args:
        logits, logit_size: `semantic_logits` and `semantic_size` of `MaskRCNN.call`.
        detections: the other outputs of `MaskRCNN.call`, zeros beyond the detections of each image; {} without a box
            head.
        image_size: int32 [B, 2], (height, width) of the images, pixels.
        ok: bool [B]; all else stays empty.
        model: the `MaskRCNN`.

    Returns:
        A dictionary of tensors [B, ...].
    """
    rows = {"logits": logits, "logit_size": logit_size, "image_size": image_size, "ok": ok}
    specs = {"semantic_png_bytes": tf.TensorSpec([], tf.string)}
    fusible = bool(model.mask_head or not model.box_head)
    if fusible:
        rows |= _instances(detections, tf.shape(ok)[0])
        specs |= _segment_specs(rows["scores"].shape[1] + len(model.config.stuff))

    def encode(row):
        labels = semantic_map(row["logits"], row["logit_size"], row["image_size"])
        outputs = {"semantic_png_bytes": tf.io.encode_png(labels[..., None], COMPRESSION)}
        return outputs | _segments(row, labels, model.config) if fusible else outputs

    empty = {name: tf.zeros(spec.shape, spec.dtype) for name, spec in specs.items()}
    # Where a GPU has made the logits, their classes are found there; what makes PNGs and tables runs on the processor.
    return tf.map_fn(
        lambda row: tf.cond(row["ok"], lambda: encode(row), lambda: empty),
        rows,
        fn_output_signature=specs,
        parallel_iterations=AT_ONCE,
    )


def _instances(detections, batch):
    """What is fused with the semantic maps: all detections, or none in each of `batch` images."""
    none = {"masks": tf.zeros([batch, 0, 1, 1]), "boxes": tf.zeros([batch, 0, 4]), "scores": tf.zeros([batch, 0])}
    none["classes"] = tf.zeros([batch, 0], tf.int32)
    return {name: detections.get(name, values) for name, values in none.items()}


def _segments(row, labels, config):
    """The segments of one image, whose semantic map is `labels`."""
    rules = config.panoptic
    fused = fuse(
        *(row[name] for name in ("masks", "boxes", "scores", "classes")),
        labels,
        len(config.stuff),
        rules.score_threshold,
        rules.overlap,
        rules.stuff_area,
        config.conventions.mask_paste,
    )
    # COCO's colours, id = R + 256 G + 65536 B, are an integer's lower three bytes.
    colours = tf.bitcast(fused.segment_map, tf.uint8)[..., :3]
    there = tf.range(tf.size(fused.classes)) < fused.count
    outputs = {name: tf.where(there, getattr(fused, field), 0) for name, field in TABLE.items()}
    return outputs | {"segments_png_bytes": tf.io.encode_png(colours, COMPRESSION), "num_segments": fused.count}


def _segment_specs(most):
    """The outputs for the segments of one image, of which there are `most`."""
    specs = {"segments_png_bytes": tf.TensorSpec([], tf.string), "num_segments": tf.TensorSpec([], tf.int32)}
    return specs | {name: tf.TensorSpec([most], tf.int32) for name in TABLE}
