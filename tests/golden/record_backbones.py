"""Records the maps of ResNets that detectron2 starts from, each read from a file by detectron2's own checkpointer.

The files' kinds are those of `backbone_files.content`; recording.py says what is kept of the maps. Pixel statistics and
order and the strides are those that detectron2's configs and its conversion script state for such a file. Versions as
in record_detectron2_settings.py.

    PYTHONPATH=tests python tests/golden/record_backbones.py
"""

import pathlib
import pickle
import tempfile

import detectron2
import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import build_resnet_backbone
from golden import backbone_files, record_detectron2, recording

IMAGE = [[192, 256, 20]]
NARROW = ["MODEL.RESNETS.WIDTH_PER_GROUP", 16]
BGR_MEAN, BGR_STD = [103.53, 116.28, 123.675], [57.375, 57.12, 58.395]
CONFIGS = {
    "backbone_torchvision": [
        *NARROW,
        *("MODEL.PIXEL_MEAN", BGR_MEAN[::-1]),
        *("MODEL.PIXEL_STD", BGR_STD[::-1]),
        *("MODEL.RESNETS.STRIDE_IN_1X1", False),
        *("INPUT.FORMAT", "RGB"),
    ],
    "backbone_caffe2": NARROW,
    "backbone_fused": NARROW,
    "backbone_caffe2_x": [
        *("MODEL.RESNETS.NUM_GROUPS", 32, "MODEL.RESNETS.WIDTH_PER_GROUP", 4, "MODEL.RESNETS.STRIDE_IN_1X1", False),
        *("MODEL.PIXEL_STD", BGR_STD),
    ],
    "backbone_fused_x": [
        *("MODEL.RESNETS.NUM_GROUPS", 32, "MODEL.RESNETS.WIDTH_PER_GROUP", 4, "MODEL.RESNETS.STRIDE_IN_1X1", False),
        *("MODEL.PIXEL_STD", BGR_STD),
    ],
}
ENTRIES = {
    "backbone_torchvision": {"seed": 91, "kind": "torchvision", "normalized": True},
    "backbone_caffe2": {"seed": 92, "kind": "caffe2", "normalized": False},
    "backbone_fused": {"seed": 93, "kind": "fused", "normalized": False},
    "backbone_caffe2_x": {"seed": 94, "kind": "caffe2", "normalized": True},
    "backbone_fused_x": {"seed": 95, "kind": "fused", "normalized": True},
}


class Backbone(torch.nn.Module):
    """A detectron2 ResNet whose weights come from a file of a kind."""

    def __init__(self, architecture, kind):
        super().__init__()
        self.cfg = get_cfg()
        self.cfg.merge_from_list(CONFIGS[architecture])
        self.cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
        self.body, self.kind = build_resnet_backbone(self.cfg, ShapeSpec(channels=3)), kind

    def state_dict(self, *arguments, **options):
        return self.body.state_dict(*arguments, **options)

    def load_state_dict(self, tensors):
        content = backbone_files.content(self.kind, {name: value.numpy() for name, value in tensors.items()})
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "backbone.pkl"
            path.write_bytes(pickle.dumps(content))
            DetectionCheckpointer(self.body).load(str(path))


def run(model, entry, image):
    """Returns {"C2": [H, W, C], ...} for a uint8 RGB image whose sides are multiples of 32."""
    model_cfg, image = model.cfg.MODEL, image if model.cfg.INPUT.FORMAT == "RGB" else image[:, :, ::-1]
    dtype = next(model.parameters()).dtype
    pixels = torch.from_numpy(image.astype(np.float32)).to(dtype)
    pixels = (pixels - torch.tensor(model_cfg.PIXEL_MEAN, dtype=dtype)) / torch.tensor(model_cfg.PIXEL_STD, dtype=dtype)
    maps = model.body(pixels.permute(2, 0, 1)[None])
    return {f"C{name[-1]}": recording.hwc(value) for name, value in maps.items()}


if __name__ == "__main__":
    versions = {"detectron2": f"{detectron2.__version__} {record_detectron2.COMMIT}", "torch": torch.__version__}
    records = {name: {name: {**entry, "background": 0, "images": IMAGE}} for name, entry in ENTRIES.items()}

    def build(architecture, entry):
        return Backbone(architecture, entry["kind"])

    recording.record_all("detectron2", {**versions, "numpy": np.__version__}, records, build, run)
