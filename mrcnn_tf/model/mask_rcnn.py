"""Mask R-CNN (section 3 of the paper) as a Keras model."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

from mrcnn_tf.common.categories import MAX_STUFF_CLASSES, max_keypoints
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.config.load import parse_model_config
from mrcnn_tf.config.settings import ModelConfig
from mrcnn_tf.datasets.image_files import check_pixels
from mrcnn_tf.model import losses
from mrcnn_tf.model.assembly import Assembly
from mrcnn_tf.model.rois import foreground
from mrcnn_tf.model.steps import make_detect_function
from mrcnn_tf.model.trainable import Trainable
from mrcnn_tf.ops import padding
from mrcnn_tf.ops.boxes import points_to_original, to_original
from mrcnn_tf.ops.matching import image_seeds
from mrcnn_tf.ops.replicas import fill_empty_batch
from mrcnn_tf.results.detections import Detections, SemanticLogits
from mrcnn_tf.weights.fit import load_into
from mrcnn_tf.weights.pretrained import read_pretrained


@keras.saving.register_keras_serializable("mrcnn_tf")
class MaskRCNN(Trainable):
    """Boxes, classes, masks and keypoints of the objects in an image; with a box head alone, Faster R-CNN.

    With a semantic head also a class for each pixel, Panoptic FPN; with that head alone, Semantic FPN.

    Trains with `compile(optimizer=...)` and `fit` on batches of `coco_dataset(..., training=True)`; its losses are its
    own. `detect` takes images of any size and gives `Detections` in their pixels.

    Args:
        config: a `ModelConfig`, as `load_config(...).model`; its categories are the classes.
        seed: of the anchors and RoIs that training samples. The sample of an image follows from it, the step and the
            image's id, so it is the same on any number of devices, and after a restart.

    Raises:
        UserError: the config has a box head and no categories, a semantic head and no stuff or too much of it, or a
            keypoint head and no category with keypoints.
    """

    def __init__(self, config: ModelConfig, seed: int = 0, **kwargs):
        # Images and boxes must stay float32; the layers choose for themselves.
        super().__init__(autocast=False, **kwargs)
        if config.box_head and not config.categories:
            raise UserError("The model has no classes: set data.train.annotations or model.categories in the config.")
        if config.semantic_head and not config.stuff:
            raise UserError("The model has a semantic head and no stuff: set data.train.panoptic or model.stuff.")
        if len(config.stuff) > MAX_STUFF_CLASSES:
            raise UserError(
                f"The model has {len(config.stuff)} classes of stuff, and a label map's byte has room for "
                f"{MAX_STUFF_CLASSES}: merge some."
            )
        if config.keypoint_head and not max_keypoints(config.categories):
            raise UserError(
                "The model has a keypoint head, and no category names its keypoints: list them in the json's "
                "categories, as keypoints: [nose, left_eye, ...], or set model.keypoint_head=null."
            )
        self.config, self.seed = config, seed
        # Added to boxes inside the model, whose right and bottom sides may be inclusive, gives half-open ones.
        self.half_open_offset = np.array([0, 0, 1, 1], np.float32) * (config.conventions.box_width == "inclusive")
        parts = Assembly(config, self.dtype_policy)
        self.divisor = parts.divisor
        self.preprocess = parts.preprocess()
        self.backbone = parts.backbone()
        self.fpn = parts.fpn()
        strides, self.channels = parts.strides(self.backbone), parts.channels(self.backbone)
        self.rpn = parts.rpn(strides, self.channels)
        self.roi_sampler = parts.roi_sampler()
        self.box_features = parts.box_features(strides)
        self.box_head = parts.box_head()
        self.mask_features = parts.mask_features(strides, self.box_features)
        self.mask_head = parts.mask_head()
        self.keypoint_features = parts.keypoint_features(strides)
        self.keypoint_head = parts.keypoint_head()
        self.semantic_head = parts.semantic_head()
        names = ["loss_rpn_objectness", "loss_rpn_box", "loss_class", "loss_box"] if self.box_head else []
        heads = {"mask": self.mask_head, "keypoint": self.keypoint_head, "semantic": self.semantic_head}
        self.track(["loss", *names, *(f"loss_{name}" for name, head in heads.items() if head)])
        self.build()

    def build(self, input_shape=None):
        """Makes all weights at once: their shapes don't depend on the images'."""
        self.backbone.build((None, None, None, 3))
        if self.fpn:
            self.fpn.build(self.backbone.output_shapes)
        maps = [(None, None, None, self.channels)]
        if self.rpn:
            self.rpn.build(maps)
        if self.semantic_head:
            self.semantic_head.build(maps * len(self.semantic_head.strides))
        heads = [(self.box_features, self.box_head), (self.mask_features, self.mask_head)]
        for features, head in [*heads, (self.keypoint_features, self.keypoint_head)]:
            if head:
                if not features.built:
                    features.build(maps)
                head.build(features.compute_output_shape(maps))
        for layer in (self.preprocess, self.roi_sampler):  # without weights; unbuilt, they would cost `fit` a trial run
            if layer:
                layer.build(None)
        self.built = True

    @property
    def categories(self):
        """List of K `Category`s, class 1 first."""
        return self.config.categories

    @property
    def stuff(self):
        """List of S `Category`s of the semantic head, class 1 first."""
        return self.config.stuff

    @property
    def resize(self):
        """The `ResizeConfig` by which `detect` resizes an image."""
        return self.config.resize

    def call(self, inputs, training=False):
        """Detections of a batch.

        Args:
            inputs: a dictionary with `image` float32 [B, H, W, 3] of pixels 0..255, padded to multiples of 32,
                `image_size` int32 [B, 2], the (height, width) without padding, and `original_size` int32 [B, 2] before
                resizing.
            training: batch norm uses the batch's statistics where it is trained.

        Returns:
            A dictionary, D the most detections per image, by falling score: `boxes` [B, D, 4] in original pixels,
            `scores` [B, D], `classes` int32 [B, D] in 1..K (0 in padding), `num_detections` int32 [B]; with a mask
            head `masks` [B, D, M, M]: probabilities inside each box; with a keypoint head `keypoints` [B, D, P, 3] =
            (x, y, score) in original pixels; with a semantic head `semantic_logits` [B, h, w, S + 1] at stride 4 of
            `image`, and `semantic_size` int32 [B, 2], the (height, width) of `image` that they are of. Without a box
            head the latter two alone.
        """
        return self.detections(inputs, self.compute_padded_size(inputs), training)

    def compute_padded_size(self, inputs):
        """int32 [B, 2] = (height, width): each image's size rounded up to the coarsest stride, see `ops.padding`."""
        return padding.round_up(inputs["image_size"], self.divisor)

    def features(self, inputs, padded_size=None, training=False):
        """The maps [B, H_l, W_l, C] that RPN and heads read: the pyramid, or the backbone's last one."""
        images = self.preprocess.normalize(inputs["image"], inputs["image_size"])
        maps = self.backbone(images, padded_size=padded_size, training=training)
        return self.fpn(maps, padded_size=padded_size) if self.fpn else maps[-1:]

    def features_and_scores(self, inputs, padded_size=None, training=False):
        """The maps, and the RPN head's outputs on them: three lists over levels, see `RPNHead`."""
        features = self.features(inputs, padded_size, training)
        return features, *(self.rpn.scores(features, padded_size) if self.rpn else ((), ()))

    def detections(self, inputs, padded_size=None, training=False):
        """As `call`, for images of `padded_size` int32 [B, 2]; None: all images fill the batch."""
        return self.detections_in(*self.features_and_scores(inputs, padded_size, training), inputs, padded_size)

    def detections_in(self, features, rpn_logits, rpn_deltas, inputs, padded_size=None):
        """The same from maps and the RPN head's outputs on them; of `inputs` only the two sizes are read."""
        outputs = self._instances_in(features, rpn_logits, rpn_deltas, inputs, padded_size) if self.rpn else {}
        if self.semantic_head:
            outputs["semantic_logits"] = self.semantic_head(self.semantic_maps(features), padded_size)
            outputs["semantic_size"] = inputs["image_size"]
        return outputs

    def semantic_maps(self, features):
        """Those of the pyramid's levels that the semantic head reads."""
        return features[: len(self.semantic_head.strides)]

    def box_limits(self, image_size):
        """int32 [B, 2]: the largest (y, x) of boxes inside the model, for images of `image_size` [B, 2] pixels."""
        return image_size - int(self.half_open_offset[-1])

    def _instances_in(self, features, rpn_logits, rpn_deltas, inputs, padded_size):
        sizes = inputs["image_size"], inputs["original_size"]
        limits = self.box_limits(inputs["image_size"])
        proposals = self.rpn.propose(features, rpn_logits, rpn_deltas, limits, padded_size)
        logits, deltas = self.box_head(self.box_features(features, proposals.boxes, padded_size))
        detected = self.box_head.detect(logits, deltas, proposals, limits)
        boxes = tf.where(detected.valid[..., None], detected.boxes + self.half_open_offset, 0.0)
        outputs = {
            "boxes": to_original(boxes, *sizes),
            "scores": detected.scores,
            "classes": detected.classes,
            "num_detections": tf.reduce_sum(tf.cast(detected.valid, tf.int32), axis=1),
        }
        if self.mask_head:
            masks = self.mask_head(self.mask_features(features, detected.boxes, padded_size), detected.classes)
            outputs["masks"] = tf.exp(masks.foreground)
        if self.keypoint_head:
            roi_features = self.keypoint_features(features, detected.boxes, padded_size)
            heatmaps = self.keypoint_head(roi_features, detected.classes)
            max_box_size = padding.static_image_size(features[0], self.rpn.strides[0])
            keypoints = self.keypoint_head.detect(heatmaps, boxes, detected.classes, max_box_size)
            outputs["keypoints"] = points_to_original(keypoints, *sizes)
        return outputs

    def compute_losses(self, batch, training=True):
        """The losses by name, float32 scalars, of a batch of the data contract (see data/pipeline.py)."""
        if self.distribute_strategy.num_replicas_in_sync > 1:
            batch = fill_empty_batch(batch)
        padded_size = self.compute_padded_size(batch)
        features = self.features(batch, padded_size, training)
        values = self._instance_losses(batch, features, padded_size, training) if self.rpn else {}
        if self.semantic_head:
            logits = self.semantic_head(self.semantic_maps(features), padded_size)
            loss = losses.semantic_loss(logits, batch["semantic"])
            values["loss_semantic"] = self.config.semantic_head.loss_weight * loss
        return values

    def _instance_losses(self, batch, features, padded_size, training):
        rules = self.config.conventions
        boxes, classes, crowd = batch["boxes"] - self.half_open_offset, batch["classes"], batch["crowd"]
        step = self.optimizer.iterations if training and self.compiled else 0
        seeds = image_seeds(self.seed, step, batch["image_id"])
        anchors = self.rpn.sample_anchors(features, boxes, classes > 0, crowd, seeds, padded_size)
        proposals = self.rpn(features, self.box_limits(batch["image_size"]), padded_size, training=True)
        rois = self.roi_sampler(proposals, boxes, classes, crowd, seeds)
        positives = foreground(rois, self.roi_sampler.most_positives)
        roi_features = self.box_features(features, rois.boxes, padded_size)
        logits, deltas = self.box_head(roi_features)
        values = {
            "loss_rpn_objectness": losses.rpn_objectness_loss(anchors, rules.rpn_normalizer),
            "loss_rpn_box": losses.rpn_box_loss(anchors, rules.rpn_normalizer, rules.rpn_box_beta),
            "loss_class": losses.class_loss(logits, rois),
            "loss_box": losses.box_loss(deltas, self.box_head.targets(boxes, rois), rois, rules.box_beta),
        }
        if self.mask_head:
            if self.mask_features is self.box_features:
                roi_features = roi_features[:, : positives.boxes.shape[1]]
            else:
                roi_features = self.mask_features(features, positives.boxes, padded_size)
            masks = self.mask_head(roi_features, positives.classes)
            targets = self.mask_head.targets(batch["masks"], boxes, positives)
            values["loss_mask"] = losses.mask_loss(masks, targets, positives.positive)
        if self.keypoint_head:
            roi_features = self.keypoint_features(features, positives.boxes, padded_size)
            heatmaps = self.keypoint_head(roi_features, positives.classes)
            cells, visible = self.keypoint_head.targets(batch["keypoints"], positives)
            values["loss_keypoint"] = losses.keypoint_loss(heatmaps, cells, visible)
        return values

    def detect(self, images):
        """Detections of one image, uint8 [H, W, 3] RGB -> `Detections`, or of a list of images of any sizes -> a list.

        Raises:
            UserError: for an array of another shape or type.
        """
        if not isinstance(images, (list, tuple)):
            return self.detect([images])[0]
        return [self._detect_one(image, position) for position, image in enumerate(images)]

    def _detect_one(self, image, position):
        image = check_pixels(image, position)
        if self._detect_function is None:
            signature = [tf.TensorSpec([None, None, 3], tf.uint8)]
            # One image fills its batch: no padded size spares the masking. AutoGraph has nothing to convert here (Keras
            # traces `call` without it too) and would take a quarter of the tracing.
            self._detect_function = tf.function(
                lambda pixels: self.detections(self.preprocess(pixels)), input_signature=signature, autograph=False
            )
        outputs = {name: value.numpy()[0] for name, value in self._detect_function(tf.constant(image)).items()}
        return self.as_detections(outputs, image.shape[:2])

    _detect_function = None

    def detect_batch(self, batch):
        """A list of `Detections`, one for each image of a batch of `coco_dataset`."""
        if self._detect_batch_function is None:
            self._detect_batch_function = make_detect_function(self)
        inputs = {name: tf.convert_to_tensor(batch[name]) for name in ("image", "image_size", "original_size")}
        outputs = self._detect_batch_function(inputs)
        sizes = np.asarray(batch["original_size"])
        # Copies: of an image that is kept, the batch isn't.
        rows = [{name: value[index].copy() for name, value in outputs.items()} for index in range(len(sizes))]
        return [self.as_detections(row, tuple(size)) for row, size in zip(rows, sizes, strict=True)]

    _detect_batch_function = None

    def as_detections(self, outputs, image_size):
        """`Detections` in an image of image_size (H, W) from one row of what `detections` gives, numpy arrays."""
        count = int(outputs["num_detections"]) if self.box_head else 0
        empty = np.zeros(0, np.float32)
        return Detections(
            boxes=outputs.get("boxes", empty)[:count],
            scores=outputs.get("scores", empty)[:count],
            classes=outputs.get("classes", empty)[:count],
            mask_probabilities=outputs["masks"][:count] if self.mask_head else None,
            keypoints=outputs["keypoints"][:count] if self.keypoint_head else None,
            image_size=image_size,
            categories=self.config.categories,
            mask_rule=self.config.conventions.mask_paste,
            keypoint_offset=self.config.conventions.keypoint_offset,
            semantics=self._semantics(outputs) if self.semantic_head else None,
        )

    def _semantics(self, outputs):
        """Boxes without masks can't be fused with stuff."""
        fusion = self.config.panoptic if self.mask_head or not self.box_head else None
        return SemanticLogits(outputs["semantic_logits"], outputs["semantic_size"], self.config.stuff, fusion)

    def load_pretrained(self, source, allow_missing=False, map_classes=False, verbose=True):
        """Loads published weights, or those of another model, whatever its classes.

        The format is recognised from the content: torchvision `.pth`, detectron2 and Caffe2 `.pkl`, `.safetensors`,
        matterport's and keras.applications' `.h5`, and this package's `.keras`. A classification network fills the
        backbone alone. Layers that depend on the classes are set anew if the file's classes are others.

        Args:
            source: a path, a preset's name (see `list_presets`), "imagenet" or a keras.Model.
            allow_missing: leave weights that the file lacks as they are, and skip tensors that the model has no place
                for, instead of refusing the file.
            map_classes: keep the class-dependent weights of the classes that both know by the same name.
            verbose: print what was loaded, converted, skipped and not loaded.

        Returns:
            A `LoadReport` of the same.

        Raises:
            UserError: an unreadable file, another architecture, or weights that don't fit; the model keeps its weights.
        """
        report = load_into(self, source, allow_missing, map_classes)
        if verbose:
            Console().print(report.table())
        return report

    @classmethod
    def from_pretrained(cls, source, overrides=(), allow_missing=False, verbose=True, **kwargs):
        """A model with the architecture, conventions and classes that published weights were made for.

        Args:
            source, allow_missing, verbose: as in `load_pretrained`; `source` holds a whole detector.
            overrides: settings as in `load_config`, such as "model.detections.score_threshold=0.5".
            **kwargs: as in `MaskRCNN`.
        """
        weights = read_pretrained(source)
        model = cls(weights.config(overrides).model, **kwargs)
        model.load_pretrained(weights, allow_missing, verbose=verbose)
        return model

    def class_variables(self):
        """(variable, initializer) of each weight whose shape depends on the classes."""
        heads = (self.box_head, self.mask_head, self.keypoint_head, self.semantic_head)
        return [pair for head in heads if head for pair in head.class_variables()]

    def get_config(self):
        """The config as plain JSON, so that `keras.saving.load_model` needs no custom objects."""
        own = {"seed": self.seed, "name": self.name, "dtype": self.dtype_policy}
        return {"config": dataclasses.asdict(self.config), **own}

    @classmethod
    def from_config(cls, config):
        """The model of `get_config`."""
        policy = keras.dtype_policies.get(config["dtype"])
        return cls(parse_model_config(config["config"]), config.get("seed", 0), name=config["name"], dtype=policy)
