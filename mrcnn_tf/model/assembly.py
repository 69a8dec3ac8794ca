"""The layers of a model from its config: which backbone, what the heads read, which heads and precision it has."""

import dataclasses
import pathlib

import keras
import tensorflow as tf

from mrcnn_tf.common.categories import keypoint_channels
from mrcnn_tf.model.backbones.application import ApplicationBackbone
from mrcnn_tf.model.backbones.resnet import ResNet
from mrcnn_tf.model.fpn import FPN, STRIDES
from mrcnn_tf.model.heads.box import BoxHead
from mrcnn_tf.model.heads.keypoint import KeypointHead
from mrcnn_tf.model.heads.mask import MaskHead, MaskMLP
from mrcnn_tf.model.heads.semantic import SemanticHead
from mrcnn_tf.model.preprocess import Preprocess
from mrcnn_tf.model.rois import Res5, RoILayer, RoISampler
from mrcnn_tf.model.rpn import RPN

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
NATIVE_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}


class Assembly:
    """Makes the layers of a `MaskRCNN`, each with the weight path that importers know.

    Args:
        config: a `ModelConfig`.
        dtype: the layers' policy.
    """

    def __init__(self, config, dtype):
        self.config, self.tree, self.dtype = config, dataclasses.asdict(config), dtype
        self.conventions = self.tree["conventions"]
        # torchvision pads every image to a multiple of 32, detectron2 where a pyramid doubles back from stride 32.
        padded = config.features == "FPN" or config.conventions.anchor_stride == "padded"
        self.divisor = 32 if padded else 1

    def preprocess(self):
        mean, std, resize = self.config.pixel_mean, self.config.pixel_std, self.tree["resize"]
        return Preprocess(mean, std, resize, self.divisor, dtype=self.dtype, name="preprocess")

    def backbone(self):
        settings = dict(self.tree["backbone"])
        application, taps = settings.pop("application"), settings.pop("taps")
        if application:
            return ApplicationBackbone(application, taps, settings["freeze_at"], dtype=self.dtype, name="backbone")
        last = 4 if self.config.features == "C4" else 5
        return ResNet(**settings, epsilon=self._epsilon, last_stage=last, dtype=self.dtype, name="backbone")

    def fpn(self):
        """None where RPN and heads read the backbone's last map."""
        if self.config.features != "FPN":
            return None
        return FPN(**self.tree["fpn"], epsilon=self._epsilon, dtype=self.dtype, name="fpn")

    def strides(self, backbone):
        """Pixels per cell of the maps that RPN and heads read."""
        return STRIDES if self.config.features == "FPN" else backbone.strides[-1:]

    def channels(self, backbone):
        """Of those maps."""
        return self.config.fpn.channels if self.config.features == "FPN" else backbone.output_shapes[-1][-1]

    def rpn(self, strides, channels):
        """None where there is no box head: nobody asks for proposals."""
        if not self.config.box_head:
            return None
        return RPN(self.tree["rpn"], self.conventions, strides, channels, dtype=self.dtype, name="rpn")

    def roi_sampler(self):
        return RoISampler(self.tree["rois"], dtype=self.dtype, name="roi_sampler") if self.config.box_head else None

    def box_features(self, strides):
        """From maps and RoIs to what the box head reads; None without one."""
        if not self.config.box_head:
            return None
        layer = self._roi_layer("box_head", strides)
        if self.config.features != "C4":
            return layer
        settings = self.tree["backbone"] | {"epsilon": self._epsilon}
        return Res5(settings, layer, dtype=self.dtype, name="res5")

    def box_head(self):
        """None without instances."""
        if not self.config.box_head:
            return None
        return BoxHead(config=self.tree["box_head"], detections=self.tree["detections"], name="box_head", **self._head)

    def mask_features(self, strides, box_features):
        """From maps and RoIs to what the mask head reads, on C4 the same as the box head; None without one."""
        if not self.config.mask_head:
            return None
        return box_features if self.config.features == "C4" else self._roi_layer("mask_head", strides)

    def mask_head(self):
        """None without masks."""
        if not self.config.mask_head:
            return None
        kind = MaskMLP if self.config.mask_head.fcs else MaskHead
        return kind(config=self.tree["mask_head"], name="mask_head", **self._head)

    def keypoint_features(self, strides):
        return self._roi_layer("keypoint_head", strides) if self.config.keypoint_head else None

    def keypoint_head(self):
        """None without keypoints."""
        if not self.config.keypoint_head:
            return None
        channels, config = keypoint_channels(self.config.categories)[1].tolist(), self.tree["keypoint_head"]
        return KeypointHead(channels, config, self.conventions, dtype=self.dtype, name="keypoint_head")

    def semantic_head(self):
        """None without classes for pixels."""
        if not self.config.semantic_head:
            return None
        classes, strides = 1 + len(self.config.stuff), STRIDES[:4]  # P6 is for proposals alone
        settings = {key: self.tree["semantic_head"][key] for key in ("channels", "norm")}
        return SemanticHead(classes, strides, settings, self._epsilon, dtype=self.dtype, name="semantic_head")

    @property
    def _epsilon(self):
        return self.conventions["batch_norm_epsilon"]

    @property
    def _head(self):
        return {"num_classes": len(self.config.categories), "conventions": self.conventions, "dtype": self.dtype}

    def _roi_layer(self, head, strides):
        size, pooled = self.tree[head]["pool_size"], strides[:4]  # P6 is for proposals alone
        return RoILayer(size, pooled, self.conventions, **self.tree["roi_layer"], dtype=self.dtype, name=f"{head}_rois")


def dtype_policy(precision):
    """The Keras dtype policy for `train.precision`: "float32", "bfloat16", "float16" or "auto".

    "auto" takes bfloat16 where the hardware multiplies it natively: GPUs from compute capability 8.0, and processors
    with AVX512-BF16 or AMX. Elsewhere it would be emulated, slower than float32. Weights stay float32, and so do boxes,
    scores and losses.
    """
    if precision == "auto":
        precision = "bfloat16" if _multiplies_bfloat16() else "float32"
    return keras.dtype_policies.get(POLICIES[precision])


def _multiplies_bfloat16():
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        return min(gpu.get("compute_capability", (0, 0)) for gpu in details) >= (8, 0)
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return bool(NATIVE_CPU_FLAGS & set(flags.split()))
