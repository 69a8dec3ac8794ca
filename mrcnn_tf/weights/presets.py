"""Published weights that can be imported: where they are, what they reach, and where they are kept here."""

import dataclasses
import pathlib

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import cache_folder, sha256

TORCHVISION = "https://docs.pytorch.org/vision/stable/models.html"
DETECTRON2 = "https://github.com/facebookresearch/detectron2/blob/main/MODEL_ZOO.md"
MATTERPORT = "https://github.com/matterport/Mask_RCNN/releases"


@dataclasses.dataclass(frozen=True)
class Preset:
    """A published model.

    Attributes:
        name: what `load_pretrained` takes.
        page: the web page that links to the file.
        entry: what to look for on that page.
        file: the file's name there.
        sha256: how the file's SHA-256 begins, where its publisher says so; else None.
        box_ap, mask_ap: percent on COCO val2017 as published; None where nothing is.
        licence: of the weights.
        config: the matching config; None for a backbone.
        keypoint_ap: as mask_ap.
        pq: panoptic quality in percent, as mask_ap.
    """

    name: str
    page: str
    entry: str
    file: str
    sha256: str | None
    box_ap: float | None
    mask_ap: float | None
    licence: str
    config: str | None
    keypoint_ap: float | None = None
    pq: float | None = None


def _torchvision(name, entry, file, box_ap=None, mask_ap=None, keypoint_ap=None):
    digest = file.rsplit("-", 1)[1].split(".")[0]  # torchvision's file names end in the beginning of their SHA-256
    config = f"torchvision_{name}" if box_ap else None
    aps = {"box_ap": box_ap, "mask_ap": mask_ap, "keypoint_ap": keypoint_ap}
    return Preset(f"torchvision_{name}", TORCHVISION, entry, file, digest, licence="BSD 3-Clause", config=config, **aps)


def _detectron2(name, entry, file, box_ap=None, mask_ap=None, keypoint_ap=None, pq=None):
    config = f"detectron2_{name.removesuffix('_1x').removesuffix('_3x')}" if box_ap else None
    aps = {"box_ap": box_ap, "mask_ap": mask_ap, "keypoint_ap": keypoint_ap, "pq": pq}
    return Preset(f"detectron2_{name}", DETECTRON2, entry, file, None, licence="CC BY-SA 3.0", config=config, **aps)


