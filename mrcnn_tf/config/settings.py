"""The settings of a run: one tree of typed dataclasses; each with its default, what it may be, and what it means."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, get_args

from mrcnn_tf.common.categories import Category

# The entries of every batch, which an annotation's own fields can't be called.
BATCH_NAMES = (
    *("image", "image_size", "original_size", "boxes", "classes", "masks", "keypoints", "crowd", "semantic"),
    *("image_id", "transform"),
)

# What a single value may be stands beside its default: `check_values` of checks.py reads it from the field. What a file
# of weights fixes, by the shapes or by what they mean, stands in `in_weights`.


def checked(default: Any, is_valid: Callable[[Any], bool], rule: str) -> Any:
    """A field whose value, unless it is None, must be valid; `rule` says how, as the end of a sentence to the user."""
    check = {"is_valid": is_valid, "rule": rule}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=check)
    return dataclasses.field(default=default, metadata=check)


def positive(default: float | None) -> Any:
    return checked(default, lambda value: value > 0, "it must be more than 0")


def not_negative(default: float) -> Any:
    return checked(default, lambda value: value >= 0, "it can't be negative")


def fraction(default: float | None) -> Any:
    return checked(default, lambda value: 0 <= value <= 1, "it must lie between 0 and 1")


def choice(default: Any, choices: tuple) -> Any:
    """A field whose value must be one of `choices`."""
    return dataclasses.field(default=default, metadata={"choices": choices})


def follows(setting: str, presence: bool = False, default: Callable[[], Any] = lambda: None) -> Any:
    """A field that `load_config` sets to what another setting says, unless it is given; with `presence`, to whether
    that section is there. In a config that was made otherwise it is the default."""
    return dataclasses.field(default_factory=default, metadata={"follows": setting, "presence": presence})


# Batch norm that learns would take its statistics from padding: a head's slots without an RoI count as samples.
HEAD_NORMS = (None, "frozen_bn", "gn")


IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of its pixels, RGB, 0..255


@dataclasses.dataclass
class ResizeConfig:
    """Shorter side to `min_size` unless the longer would pass `max_size` (section 3.1 of the paper: 800 pixels)."""

    min_size: int = positive(800)
    max_size: int = positive(1333)
    # torchvision floors the scaled size and interpolates floats; detectron2 rounds it and uses PIL's antialiased
    # filter; opencv rounds it and interpolates bytes in fixed point, as cv2.resize does for mmdetection.
    rule: str = choice("torchvision", ("torchvision", "detectron2", "opencv"))


@dataclasses.dataclass
class Conventions:
    """Where the reference systems disagree. The defaults are torchvision's, except for the aligned RoIAlign.

    In YAML a preset's name may stand for the whole section, or `preset:` beside the keys that differ from it.
    """

    anchor_rounding: bool = True  # torchvision rounds the cell anchors to whole pixels
    # torchvision divides the padded image by the grid ("padded"), which at P6 may give 61 pixels; "fixed" is 4 to 64.
    anchor_stride: str = choice("padded", ("fixed", "padded"))
    # Epsilon added to the log2 (torchvision), to its argument (detectron2), none (paper); matterport rounds to the
    # nearest level.
    level_assignment: str = choice("torchvision", ("torchvision", "detectron2", "paper", "matterport"))
    # A box's width in pixels: x2 - x1, or x2 - x1 + 1 ("inclusive", matterport, where the right and bottom sides lie at
    # their last pixels' centres and RoI features are single samples from corner to corner of the box).
    box_width: str = choice("half_open", ("half_open", "inclusive"))
    # Images are padded to a multiple of so many pixels, and under a pyramid at least of its coarsest doubled stride.
    pad_multiple: int = positive(32)
    # A box may grow by a factor of 1000 / 16 over its anchor or proposal ("above"), or also shrink no further ("both",
    # mmdetection).
    delta_limit: str = choice("above", ("above", "both"))
    roi_aligned: bool = True  # the half-pixel shift in RoIAlign
    roi_sampling_ratio: int = 2  # samples per bin side; 0 = ceil(bin size), as detectron2
    batch_norm_epsilon: float = 1e-5  # of every normalisation; torchvision's older weights need 0
    min_proposal_size: float = 1e-3  # pixels; a proposal with a shorter side is dropped
    min_detection_size: float = 1e-2  # the same for detections
    rpn_box_beta: float = 1 / 9  # smooth L1 turns from quadratic to linear here; 0 is plain L1
    box_beta: float = 1 / 9  # the same in the box head's loss
    # Divide the RPN losses by the anchors sampled, or by batch_per_image ("batch_size").
    rpn_normalizer: str = choice("sampled", ("sampled", "batch_size"))
    # Area fraction of each cell (torchvision), or thresholded at one half ("binary").
    mask_target: str = choice("soft", ("soft", "binary"))
    # Whole-pixel boxes (torchvision) or exact float boxes (detectron2).
    mask_paste: str = choice("torchvision", ("torchvision", "detectron2"))
    # Keypoints name a pixel: 0.5 puts them at its centre, where boxes would have it (detectron2), 0 at its corner
    # (torchvision), which mirroring then misses by a pixel.
    keypoint_offset: float = fraction(0.5)
    # Of a keypoint: its share of the softmax over the heatmap ("probability", detectron2) or the "logit" (torchvision).
    keypoint_score: str = choice("probability", ("probability", "logit"))


_DETECTRON2 = {
    "anchor_rounding": False,
    "anchor_stride": "fixed",
    "pad_multiple": 1,
    "level_assignment": "detectron2",
    "roi_aligned": True,
    "roi_sampling_ratio": 0,
    "min_proposal_size": 0.0,
    "min_detection_size": 0.0,
    "rpn_box_beta": 0.0,
    "box_beta": 0.0,
    "rpn_normalizer": "batch_size",
    "mask_target": "binary",
    "mask_paste": "detectron2",
}
_PAPER = {
    "level_assignment": "paper",
    "roi_aligned": False,
    "roi_sampling_ratio": 2,
    "rpn_box_beta": 1 / 9,
    "box_beta": 1.0,
}
CONVENTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "torchvision": {"roi_aligned": False, "keypoint_offset": 0.0, "keypoint_score": "logit"},
    "detectron2": _DETECTRON2,
    "mmdetection": _DETECTRON2 | {"pad_multiple": 32, "delta_limit": "both", "rpn_normalizer": "sampled"},
    "paper": _DETECTRON2 | _PAPER,  # the systems of the paper's authors, with what it says itself
}

# Residual blocks in the stages res2 to res5 by the depth of a ResNet (He et al. 2016, table 1; 10 is half an 18).
RESNET_BLOCKS = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


@dataclasses.dataclass
class BackboneConfig:
    depth: int = choice(50, tuple(RESNET_BLOCKS))  # 10, 18, 34, 50, 101 or 152
    norm: str = choice("frozen_bn", ("frozen_bn", "bn", "sync_bn", "gn"))  # gn: in 32 groups
    stride_in_1x1: bool = False  # the original ResNet strides in a bottleneck's 1x1 convolution, torchvision in the 3x3
    # 0: train everything; 1: the stem keeps its weights; 2: stem and res2; ... up to 5
    freeze_at: int = choice(2, tuple(range(6)))
    groups: int = positive(1)  # of the 3x3 convolutions: 32 in a ResNeXt-50 32x4d
    width_per_group: int = positive(64)  # channels of each of them in res2: 4 in a ResNeXt-50 32x4d
    # The padding of the max pooling: on both sides, or only at the end ("same").
    stem_pool: str = choice("symmetric", ("symmetric", "same"))
    dilated: bool = False  # res5 keeps res4's stride and dilates its 3x3 convolutions by two (detectron2's DC5)
    # A network of keras.applications in the ResNet's place, such as MobileNetV3Small.
    application: str | None = None
    taps: list[str] = dataclasses.field(default_factory=list)  # those layers' names; docs/backbones.md lists some
    # A backbone of your own in its place, package.module:Name, which none of the settings above concern; see
    # docs/extending.md.
    callable: str | None = None
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)  # what that is called with, by name
    in_weights: ClassVar = (
        "depth",
        "groups",
        "width_per_group",
        "stride_in_1x1",
        "stem_pool",
        "norm",
        "dilated",
        "application",
        "taps",
        "callable",
    )


@dataclasses.dataclass
class FPNConfig:
    channels: int = positive(256)  # of every level
    norm: str | None = choice(None, HEAD_NORMS)  # frozen_bn or gn instead of a bias
    in_weights: ClassVar = ("channels", "norm")


@dataclasses.dataclass
class RPNConfig:
    # Pixels; with a pyramid one for each of P2 to P6, or a list of sizes for each; else all of them on the one map.
    anchor_sizes: list[Any] = dataclasses.field(default_factory=lambda: [32.0, 64.0, 128.0, 256.0, 512.0])
    aspect_ratios: list[float] = dataclasses.field(default_factory=lambda: [0.5, 1.0, 2.0])  # height / width
    convs: int = positive(1)  # hidden 3x3 convolutions
    channels: int | None = positive(None)  # of them; None: as many as the pyramid's
    foreground_iou: float = fraction(0.7)  # with a ground truth, from which an anchor is positive
    # With every ground truth, under which it is negative; between the two it is left out.
    background_iou: float = fraction(0.3)
    batch_per_image: int = positive(256)  # anchors that the losses see
    positive_fraction: float = fraction(0.5)  # of them, at most
    pre_nms_train: int = positive(2000)  # the best scores before non-maximum suppression, per level
    pre_nms_test: int = positive(1000)  # the same in inference
    post_nms_train: int = positive(2000)  # proposals that are left after it, per image
    post_nms_test: int = positive(1000)  # the same in inference
    nms_iou: float = fraction(0.7)  # more overlap than this with a better proposal of its level removes one
    # The factors of an anchor's deltas (dx, dy, dw, dh): larger ones weigh a box's error more.
    delta_weights: list[float] = dataclasses.field(default_factory=lambda: [1.0, 1.0, 1.0, 1.0])
    callable: str | None = None  # a class of your own in its place, package.module:Name; see docs/extending.md
    in_weights: ClassVar = ("callable", "aspect_ratios", "convs", "channels")


@dataclasses.dataclass
class RoIConfig:
    """The sample of RoIs that the heads learn from."""

    batch_per_image: int = positive(512)  # RoIs that the losses see; 64 in the paper with features C4
    positive_fraction: float = fraction(0.25)  # of them, at most
    foreground_iou: float = fraction(0.5)  # with a ground truth, from which an RoI is positive


@dataclasses.dataclass
class RoILayerConfig:
    """How a RoI's features are cut out of the map (Table 2c of the paper); samples and alignment: `Conventions`."""

    # align; pool: maxima of quantised bins (Fast R-CNN); warp: bilinear samples of a quantised RoI
    kind: str = choice("align", ("align", "pool", "warp"))
    aggregate: str = choice("average", ("average", "max"))  # of a bin's samples: average or max


