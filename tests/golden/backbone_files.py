"""Classifiers' weights as the files of detectron2's `ImageNetPretrained` folder hold them."""

import numpy as np

BRANCHES = {"shortcut": "1", "conv1": "2a", "conv2": "2b", "conv3": "2c"}
STATISTICS = {"weight": "gamma", "bias": "beta", "running_mean": "running_mean", "running_var": "running_var"}


def content(kind, tensors):
    """What a file of `kind` ("torchvision", "caffe2" or "fused") unpickles to.

    `tensors` are a detectron2 ResNet's, by its names, such as "res2.0.conv1.norm.weight".
    """
    if kind == "torchvision":
        counters = {
            name.replace("running_var", "num_batches_tracked"): np.zeros([], np.int64)
            for name in tensors
            if name.endswith("running_var")
        }
        classifier = {"stem.fc.weight": np.zeros([10, 2048], np.float32), "stem.fc.bias": np.zeros(10, np.float32)}
        tensors = {name: np.array(value) for name, value in tensors.items()} | counters | classifier
        return {"model": tensors, "__author__": "torchvision", "matching_heuristics": True}
    if kind == "fused":
        tensors = fuse(tensors)
    named = {caffe2_name(name, "s" if kind == "fused" else None): value for name, value in tensors.items()}
    return named | {"fc1000_w": np.zeros([10, 2048], np.float32), "fc1000_b": np.zeros(10, np.float32)}


def caffe2_name(name, scale=None):
    """The Caffe2 name of a detectron2 ResNet's tensor; with `scale` "s" that of a batch norm without statistics."""
    part = name.rpartition(".")[2]
    affine = {"weight": "s", "bias": "b"} if scale else STATISTICS
    suffix = f"bn_{affine[part]}" if ".norm." in name else "w"
    stage, block, layer, *_ = name.split(".")
    if stage == "stem":
        return "conv1_w" if suffix == "w" else f"res_conv1_{suffix}"
    return f"{stage}_{block}_branch{BRANCHES[layer]}_{suffix}"


def fuse(tensors):
    """The same with every batch norm's statistics folded into its scale and shift, and left out."""
    fused = {}
    for name, value in tensors.items():
        norm, _, part = name.rpartition(".")
        if not norm.endswith(".norm"):
            fused[name] = value
            continue
        deviation = np.sqrt(tensors[f"{norm}.running_var"] + np.float32(1e-5))
        scale = tensors[f"{norm}.weight"] / deviation
        if part == "weight":
            fused[name] = scale
        elif part == "bias":
            fused[name] = value - tensors[f"{norm}.running_mean"] * scale
    return fused
