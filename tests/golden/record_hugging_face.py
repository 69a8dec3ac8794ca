"""Records feature maps of transformers' ResNet-50, as microsoft/resnet-50 is, and of a DETR's ResNet-18 of timm's.

`hugging_face.npz` holds `NAME/C2` to `NAME/C5` of made-up weights, sampled by made_up.sample with `_shape` and `_max`
beside them; `hugging_face.json` the shapes of the tensors in the files that save_pretrained writes. Made with Python
3.11, torch 2.13.0 (CPU), transformers 5.24.0 and timm 1.0.31 by

    PYTHONPATH=tests python tests/golden/record_hugging_face.py
"""

import json
import pathlib
import tempfile

import numpy as np
import torch
import transformers
from golden import made_up
from safetensors.numpy import load_file, save_file

FOLDER = pathlib.Path(__file__).parent
SEED, IMAGE = 33, (96, 128, 32)


def saved(model, folder):
    """The tensors of the file that a model is saved as, with made-up values, by name; the file holds these then."""
    model.save_pretrained(folder)
    file = pathlib.Path(folder) / "model.safetensors"
    shapes = {name: [list(value.shape), str(value.dtype)] for name, value in load_file(file).items()}
    save_file(made_up.weights(shapes, SEED, 0.0), file, metadata={"format": "pt"})
    return shapes


def resnet_50(pixels, folder):
    shapes = saved(transformers.ResNetForImageClassification(transformers.ResNetConfig()), folder)
    model = transformers.ResNetForImageClassification.from_pretrained(folder).eval()
    return shapes, model.resnet(pixels, output_hidden_states=True).hidden_states[1:]


def detr_resnet_18(pixels, folder):
    config = transformers.DetrConfig(
        use_timm_backbone=True, backbone="resnet18", use_pretrained_backbone=False, encoder_layers=1, decoder_layers=1,
        d_model=32, encoder_ffn_dim=32, decoder_ffn_dim=32,
    )  # fmt: skip
    shapes = saved(transformers.DetrForObjectDetection(config), folder)
    model = transformers.DetrForObjectDetection.from_pretrained(folder).eval()
    mask = torch.ones(pixels.shape[0], *pixels.shape[2:], dtype=torch.long)
    return shapes, [features for features, _ in model.model.backbone(pixels, mask)]


def main():
    shapes, arrays = {}, {}
    pixels = torch.from_numpy(made_up.image(*IMAGE)).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    for name, record in {"resnet_50": resnet_50, "detr_resnet_18": detr_resnet_18}.items():
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            shapes[name], maps = record((pixels - mean) / std, folder)
        for level, value in zip(("C2", "C3", "C4", "C5"), maps, strict=True):
            array = value[0].permute(1, 2, 0).numpy()
            arrays[f"{name}/{level}"] = made_up.sample(array)
            arrays[f"{name}/{level}_shape"] = np.int64(array.shape)
            arrays[f"{name}/{level}_max"] = np.abs(array).max()
            print(name, level, array.shape, np.abs(array).max(), array.std())
    np.savez_compressed(FOLDER / "hugging_face.npz", **arrays)
    (FOLDER / "hugging_face.json").write_text(json.dumps(shapes) + "\n")


if __name__ == "__main__":
    main()