PRESETS = [
    _torchvision(
        "maskrcnn_resnet50_fpn", "MaskRCNN_ResNet50_FPN_Weights.COCO_V1",
        "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", 37.9, 34.6,
    ),
    _torchvision(
        "maskrcnn_resnet50_fpn_v2", "MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1",
        "maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth", 47.4, 41.8,
    ),
    _torchvision(
        "fasterrcnn_resnet50_fpn", "FasterRCNN_ResNet50_FPN_Weights.COCO_V1",
        "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", 37.0,
    ),
    _torchvision(
        "fasterrcnn_resnet50_fpn_v2", "FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1",
        "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth", 46.7,
    ),
    _torchvision(
        "keypointrcnn_resnet50_fpn", "KeypointRCNN_ResNet50_FPN_Weights.COCO_V1",
        "keypointrcnn_resnet50_fpn_coco-fc266e95.pth", 54.6, keypoint_ap=65.0,
    ),
    _torchvision("resnet18", "ResNet18_Weights.IMAGENET1K_V1", "resnet18-f37072fd.pth"),
    _torchvision("resnet50", "ResNet50_Weights.IMAGENET1K_V1", "resnet50-0676ba61.pth"),
    _torchvision("resnet50_v2", "ResNet50_Weights.IMAGENET1K_V2", "resnet50-11ad3fa6.pth"),
    _torchvision("resnet101", "ResNet101_Weights.IMAGENET1K_V1", "resnet101-63fe2227.pth"),
    _torchvision("resnext50_32x4d", "ResNeXt50_32X4D_Weights.IMAGENET1K_V1", "resnext50_32x4d-7cdf4587.pth"),
    _torchvision("resnext101_32x8d", "ResNeXt101_32X8D_Weights.IMAGENET1K_V1", "resnext101_32x8d-8ba56ff5.pth"),
    _detectron2("mask_rcnn_R_50_C4_1x", "Mask R-CNN R50-C4 1x, id 137259246", "model_final_9243eb.pkl", 36.8, 32.2),
    _detectron2("mask_rcnn_R_50_C4_3x", "Mask R-CNN R50-C4 3x, id 137849525", "model_final_4ce675.pkl", 39.8, 34.4),
    _detectron2("mask_rcnn_R_50_DC5_1x", "Mask R-CNN R50-DC5 1x, id 137260150", "model_final_4f86c3.pkl", 38.3, 34.2),
    _detectron2("mask_rcnn_R_50_DC5_3x", "Mask R-CNN R50-DC5 3x, id 137849551", "model_final_84107b.pkl", 40.0, 35.9),
    _detectron2("mask_rcnn_R_50_FPN_1x", "Mask R-CNN R50-FPN 1x, id 137260431", "model_final_a54504.pkl", 38.6, 35.2),
    _detectron2("mask_rcnn_R_50_FPN_3x", "Mask R-CNN R50-FPN 3x, id 137849600", "model_final_f10217.pkl", 41.0, 37.2),
    _detectron2("mask_rcnn_R_101_C4_3x", "Mask R-CNN R101-C4 3x, id 138363239", "model_final_a2914c.pkl", 42.6, 36.7),
    _detectron2("mask_rcnn_R_101_DC5_3x", "Mask R-CNN R101-DC5 3x, id 138363294", "model_final_0464b7.pkl", 41.9, 37.3),
    _detectron2("mask_rcnn_R_101_FPN_3x", "Mask R-CNN R101-FPN 3x, id 138205316", "model_final_a3ec72.pkl", 42.9, 38.6),
    _detectron2(
        "mask_rcnn_X_101_32x8d_FPN_3x", "Mask R-CNN X101-FPN 3x, id 139653917",
        "model_final_2d9806.pkl", 44.3, 39.5,
    ),
    _detectron2("faster_rcnn_R_50_C4_1x", "Faster R-CNN R50-C4 1x, id 137257644", "model_final_721ade.pkl", 35.7),
    _detectron2("faster_rcnn_R_50_C4_3x", "Faster R-CNN R50-C4 3x, id 137849393", "model_final_f97cb7.pkl", 38.4),
    _detectron2("faster_rcnn_R_50_DC5_1x", "Faster R-CNN R50-DC5 1x, id 137847829", "model_final_51d356.pkl", 37.3),
    _detectron2("faster_rcnn_R_50_DC5_3x", "Faster R-CNN R50-DC5 3x, id 137849425", "model_final_68d202.pkl", 39.0),
    _detectron2("faster_rcnn_R_50_FPN_1x", "Faster R-CNN R50-FPN 1x, id 137257794", "model_final_b275ba.pkl", 37.9),
    _detectron2("faster_rcnn_R_50_FPN_3x", "Faster R-CNN R50-FPN 3x, id 137849458", "model_final_280758.pkl", 40.2),
    _detectron2("faster_rcnn_R_101_C4_3x", "Faster R-CNN R101-C4 3x, id 138204752", "model_final_298dad.pkl", 41.1),
    _detectron2("faster_rcnn_R_101_DC5_3x", "Faster R-CNN R101-DC5 3x, id 138204841", "model_final_3e0943.pkl", 40.6),
    _detectron2("faster_rcnn_R_101_FPN_3x", "Faster R-CNN R101-FPN 3x, id 137851257", "model_final_f6e8b1.pkl", 42.0),
    _detectron2(
        "faster_rcnn_X_101_32x8d_FPN_3x", "Faster R-CNN X101-FPN 3x, id 139173657",
        "model_final_68b088.pkl", 43.0,
    ),
    _detectron2(
        "keypoint_rcnn_R_50_FPN_1x", "Keypoint R-CNN R50-FPN 1x, id 137261548",
        "model_final_04e291.pkl", 53.6, keypoint_ap=64.0,
    ),
    _detectron2(
        "keypoint_rcnn_R_50_FPN_3x", "Keypoint R-CNN R50-FPN 3x, id 137849621",
        "model_final_a6e10b.pkl", 55.4, keypoint_ap=65.5,
    ),
    _detectron2(
        "keypoint_rcnn_R_101_FPN_3x", "Keypoint R-CNN R101-FPN 3x, id 138363331",
        "model_final_997cc7.pkl", 56.4, keypoint_ap=66.1,
    ),
    _detectron2(
        "keypoint_rcnn_X_101_32x8d_FPN_3x", "Keypoint R-CNN X101-FPN 3x, id 139686956",
        "model_final_5ad38f.pkl", 57.3, keypoint_ap=66.0,
    ),
    _detectron2(
        "panoptic_fpn_R_50_1x", "Panoptic FPN R50 1x, id 139514544",
        "model_final_dbfeb4.pkl", 37.6, 34.7, pq=39.4,
    ),
    _detectron2(
        "panoptic_fpn_R_50_3x", "Panoptic FPN R50 3x, id 139514569",
        "model_final_c10459.pkl", 40.0, 36.5, pq=41.5,
    ),
    _detectron2(
        "panoptic_fpn_R_101_3x", "Panoptic FPN R101 3x, id 139514519",
        "model_final_cafdb1.pkl", 42.4, 38.5, pq=43.0,
    ),
    _detectron2("R_50", "ImageNet Pretrained Models, R-50.pkl", "R-50.pkl"),
    _detectron2("R_101", "ImageNet Pretrained Models, R-101.pkl", "R-101.pkl"),
    _detectron2("X_101_32x8d", "ImageNet Pretrained Models, X-101-32x8d.pkl", "X-101-32x8d.pkl"),
    Preset(
        "matterport_mask_rcnn_coco", MATTERPORT, "Mask R-CNN 2.0", "mask_rcnn_coco.h5", None, None, None,
        "MIT", "matterport_mask_rcnn_coco",
    ),
]  # fmt: skip


def list_presets():
    """The published models that can be imported: a list of `Preset`."""
    return list(PRESETS)


def find_preset(name):
    """The `Preset` of that name, or None."""
    return next((preset for preset in PRESETS if preset.name == name), None)


def preset_file(preset):
    """Where a preset's file lies in the cache folder.

    Raises:
        UserError: it isn't there, with what to download from where; or its content isn't what was published.
    """
    path = weights_folder() / preset.file
    if not path.is_file():
        raise UserError(
            f"The weights '{preset.name}' aren't in {path.parent}: download {preset.file} ({preset.entry} on "
            f"{preset.page}) into that folder."
        )
    if preset.sha256:
        digest = sha256(path)
        if not digest.startswith(preset.sha256):
            raise UserError(
                f"{path} isn't the file that was published (its SHA-256 begins with {digest[:8]} and not with "
                f"{preset.sha256}): download it again from {preset.page}."
            )
    return path


def weights_folder():
    """Where preset files are looked for."""
    return pathlib.Path(cache_folder()) / "weights"
