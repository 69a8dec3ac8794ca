"""Mask R-CNN (section 3 of the paper) as a Keras model."""

import dataclasses
import pathlib

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

from mrcnn_tf.common.categories import Category, as_categories
from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.named_object import import_named
from mrcnn_tf.config.settings import ModelConfig, PanopticConfig
from mrcnn_tf.datasets.image_files import check_pixels
from mrcnn_tf.model.backbones.padding_layers import warn_of_padding_leaks
from mrcnn_tf.model.blocks import serialize_part
from mrcnn_tf.model.heads.box import BoxHead
from mrcnn_tf.model.heads.keypoint import KeypointHead
from mrcnn_tf.model.heads.mask import MaskHead
from mrcnn_tf.model.heads.semantic import SemanticHead
from mrcnn_tf.model.necks import FeatureSpec, make_neck
from mrcnn_tf.model.preprocess import Preprocess, check_divisor, make_preprocess
from mrcnn_tf.model.rois import RoISampler
from mrcnn_tf.model.rpn import RPN
from mrcnn_tf.model.stages import Stages
from mrcnn_tf.model.steps import make_detect_function
from mrcnn_tf.model.trainable import Trainable
from mrcnn_tf.ops.replicas import fill_empty_batch
from mrcnn_tf.results.detections import Detections
from mrcnn_tf.weights.fit import load_into
from mrcnn_tf.weights.keras_file import load_keras_file
from mrcnn_tf.weights.pretrained import read_pretrained

# In the order in which a model of a config goes through them, each made where the config has its section.
HEADS = (BoxHead, MaskHead, KeypointHead, SemanticHead)


