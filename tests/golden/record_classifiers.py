"""Records feature maps of torchvision's ResNet and ResNeXt classifiers with made-up weights.

`classifiers.npz` holds `NAME/C2` to `NAME/C5`, sampled by made_up.sample with `_shape` and `_max` beside them;
`classifiers.json` the tensors' shapes. Made with Python 3.11, torch 2.13.0 (CPU) and torchvision 0.28.0 by

    PYTHONPATH=tests python tests/golden/record_classifiers.py
"""

import json
import pathlib

import numpy as np
import torch
from golden import made_up
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

FOLDER = pathlib.Path(__file__).parent
NAMES = ("resnet18", "resnext50_32x4d", "wide_resnet50_2")
SEED, IMAGE = 31, (96, 128, 32)


def main():
    shapes, arrays = {}, {}
    pixels = torch.from_numpy(made_up.image(*IMAGE)).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    for name in NAMES:
        model = getattr(models, name)(weights=None).eval()
        shapes[name] = {key: [list(value.shape), str(value.dtype)[6:]] for key, value in model.state_dict().items()}
        weights = made_up.weights(shapes[name], SEED, 0.0)
        model.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
        features = create_feature_extractor(model, {f"layer{index}": f"C{index + 1}" for index in range(1, 5)})
        with torch.no_grad():
            maps = features((pixels - mean) / std)
        for level, value in maps.items():
            array = value[0].permute(1, 2, 0).numpy()
            arrays[f"{name}/{level}"] = made_up.sample(array)
            arrays[f"{name}/{level}_shape"] = np.int64(array.shape)
            arrays[f"{name}/{level}_max"] = np.abs(array).max()
    np.savez_compressed(FOLDER / "classifiers.npz", **arrays)
    (FOLDER / "classifiers.json").write_text(json.dumps(shapes) + "\n")


if __name__ == "__main__":
    main()