@dataclasses.dataclass
class BoxHeadConfig:
    pool_size: int = positive(7)  # with features C4: 14, which res5 halves, or 7 with a res5 of stride 1 (the paper)
    convs: int = not_negative(0)  # 3x3 convolutions before the fully connected layers
    conv_channels: int = positive(256)  # of them
    norm: str | None = choice(None, HEAD_NORMS)  # of the convolutions: frozen_bn or gn instead of a bias
    fcs: int = not_negative(2)  # 0: the average over the RoI's cells instead, as after res5
    channels: int = positive(1024)  # of the fully connected layers
    class_agnostic: bool = False  # one box for all classes instead of one for each
    # The factors of an RoI's deltas (dx, dy, dw, dh): larger ones weigh a box's error more.
    delta_weights: list[float] = dataclasses.field(default_factory=lambda: [10.0, 10.0, 5.0, 5.0])
    callable: str | None = None  # a class of your own in its place, package.module:Name; see docs/extending.md
    in_weights: ClassVar = ("callable", "convs", "conv_channels", "fcs", "channels", "norm", "class_agnostic")


@dataclasses.dataclass
class MaskHeadConfig:
    pool_size: int = positive(14)  # half of the masks' side; 7 with features C4, where the head reads res5's output
    convs: int = not_negative(4)  # 3x3 convolutions before the deconvolution
    channels: int = positive(256)  # of them and of the deconvolution
    norm: str | None = choice(None, HEAD_NORMS)  # of the convolutions: frozen_bn or gn instead of a bias
    fcs: int = not_negative(0)  # fully connected layers of `channels` instead of all convolutions (Table 2e's MLP)
    # Each class's mask by itself, or "softmax": pixels are divided among the classes.
    activation: str = choice("sigmoid", ("sigmoid", "softmax"))
    class_agnostic: bool = False  # one mask for all classes
    callable: str | None = None  # a class of your own in its place, package.module:Name; see docs/extending.md
    in_weights: ClassVar = ("callable", "convs", "channels", "norm", "fcs", "activation", "class_agnostic")


