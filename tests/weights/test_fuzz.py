"""Damaged files of every container: a checkpoint or one sentence, nothing else, at once."""

import argparse
import collections
import datetime
import io
import json
import pathlib
import pickle
import random
import struct
import time

import numpy as np
import pytest

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.weights.weight_file import WeightFile, read_weight_file

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "checkpoints"
OPCODES = b"(NRbioceas\x81\x93\x94tu}]QP2\x8f\x90\x91\x97\x92h\x8a\x8bTXB."
MUTATIONS = 300


def safetensors():
    header = {
        "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "b": {"dtype": "BF16", "shape": [3], "data_offsets": [16, 22]},
    }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(22)


def numpy_pickle(protocol):
    value = np.random.default_rng(0).normal(size=(3, 4))
    return pickle.dumps({"model": {"a": value, "b": np.asfortranarray(value, "f4"), "c": np.float32(3)}}, protocol)


def beside():
    """Weights with what training loops keep beside them."""
    value = {
        "model": {"a": np.ones((2, 3), np.float32)},
        "args": argparse.Namespace(lr=0.1, names={"cat", "dog"}),
        "history": collections.deque([1.5, None], maxlen=9),
        "when": datetime.datetime(2026, 1, 1),
        "path": pathlib.PurePosixPath("a"),
        "best": np.float64(0.5),
    }
    return pickle.dumps(value, 4)


def valid_files():
    files = {
        file.name: file.read_bytes() for file in sorted(GOLDEN.iterdir()) if file.suffix in (".pth", ".pkl", ".h5")
    }
    files |= {f"protocol_{protocol}": numpy_pickle(protocol) for protocol in (2, 3, 4, 5)}
    return files | {"beside": beside(), "safetensors": safetensors()}


def damaged(whole, chance):
    """The file with one fault of a kind that copying, or malice, makes."""
    data = bytearray(whole)
    at, kind = chance.randrange(len(data)), chance.randrange(6)
    if kind == 0:
        del data[at:]
    elif kind == 1:
        data[at] ^= 1 << chance.randrange(8)
    elif kind == 2:
        width = chance.choice((1, 2, 4, 8))
        data[at : at + width] = chance.choice((b"\xff", b"\x7f", b"\0", b"\x01")) * width
    elif kind == 3:
        del data[at : at + chance.randint(1, 16)]
    elif kind == 4:
        source = chance.randrange(len(data))
        data[at:at] = data[source : source + chance.randint(1, 32)]
    else:
        data[min(at, chance.randrange(600))] = chance.choice(OPCODES)
    return bytes(data)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", list(valid_files()))
def test_damaged_files_give_a_checkpoint_or_one_sentence(tmp_path, name):
    whole, chance, path = valid_files()[name], random.Random(name), tmp_path / "x"
    outcomes = {"read": 0, "refused": 0}
    started = time.process_time()
    for _ in range(MUTATIONS):
        data = damaged(whole, chance)
        path.write_bytes(data)
        try:
            checkpoint = read_weight_file(path)
            tensors = [array for candidate in checkpoint.candidates.values() for array in candidate.values()]
        except UserError as error:
            message = str(error)
            assert message.startswith(f"{path} can't be imported: ") and message.endswith(".")
            assert "\n" not in message and len(message) < 600
            outcomes["refused"] += 1
        else:
            assert isinstance(checkpoint, WeightFile)
            json.dumps(checkpoint.metadata, skipkeys=True, default=repr)
            for array in tensors:
                np.save(io.BytesIO(), array)
                assert array.nbytes <= 8 * len(data)
            outcomes["read"] += 1
    assert outcomes["refused"] > MUTATIONS // 4
    assert time.process_time() - started < 60
