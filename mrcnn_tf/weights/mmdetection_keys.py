"""The keys of mmdetection's configs that decide what a model detects, and which of their values can be imported."""

import reprlib

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights.python_config import Unreadable, is_number

# What helps against a key that can't be followed, if its effect is to be done without.
COPY = "to do without, give a copy of the config without that key by --source-config"
ANY = None  # in the place of what a key may be: everything, since it's read below, shows in shapes, or is training's
NONE = (None,)
OFF = (None, False)
NORMS = ("BN", "BN2d", "SyncBN", "MMSyncBN", "GN")


def _keys(**allowed):
    """A section's keys with the values that each may have; `ANY` for those that need no check here."""
    return {"init_cfg": ANY, "pretrained": ANY} | allowed


_TRAINING = {"train_cfg": ANY, "loss_bbox": ANY, "loss_mask": ANY, "reg_decoded_bbox": ANY, "predict_box_type": ANY}
MODEL = _keys(
    type=("MaskRCNN", "FasterRCNN"), data_preprocessor=ANY, backbone=ANY, neck=ANY, rpn_head=ANY, roi_head=ANY,
    train_cfg=ANY, test_cfg=ANY, bbox_roi_extractor=ANY, bbox_head=ANY, mask_roi_extractor=ANY, mask_head=ANY,
    shared_head=ANY,
)  # fmt: skip
BACKBONE = _keys(
    type=("ResNet", "ResNeXt"), depth=ANY, style=("pytorch", "caffe"), num_stages=(3, 4), strides=ANY, dilations=ANY,
    out_indices=((0, 1, 2, 3), (2,), (3,)), groups=ANY, base_width=ANY, in_channels=(3,), stem_channels=(None, 64),
    base_channels=(64,), deep_stem=OFF, avg_down=OFF, conv_cfg=NONE, dcn=NONE, stage_with_dcn=ANY, plugins=(None, ()),
    gcb=NONE, stage_with_gcb=ANY, gen_attention=NONE, stage_with_gen_attention=ANY, frozen_stages=ANY, norm_cfg=ANY,
    norm_eval=ANY, with_cp=ANY, zero_init_residual=ANY,
)  # fmt: skip
NECK = _keys(
    type=("FPN",), in_channels=ANY, out_channels=ANY, num_outs=(5,), start_level=(0,), end_level=(-1, 3), conv_cfg=NONE,
    add_extra_convs=OFF, extra_convs_on_inputs=ANY, relu_before_extra_convs=ANY, no_norm_on_lateral=OFF, norm_cfg=ANY,
    act_cfg=NONE, upsample_cfg=({"mode": "nearest"},),
)  # fmt: skip
CODER = _keys(
    type=("DeltaXYWHBBoxCoder",), target_means=((0, 0, 0, 0),), target_stds=ANY, clip_border=(True,),
    add_ctr_clamp=OFF, ctr_clamp=ANY, use_box_type=ANY, encode_size=ANY,
)  # fmt: skip
OLD_CODER = {"target_means": ((0, 0, 0, 0),), "target_stds": ANY}
ANCHORS = _keys(
    type=("AnchorGenerator",), scales=ANY, octave_base_scale=ANY, scales_per_octave=ANY, ratios=ANY, strides=ANY,
    base_sizes=ANY, centers=NONE, center_offset=(0,), scale_major=(True,), use_box_type=ANY,
)  # fmt: skip
RPN = _keys(
    type=("RPNHead",), in_channels=ANY, feat_channels=ANY, num_convs=ANY, num_classes=(1,), anchor_generator=ANY,
    bbox_coder=ANY, loss_cls=ANY, test_cfg=ANY, anchor_scales=ANY, anchor_ratios=ANY, anchor_strides=ANY,
    anchor_base_sizes=ANY, background_label=ANY, **_TRAINING, **OLD_CODER,
)  # fmt: skip
ROI_HEAD = _keys(
    type=("StandardRoIHead",), bbox_roi_extractor=ANY, bbox_head=ANY, mask_roi_extractor=ANY, mask_head=ANY,
    shared_head=ANY, train_cfg=ANY, test_cfg=ANY,
)  # fmt: skip
SHARED_HEAD = _keys(
    type=("ResLayer",), depth=ANY, stage=(3,), stride=(2,), dilation=(1,), style=("pytorch", "caffe"), norm_cfg=ANY,
    norm_eval=ANY, with_cp=ANY, dcn=NONE,
)  # fmt: skip
EXTRACTOR = _keys(
    type=("SingleRoIExtractor",), roi_layer=ANY, out_channels=ANY, featmap_strides=((4, 8, 16, 32), (16,)),
    finest_scale=(56,),
)  # fmt: skip
ROI_LAYER = _keys(
    type=("RoIAlign",), output_size=ANY, out_size=ANY, sampling_ratio=ANY, sample_num=ANY, aligned=(True, False),
    pool_mode=("avg",), use_torchvision=ANY,
)  # fmt: skip
BOX_HEAD = _keys(
    type=("BBoxHead", "ConvFCBBoxHead", "Shared2FCBBoxHead", "Shared4Conv1FCBBoxHead"), num_shared_convs=ANY,
    num_shared_fcs=ANY, num_cls_convs=(0,), num_cls_fcs=(0,), num_reg_convs=(0,), num_reg_fcs=(0,), in_channels=ANY,
    conv_out_channels=ANY, fc_out_channels=ANY, roi_feat_size=(7,), num_classes=ANY, with_avg_pool=ANY,
    with_cls=(True,), with_reg=(True,), reg_class_agnostic=ANY, bbox_coder=ANY, loss_cls=ANY, conv_cfg=NONE,
    norm_cfg=ANY, cls_predictor_cfg=({"type": "Linear"},), reg_predictor_cfg=({"type": "Linear"},), **_TRAINING,
    **OLD_CODER,
)  # fmt: skip
MASK_HEAD = _keys(
    type=("FCNMaskHead",), num_convs=ANY, roi_feat_size=ANY, in_channels=ANY, conv_kernel_size=(3,),
    conv_out_channels=ANY, num_classes=ANY, class_agnostic=ANY, conv_cfg=NONE, norm_cfg=ANY, loss_mask=ANY,
    upsample_cfg=({"type": "deconv"}, {"type": "deconv", "scale_factor": 2}), predictor_cfg=({"type": "Conv"},),
)  # fmt: skip
PREPROCESSOR = _keys(
    type=("DetDataPreprocessor",), mean=ANY, std=ANY, bgr_to_rgb=(True, False), rgb_to_bgr=(True, False),
    pad_size_divisor=ANY, pad_value=(0,), pad_mask=ANY, mask_pad_value=ANY, pad_seg=ANY, seg_pad_value=ANY,
    boxtype2tensor=ANY, non_blocking=ANY, batch_augments=ANY,
)  # fmt: skip
NMS = _keys(
    type=("nms",), iou_threshold=ANY, iou_thr=ANY, class_agnostic=OFF, split_thr=ANY, offset=(0,), max_num=(None, -1),
    score_threshold=(0,),
)  # fmt: skip
TEST_RPN = _keys(
    nms_pre=ANY, nms_post=ANY, max_per_img=ANY, max_num=ANY, nms=ANY, nms_thr=ANY, nms_across_levels=OFF,
    min_bbox_size=ANY, deploy_nms_pre=ANY,
)  # fmt: skip
TEST_RCNN = _keys(score_thr=ANY, nms=ANY, max_per_img=ANY, mask_thr_binary=(0.5,))
# The steps of a test pipeline that change pixels, with their keys; of the others nothing is read.
STEPS = {
    "LoadImageFromFile": _keys(
        to_float32=OFF, color_type=("color",), channel_order=("bgr", "rgb"), imdecode_backend=ANY, file_client_args=ANY,
        backend_args=ANY, ignore_empty=ANY,
    ),
    "Resize": _keys(
        scale=ANY, img_scale=ANY, keep_ratio=ANY, multiscale_mode=ANY, ratio_range=NONE, scale_factor=NONE,
        backend=("cv2",), interpolation=("bilinear",), bbox_clip_border=ANY, clip_object_border=ANY, override=ANY,
    ),
    "MultiScaleFlipAug": _keys(
        img_scale=ANY, transforms=ANY, flip=OFF, flip_direction=ANY, scale_factor=NONE,
    ),
    "RandomFlip": _keys(prob=(None, 0), flip_ratio=(None, 0), direction=ANY, override=ANY),
    "Normalize": _keys(mean=ANY, std=ANY, to_rgb=(True, False)),
    "Pad": _keys(size_divisor=ANY, size=NONE, pad_to_square=OFF, pad_val=ANY, padding_mode=("constant",)),
    "LoadAnnotations": None, "PackDetInputs": None, "ImageToTensor": None, "DefaultFormatBundle": None, "Collect": None,
    "ToTensor": None, "WrapFieldsToLists": None,
}  # fmt: skip