@dataclasses.dataclass
class KeypointHeadConfig:
    pool_size: int = positive(14)  # a quarter of the heatmaps' side
    convs: int = positive(8)  # 3x3 convolutions before the deconvolution
    channels: int = positive(512)  # of them
    callable: str | None = None  # a class of your own in its place, package.module:Name; see docs/extending.md
    in_weights: ClassVar = ("callable", "convs", "channels")


@dataclasses.dataclass
class SemanticHeadConfig:
    """The per-pixel classifier of Panoptic FPN (Kirillov et al. 2019): one class for all things, then the stuff."""

    channels: int = positive(128)  # of each level's 3x3 convolutions, and of their sum
    norm: str | None = choice("gn", HEAD_NORMS)  # of the convolutions: frozen_bn, gn or a bias
    loss_weight: float = positive(0.5)  # of its cross-entropy beside the losses of the instances
    callable: str | None = None  # a class of your own in its place, package.module:Name; see docs/extending.md
    in_weights: ClassVar = ("callable", "channels", "norm")


@dataclasses.dataclass
class OwnHeadConfig:
    """A head of your own, beside those of the package; see docs/extending.md."""

    callable: str = ""  # package.module:Name of its class
    name: str = ""  # of the layer, as its weights' paths begin; empty: the class's
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)  # pool_size: bins of the RoI features it reads


