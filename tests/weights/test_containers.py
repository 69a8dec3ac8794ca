"""One model in the files that training loops write: whatever is around its weights, they're the same."""

import argparse
import json
import pathlib
import pickle
import struct

import numpy as np
import pytest
import tiny_weights
from torch_writer import pickled, tensor, text, write_zip

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights.pretrained import read_pretrained


@pytest.fixture(scope="module")
def tensors():
    return tiny_weights.as_torchvision(tiny_weights.make())


def save(path, value):
    """Writes `value`, of dictionaries, arrays and whatever pickle takes, as torch.save does with tensors for arrays."""
    arrays = {}

    def mark(inner):
        if isinstance(inner, dict):
            return {key: mark(each) for key, each in inner.items()}
        if not isinstance(inner, np.ndarray):
            return inner
        arrays[f"<tensor {len(arrays)}>"] = np.ascontiguousarray(inner).reshape(inner.shape)
        return f"<tensor {len(arrays) - 1}>"

    stream = pickle.dumps(mark(value), 2)[2:-1]
    for number, (marker, array) in enumerate(arrays.items()):
        stream = stream.replace(text(marker), tensor(array, str(number)))
    write_zip(path, pickled(stream), {str(number): array.tobytes() for number, array in enumerate(arrays.values())})


def save_safetensors(path, tensors):
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, array in tensors.items():
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode()
    contents = b"".join(array.tobytes() for array in tensors.values())
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + contents)


def prefixed(prefix, tensors):
    return {prefix + name: array for name, array in tensors.items()}


def halved(tensors):
    return {name: array * np.float32(0.5) for name, array in tensors.items()}


ARGUMENTS = argparse.Namespace(dataset="coco", lr=0.02, output_dir=pathlib.PurePosixPath("out"))
OPTIMIZER = {"state": {0: {"momentum_buffer": np.zeros(3, np.float32)}}, "param_groups": [{"lr": 0.02}]}
STEPS = {"n_averaged": np.array(7)}
FILES = {
    "torchvision's reference script": lambda tensors: {
        "model": tensors,
        "optimizer": OPTIMIZER,
        "lr_scheduler": {"milestones": [3]},
        "args": ARGUMENTS,
        "epoch": 3,
        "model_ema": STEPS | prefixed("module.", halved(tensors)),
    },
    "Lightning": lambda tensors: {
        "epoch": 1,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": prefixed("model.", tensors),
        "callbacks": {"ModelCheckpoint{'monitor': 'mAP'}": {"best_model_score": np.array(0.5, np.float32)}},
        "optimizer_states": [OPTIMIZER["param_groups"]],
        "hyper_parameters": ARGUMENTS,
    },
    "DDP": lambda tensors: prefixed("module.", tensors),
    "DDP around a model": lambda tensors: {"model": prefixed("module.model.", tensors)},
    "torch.compile": lambda tensors: prefixed("_orig_mod.", tensors),
    "torch.compile of the backbone": lambda tensors: {
        name.replace("backbone.", "backbone._orig_mod."): array for name, array in tensors.items()
    },
    "FSDP": lambda tensors: prefixed("_fsdp_wrapped_module.", tensors),
    "net": lambda tensors: {"net": tensors, "acc": 0.5},
    "model_state": lambda tensors: {"model_state": tensors, "best": np.float64(0.5)},
    "a dictionary in a dictionary": lambda tensors: {"a": {"b": prefixed("c.d.", tensors)}},
    "an average alone": lambda tensors: STEPS | prefixed("module.", tensors),
}


def assert_same(found, expected):
    assert found.format == "torchvision" and found.converted.arrays.keys() == expected.converted.arrays.keys()
    for path, array in expected.converted.arrays.items():
        assert np.array_equal(found.converted.arrays[path], array), path
    assert not found.converted.unknown


def test_the_weights_are_the_same_in_every_container(tensors, tmp_path):
    save(tmp_path / "plain.pth", tensors)
    expected = read_pretrained(tmp_path / "plain.pth")
    for name, make in FILES.items():
        save(tmp_path / f"{name}.pth", make(tensors))
        assert_same(read_pretrained(tmp_path / f"{name}.pth"), expected)
    for prefix in ("", "model.", "module._orig_mod."):
        save_safetensors(tmp_path / "x.safetensors", prefixed(prefix, tensors))
        assert_same(read_pretrained(tmp_path / "x.safetensors"), expected)


def test_of_weights_and_their_average_the_import_says_which_it_takes_and_takes_the_other_when_told(tensors, tmp_path):
    save(tmp_path / "x.pth", FILES["torchvision's reference script"](tensors))
    [note] = read_pretrained(tmp_path / "x.pth").notes
    assert "under model;" in note and "file.entry=model_ema takes them" in note
    save(tmp_path / "average.pth", halved(tensors))
    found = read_pretrained(tmp_path / "x.pth", statements=["file.entry=model_ema"])
    assert_same(found, read_pretrained(tmp_path / "average.pth"))
    with pytest.raises(UserError, match=r"holds no tensors under 'ema': set file.entry to one of model, model_ema"):
        read_pretrained(tmp_path / "x.pth", statements=["file.entry=ema"])


def test_tensors_of_no_known_model_are_named_with_their_places(tmp_path):
    save(tmp_path / "x.pth", {"net": {"a.weight": np.zeros(2)}, "head": {"b.weight": np.zeros(2)}})
    with pytest.raises(UserError, match=r"named a\.weight, \.\.\. at its 'net'; b\.weight, \.\.\. at its 'head'\)"):
        read_pretrained(tmp_path / "x.pth")