class Section:
    """A dictionary of the config, empty where it has none.

    Attributes:
        values: what it holds.
        path: where it stands, such as "model.rpn_head".
        name: of the config.
    """

    def __init__(self, values, path, name):
        self.values, self.path, self.name = values, path, name

    def __contains__(self, key):
        return self.values.get(key) is not None

    def section(self, key, allowed):
        """The section at `key`, its keys and their values among `allowed`; None: any."""
        path, value = self.path_of(key), self.values.get(key)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            self.refuse(key, "where settings by name are expected")
        section = Section(value, path, self.name)
        for own_key, own_value in value.items() if allowed is not None else ():
            if own_key not in allowed:
                section.refuse(own_key, "a setting that isn't known here and may change detections")
            if allowed[own_key] is not ANY and not any(is_equal(own_key, own_value, each) for each in allowed[own_key]):
                only = " or ".join(repr(each) for each in allowed[own_key])
                section.refuse(own_key, f"where models of this package have {only}")
        return section

    def peek(self, *keys):
        """The section at a path of keys, where what is no section counts as none."""
        section = self
        for key in keys:
            value = section.values.get(key)
            section = Section(value if isinstance(value, dict) else {}, section.path_of(key), self.name)
        return section

    def number(self, *keys):
        """The number at the first of `keys` that is there, or None."""
        key, value = self._first(keys)
        if value is not None and not is_number(value):
            self.refuse(key, "where a number is expected")
        return value

    def count(self, *keys):
        """The whole number above 0 at the first of `keys` that is there, or None."""
        key, value = self._first(keys)
        if value is not None and not (is_number(value) and isinstance(value, int) and value > 0):
            self.refuse(key, "where models of this package have a number above 0")
        return value

    def numbers(self, key, length=None):
        """The list of numbers at `key`, or None; with `length`, of so many."""
        value = self.values.get(key)
        if value is None:
            return None
        is_list = isinstance(value, (list, tuple)) and value and len(value) == (length or len(value))
        if not is_list or not all(is_number(each) for each in value):
            self.refuse(key, f"where {length or 'some'} numbers are expected")
        return [float(each) for each in value]

    def choice(self, *keys):
        """The value at the first of `keys` that is there, or None."""
        return self._first(keys)[1]

    def refuse(self, key, reason):
        """Raise UserError for a key."""
        remedy = "give weights of another model" if key == "type" and self.path == "model" else COPY
        raise UserError(
            f"{self.name}: {self.path_of(key)} is {shorten(self.values.get(key))}, {reason}, so that such a model "
            f"can't be imported: {remedy}."
        )

    def _first(self, keys):
        return next(((key, self.values[key]) for key in keys if self.values.get(key) is not None), (keys[0], None))

    def path_of(self, key):
        return f"{self.path}.{key}" if self.path else str(key)


def is_equal(key, value, allowed):
    """Whether a config's value is the allowed one; types go by their last part, lists may be tuples."""
    if key == "type" and isinstance(value, str):
        value = value.rpartition(".")[2]
    value, allowed = (tuple(each) if isinstance(each, list) else each for each in (value, allowed))
    if isinstance(value, bool) != isinstance(allowed, bool):
        return False
    return not isinstance(value, Unreadable) and value == allowed


def shorten(value):
    """A value for a message, however much it holds."""
    return reprlib.repr(value)