@dataclasses.dataclass
class PanopticConfig:
    """How instances and stuff become one map of segments."""

    score_threshold: float = fraction(0.5)  # an instance must score as much
    overlap: float = fraction(0.5)  # the share of an instance that better ones may cover; with more it is left out
    stuff_area: int = not_negative(4096)  # pixels of the original image; a stuff class with less is left out


@dataclasses.dataclass
class DetectionConfig:
    score_threshold: float = fraction(0.05)  # a detection must score more; COCO's AP wants it low
    nms_iou: float = fraction(0.5)  # more overlap than this with a better detection of the same class removes one
    max_per_image: int = positive(100)  # the best of all classes together


@dataclasses.dataclass
class ModelConfig:
    categories: list[Category] = dataclasses.field(default_factory=list)  # empty: taken from data.train.annotations
    pixel_mean: list[float] = dataclasses.field(default_factory=lambda: list(IMAGENET_MEAN))  # RGB, 0..255
    pixel_std: list[float] = dataclasses.field(default_factory=lambda: list(IMAGENET_STD))  # what is divided by
    resize: ResizeConfig = dataclasses.field(default_factory=ResizeConfig)
    conventions: Conventions = dataclasses.field(default_factory=Conventions)
    backbone: BackboneConfig = dataclasses.field(default_factory=BackboneConfig)
    # What RPN and heads read, as in the paper's net-depth-features: FPN, C4 (with res5 as the head), or C5.
    features: str = choice("FPN", ("FPN", "C4", "C5"))
    fpn: FPNConfig = dataclasses.field(default_factory=FPNConfig)
    rpn: RPNConfig = dataclasses.field(default_factory=RPNConfig)
    rois: RoIConfig = dataclasses.field(default_factory=RoIConfig)
    roi_layer: RoILayerConfig = dataclasses.field(default_factory=RoILayerConfig)
    # null: no instances at all, neither proposals nor boxes; for a semantic head by itself.
    box_head: BoxHeadConfig | None = dataclasses.field(default_factory=BoxHeadConfig)
    mask_head: MaskHeadConfig | None = dataclasses.field(default_factory=MaskHeadConfig)  # null: no masks
    keypoint_head: KeypointHeadConfig | None = None  # a section, even an empty one, adds keypoints
    detections: DetectionConfig = dataclasses.field(default_factory=DetectionConfig)
    stuff: list[Category] = dataclasses.field(default_factory=list)  # of the semantic head; empty: taken from the data
    semantic_head: SemanticHeadConfig | None = None  # a section, even an empty one, adds a class for each pixel
    panoptic: PanopticConfig = dataclasses.field(default_factory=PanopticConfig)
    own_heads: list[OwnHeadConfig] = dataclasses.field(default_factory=list)  # after all others