@keras.saving.register_keras_serializable("mrcnn_tf")
class MaskRCNN(Trainable):
    """Boxes, classes, masks and keypoints of the objects in an image; with a box head alone, Faster R-CNN.

    With a semantic head also a class for each pixel, Panoptic FPN; with that head alone, Semantic FPN.

    Trains with `compile(optimizer=...)` and `fit` on batches of `coco_dataset(..., training=True)`; its losses are its
    own. `detect` takes images of any size and gives `Detections` in their pixels.

    Args:
        features: a Keras layer or model from images [B, H, W, 3], normalised, to maps by name; a neck around a
            backbone, such as `FPN(ResNet(50))`, or a backbone by itself.
        rpn: an `RPN`; None where no head reads regions.
        heads: the heads in turn, see `Head`: a `BoxHead` makes detections of proposals, those after it read them.
        preprocess, roi_sampler: None for a `Preprocess` and a `RoISampler` of the paper's settings.
        categories: the K `Category`s, or names, of the objects' classes, class 1 first.
        stuff: the S of a semantic head, class 1 first.
        panoptic: the `PanopticConfig` by which instances and stuff are fused.
        seed: of the anchors and RoIs that training samples. The sample of an image follows from it, the step and the
            image's id, so it is the same on any number of devices, and after a restart.
        provenance: of imported weights {"file", "format", "settings"}, where settings has by name each that decides
            what the weights detect: {"value", "origin", "source"}, see `weights.facts`. `load_pretrained` sets it.

    Raises:
        UserError: parts that don't fit together.
    """

    def __init__(
        self,
        features,
        rpn=None,
        heads=(),
        preprocess=None,
        roi_sampler=None,
        categories=(),
        stuff=(),
        panoptic=None,
        seed=0,
        provenance=None,
        **kwargs,
    ):
        # Images and boxes must stay float32; the layers choose for themselves.
        super().__init__(autocast=False, **kwargs)
        self.features, self.rpn, self.heads = features, rpn, list(heads)
        self.preprocess = preprocess or Preprocess()
        self.roi_sampler = roi_sampler or RoISampler()
        self.categories, self.stuff = as_categories(categories), as_categories(stuff)
        self.panoptic, self.seed = panoptic or PanopticConfig(), seed
        self.provenance = provenance or {}
        self.spec = FeatureSpec.of(features)
        check_divisor(self.preprocess, features)
        self._build_parts()
        for head in self.heads:
            head.check(self)
        warn_of_padding_leaks(features)
        rpn_losses = rpn.loss_names if rpn else ()
        self.track(["loss", *rpn_losses, *(name for head in self.heads for name in head.loss_names)])
        self.built = True

    def _build_parts(self):
        """Makes all weights at once: their shapes don't depend on the images'."""
        shapes = {name: (None, None, None, channels) for name, channels in self.spec.channels.items()}
        for part in filter(None, (self.preprocess, self.rpn)):
            build_once(part, shapes)
        for head in self.heads:
            if head.pooling:
                build_once(head.pooling, shapes)
            build_once(head, head.pooling.output_shape_of(shapes) if head.pooling else shapes)

    def build(self, input_shape=None):
        """Nothing: the weights are there."""

    @classmethod
    def from_settings(cls, settings: ModelConfig, seed=0, **kwargs):
        """The model of a config, `load_config(...).model`; its categories are the classes.

        Args:
            settings: the `ModelConfig`.
            seed: as for `MaskRCNN`.
            **kwargs: `name`, and `dtype`, the policy of all layers.

        Raises:
            UserError: the config has a box head and no categories, a semantic head and no stuff or too much of it, a
                keypoint head and no category with keypoints, or a part of the user's own that can't be made.
        """
        dtype = kwargs.get("dtype")
        features = make_neck(settings, dtype)
        spec, heads = FeatureSpec.of(features), []
        for kind in HEADS:
            section = getattr(settings, kind.section)
            if section:
                own_kind = choose_kind(section, kind, kind.section)
                heads.append(own_kind.from_settings(settings, spec, heads, name=kind.section, dtype=dtype))
        for own in settings.own_heads:
            kind = import_named(own.callable, "Setting 'model.own_heads'")
            name = {"name": own.name or kind.__name__}
            heads.append(kind.from_settings(settings, spec, heads, **own.arguments, **name, dtype=dtype))
        reads_regions = any(head.pooling for head in heads)
        rpn_kind = choose_kind(settings.rpn, RPN, "rpn")
        return cls(
            features,
            rpn_kind(settings.rpn, settings.conventions, dtype=dtype, name="rpn") if reads_regions else None,
            heads,
            make_preprocess(settings, features, dtype),
            RoISampler(settings.rois, dtype=dtype),
            settings.categories,
            settings.stuff,
            settings.panoptic,
            seed,
            **kwargs,
        )

    @property
    def settings(self):
        """The `ModelConfig` of the parts, as far as they are of the kinds that a config's sections stand for."""
        parts = (self.preprocess, self.features, self.roi_sampler, self.rpn, *self.heads)
        sections = dict.fromkeys(kind.section for kind in HEADS)
        for part in parts:
            sections |= part.sections() if hasattr(part, "sections") else {}
        own = {"categories": list(self.categories), "stuff": list(self.stuff), "panoptic": self.panoptic}
        return ModelConfig(**sections, **own)

    @property
    def output_specs(self):
        """An `OutputSpec` of each thing that `call` gives."""
        return [spec for head in self.heads for spec in head.outputs]

    def gives(self, *names):
        """Whether `call` gives outputs of all these names."""
        return {spec.name for spec in self.output_specs}.issuperset(names)

    @property
    def box_width(self):
        """How wide the boxes inside the model are, see `Conventions`."""
        return self.rpn.conventions.box_width if self.rpn else "half_open"

    @property
    def fusion(self):
        """The `PanopticConfig` by which instances and stuff are fused; None without stuff, or for boxes without masks,
        which can't be."""
        fusible = self.gives("semantic_logits") and (self.gives("masks") or not self.gives("boxes"))
        return self.panoptic if fusible else None

    @property
    def resize(self):
        """The `ResizeConfig` by which `detect` resizes an image."""
        return self.preprocess.resize

    def stages(self, inputs, **options):
        """The forward pass on a batch, stage by stage; arguments and stages: see `Stages`."""
        return Stages(self, inputs, **options)

    def call(self, inputs, training=False):
        """Detections of a batch.

        Args:
            inputs: a dictionary with `image` float32 [B, H, W, 3] of pixels 0..255, padded to multiples of
                `preprocess.divisor`, `image_size` int32 [B, 2], the (height, width) without padding, and
                `original_size` int32 [B, 2] before resizing.
            training: batch norm uses the batch's statistics where it is trained.

        Returns:
            A dictionary of what the heads give, see `output_specs`; D the most detections per image, by falling score:
            with a box head `boxes` [B, D, 4] in original pixels, `scores` [B, D], `classes` int32 [B, D] in 1..K (0 in
            padding), `num_detections` int32 [B]; with a mask head `masks` [B, D, M, M]: probabilities inside each box;
            with a keypoint head `keypoints` [B, D, P, 3] = (x, y, score) in original pixels; with a semantic head
            `semantic_logits` [B, h, w, S + 1] at stride 4 of `image`, and `semantic_size` int32 [B, 2], the (height,
            width) of `image` that they are of.
        """
        return self.stages(inputs, training=training).outputs

    def compute_losses(self, batch, training=True):
        """The losses by name, float32 scalars, of a batch of the data contract (see data/pipeline.py)."""
        if self.distribute_strategy.num_replicas_in_sync > 1:
            batch = fill_empty_batch(batch)
        step = self.optimizer.iterations if training and self.compiled else 0
        return self.stages(batch, training=training, step=step).losses

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
                lambda pixels: self.stages(self.preprocess(pixels), fills_batch=True).outputs,
                input_signature=signature,
                autograph=False,
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
        """`Detections` in an image of image_size (H, W) from one row of what `call` gives, numpy arrays."""
        count = int(outputs.get("num_detections", 0))
        rows = {
            spec.name: outputs[spec.name][:count] if spec.per_detection else outputs[spec.name]
            for spec in self.output_specs
        }
        arguments = {"boxes": [], "scores": [], "classes": []}  # of a model without instances
        for head in self.heads:
            arguments |= head.results(rows, self)
        return Detections(image_size=image_size, categories=self.categories, **arguments)

    def load_pretrained(
        self,
        source,
        allow_missing=False,
        map_classes=False,
        verbose=True,
        statements=(),
        source_config=None,
        class_names=None,
    ):
        """Loads published weights, or those of another model, whatever its classes.

        The format is recognised from the content: torchvision `.pth`, detectron2 and Caffe2 `.pkl`, `.safetensors`,
        matterport's and keras.applications' `.h5`, and this package's `.keras`. A classification network fills the
        backbone alone. Layers that depend on the classes are set anew if the file's classes are others.

        Args:
            source: a path, a preset's name (see `list_presets`), "imagenet" or a keras.Model.
            allow_missing: leave weights that the file lacks as they are, skip tensors that the model has no place for,
                and set anew the layers that another setting of the model makes unlike the file's, instead of refusing
                the file.
            map_classes: keep the class-dependent weights of the classes that both know by the same name.
            verbose: print what was loaded, converted, skipped, not loaded, and assumed.
            statements: what you know of the file, and the file doesn't say: overrides such as
                "model.backbone.stride_in_1x1=false" or "file.pixel_order=RGB".
            source_config: the path of the training config that belongs to the file, detectron2's config.yaml or
                mmdetection's; None: one beside the file is used; False: none is.
            class_names: the names of the file's classes.

        Returns:
            A `LoadReport` of the same. `provenance` has what is known of the file, and from where.

        Raises:
            UserError: an unreadable file, another architecture, contradicting facts, or weights that don't fit; the
                model keeps its weights.
        """
        said = {"statements": statements, "source_config": source_config, "class_names": class_names}
        report = load_into(self, source, allow_missing, map_classes, **said)
        if verbose:
            Console().print(report.table())
        return report

    @classmethod
    def from_pretrained(
        cls,
        source,
        overrides=(),
        allow_missing=False,
        verbose=True,
        source_config=None,
        class_names=None,
        **kwargs,
    ):
        """A model with the architecture, conventions and classes that weights were made for.

        Args:
            source, allow_missing, verbose, source_config, class_names: as in `load_pretrained`; `source` holds a whole
                detector.
            overrides: settings as in `load_config`, such as "model.detections.score_threshold=0.5". They are facts
                about the file, too: "model.pixel_std=[1, 1, 1]" says what it was trained with.
            **kwargs: as in `from_settings`.
        """
        weights = read_pretrained(source, None, overrides, source_config, class_names)
        model = cls.from_settings(weights.config().model, **kwargs)
        model.load_pretrained(weights, allow_missing, verbose=verbose)
        return model

    def class_variables(self):
        """A `ClassVariable` of each weight whose shape depends on the classes."""
        return [variable for head in self.heads for variable in head.class_variables()]

    def get_config(self):
        """The parts and their arguments as plain JSON, so that `keras.saving.load_model` needs no custom objects."""
        parts = {"features": self.features, "preprocess": self.preprocess, "roi_sampler": self.roi_sampler}
        config = {name: serialize_part(part) for name, part in parts.items()}
        config |= {"rpn": self.rpn and serialize_part(self.rpn), "heads": [serialize_part(head) for head in self.heads]}
        config |= {
            name: [dataclasses.asdict(category) for category in getattr(self, name)] for name in ("categories", "stuff")
        }
        own = {"panoptic": dataclasses.asdict(self.panoptic), "seed": self.seed, "provenance": self.provenance}
        poolings = [id(head.pooling or head) for head in self.heads]
        own["poolings"] = [poolings.index(each) for each in poolings]  # whose pooling layer each has
        return config | own | {"name": self.name, "dtype": keras.saving.serialize_keras_object(self.dtype_policy)}

    @classmethod
    def from_config(cls, config):
        """The model of `get_config`."""
        parts = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("features", "rpn", "preprocess", "roi_sampler", "dtype")
        }
        heads = load_heads(config["heads"], config["poolings"])
        categories = {name: [Category(**category) for category in config[name]] for name in ("categories", "stuff")}
        panoptic = PanopticConfig(**config["panoptic"])
        own = {name: config[name] for name in ("seed", "provenance", "name")}
        return cls(**parts, heads=heads, **categories, panoptic=panoptic, **own)


