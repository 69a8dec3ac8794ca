"""Records the small files in tests/golden/checkpoints and what they hold (expected.npz); needs torch.

python tests/golden/record_checkpoints.py
"""

import argparse
import collections
import pathlib
import pickle

import h5py
import numpy as np
import torch

FOLDER = pathlib.Path(__file__).parent / "checkpoints"


def tensors():
    """Name to tensor: every element type, layout and sharing that the readers handle."""
    torch.manual_seed(0)
    base = torch.randn(4, 6)
    wide = torch.randn(3, 8)
    return collections.OrderedDict(
        plain=base,
        shared=base[1:3],
        transposed=base.t(),
        strided=wide[:, 1::3],
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 3),
        half=torch.randn(5).half(),
        bfloat16=torch.randn(5).bfloat16(),
        double=torch.randn(5).double(),
        int64=torch.tensor([-(2**40), 3]),
        int32=torch.tensor([-7, 8], dtype=torch.int32),
        uint8=torch.tensor([0, 255], dtype=torch.uint8),
        bool=torch.tensor([True, False, True]),
        parameter=torch.nn.Parameter(torch.randn(2, 2)),
    )


def model():
    """A module whose state dict has _metadata and a step counter."""
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))


def training_checkpoint(net):
    """Weights beside the optimizer, a schedule with its Counter, and plain values."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.ones(1, 3, 5, 5)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 4])
    return {
        "model": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": schedule.state_dict(),
        "epoch": 3,
        "best": np.float64(0.5),
        "size": torch.Size([2, 3]),
        "note": "x" * 1000,
    }


def main():
    FOLDER.mkdir(exist_ok=True)
    values, net = tensors(), model()
    expected = {f"tensors/{name}": value.detach().float().numpy() for name, value in values.items()}
    expected |= {f"tensors/{name}": values[name].numpy() for name in ("int64", "int32", "uint8", "bool")}
    for suffix, zipped in (("zip", True), ("legacy", False)):
        torch.save(values, FOLDER / f"tensors_{suffix}.pth", _use_new_zipfile_serialization=zipped)
        torch.save(net.state_dict(), FOLDER / f"state_dict_{suffix}.pth", _use_new_zipfile_serialization=zipped)
    expected |= {f"state_dict/{name}": value.numpy().copy() for name, value in net.state_dict().items()}
    parallel = collections.OrderedDict((f"module.{name}", value) for name, value in net.state_dict().items())
    torch.save({"state_dict": parallel}, FOLDER / "parallel.pth")
    checkpoint = training_checkpoint(net)
    torch.save(checkpoint, FOLDER / "training.pth")
    expected |= {f"training/{name}": value.numpy() for name, value in net.state_dict().items()}
    torch.save({"args": argparse.Namespace(lr=0.1), "model": net.state_dict()}, FOLDER / "namespace.pth")
    torch.save(net, FOLDER / "whole_model.pth")
    torch.save({"a": torch.tensor([1, 2, 40000], dtype=torch.uint16)}, FOLDER / "untyped_storage.pth")
    with open(FOLDER / "plain_pickle_of_tensor.pkl", "wb") as file:
        pickle.dump({"a": torch.ones(2)}, file)
    keras_2(FOLDER / "keras_2.h5", expected)
    np.savez_compressed(FOLDER / "expected.npz", **expected)


def keras_2(path, expected):
    """The layout of Keras 2's save_weights: a group per layer, in it the variables' full names."""
    random = np.random.default_rng(2)
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"conv1", b"bn_conv1"]
        for layer, names in (("conv1", ("kernel:0", "bias:0")), ("bn_conv1", ("gamma:0",))):
            group = file.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/{name}".encode() for name in names]
            for name in names:
                value = random.normal(size=(3, 2)).astype(np.float32)
                group.create_dataset(f"{layer}/{name}", data=value)
                expected[f"keras_2/{layer}/{layer}/{name}"] = value


if __name__ == "__main__":
    main()