def settings_in_weights() -> list[str]:
    """The settings of a `ModelConfig` that a file of weights fixes, such as "backbone.depth"."""
    sections = {
        field.name: next(filter(dataclasses.is_dataclass, (field.type, *get_args(field.type))), None)
        for field in dataclasses.fields(ModelConfig)
    }
    names = [f"{name}.{key}" for name, section in sections.items() for key in getattr(section, "in_weights", ())]
    return ["features", *names]


@dataclasses.dataclass
class AugmentConfig:
    """What training does to an image and its objects by chance. All off but the mirroring; probabilities are 0 to 1."""

    horizontal_flip: float = fraction(0.5)  # probability
    vertical_flip: float = fraction(0.0)  # probability
    quarter_turns: bool = False  # 0, 90, 180 or 270 degrees, each as likely
    # Degrees, up to which an image is turned to either side.
    rotation: float = checked(0.0, lambda degrees: 0 <= degrees <= 180, "it must lie between 0 and 180")
    # Shorter sides in pixels, of which one is drawn for each image; empty: resize.min_size.
    min_sizes: list[int] = checked([], lambda sizes: all(size > 0 for size in sizes), "pixels must be more than 0")
    # Large-scale jitter: [least, most] times the usual size, each as likely, then cropped or padded to the usual one.
    scale_jitter: list[float] = checked(
        [],
        lambda jitter: not jitter or (len(jitter) == 2 and 0 < jitter[0] <= jitter[1] < float("inf")),
        "give the least and the most times the usual size, such as [0.1, 2.0], or nothing",
    )
    crop: float = fraction(0.0)  # probability of cutting out a part
    # The share of each side that a crop leaves, at least.
    crop_least: float = checked(0.3, lambda share: 0 < share <= 1, "it must be more than 0 and at most 1")
    copy_paste: float = fraction(0.0)  # probability that instances of another image are pasted in (Ghiasi et al. 2021)
    brightness: float = fraction(0.0)  # factors are drawn from 1 - x to 1 + x
    contrast: float = fraction(0.0)  # the same
    saturation: float = fraction(0.0)  # the same
    # The shift to either side, in turns of the colour circle.
    hue: float = checked(0.0, lambda turns: 0 <= turns <= 0.5, "it must lie between 0 and 0.5")
    # Probabilities of tensorflow-addons' operations by name: equalize, sharpness, gaussian_filter2d, hsv, cutout,
    # rotate, shear_x, shear_y, translate. They need the extra mrcnn-tf[addons].
    addons: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class SourceConfig:
    """One of several datasets that are read as one."""

    annotations: str = ""  # the COCO json
    images: str = ""  # the folder that its file names are relative to
    records: str = ""  # a pattern such as records/train-*.tfrecord, in the place of the two
    weight: float | None = None  # its share of the images drawn; None for all: in proportion to their sizes


@dataclasses.dataclass
class DataConfig:
    """One split of a dataset: a COCO json with a folder of images, TFRecords, or several of these as `sources`."""

    annotations: str = ""  # the COCO json
    images: str = ""  # the folder that its file names are relative to
    records: str = ""  # a pattern of TFRecord files in the Model Garden's format, in the place of the two; to train on
    # A COCO panoptic json: things and stuff in one. With `annotations` beside it, these have the instances.
    panoptic: str = ""
    panoptic_maps: str = ""  # the folder of its PNGs
    semantic_maps: str = ""  # a folder of label maps, NAME.png for an image NAME.jpg, whose values are category ids
    sources: list[SourceConfig] = dataclasses.field(default_factory=list)  # in the place of all three; to train on
    images_per_batch: int | None = None  # to train on it is train.images_per_batch, to evaluate 1
    resize: ResizeConfig | None = follows("model.resize")
    categories: list[Category] = follows("model.categories", default=list)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    max_instances: int = positive(100)  # G, to which each image's instances are padded
    mask_size: int = positive(112)  # S, the side of the crop that holds an instance's mask
    stuff: list[Category] = follows("model.stuff", default=list)
    semantic: bool | None = follows("model.semantic_head", presence=True)  # whether batches have a class for each pixel
    masks: bool | None = follows("model.mask_head", presence=True)  # whether instances need a mask
    # The same for keypoints, which batches have if the categories name some.
    keypoints: bool | None = follows("model.keypoint_head", presence=True)
    keypoint_offset: float | None = follows("model.conventions.keypoint_offset")  # pixels
    # The annotations' own numbers that batches have too, such as [orientation] or [weight], for a head of your own.
    fields: list[str] = checked(
        [],
        lambda names: (
            all(name.isidentifier() and name not in BATCH_NAMES for name in names) and len(set(names)) == len(names)
        ),
        f"give names of letters, digits and _, each once and none of {', '.join(BATCH_NAMES)}",
    )
    min_keypoints: int = not_negative(0)  # training leaves out images with fewer labelled keypoints
    # Of object keypoint similarity, a list for each category by name. COCO's person keypoints have COCO's, others 0.05.
    keypoint_sigmas: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    # Who computes COCO's figures: pycocotools, or hotcoco, which gives the same sooner (the extra mrcnn-tf[coco]).
    coco_backend: str = choice("pycocotools", ("pycocotools", "hotcoco"))
    pad_to: list[int] | None = None  # [height, width] of every batch; None: the largest image of the batch
    seed: int = 0  # of the order of images and of augmentation