def load_model(path):
    """Load the `MaskRCNN` that `model.save` or `mrcnn-tf train` wrote.

    Raises:
        UserError: there is no such file, it holds something else, or it has a part of a class that isn't imported.
    """
    if not pathlib.Path(path).is_file():
        raise UserError(f"There is no file {path}: give the .keras file that training wrote.")
    model = load_keras_file(path)
    if not isinstance(model, MaskRCNN):
        raise UserError(f"{path} holds a {type(model).__name__}: give the .keras file of a MaskRCNN.")
    return model


def choose_kind(section, kind, name):
    """The class that a config's section asks for: `kind`, or the one of the user's own that its `callable` names."""
    return import_named(section.callable, f"Setting 'model.{name}.callable'") if section.callable else kind


def load_heads(configs, poolings):
    """The heads of their configs, in each of which a shared pooling layer has a copy; `poolings` are the numbers of the
    heads whose layer each takes."""
    heads = []
    for config, owner in zip(configs, poolings, strict=True):
        if owner < len(heads):
            # Beforehand: Keras builds a layer as it makes it, and then the layer takes no other.
            config = config | {"config": config["config"] | {"pooling": heads[owner].pooling}}
        heads.append(keras.saving.deserialize_keras_object(config))
    return heads


def build_once(layer, shape):
    if not layer.built:
        layer.build(shape)