@dataclasses.dataclass
class DataSplits:
    train: DataConfig = dataclasses.field(default_factory=DataConfig)
    val: DataConfig = dataclasses.field(default_factory=DataConfig)


@dataclasses.dataclass
class TrainConfig:
    # What to start from: a file that MaskRCNN.load_pretrained reads, a preset or imagenet; None: random weights.
    weights: str | None = None
    map_classes: bool = False  # also take the classifiers of classes that the weights know by the same name
    images_per_batch: int = positive(16)  # of a step, on all devices together
    learning_rate: float = positive(0.02)  # for `learning_rate_batch` images; scaled in proportion to images_per_batch
    learning_rate_batch: int = positive(16)  # images for which `learning_rate` is meant
    momentum: float = fraction(0.9)  # of stochastic gradient descent, as Caffe and PyTorch define it
    weight_decay: float = 1e-4  # not on normalisation weights
    clip_norm: float | None = None  # of the whole gradient; off in the paper
    steps: int = positive(90000)  # updates of the weights in all; rounded up to whole epochs
    warmup_steps: int = 1000  # over which the learning rate rises linearly
    warmup_factor: float = fraction(0.001)  # of the learning rate, at the first step
    # Steps at which the learning rate falls.
    decay_steps: list[int] = checked([60000, 80000], lambda steps: steps == sorted(steps), "it must rise")
    decay_factor: float = fraction(0.1)  # of the learning rate, at each of them
    # float32, bfloat16, float16 (with loss scaling), or auto: bfloat16 where the processor multiplies it natively.
    precision: str = choice("float32", ("float32", "bfloat16", "float16", "auto"))
    jit_compile: bool = False  # compile the step by XLA: one device, and the RoIAlign of stock operations
    deterministic: bool = False  # the same bits in each run of the same config on the same machine; slower on GPUs
    # mirrored: all GPUs of this machine; none: one device; auto: mirrored where there is more than one GPU. Where
    # TF_CONFIG names several workers, they train together.
    strategy: str = choice("auto", ("auto", "mirrored", "none"))
    accumulate: int = positive(1)  # parts of a batch that a device works through one after another
    ema: float | None = fraction(None)  # decay of the weights' running average, which evaluation and saving then use
    rate_factors: dict[str, float] = dataclasses.field(default_factory=dict)  # of learning rates by weight path pattern
    freeze: list[str] = dataclasses.field(default_factory=list)  # patterns of paths of weights not to train
    epoch_steps: int | None = None  # steps between evaluations; None: once through the data
    patience: int | None = positive(None)  # stop after that many evaluations without a better AP
    checkpoint_steps: int = positive(500)  # between checkpoints; there is one after each evaluation, too
    keep_checkpoints: int = positive(2)  # the latest ones; the one with the best AP is kept besides
    log_steps: int = positive(20)  # between lines of log.jsonl and points of TensorBoard's curves
    seed: int = 0  # of initial weights, and of the anchors and RoIs that are sampled


@dataclasses.dataclass
class Config:
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataSplits = dataclasses.field(default_factory=DataSplits)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
